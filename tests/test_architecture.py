"""The arrow of imports: a room knows only the rooms on its left, so each can be read, tested and replaced alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: From left to right; modules of one line may not know each other unless they belong to the same room.
ROOMS = [
    ["records"],
    ["config", "randomness", "masking", "heap", "interruption", "precision", "results", "disk"],
    ["data"],
    ["losses", "loss_utils", "metrics"],
    ["intermodal"],
    ["fusion_methods", "fusion_methods_hierarchical"],
    [
        "dialogue_graph",
        "dialogue_attention",
        "graph_layers",
        "recurrence",
        "lean_layer_norm",
        "sequence_context",
        "augmentation",
    ],
    ["graph_model", "objective", "evaluation"],
    ["averaging", "checkpoint", "optimizers", "coach"],
    ["progress", "restoring", "experiment", "hydra_request", "run_guard"],
    ["sweeper", "searchpath"],
]
PLACE = {name: number for number, room in enumerate(ROOMS) for name in room}


def modules() -> list[Path]:
    return sorted(
        path for path in (ROOT / "joyful").rglob("*.py") if path.name != "__init__.py" or path.parent.name != "joyful"
    )


def room_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = path.relative_to(ROOT).with_suffix("").parts[1]
    if own == "testing":
        pytest.skip("suites for tests may know everything")
    assert own in PLACE, f"{own} has no place in the arrow: add it to ROOMS here and to docs/ARCHITECTURE.md"
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "joyful" else [node.module]
            )
        for name in names:
            if name.startswith("joyful."):
                other = room_of(name)
                assert other != "testing", f"{path.name} imports the suites of tests"
                assert PLACE[other] <= PLACE[own], f"{own} imports {other}, which stands to its right"


def test_the_picture_of_the_arrow_is_that_of_the_rooms():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    picture = re.search(r"\n((?:    .*->.*\n)+)", text)[1]
    assert [[name.strip() for name in room.split(",")] for room in picture.split("->")] == ROOMS


def test_every_module_has_a_room_and_every_room_a_module():
    found = {path.relative_to(ROOT / "joyful").with_suffix("").parts[0] for path in modules()}
    assert found - {"testing"} == set(PLACE)


def test_analysis_reads_the_results_format_alone():
    """analysis imports joyful.results and nothing else of joyful, and no torch: it opens results on any machine."""
    for path in sorted((ROOT / "analysis").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                names = names[1:] if node.module == "joyful" else names[:1]
            else:
                continue
            for name in names:
                assert name.split(".")[0] != "torch", path
                assert not name.startswith("joyful") or name.startswith("joyful.results"), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("joyful.records", {"torch", "pandas", "numpy"}),
        ("joyful.config, joyful.runtime.disk", {"torch", "pandas", "hydra"}),
        ("joyful.results", {"torch", "hydra", "optuna"}),
        (
            "joyful.analysis.claims, joyful.analysis.response, joyful.analysis.gradient_ratio, joyful.analysis.simulation",
            {"torch", "hydra", "matplotlib", "lifelines"},
        ),
        (
            "joyful.analysis.report, joyful.analysis.optuna_study, joyful.analysis.importers.__main__",
            {"torch", "hydra", "optuna", "lifelines"},
        ),
        ("joyful.runtime.config_source, joyful.runtime.run_guard", {"torch", "pandas", "pydantic"}),
        ("joyful.loss_utils", {"hydra", "pandas", "pyarrow", "optuna", "sentence_transformers"}),
    ],
)
def test_light_modules_stay_light(module, unwanted):
    code = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_nothing_written_or_read_by_default_is_a_pickle():
    allowed = {"restricted_pickle.py", "pickle_globals.py"}
    for path in modules():
        if path.name in allowed or "testing" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
        text = path.read_text()
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
