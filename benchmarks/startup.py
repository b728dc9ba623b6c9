"""How soon a program answers and a run trains: processes of their own, wall seconds, medians, in turn.

    python -m benchmarks.startup [--repeats 5] [--threads 2] [--json FILE]

- `python run.py --cfg job` against a bare Hydra program in the same environment: one config file, a function that does
  nothing. It is written to a temporary folder and knows nothing of joyful beyond what Hydra finds installed.
- what `import joyful.loss_utils` brings in beyond what `import torch` does: modules of other packages (there should be
  none), and its seconds against those of `import torch`.
- from torch's import to the end of the first training step, on data that an earlier start has prepared: MELD where
  JOYFUL_DATA names a folder that has it, else a prepared folder of synthetic dialogues. The rest of the start is in it:
  Hydra, composing, joyful's import, opening the data, building the model.

The bare program and the first start (which may prepare data) are run once before, so that files are in the page cache.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figure, against, figure, parser, report
from benchmarks.measuring import ROOT, in_turn, seconds_of

#: What is wanted: times a bare Hydra program, and seconds to the first step.
ALLOWED_TIMES, ALLOWED_SECONDS = 1.5, 2.0

OURS, BARE = "python run.py --cfg job", "a bare Hydra program --cfg job"

BARE_PROGRAM = """\
import hydra


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config):
    pass


if __name__ == "__main__":
    main()
"""

#: Run as python -c: imports a module after torch and tells what came with it.
IMPORTS = """\
import json, sys, time
clock = time.perf_counter()
import torch
torch_seconds = time.perf_counter() - clock
before = set(sys.modules)
clock = time.perf_counter()
import joyful.loss_utils
seconds = time.perf_counter() - clock
new = sorted(set(sys.modules) - before)
known = {"joyful", "torch", *sys.stdlib_module_names}
print(json.dumps({
    "torch": torch_seconds, "loss_utils": seconds, "modules": new,
    "foreign": [name for name in new if name.partition(".")[0] not in known],
}))
"""

#: Run as python -c FILE OVERRIDE...: run.py with torch imported already, ended when the first step is done.
FIRST_STEP = """\
import os, runpy, sys, time
import torch
clock = time.perf_counter()
from joyful.training.optimizers import Optimizer
step = Optimizer.step

def stop(self):
    step(self)
    print(time.perf_counter() - clock, flush=True)
    os._exit(0)

Optimizer.step = stop
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(command: Sequence[str], folder: Path) -> str:
    """The standard output of a Python command in a folder. Raises RuntimeError with its last words where it fails."""
    search = os.pathsep.join([os.fspath(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"python {command[0]}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def imports(folder: Path) -> dict[str, Any]:
    """What importing joyful.loss_utils after torch takes and brings: of IMPORTS."""
    told: dict[str, Any] = json.loads(run(["-c", IMPORTS], folder))
    return told


def first_step(folder: Path, overrides: Sequence[str]) -> float:
    """Seconds from torch's import to the end of the first training step of a run in `folder`."""
    return float(run(["-c", FIRST_STEP, os.fspath(ROOT / "run.py"), *overrides], folder).split()[-1])


def data_of_a_start(folder: Path, threads: int) -> tuple[str, list[str]]:
    """The name of the data, and the overrides of a run on it; prepared data are made in `folder` where there is no MELD."""
    common = [f"training.threads={threads}", "device=cpu"]
    meld = Path(os.environ.get("JOYFUL_DATA") or "nowhere") / "meld"
    if meld.is_dir():
        return "MELD", ["data=meld", f"data.root={meld}", "experiment=meld", *common]
    run(["-m", "joyful.data.prepare", "data=synthetic", f"out={folder / 'data'}"], folder)
    return "prepared synthetic data", ["data=prepared", f"data.root={folder / 'data'}", *common]


def figures(seconds: Mapping[str, float], told: Sequence[Mapping[str, Any]], data: str) -> list[Figure]:
    """The figures. seconds: medians of OURS, BARE and the first step under the name of the data. told: of `imports`."""
    bare = figure(BARE, seconds[BARE], "s", seconds[OURS], OURS)
    ours = against(OURS, seconds[OURS], bare)
    torch = median(one["torch"] for one in told)
    import_torch = figure("import torch", torch, "s", torch, "import torch")
    foreign, modules = (len(told[-1][name]) for name in ("foreign", "modules"))
    step = f"second start on {data} to the first step after torch's import"
    return [
        ours,
        bare,
        figure("run.py / bare program", ours.ratio, "times", ALLOWED_TIMES, f"the {ALLOWED_TIMES:g} times allowed"),
        import_torch,
        against("import joyful.loss_utils after torch", median(one["loss_utils"] for one in told), import_torch),
        figure("modules of other packages that it brings", foreign, "modules", modules, "all that it brings"),
        figure(step, seconds[data], "s", ALLOWED_SECONDS, f"the {ALLOWED_SECONDS:g} s allowed"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    line = parser("startup", __doc__)
    line.add_argument("--threads", type=int, default=2, help="of the run (default: %(default)s)")
    line.add_argument("--repeats", type=int, default=5, help="starts of each (default: %(default)s)")
    given = line.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="joyful_benchmark_") as temporary:
        folder = Path(temporary)
        (folder / "bare.py").write_text(BARE_PROGRAM, encoding="utf-8")
        (folder / "config.yaml").write_text("seed: 1\nmodel: {width: 8, rate: 0.1}\n", encoding="utf-8")
        data, overrides = data_of_a_start(folder, given.threads)
        told: list[dict[str, Any]] = []

        def import_seconds() -> float:
            told.append(imports(folder))
            return float(told[-1]["loss_utils"])

        contenders: dict[str, Callable[[], float]] = {
            OURS: lambda: seconds_of(lambda: run([os.fspath(ROOT / "run.py"), "--cfg", "job"], folder)),
            BARE: lambda: seconds_of(lambda: run([os.fspath(folder / "bare.py"), "--cfg", "job"], folder)),
            "import": import_seconds,
            data: lambda: first_step(folder, overrides),
        }
        for contender in contenders.values():
            contender()
        told.clear()
        measured = in_turn(contenders, dict.fromkeys(contenders, given.repeats))
    shown = figures({name: median(found) for name, found in measured.items()}, told, data)
    about = {"data": data, "repeats": given.repeats, "foreign_modules": told[-1]["foreign"], "seconds": measured}
    report("starting", shown, about, given.json, threads=given.threads)


if __name__ == "__main__":
    main()
