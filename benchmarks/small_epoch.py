"""The figures of `python -m benchmarks.epoch --model small`: an epoch of the small model, its training and its evaluation.

Every contender is a process that runs this file with the package of one checkout, so it uses only what all versions have:
the default configuration, `joyful.training.experiment.build_coach` and `Coach.train_epoch`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("epoch", "training", "evaluation")
SMALL_DATA = ("data.synthetic.dialogues={train: 8, dev: 4, test: 4}", "data.synthetic.utterances=6")
HERE, THERE = "this checkout", "the other checkout"


def runs(size: str) -> dict[str, tuple[str, ...]]:
    """Return name -> overrides of the runs to measure. size: "reference", or "small" for tests."""
    folder = Path(os.environ.get("JOYFUL_DATA", "")) / "meld"
    if size == "small":
        return {"synthetic": SMALL_DATA}
    meld = {"MELD": ("data=meld", f"data.root={folder.resolve()}", "experiment=meld")}
    return {"synthetic": (), **(meld if (folder / "train_sent_emo.csv").is_file() else {})}


def measure(size: str, threads: int, repeats: int, beside: Path | None, file: Path | None) -> None:
    """Measure the epochs in turn, and print the figures.

    Args:
        size: "reference", or "small" for tests.
        threads: Threads of torch.
        repeats: Epochs to time, after a first one.
        beside: Another checkout to compare with.
        file: JSON file to write, or None.
    """
    from benchmarks.figures import Figure, figure, report

    checkouts = {HERE: ROOT} | ({THERE: beside.resolve()} if beside else {})
    names = runs(size)
    shown: list[Figure] = []
    all_seconds = {}
    for run, overrides in names.items():
        seconds = _in_turn(checkouts, threads, repeats, overrides)
        all_seconds[run] = seconds
        for part in PARTS:
            base = median(seconds[THERE if beside else HERE][part])
            for checkout, values in seconds.items():
                label = f"{part}, {run}" + (f", {checkout}" if beside else "")
                to = f"{part}, {run}, {THERE}" if beside else "itself"
                shown.append(figure(label, median(values[part]), "s", base, to))
    notes = [] if "MELD" in names else ["MELD is left out: JOYFUL_DATA names no folder that has meld/"]
    about = {"model": "small", "size": size, "repeats": repeats, "seconds": all_seconds}
    report("one epoch, model small", shown, about, file, notes, threads)


def _in_turn(
    checkouts: Mapping[str, Path], threads: int, repeats: int, overrides: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """Return checkout -> part -> the seconds of each epoch."""
    measured: dict[str, dict[str, list[float]]] = {name: {part: [] for part in PARTS} for name in checkouts}
    with ExitStack() as stack:
        epochs = {
            name: stack.enter_context(_epochs(root, threads, repeats, overrides)) for name, root in checkouts.items()
        }
        for _ in range(repeats):
            for name, one in epochs.items():
                for part, seconds in zip(PARTS, next(one), strict=True):
                    measured[name][part].append(seconds)
    return measured


@contextmanager
def _epochs(root: Path, threads: int, repeats: int, overrides: Sequence[str]) -> Iterator[Iterator[list[float]]]:
    """Yield an iterator over the seconds of a checkout's epochs, after its first one. Each step trains one epoch."""
    from joyful.runtime import heap

    process = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve()), str(root), str(threads), str(repeats), *overrides],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=root,
        env=heap.training_environment({**os.environ, "PYTHONPATH": str(root)}),
    )  # fmt: skip
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def seconds() -> Iterator[list[float]]:
        while True:
            stdin.write("\n")
            answer = next((line for line in stdout if line.startswith("[")), None)
            if answer is None:
                raise subprocess.CalledProcessError(process.wait(), process.args)
            yield json.loads(answer)

    try:
        one = seconds()
        next(one)  # the first epoch warms up
        yield one
    finally:
        process.kill()
        process.communicate()


def serve(root: Path, threads: int, repeats: int, overrides: Sequence[str]) -> None:
    """Train an epoch for each line of standard input, and print its seconds: all, training, evaluation."""
    import time

    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from joyful.config import check
    from joyful.data.loading import load
    from joyful.training.experiment import build_coach, prepare_torch

    arguments = ["device=cpu", f"training.epochs={repeats + 1}", "training.early_stopping=0", *overrides]
    with initialize_config_dir(str(root / "conf"), version_base=None):
        config = compose("config", overrides=arguments, return_hydra_config=True)
        names = [str(name) for name in config if name != "hydra"]
        plain = OmegaConf.to_container(OmegaConf.masked_copy(config, names), resolve=True)
    assert isinstance(plain, dict)
    settings = check({str(name): value for name, value in plain.items()})
    prepare_torch(torch.device("cpu"), threads)
    coach = build_coach(settings, load(settings.data, settings.modality_names), torch.device("cpu"))
    for _ in sys.stdin:
        clock = time.perf_counter()
        records = coach.train_epoch(coach.epoch + 1)
        seconds = time.perf_counter() - clock
        parts = [sum(record.seconds[part] for record in records) for part in ("train", "evaluate")]
        print(json.dumps([seconds, *parts]), flush=True)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
