"""The direction of imports: a layer imports only from layers to its left, so each can be read and tested alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Layers from left to right. A module imports only from its own layer and from layers to the left. The names are those of the
#: packages and modules directly below joyful.
LAYERS = [
    ["compat", "devices", "platforms", "records"],
    ["messages"],
    ["registry", "validation"],
    ["config", "data_settings", "randomness", "results"],
    ["trackers"],
    ["runtime"],
    ["sweeper"],
    ["schema"],
    ["data"],
    ["losses", "loss_utils"],
    ["model", "fusion_methods", "fusion_methods_hierarchical"],
    ["training", "coach"],
    ["prediction"],
    ["audit"],
    ["cli"],
]
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}

#: Imports only joyful.results, joyful.registry, joyful.messages and joyful.trackers. Only audit, cli and the module of the
#: sweeper that judges claims import it.
SEPARATE = "analysis"
JUDGE = ROOT / "joyful/sweeper/evidence.py"


def modules() -> list[Path]:
    return sorted(path for path in (ROOT / "joyful").rglob("*.py") if path != ROOT / "joyful/__init__.py")


def package_of(module: str) -> str:
    return module.split(".")[1]


def imported(path: Path) -> list[str]:
    """The dotted names of the modules that a file imports; joyful.x for ``from joyful import x``."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_package = node.module in ("joyful", "tests")
            names += [f"{node.module}.{alias.name}" for alias in node.names] if is_package else [node.module]
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = path.relative_to(ROOT).with_suffix("").parts[1]
    assert own in LAYER_OF or own == SEPARATE, f"{own} has no layer: add it to LAYERS here and to docs/ARCHITECTURE.md"
    for name in imported(path):
        assert name.split(".")[0] not in ("tests", "study", "benchmarks", "analysis"), f"{path} imports {name}"
        if not name.startswith("joyful."):
            continue
        other = package_of(name)
        if SEPARATE in (own, other) and own != other:
            may_use = own in ("audit", "cli") or path == JUDGE
            assert may_use or (own == SEPARATE and other in ("results", "registry", "messages", "trackers")), (
                f"{path} imports {name}"
            )
        elif own != SEPARATE and other != "__version__":
            assert LAYER_OF[other] <= LAYER_OF[own], f"{own} imports {other}, a layer to its right"


def test_the_picture_in_the_document_shows_these_layers():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    picture = re.search(r"\n((?:    .*->.*\n)+)", text)[1]
    assert [[name.strip() for name in layer.split(",")] for layer in picture.split("->")] == LAYERS


def test_the_layers_list_exactly_the_existing_modules():
    names = {path.relative_to(ROOT / "joyful").with_suffix("").parts[0] for path in modules()}
    assert names == {*LAYER_OF, SEPARATE}


def calls(path: Path, name: str) -> bool:
    nodes = ast.walk(ast.parse(path.read_text()))
    return any(isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name for node in nodes)


@pytest.mark.parametrize("name", ["Dialogues", "DialogueDataset"])
def test_the_table_makes_the_arrays_of_all_readers(name):
    """The others read their own format back, or generate arrays."""
    makers = {path.relative_to(ROOT / "joyful").as_posix() for path in modules() if calls(path, name)}
    assert makers == {"data/dialogue_table.py", "data/prepared.py", "data/synthetic.py"}


#: What the sweeper may import of joyful: nothing of the model, the data or the trainer.
SWEEPER_IMPORTS = ("compat", "records", "messages", "validation", "results", "trackers", "runtime", "sweeper")


@pytest.mark.parametrize("path", sorted((ROOT / "joyful/sweeper").glob("*.py")), ids=lambda path: path.name)
def test_the_sweeper_knows_no_trainer(path):
    names = [name for name in imported(path) if name.startswith("joyful.")]
    allowed = (*SWEEPER_IMPORTS, SEPARATE) if path == JUDGE else SWEEPER_IMPORTS
    assert not [name for name in names if package_of(name) not in allowed]


@pytest.mark.parametrize("package", ["analysis", "results", "runtime", "sweeper", "trackers"])
def test_packages_for_other_programs_import_no_torch(package):
    for path in sorted((ROOT / "joyful" / package).rglob("*.py")):
        assert not [name for name in imported(path) if name.split(".")[0] == "torch"], path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("joyful.compat, joyful.records, joyful.messages", {"torch", "pandas", "numpy", "hydra", "optuna"}),
        ("joyful.config, joyful.runtime.disk", {"torch", "pandas", "hydra"}),
        ("joyful.results", {"torch", "hydra", "optuna"}),
        (
            "joyful.trackers; joyful.trackers.TRACKERS['mlflow']",
            {"torch", "hydra", "optuna", "mlflow", "wandb", "tensorboard"},
        ),
        ("joyful.sweeper", {"torch", "hydra", "optuna", "pandas", "numpy"}),
        ("joyful.sweeper.driver, joyful.sweeper.worker, joyful.sweeper.trainer", {"torch"}),
        ("joyful.sweeper.plugin", {"torch", "optuna", "pydantic", "pandas"}),
        (
            "joyful.analysis.claims, joyful.analysis.response, joyful.analysis.gradient_ratio",
            {"torch", "hydra", "matplotlib", "lifelines"},
        ),
        (
            "joyful.analysis.report, joyful.analysis.optuna_study, joyful.analysis.importers.__main__",
            {"torch", "hydra", "optuna", "lifelines"},
        ),
        ("joyful.audit.command", {"torch", "hydra", "optuna", "lifelines"}),
        ("joyful.schema.editors, joyful.schema.command", {"torch", "pandas", "hydra", "optuna"}),
        ("joyful.schema.reference", {"torch", "pandas", "optuna"}),
        ("joyful.runtime.config_source, joyful.runtime.run_guard", {"torch", "pandas", "pydantic"}),
        ("joyful.loss_utils", {"hydra", "pandas", "pyarrow", "optuna", "sentence_transformers"}),
    ],
)
def test_light_modules_do_not_import_heavy_packages(module, unwanted):
    code = f"import sys; import {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_no_module_writes_or_reads_pickles_by_default():
    # program.py sends a program to the training process that it starts, through a pipe
    allowed = {"restricted_pickle.py", "pickle_globals.py", "program.py"}
    for path in modules():
        if path.name in allowed:
            continue
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
        text = path.read_text()
        if path.name != "weights_file.py":  # with weights_only, see tests/faults/test_security.py
            assert "torch.load(" not in text, path
            assert "torch.save(" not in text, path
