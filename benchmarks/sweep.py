"""A whole sweep over the three loss weights: ours with pruning, and stock Hydra's, which trains every trial to its end.

    python -m benchmarks.sweep [--trials 27] [--workers 2] [--peer-trials 6] [--basic-trials 2] [--pruner asha]
        [--epoch-json FILE] [--folder FOLDER] [--json FILE] [-- OVERRIDE ...]

Three real commands, one after another: `+sweeps=weights` as it stands; the same search by hydra-optuna-sweeper under the joblib
launcher, whose batches wait for their slowest; and by the basic launcher, one trial after another. The stock ones are measured
on fewer trials and scaled by the number of batches, since an unpruned trial costs what any other does; their figures say so.

Utilisation is the seconds that trials spent training, evaluating and writing (timing.parquet) over workers x wall seconds.
--epoch-json: figures of `python -m benchmarks.epoch --json FILE` of the same machine. From them, and from the share of the epochs
that pruning left here, follows the time of the sweep at full size beside ONE run of the per-utterance trainer, as many epochs each.
What pruning leaves depends on how long a trial would be, so with it all three commands train 30 epochs.
Overrides after -- go to all three commands, training.epochs=3 say.
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

#: Of a trial, where the sweep is to be set beside a run of the per-utterance trainer.
FULL_EPOCHS = 30

#: Names of the figures of `benchmarks.epoch`.
OUR_EPOCH, PEER_EPOCH = f"epoch, {RUNNING}", f"epoch, {SCALED}"


@dataclass(frozen=True)
class Measured:
    """Of one command: wall seconds, seconds in which its trials were trained, trials, and the epochs trained and asked for."""

    wall: float
    busy: float
    trials: int
    epochs: float
    full_epochs: float


def search() -> tuple[list[str], list[str]]:
    """Overrides of sweeps/weights.yaml for a stock sweeper: its settings, and its search space."""
    told = yaml.safe_load((ROOT / "sweeps/weights.yaml").read_text(encoding="utf-8"))
    chosen = [item for default in told["defaults"] if isinstance(default, dict) for item in default.items()]
    groups = [f"{name.removeprefix('override /')}={value}" for name, value in chosen if "/hydra/" not in name]
    values = [f"{name}={told[name]}" for name in told if name not in ("defaults", "hydra", "sweep_name")]
    return groups + values, [f"{name}={space}" for name, space in told["hydra"]["sweeper"]["params"].items()]


def run(folder: Path, name: str, overrides: Sequence[str]) -> Measured:
    """Run a sweep as a command in `folder`. Raises CalledProcessError where it fails; its output is in NAME.log."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", f"sweep_name={name}", *overrides]
    clock = time.perf_counter()
    with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=folder, check=True, stdout=log, stderr=subprocess.STDOUT)
    return measured(folder / "multirun" / name, time.perf_counter() - clock)


def measured(folder: Path, wall: float) -> Measured:
    """What a sweep's run folders say of the time spent in them."""
    busy, trials, epochs, full = 0.0, 0, 0.0, 0.0
    for file in folder.glob(f"*/{TIMING}"):
        table = pq.read_table(file, columns=["epoch", "seconds"]).to_pydict()
        busy += math.fsum(table["seconds"])
        epochs += max(table["epoch"])
        full += float(read_run(file.parent)["epochs"])
        trials += 1
    return Measured(wall, busy, trials, epochs, full)


def figures(found: Mapping[str, Measured], n_trials: int, n_workers: int) -> list[Figure]:
    """The figures of the commands. found: "ours", "joblib", "basic"; the last two may have fewer trials."""
    ours, joblib, basic = found["ours"], found["joblib"], found["basic"]
    batches = math.ceil(n_trials / n_workers) / math.ceil(joblib.trials / n_workers)
    told = [
        figure(f"wall, stock joblib, {joblib.trials} trials scaled to {n_trials} by batches", joblib.wall * batches, "s", 1, "1 s"),
    ]  # fmt: skip
    scaled = f"wall, stock basic, {basic.trials} trials scaled to {n_trials}"
    told += [
        against(scaled, basic.wall * n_trials / basic.trials, told[0]),
        against(f"wall, ours, {ours.trials} trials", ours.wall, told[0]),
        figure("epochs trained, ours", ours.epochs, "epochs", ours.full_epochs, f"{ours.trials} trials at full length"),
    ]
    for name, one, workers in (
        ("ours", ours, n_workers),
        ("stock joblib", joblib, n_workers),
        ("stock basic", basic, 1),
    ):
        told.append(figure(f"busy, {name}", one.busy, "s", workers * one.wall, f"{workers} x wall: utilisation"))
    return told


