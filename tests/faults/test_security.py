"""The sources contain no pickles, no evaluation of text and no shells, according to their syntax trees.

Further tests search the files of a run, a sweep and a report for pickles.
"""

from __future__ import annotations

import ast
import pickle
import pickletools
import zipfile
from pathlib import Path

import pytest

from joyful.analysis.report import main as report
from tests.support import sweeps
from tests.support.fork_server import ForkServer

ROOT = Path(__file__).resolve().parents[2]

FOLDERS = ("joyful", "analysis", "benchmarks", "examples", "study", "tests/support")
SOURCES = [
    *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py")),
    ROOT / "run.py",
    ROOT / "train.py",
]

PICKLING = {
    "pickle",
    "cPickle",
    "_pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "copyreg",
    "pickletools",
}

#: (file, module) that it may import.
ALLOWED = {
    ("joyful/data/cogmen/opcodes.py", "pickletools"),  # parses opcodes without executing them
    ("joyful/sweeper/program.py", "pickle"),  # sends a program to the training process that it starts, through a pipe
    ("joyful/sweeper/program.py", "cloudpickle"),
    ("tests/support/hostile_pickles.py", "pickle"),  # writes the harmless parts of hostile pickles
    ("tests/support/cogmen_pickles.py", "pickle"),  # writes COGMEN's files for tests
    ("tests/support/cogmen_pickles.py", "pickletools"),
}

#: Functions that execute text or start a shell.
RUNNING = {"eval", "exec", "compile", "__import__", "execfile"}
SHELLS = {
    ("os", "system"),
    ("os", "popen"),
    ("subprocess", "getoutput"),
    ("subprocess", "getstatusoutput"),
    ("pty", "spawn"),
}
SPAWNING = {"run", "Popen", "call", "check_call", "check_output"}


def name_of(node: ast.expr) -> str:
    """Return the dotted name of an expression, or "" if it has none."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((item.value for item in call.keywords if item.arg == name), None)


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def faults_of_call(call: ast.Call) -> list[str]:
    """Return the faults of a call."""
    name = name_of(call.func)
    head, _, last = name.rpartition(".")
    faults = []
    if name in RUNNING or (head, last) in SHELLS or (head == "os" and last.startswith(("exec", "spawn"))):
        faults.append(f"it calls {name}")
    if (
        head == "subprocess"
        and last in SPAWNING
        and not is_constant(keyword(call, "shell") or ast.Constant(False), False)
    ):
        faults.append("a subprocess with a shell")
    if name == "torch.load" and not is_constant(keyword(call, "weights_only"), True):
        faults.append("torch.load without weights_only=True")
    if name == "torch.save":
        faults.append("torch.save, which writes a pickle")
    if head == "yaml" and last in ("load", "unsafe_load", "full_load", "load_all", "unsafe_load_all", "full_load_all"):
        loader = keyword(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
        if loader is None or "Safe" not in ast.dump(loader):
            faults.append(f"yaml.{last} with a loader that constructs")
    if last in ("load", "save") and head in ("np", "numpy") and not is_constant(keyword(call, "allow_pickle"), False):
        faults.append(f"{name} without allow_pickle=False")
    if last in ("read_pickle", "to_pickle", "to_sql", "read_hdf", "to_hdf"):
        faults.append(name)
    if last == "literal_eval":
        faults.append("literal_eval")
    return faults


def faults_of(path: Path) -> list[str]:
    """Return the faults of a file."""
    place = path.relative_to(ROOT).as_posix()
    faults = []
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
            if node.module in ("os", "subprocess", "torch"):
                names = [alias.name for alias in node.names if alias.name in ("system", "popen", "load")]
                faults += [f"imports {name} of {node.module}" for name in names]
        faults += [f"imports {m}" for m in modules if m.split(".")[0] in PICKLING and (place, m) not in ALLOWED]
        if isinstance(node, ast.Call):
            faults += faults_of_call(node)
    if place == "joyful/data/emorynlp.py":  # literals of at most 1,000 characters
        faults = [fault for fault in faults if fault != "literal_eval"]
    if place == "joyful/runtime/heap.py":  # restarts this program with the same interpreter and arguments
        faults = [fault for fault in faults if fault != "it calls os.execve"]
    return [f"{place}: {fault}" for fault in faults]


def test_no_source_unpickles_evaluates_or_starts_a_shell() -> None:
    assert len(SOURCES) > 150
    assert [fault for path in SOURCES for fault in faults_of(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import joblib", "import marshal as m", "eval('1')", "exec(x)",
        "compile(x, '', 'exec')", "import os\nos.system('x')", "from os import popen", "subprocess.run(x, shell=True)",
        "subprocess.Popen(x, shell=flag)", "torch.load(p)", "torch.load(p, weights_only=False)", "torch.save(x, p)",
        "yaml.load(x)", "yaml.load(x, Loader=yaml.Loader)", "yaml.unsafe_load(x)", "np.load(p)",
        "np.load(p, allow_pickle=True)", "pd.read_pickle(p)", "ast.literal_eval(x)", "__import__('os')", "os.execvp(x, y)",
    ],
)  # fmt: skip
def test_each_of_them_would_be_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "a.py").write_text(text)
    assert faults_of(tmp_path / "a.py") != []


# --- what is written


def is_pickle(data: bytes) -> bool:
    """Return whether the bytes are a pickle: opcodes up to a final STOP."""
    if len(data) < 2:
        return False
    try:
        *_, (opcode, _, position) = pickletools.genops(data)
    except Exception:
        return False
    return opcode.name == "STOP" and position == len(data) - 1


def holds_pickle(path: Path) -> bool:
    data = path.read_bytes()
    if zipfile.is_zipfile(path):  # what torch.save writes
        return True
    starts = [i for i in range(len(data)) if data[i : i + 1] == b"\x80" and data[i + 1 : i + 2] in b"\x02\x03\x04\x05"]
    # Protocols 4 and 5 continue with a frame, 2 and 3 with an opcode of a container, a global or text.
    inner = [i for i in starts if data[i + 2 : i + 3] in (b"\x95", b"c", b"}", b"]", b"(", b"X", b"\x8c", b"K")]
    return is_pickle(data) or any(_ends(data[i:]) for i in inner)


def _ends(data: bytes) -> bool:
    try:
        return any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(data))
    except Exception:
        return False


def test_pickles_would_be_found(tmp_path: Path) -> None:
    for protocol in range(6):
        data = pickle.dumps({"a": [1, 2.5, "x"]}, protocol)
        (tmp_path / "whole").write_bytes(data)
        (tmp_path / "inside").write_bytes(b"PAR1" + data + b"more")
        assert holds_pickle(tmp_path / "whole")
        assert protocol < 2 or holds_pickle(tmp_path / "inside")


@pytest.mark.soak("takes 8 s; the tests above read files of each kind")
def test_a_run_a_sweep_and_a_report_leave_no_pickle(fork_server: ForkServer, tmp_path: Path) -> None:
    arms = "hydra.sweeper.arms=['loss=mse','loss=smoothl1']"
    chosen = ("hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", arms, "hydra.sweeper.pairs=1")
    command = sweeps.command("tiny", *chosen, "hydra.sweeper.calibration=false", epochs=2)
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    assert report([str(tmp_path / "multirun/tiny")]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".json", ".parquet", ".safetensors", ".yaml", ".db", ".html", ".csv", ".md", ".log"} <= kinds
    assert [path for path in files if path.stat().st_size and holds_pickle(path)] == []
