"""The arrow of imports: a room knows only the rooms on its left, so each can be read, tested and replaced alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: From left to right: a module imports only from its own room and from rooms to the left. Names are those of packages and modules
#: directly below joyful.
ROOMS = [
    ["records"],
    ["config", "randomness", "results"],
    ["runtime"],
    ["data"],
    ["losses", "loss_utils"],
    ["model", "fusion_methods", "fusion_methods_hierarchical"],
    ["training", "coach"],
    ["sweeper"],
    ["cli"],
]
PLACE = {name: number for number, room in enumerate(ROOMS) for name in room}

#: Sees joyful.results alone, and nobody sees it but cli.
APART = "analysis"


def modules() -> list[Path]:
    return sorted(path for path in (ROOT / "joyful").rglob("*.py") if path != ROOT / "joyful/__init__.py")


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported(path: Path) -> list[str]:
    """The modules that a file imports, with dots; of ``from joyful import x``, joyful.x."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module in ("joyful", "tests")
            names += [f"{node.module}.{alias.name}" for alias in node.names] if whole else [node.module]
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = path.relative_to(ROOT).with_suffix("").parts[1]
    assert own in PLACE or own == APART, f"{own} has no place: add it to ROOMS here and to docs/ARCHITECTURE.md"
    for name in imported(path):
        assert name.split(".")[0] not in ("tests", "study", "benchmarks", "analysis"), f"{path} imports {name}"
        if not name.startswith("joyful."):
            continue
        other = room_of(name)
        if APART in (own, other) and own != other:
            assert (own, other) == ("cli", APART) or (own == APART and other == "results"), f"{path} imports {name}"
        elif own != APART and other != "__version__":
            assert PLACE[other] <= PLACE[own], f"{own} imports {other}, which stands to its right"


def test_the_picture_of_the_arrow_is_that_of_the_rooms():
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    picture = re.search(r"\n((?:    .*->.*\n)+)", text)[1]
    assert [[name.strip() for name in room.split(",")] for room in picture.split("->")] == ROOMS


def test_every_module_has_a_room_and_every_room_a_module():
    found = {path.relative_to(ROOT / "joyful").with_suffix("").parts[0] for path in modules()}
    assert found == {*PLACE, APART}


@pytest.mark.parametrize("package", ["analysis", "results", "runtime"])
def test_what_serves_other_programs_imports_no_torch(package):
    for path in sorted((ROOT / "joyful" / package).rglob("*.py")):
        assert not [name for name in imported(path) if name.split(".")[0] == "torch"], path


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
        if path.name in allowed:
            continue
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not imported & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, path
        text = path.read_text()
        assert "torch.load(" not in text, path
        assert "torch.save(" not in text, path
