"""Benchmark of starting: wall seconds of the command line, of imports and to the first training step.

    python -m benchmarks.startup [--repeats 5] [--threads 2] [--json FILE]

Each measurement runs in a separate process. The measurements take turns, and medians are reported:

- `python run.py --cfg job` against a bare Hydra program in the same environment, with one config file and an empty
  function. The bare program is written to a temporary folder. It uses joyful only where Hydra discovers installed
  plugins.
- The modules that `import joyful.loss_utils` loads after `import torch`, of which none should belong to another
  package, and its seconds against those of `import torch`.
- The time to the end of the first training step, on data that an earlier start has prepared: MELD if JOYFUL_DATA names
  a folder that has it, else a prepared folder of synthetic dialogues. The time includes Hydra, composing the
  configuration, importing joyful, opening the data and building the model. It starts after torch's import and the first
  construction of an optimizer of torch, which imports torch's compiler in any program.

Each is run once before the measurements, so that data are prepared and files are in the page cache.
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

#: Limits: ratio to a bare Hydra program, and seconds to the first step.
MAXIMUM_TIMES, MAXIMUM_SECONDS = 1.5, 2.0

OURS, BARE = "python run.py --cfg job", "a bare Hydra program --cfg job"

BARE_PROGRAM = """\
import hydra


@hydra.main(version_base=None, config_path=".", config_name="config")
def main(config):
    pass


if __name__ == "__main__":
    main()
"""

#: Program for python -c that imports joyful.loss_utils after torch and prints the modules that were loaded.
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

#: Program for python -c, with FILE OVERRIDE... as arguments: run.py with torch and its compiler imported, which exits
#: after the first step.
FIRST_STEP = """\
import os, runpy, sys, time
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
torch.optim.SGD([torch.zeros(1)], 0.1)  # imports the compiler
clock = time.perf_counter()

def stop(*_):
    print(time.perf_counter() - clock, flush=True)
    os._exit(0)

register_optimizer_step_post_hook(stop)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(command: Sequence[str], folder: Path) -> str:
    """Run a Python command in a folder, and return its standard output.

    Raises:
        RuntimeError: If the command fails, with the end of its standard error.
    """
    search = os.pathsep.join([os.fspath(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": search}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"python {command[0]}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def imports(folder: Path) -> dict[str, Any]:
    """Return the seconds of importing torch and joyful.loss_utils, and the modules that the latter loads."""
    result: dict[str, Any] = json.loads(run(["-c", IMPORTS], folder))
    return result


def first_step(folder: Path, overrides: Sequence[str]) -> float:
    """Return the seconds to the end of the first training step of a run in `folder` (see FIRST_STEP)."""
    return float(run(["-c", FIRST_STEP, os.fspath(ROOT / "run.py"), *overrides], folder).split()[-1])


def data_of_a_start(folder: Path, threads: int) -> tuple[str, list[str]]:
    """Return the name of the data and the overrides of a run on it. Prepare synthetic data in `folder` without MELD."""
    common = [f"training.threads={threads}", "device=cpu"]
    meld = Path(os.environ.get("JOYFUL_DATA") or "nowhere") / "meld"
    if meld.is_dir():
        return "MELD", ["data=meld", f"data.root={meld}", "experiment=meld", *common]
    run(["-m", "joyful.data.prepare", "data=synthetic", f"out={folder / 'data'}"], folder)
    return "prepared synthetic data", ["data=prepared", f"data.root={folder / 'data'}", *common]


def figures(seconds: Mapping[str, float], import_results: Sequence[Mapping[str, Any]], data: str) -> list[Figure]:
    """Return the figures.

    Args:
        seconds: Medians of OURS, BARE, and the first step by the name of the data.
        import_results: Results of `imports`.
        data: Name of the data.
    """
    bare = figure(BARE, seconds[BARE], "s", seconds[OURS], OURS)
    ours = against(OURS, seconds[OURS], bare)
    torch = median(one["torch"] for one in import_results)
    import_torch = figure("import torch", torch, "s", torch, "import torch")
    foreign, modules = (len(import_results[-1][name]) for name in ("foreign", "modules"))
    step = f"second start on {data} to the first step after torch's import"
    return [
        ours,
        bare,
        figure("run.py / bare program", ours.ratio, "times", MAXIMUM_TIMES, f"the limit of {MAXIMUM_TIMES:g} times"),
        import_torch,
        against(
            "import joyful.loss_utils after torch", median(one["loss_utils"] for one in import_results), import_torch
        ),
        figure("modules of other packages that it brings", foreign, "modules", modules, "all that it brings"),
        figure(step, seconds[data], "s", MAXIMUM_SECONDS, f"the limit of {MAXIMUM_SECONDS:g} s"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    command_line = parser("startup", __doc__)
    command_line.add_argument("--threads", type=int, default=2, help="threads of the run (default: %(default)s)")
    command_line.add_argument("--repeats", type=int, default=5, help="starts per contender (default: %(default)s)")
    options = command_line.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="joyful_benchmark_") as temporary:
        folder = Path(temporary)
        (folder / "bare.py").write_text(BARE_PROGRAM, encoding="utf-8")
        (folder / "config.yaml").write_text("seed: 1\nmodel: {width: 8, rate: 0.1}\n", encoding="utf-8")
        data, overrides = data_of_a_start(folder, options.threads)
        import_results: list[dict[str, Any]] = []

        def import_seconds() -> float:
            import_results.append(imports(folder))
            return float(import_results[-1]["loss_utils"])

        contenders: dict[str, Callable[[], float]] = {
            OURS: lambda: seconds_of(lambda: run([os.fspath(ROOT / "run.py"), "--cfg", "job"], folder)),
            BARE: lambda: seconds_of(lambda: run([os.fspath(folder / "bare.py"), "--cfg", "job"], folder)),
            "import": import_seconds,
            data: lambda: first_step(folder, overrides),
        }
        for contender in contenders.values():
            contender()
        import_results.clear()
        measured = in_turn(contenders, dict.fromkeys(contenders, options.repeats))
    shown = figures({name: median(values) for name, values in measured.items()}, import_results, data)
    about = {
        "data": data,
        "repeats": options.repeats,
        "foreign_modules": import_results[-1]["foreign"],
        "seconds": measured,
    }
    report("starting", shown, about, options.json, threads=options.threads)


if __name__ == "__main__":
    main()