def full_size(epoch_figures: Sequence[Mapping[str, Any]], ours: Measured) -> list[Figure]:
    """Our sweep at full size, extrapolated, beside one run of the per-utterance trainer, as long as a trial would be unpruned.

    Raises ValueError where the epochs of the two are not among the figures.
    """
    seconds = {str(one["name"]): float(one["value"]) for one in epoch_figures}
    missing = {OUR_EPOCH, PEER_EPOCH} - set(seconds)
    if missing:
        raise ValueError(
            f"--epoch-json: expected figures {OUR_EPOCH} and {PEER_EPOCH}, found no {' and no '.join(sorted(missing))}; "
            "make the file by python -m benchmarks.epoch --json FILE"
        )
    length, share = ours.full_epochs / ours.trials, ours.epochs / ours.full_epochs
    peer, sweep = length * seconds[PEER_EPOCH], ours.epochs * seconds[OUR_EPOCH]
    one = figure(f"one run of the per-utterance trainer, {length:g} epochs, extrapolated", peer, "s", 1, "1 s")
    name = f"a sweep, {ours.trials} trials x {length:g} epochs x {share:.3f} that pruning leaves, extrapolated"
    return [one, against(name, sweep, one)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per figure."""
    p = parser("sweep", __doc__ or "")
    p.add_argument("--trials", type=int, default=27, help="of our sweep (default: %(default)s)")
    p.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    p.add_argument("--peer-trials", type=int, default=6, help="under joblib, whole batches (default: %(default)s)")
    p.add_argument("--basic-trials", type=int, default=2, help="under basic (default: %(default)s)")
    p.add_argument("--pruner", default=None, help="of conf/hydra/sweeper/pruner (default: the sweeper's)")
    p.add_argument("--epoch-json", type=Path, default=None, metavar="FILE", help="of benchmarks.epoch")
    p.add_argument("--folder", type=Path, default=None, help="where the sweeps stay (default: a temporary folder)")
    p.add_argument("overrides", nargs="*", help="settings of all three commands")
    given = p.parse_args(arguments)
    if given.peer_trials % given.workers:
        p.error(f"--peer-trials: expected whole batches of {given.workers}, got {given.peer_trials}")
    epochs = json.loads(given.epoch_json.read_text(encoding="utf-8"))["figures"] if given.epoch_json else None
    overrides = [*([f"training.epochs={FULL_EPOCHS}"] if epochs is not None else []), *given.overrides]
    settings, space = search()
    stock = [*settings, "hydra/sweeper=optuna", *space, *overrides]
    ours = ["+sweeps=weights", f"hydra.sweeper.n_trials={given.trials}", f"hydra.sweeper.n_jobs={given.workers}"]
    ours += [f"hydra.launcher.n_jobs={given.workers}"]
    ours += [f"hydra/sweeper/pruner={given.pruner}"] if given.pruner else []
    n_jobs = f"hydra.sweeper.n_jobs={given.workers}"
    commands = {
        "ours": [*ours, *overrides],
        "joblib": [
            *stock, "hydra/launcher=joblib", f"hydra.launcher.n_jobs={given.workers}", n_jobs,
            f"hydra.sweeper.n_trials={given.peer_trials}",
        ],
        "basic": [*stock, "hydra.sweeper.n_jobs=1", f"hydra.sweeper.n_trials={given.basic_trials}"],
    }  # fmt: skip
    with ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joyful-sweep-")))
        folder.mkdir(parents=True, exist_ok=True)
        found = {name: run(folder, name, words) for name, words in commands.items()}
    told = figures(found, given.trials, given.workers)
    if epochs is not None:
        told += full_size(epochs, found["ours"])
    about = {"trials": given.trials, "workers": given.workers, "pruner": given.pruner, "overrides": overrides}
    report("a sweep over the three loss weights", told, about, given.json)


if __name__ == "__main__":
    main()
