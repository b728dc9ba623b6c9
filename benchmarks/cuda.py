"""Benchmark on a CUDA device: equality with the processor, waiting, equal bits, seconds, workers and memory.

    python -m benchmarks.cuda --json FILE.json       # less than six minutes on one GPU
    python -m benchmarks.cuda --render FILE.json     # the table of docs/PERFORMANCE.md, from such a file

Without a GPU the program ends with one line. It measures, for model=small and model=reference:

- The largest relative difference of the training curves (NLL, reconstruction, contrast) from those of the processor, over
  two epochs on few dialogues.
- Training steps in which the host never waits for the device (torch.cuda.set_sync_debug_mode).
- Whether two runs give the same bits.
- Seconds of a step and of an epoch with its evaluations, and the peak of allocated memory, in fp32, in fp32 with
  products in TF32 (which is no setting of a run), and in bf16. The data are those of `python -m benchmarks.epoch`.
- Epochs per minute of 1, 2, 4 and 8 processes that share the GPU, with model=small.

A stage that would begin after --seconds is left out, with a note.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.figures import Figure, cores, figure, parser, report
from benchmarks.measuring import peak_memory_gib, seconds_of, serve, serving
from benchmarks.workload import SIZES, dataset, utterances
from joyful.config import Settings, check
from joyful.records import InputError, print_error
from joyful.training.batching import epoch_order
from joyful.training.building import choose_device
from joyful.training.coach import Coach
from joyful.training.experiment import build_coach, describe_device, prepare_torch
from tests.support.runs import compose_plain

MODELS = ("small", "reference")
PRECISIONS = ("fp32", "tf32", "bf16")
WORKERS = (1, 2, 4, 8)

#: Largest relative difference of the curves that counts as equal. The two devices add in another order.
TOLERANCE = 1e-3

#: Few dialogues, and an optimizer that does not divide by small numbers as Adam does in its first steps.
FEW = (
    "data.synthetic.dialogues={train: 8, dev: 4, test: 4}",
    "training.batch_size=4",
    "training.epochs=2",
    "optimizer=sgd",
    "fusion.intermodal=exact",
)


def settings_of(model: str, size: str, *overrides: str) -> Settings:
    """Return the settings of a run. model: one of MODELS. size: one of SIZES, "small" for tests."""
    arguments = (f"model={model}", "training.train_metrics=running", *SIZES[size], *overrides)
    return check(compose_plain(arguments)[0])


def coach_of(settings: Settings, device: torch.device) -> Coach:
    """Build the trainer of a run on a device."""
    return build_coach(settings, dataset(settings), device)


def rows_of(settings: Settings, device: torch.device) -> list[dict[str, Any]]:
    """Train all epochs, and return the rows of the history."""
    return [dict(row) for record in coach_of(settings, device).train() for row in record.rows]


# --- the checks


def difference_of_curves(model: str, size: str, device: torch.device) -> float:
    """Return the largest relative difference of the curves on a device from those on the processor."""
    settings = settings_of(model, size, *FEW)
    expected, found = rows_of(settings, torch.device("cpu")), rows_of(settings, device)
    columns = ("nll", "recon_mse", "loss_contrastive")
    return max(abs(b[c] - a[c]) / abs(a[c]) for a, b in zip(expected, found, strict=True) for c in columns if c in a)


def steps_without_waiting(model: str, size: str, device: torch.device, steps: int = 6) -> int:
    """Return in how many of the training steps after the first two the host does not wait for the device."""
    coach = coach_of(settings_of(model, size, *FEW), device)
    one_step = stepper(coach)
    one_step()
    one_step()  # the first steps initialise libraries and reserve memory
    return sum(_does_not_wait(one_step, device) for _ in range(steps))


def _does_not_wait(action: Callable[[], None], device: torch.device) -> bool:
    if device.type != "cuda":
        action()
        return True
    torch.cuda.set_sync_debug_mode("error")
    try:
        action()
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def equal_runs(model: str, size: str, device: torch.device, runs: int = 2) -> int:
    """Return how many runs have the bits of the first one, which counts."""
    settings = settings_of(model, size, *FEW, "optimizer=adam")
    histories = [repr(rows_of(settings, device)) for _ in range(runs)]
    return histories.count(histories[0])


# --- seconds and memory


def stepper(coach: Coach) -> Callable[[], None]:
    """Return a function that trains the next step of the first epoch's batches, over and over."""
    train = coach.splits["train"]
    batches = [train.batch(part) for part in epoch_order(len(train), coach.batch_size, coach.settings.seed, 1)]

    def one_step() -> None:
        coach._train_step(batches[coach.step % len(batches)], 1, None, {})

    return one_step


