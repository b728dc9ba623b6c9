"""Benchmark of a whole sweep over the three loss weights: joyful's sweeper with pruning, and the stock sweeper without.

    python -m benchmarks.sweep [--trials 27] [--workers 2] [--peer-trials 6] [--basic-trials 2]
        [--pruner asha percentile ...] [--sampler random] [--epoch-json FILE] [--folder FOLDER] [--json FILE]
        [-- OVERRIDE ...]

The commands run one after another: `+sweeps=weights`, once for each pruner; the same search by hydra-optuna-sweeper with
the joblib launcher, where each batch waits for its slowest trial; and the same with the basic launcher, one trial after
another. With --sampler random, all pruners meet the same configurations; the stock sweeper draws its own.

The stock commands run fewer trials. Their times are scaled by the number of batches, because all unpruned trials cost
the same, and their figures say so.

Utilisation is the seconds that trials spent training, evaluating and writing (timing.parquet), divided by workers x
wall seconds.

--epoch-json FILE takes the figures of `python -m benchmarks.epoch --json FILE` of the same machine. From them and from
the share of epochs that pruning left, the benchmark extrapolates the time of the sweep at full size, and compares it
with ONE run of the per-utterance trainer of as many epochs as an unpruned trial. This share depends on the length of a
trial, so all commands train 30 epochs with this option. The first pruner counts.

Overrides after -- go to all commands, for example training.epochs=3.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from benchmarks.epoch import RUNNING, SCALED
from benchmarks.figures import Figure, against, figure, parser, report
from benchmarks.measuring import ROOT
from joyful.results import TIMING, read_run

#: Epochs of a trial with --epoch-json.
FULL_EPOCHS = 30

#: Names of the figures of `benchmarks.epoch` that are used.
OUR_EPOCH, PEER_EPOCH = f"epoch, {RUNNING}", f"epoch, {SCALED}"


@dataclass(frozen=True)
class SweepTiming:
    """Timing of one command.

    Attributes:
        wall: Wall seconds of the command.
        busy: Seconds that its trials spent training, evaluating and writing.
        trials: Number of trials.
        epochs: Epochs trained, over all trials.
        full_epochs: Epochs of the trials without pruning.
        best: Best dev F1 of all trials, in percent.
    """

    wall: float
    busy: float
    trials: int
    epochs: float
    full_epochs: float
    best: float


def default_pruner() -> str:
    """Return the pruner of joyful's own sweeps."""
    defaults = yaml.safe_load((ROOT / "conf/hydra/sweeper/optuna_pruned.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(item["pruner"]) for item in defaults if "pruner" in item)


def stock_overrides() -> tuple[list[str], list[str]]:
    """Return the settings and the search space of sweeps/weights.yaml as overrides for the stock sweeper."""
    sweep = yaml.safe_load((ROOT / "sweeps/weights.yaml").read_text(encoding="utf-8"))
    chosen = [item for default in sweep["defaults"] if isinstance(default, dict) for item in default.items()]
    groups = [f"{name.removeprefix('override /')}={value}" for name, value in chosen if "/hydra/" not in name]
    values = [f"{name}={sweep[name]}" for name in sweep if name not in ("defaults", "hydra", "sweep_name")]
    return groups + values, [f"{name}={space}" for name, space in sweep["hydra"]["sweeper"]["params"].items()]


def run(folder: Path, name: str, overrides: Sequence[str]) -> SweepTiming:
    """Run a sweep as a command in `folder`, with its output in NAME.log, and return its timing.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    command = [sys.executable, str(ROOT / "run.py"), "-m", f"sweep_name={name}", *overrides]
    clock = time.perf_counter()
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=subprocess.STDOUT)
    return read_timing(folder / "multirun" / name, time.perf_counter() - clock)


def read_timing(folder: Path, wall: float) -> SweepTiming:
    """Read the timing of a sweep from its run folders. wall: wall seconds of the command."""
    busy, trials, epochs, full, best = 0.0, 0, 0.0, 0.0, 0.0
    for file in folder.glob(f"*/{TIMING}"):
        table = pq.read_table(file, columns=["epoch", "seconds"]).to_pydict()
        busy += math.fsum(table["seconds"])
        epochs += max(table["epoch"])
        found = read_run(file.parent)
        full += float(found["epochs"])
        best = max(best, 100 * float(found["objective"] or 0))
        trials += 1
    return SweepTiming(wall, busy, trials, epochs, full, best)


def figures(
    ours: Mapping[str, SweepTiming], joblib: SweepTiming, basic: SweepTiming, n_trials: int, n_workers: int
) -> list[Figure]:
    """Return the figures. ours: timings by pruner. joblib, basic: stock commands, which may have fewer trials."""
    batches = math.ceil(n_trials / n_workers) / math.ceil(joblib.trials / n_workers)
    scaled = f"wall, stock joblib, {joblib.trials} trials scaled to {n_trials} by batches"
    shown = [figure(scaled, joblib.wall * batches, "s", 1, "1 s")]
    scaled = f"wall, stock basic, {basic.trials} trials scaled to {n_trials}"
    shown.append(against(scaled, basic.wall * n_trials / basic.trials, shown[0]))
    for name, one in ours.items():
        whole = f"{one.trials} trials at full length"
        shown += [
            against(f"wall, {name}, {one.trials} trials", one.wall, shown[0]),
            figure(f"epochs trained, {name}", one.epochs, "epochs", one.full_epochs, whole),
            figure(f"best dev F1, {name}", one.best, "%", joblib.best, f"stock joblib, {joblib.trials} trials"),
        ]
    rows = [*((name, one, n_workers) for name, one in ours.items()), ("stock joblib", joblib, n_workers)]
    for name, one, workers in [*rows, ("stock basic", basic, 1)]:
        shown.append(figure(f"busy, {name}", one.busy, "s", workers * one.wall, f"{workers} x wall: utilisation"))
    return shown


def full_size(epoch_figures: Sequence[Mapping[str, Any]], ours: SweepTiming) -> list[Figure]:
    """Extrapolate joyful's sweep to full size, and compare it with one run of the per-utterance trainer.

    The run has as many epochs as an unpruned trial.

    Args:
        epoch_figures: Figures of `benchmarks.epoch`.
        ours: Timing of joyful's sweep.

    Raises:
        ValueError: If a figure of an epoch is missing.
    """
    seconds = {str(one["name"]): float(one["value"]) for one in epoch_figures}
    missing = {OUR_EPOCH, PEER_EPOCH} - set(seconds)
    if missing:
        raise ValueError(
            f"--epoch-json: expected figures {OUR_EPOCH} and {PEER_EPOCH}, got no {' and no '.join(sorted(missing))}; "
            "make the file with python -m benchmarks.epoch --json FILE"
        )
    length, share = ours.full_epochs / ours.trials, ours.epochs / ours.full_epochs
    peer, sweep = length * seconds[PEER_EPOCH], ours.epochs * seconds[OUR_EPOCH]
    one = figure(f"one run of the per-utterance trainer, {length:g} epochs, extrapolated", peer, "s", 1, "1 s")
    name = f"a sweep, {ours.trials} trials x {length:g} epochs x {share:.3f} that pruning leaves, extrapolated"
    return [one, against(name, sweep, one)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the commands, and print the figures."""
    command_line = parser("sweep", __doc__ or "")
    command_line.add_argument("--trials", type=int, default=27, help="trials of joyful's sweeps (default: %(default)s)")
    command_line.add_argument("--workers", type=int, default=2, help="workers of each sweep (default: %(default)s)")
    command_line.add_argument(
        "--peer-trials", type=int, default=6, help="trials with joblib, whole batches (default: %(default)s)"
    )
    command_line.add_argument(
        "--basic-trials", type=int, default=2, help="trials with the basic launcher (default: %(default)s)"
    )
    command_line.add_argument(
        "--pruner",
        nargs="+",
        default=[default_pruner()],
        help="choices of hydra/sweeper/pruner, one sweep each (default: %(default)s)",
    )
    command_line.add_argument(
        "--sampler", default="tpe", help="choice of hydra/sweeper/sampler of all sweeps (default: %(default)s)"
    )
    command_line.add_argument(
        "--epoch-json", type=Path, default=None, metavar="FILE", help="figures of benchmarks.epoch"
    )
    command_line.add_argument(
        "--folder", type=Path, default=None, help="where to keep the sweeps (default: a temporary folder)"
    )
    command_line.add_argument("overrides", nargs="*", help="settings of all three commands")
    options = command_line.parse_args(arguments)
    if options.peer_trials % options.workers:
        command_line.error(f"--peer-trials: expected whole batches of {options.workers}, got {options.peer_trials}")
    epochs = json.loads(options.epoch_json.read_text(encoding="utf-8"))["figures"] if options.epoch_json else None
    overrides = [f"hydra/sweeper/sampler={options.sampler}"]
    overrides += [*([f"training.epochs={FULL_EPOCHS}"] if epochs is not None else []), *options.overrides]
    settings, space = stock_overrides()
    seeds = [f"hydra.sweeper.sampler.{item}" for item in settings if item.startswith("seed=")]
    stock = [*settings, "hydra/sweeper=optuna", *space, *overrides, *seeds]
    ours = ["+sweeps=weights", f"hydra.sweeper.n_trials={options.trials}", f"hydra.sweeper.n_jobs={options.workers}"]
    ours += [f"hydra.launcher.n_jobs={options.workers}"]
    n_jobs = f"hydra.sweeper.n_jobs={options.workers}"
    commands = {
        **{name: [*ours, f"hydra/sweeper/pruner={name}", *overrides] for name in options.pruner},
        "joblib": [
            *stock, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={options.workers}", n_jobs,
            f"hydra.sweeper.n_trials={options.peer_trials}",
        ],
        "basic": [*stock, "hydra.sweeper.n_jobs=1", f"hydra.sweeper.n_trials={options.basic_trials}"],
    }  # fmt: skip
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joyful-sweep-")))
        folder.mkdir(parents=True, exist_ok=True)
        timings = {name: run(folder, name, overrides) for name, overrides in commands.items()}
    joblib, basic = timings.pop("joblib"), timings.pop("basic")
    shown = figures(timings, joblib, basic, options.trials, options.workers)
    if epochs is not None:
        shown += full_size(epochs, timings[options.pruner[0]])
    about = {"trials": options.trials, "workers": options.workers, "pruner": options.pruner, "overrides": overrides}
    report("a sweep over the three loss weights", shown, about, options.json)


if __name__ == "__main__":
    main()
