"""Programs whose output is read by `head -1` end without errors and do all their work."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from joyful.results import read_run
from tests.support.runs import TINY

ROOT = Path(__file__).resolve().parents[2]

WRITES = """
import sys
from joyful.runtime import closed_pipes
closed_pipes.tolerate()
closed_pipes.tolerate()
for number in range(20_000):
    print("line", number)
    print("line", number, file=sys.stderr)
open("done", "w").write("x")
"""


def first_line(command, folder, redirection="2>err"):
    """Run `command | head -1`, and return its exit code, the line and its standard error."""
    line = f"{shlex.join(map(str, command))} {redirection} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=240)
    errors = folder / "err"
    return done.returncode, done.stdout, errors.read_text() if errors.exists() else ""


@pytest.mark.parametrize("options", [(), ("-u",)], ids=["buffered", "unbuffered"])
def test_a_program_discards_what_nobody_reads(options, tmp_path):
    code, line, _ = first_line([sys.executable, *options, "-c", WRITES], tmp_path, "2>&1")
    assert (code, line) == (0, "line 0\n")
    assert (tmp_path / "done").exists()


def test_all_output_arrives_where_it_is_read(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITES], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    expected = "".join(f"line {number}\n" for number in range(20_000))
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, expected)


@pytest.mark.soak("takes 10 s for each; the tests above close the pipes of a program")
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_multirun_and_its_report_do_not_need_a_reader(launcher, tmp_path):
    overrides = (f"hydra/launcher={launcher}", *TINY, "training.epochs=1", "seed=1,2", "hydra.sweep.dir=many")
    code, line, errors = first_line([sys.executable, ROOT / "run.py", "-m", *overrides], tmp_path)
    assert code == 0
    assert "aunching 2 jobs" in line
    assert all(text.startswith("run ") for text in errors.splitlines()), errors  # the logs of the runs
    assert [read_run(tmp_path / "many" / name)["status"] for name in "01"] == ["completed", "completed"]
    if launcher == "basic":
        for command in (["report", "many"], ["--help"], ["train", "--help"]):
            assert first_line([sys.executable, "-m", "joyful.cli", *command], tmp_path)[::2] == (0, ""), command
        assert (tmp_path / "many/report/index.html").exists()


def test_only_the_output_of_the_process_is_replaced(tmp_path):
    """Not an output that a program has replaced, and not one that is closed."""
    program = "import io, sys\nfrom joyful.runtime import closed_pipes\nsys.stderr = other = io.StringIO()\n"
    program += "closed_pipes.tolerate()\nassert sys.stderr is other\nassert sys.stdout is None"
    done = subprocess.run(["bash", "-c", f"{sys.executable} -c {shlex.quote(program)} >&-"], cwd=ROOT, env=os.environ)
    assert done.returncode == 0