def measure(model: str, precision: str, size: str, device: torch.device, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step and of an epoch, and the peak of allocated memory in GiB.

    Each step and epoch ends when the device has finished it.
    """
    with _tf32(precision == "tf32"):
        settings = settings_of(model, size, f"training.precision={'bf16' if precision == 'bf16' else 'fp32'}")
        coach = coach_of(settings, device)
        one_step = stepper(coach)
        _reset_peak(device)

        def timed(action: Callable[[], object]) -> float:
            def finished() -> None:
                action()
                _finish(device)

            _finish(device)
            return seconds_of(finished)

        def one_epoch() -> object:
            return coach.train_epoch(coach.epoch + 1)

        one_step()
        steps = [timed(one_step) for _ in range(4 * repeats)]
        one_epoch()
        epochs = [timed(one_epoch) for _ in range(repeats)]
        return {"step": median(steps), "epoch": median(epochs), "memory": _peak_gib(device)}


@contextmanager
def _tf32(is_on: bool) -> Iterator[None]:
    """Compute matrix products in TF32 inside a `with` block, which prepare_torch turns off in cuDNN too."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    if is_on:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else peak_memory_gib()


# --- workers


def worker(size: str, device: torch.device, epochs: int) -> Callable[[], float]:
    """Return a function that trains some epochs with model=small, and returns their seconds."""
    coach = coach_of(settings_of("small", size, "training.epochs=100000"), device)
    coach.train_epoch(1)

    def train() -> None:
        for _ in range(epochs):
            coach.train_epoch(coach.epoch + 1)

    return lambda: seconds_of(train)


def epochs_per_minute(count: int, size: str, device: torch.device, epochs: int) -> float:
    """Return the epochs per minute of some processes together, each after a first epoch."""
    common = [f"--size={size}", f"--device={device.type}", f"--epochs={epochs}"]
    with (
        serving("benchmarks.cuda", common, [f"worker {n}" for n in range(count)]) as workers,
        ThreadPoolExecutor(count) as threads,
    ):
        list(threads.map(lambda one: one.peak_memory_gib(), workers.values()))  # answered when the worker is ready
        seconds = seconds_of(lambda: list(threads.map(lambda one: one(), workers.values())))
    return 60 * count * epochs / seconds


# --- the report


def figures_of(size: str, device: torch.device, repeats: int, deadline: float) -> tuple[list[Figure], list[str]]:
    """Measure all stages that begin before the deadline (time.monotonic). Return the figures, and what was left out."""
    shown: list[Figure] = []
    left_out: list[str] = []

    def stage(name: str, action: Callable[[], Sequence[Figure]]) -> None:
        if time.monotonic() > deadline:
            left_out.append(f"{name} is left out: the time is up; raise --seconds")
            return
        print(f"{name} ...", file=sys.stderr, flush=True)
        shown.extend(action())

    for model in MODELS:
        stage(f"checks, model={model}", lambda model=model: _checks(model, size, device))  # type: ignore[misc]
    rates: dict[str, float] = {}
    for model in MODELS:
        for precision in PRECISIONS:
            stage(
                f"{precision}, model={model}",
                lambda model=model, precision=precision: _speeds(model, precision, size, device, repeats, rates),  # type: ignore[misc]
            )
    for count in WORKERS:
        stage(f"{count} workers", lambda count=count: [_rate(count, size, device, repeats, rates)])  # type: ignore[misc]
    return shown, left_out


def _checks(model: str, size: str, device: torch.device) -> list[Figure]:
    steps, runs = 6, 2
    return [
        figure(
            f"largest difference from the processor's curves, model={model}",
            difference_of_curves(model, size, device), "", TOLERANCE, "what counts as equal",
        ),
        figure(
            f"steps without waiting, model={model}",
            float(steps_without_waiting(model, size, device, steps)), "steps", float(steps), "the steps",
        ),
        figure(
            f"runs of the same bits, model={model}", float(equal_runs(model, size, device, runs)), "runs", float(runs), "the runs"
        ),
    ]  # fmt: skip


def _speeds(
    model: str, precision: str, size: str, device: torch.device, repeats: int, rates: dict[str, float]
) -> list[Figure]:
    shown = []
    for what, value in measure(model, precision, size, device, repeats).items():
        unit, label = ("GiB", "peak memory") if what == "memory" else ("s", what)
        first = rates.setdefault(f"{what}, {model}", value)
        shown.append(
            figure(f"{label}, {precision}, model={model}", value, unit, first, f"{label}, fp32, model={model}")
        )
    return shown


def _rate(count: int, size: str, device: torch.device, repeats: int, rates: dict[str, float]) -> Figure:
    value = epochs_per_minute(count, size, device, repeats)
    label = f"epochs per minute, {count} worker{'' if count == 1 else 's'}, model=small"
    return figure(
        label, value, "epochs", rates.setdefault("workers", value), "epochs per minute, 1 worker, model=small"
    )


def table(document: Mapping[str, Any]) -> str:
    """Return the table of docs/PERFORMANCE.md from the JSON file: a row for each measure, a column for each model."""
    rows: dict[str, dict[str, str]] = {}
    for one in document["figures"]:
        name, _, model = one["name"].partition(", model=")
        rows.setdefault(name, {})[model] = _cell(one)
    lines = [
        f"{document['gpu']}, torch {document['machine']['torch']}:",
        "",
        "| | small | reference |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {' | '.join(cells.get(model, '') for model in MODELS)} |" for name, cells in rows.items()]
    return "\n".join(lines + [f"\n{note[0].upper()}{note[1:]}." for note in document["notes"]])


def _cell(one: Mapping[str, Any]) -> str:
    value, unit = one["value"], one["unit"]
    if unit == "s":
        return (
            f"{1000 * value:.3g} ms ({one['ratio']:.2f} of fp32)"
            if value < 1
            else f"{value:.3g} s ({one['ratio']:.2f} of fp32)"
        )
    if unit in ("steps", "runs"):
        return f"{value:.0f} of {value / one['ratio']:.0f}" if one["ratio"] else "none"
    if unit == "epochs":
        return f"{value:.0f} ({one['ratio']:.2f} times one worker)"
    return f"{value:.1e}" if not unit else f"{value:.2f} {unit}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the figures, or print the table of a file."""
    command_line = parser("cuda", __doc__)
    command_line.add_argument(
        "--render", type=Path, metavar="FILE", help="print the table of such a file, without measuring"
    )
    command_line.add_argument("--repeats", type=int, default=3, help="epochs to time (default: %(default)s)")
    command_line.add_argument(
        "--seconds", type=float, default=300.0, help="begin no stage after this time (default: %(default)s)"
    )
    command_line.add_argument(
        "--size", choices=SIZES, default="reference", help="small: for tests (default: %(default)s)"
    )
    command_line.add_argument("--threads", type=int, help="threads of the processor's curves (default: its cores)")
    for hidden in ("--serve", "--device", "--epochs"):
        command_line.add_argument(hidden, help=SUPPRESS)
    options = command_line.parse_args(arguments)
    if options.render:
        print(table(json.loads(options.render.read_text(encoding="utf-8"))))
        return
    try:
        device = choose_device(options.device or "cuda")
    except InputError:
        print_error("benchmarks.cuda: expected a CUDA device, found none; run it on a machine with a GPU")
        raise SystemExit(2) from None
    threads = options.threads or cores()
    prepare_torch(device, 1 if options.serve else threads)
    if options.serve:
        serve(worker(options.size, device, int(options.epochs)))
        return
    shown, notes = figures_of(options.size, device, options.repeats, time.monotonic() + options.seconds)
    counts = {
        split: utterances(dataset(settings_of("small", options.size)), split) for split in ("train", "dev", "test")
    }
    about = {"gpu": describe_device(device), "cuda": torch.version.cuda, "size": options.size, "utterances": counts}
    report(f"on {about['gpu']}, size {options.size}", shown, about, options.json, notes, threads)


if __name__ == "__main__":
    main()
