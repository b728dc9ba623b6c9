"""Benchmark of scaling: seconds and memory of training per utterance, for more dialogues and for longer ones.

    python -m benchmarks.scaling [--threads 2] [--repeats 5] [--json FILE]

More dialogues: an epoch of k times as many dialogues (batches of 32, a training split of 32 k), for each k of
--multiples. The figures are the median seconds of the training steps per utterance. The multiples are measured in turn,
and each ratio is to the first. Peak memory is that of a separate process that trains one epoch. All features stay in
memory, so it should grow by their size only.

Longer dialogues: one batch of --total utterances in dialogues of each of --lengths, with a bounded window (wp = wf =
8). The figure is the memory that one step adds to its process, per utterance. It grows with the length if a part of the
step is quadratic in the length.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from benchmarks.figures import Figure, figure, parser, report
from benchmarks.measuring import in_turn, peak_memory_gib, reset_peak_memory, run_module
from benchmarks.workload import (
    SIZES,
    build_coach,
    configure_torch_for_run,
    dataset,
    one_batch_overrides,
    settings_of,
    take_dialogues,
    training_seconds,
    utterances,
)
from joyful.config import Settings
from joyful.records import DialogueDataset, Dialogues
from joyful.training.coach import Coach

#: Target: the largest seconds per utterance over the multiples, divided by the smallest.
TARGET_RATIO = 1.15
MULTIPLES, LENGTHS = (1, 2, 5, 10, 20), (50, 100, 200, 500)


def more_dialogues(size: str, multiples: Sequence[int]) -> tuple[Settings, dict[int, DialogueDataset]]:
    """Return settings and the data of each multiple: the first dialogues of one split, and one each in dev and test."""
    batch = 32 if size == "reference" else 4
    counts = f"data.synthetic.dialogues={{train: {batch * max(multiples)}, dev: 1, test: 1}}"
    settings = settings_of(size, counts, f"training.batch_size={batch}")
    whole = dataset(settings)
    return settings, {k: take_dialogues(whole, {"train": batch * k, "dev": 1, "test": 1}) for k in multiples}


def longer_dialogues(size: str, length: int, total: int) -> Coach:
    """Build a coach with one batch of about `total` utterances in dialogues of `length` utterances.

    The batch has at least one dialogue. Dev and test have one such dialogue each.
    """
    count = max(1, total // length)
    generated = (
        f"data.synthetic.utterances={length * 3 // 2 + 20}"  # the mean, so that hardly any is shorter than `length`
    )
    settings = settings_of(size, *one_batch_overrides(size, count), generated, "model.wp=8", "model.wf=8")
    data = dataset(settings)
    splits = {name: _cut(split, length) for name, split in data.splits.items()}
    return build_coach(settings, replace(data, splits=splits))


def peak(size: str, what: str, value: int, options: Mapping[str, int]) -> dict[str, float]:
    """Train one epoch in this process, and return its memory and utterances.

    Args:
        size: One of SIZES.
        what: "multiple" or "length".
        value: The multiple or the length.
        options: "threads" and "total".

    Returns:
        "before", the memory before the epoch (GiB), "gib", the peak during it (GiB), and "utterances".
    """
    configure_torch_for_run(options["threads"])
    if what == "length":
        coach = longer_dialogues(size, value, options["total"])
    else:
        settings, data = more_dialogues(size, [value])
        coach = build_coach(settings, data[value])
    n = int(coach.splits["train"].lengths.sum())
    before = reset_peak_memory()
    coach.train_epoch(1)
    return {"before": before, "gib": peak_memory_gib(), "utterances": n}


def per_utterance(prefix: str, values: Mapping[int, float], unit: str) -> list[Figure]:
    """Return a figure for each value, compared with the first one."""
    first_name, first = f"{prefix.format(next(iter(values)))}", next(iter(values.values()))
    return [figure(prefix.format(key), value, unit, first, first_name) for key, value in values.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    command_line = parser("scaling", __doc__)
    command_line.add_argument("--threads", type=int, default=2)
    command_line.add_argument("--repeats", type=int, default=5, help="epochs of each multiple (default: %(default)s)")
    command_line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    command_line.add_argument("--multiples", type=_numbers, default=MULTIPLES, help="default: 1,2,5,10,20")
    command_line.add_argument("--lengths", type=_numbers, default=LENGTHS, help="default: 50,100,200,500")
    command_line.add_argument(
        "--total", type=int, default=2000, help="utterances per batch of long dialogues (default: 2000)"
    )
    command_line.add_argument("--peak", nargs=2, help=SUPPRESS)
    options = command_line.parse_args(arguments)
    if options.peak:
        print(json.dumps(peak(options.size, options.peak[0], int(options.peak[1]), vars(options))))
        return
    seconds, counts = time_multiples(options.size, options.multiples, options.threads, options.repeats)
    common = [f"--size={options.size}", f"--threads={options.threads}", f"--total={options.total}", "--peak"]

    def memory(what: str, values: Sequence[int]) -> dict[int, dict[str, float]]:
        return {value: run_module("benchmarks.scaling", [*common, what, str(value)]) for value in values}

    by_multiple, by_length = memory("multiple", options.multiples), memory("length", options.lengths)
    shown = figures(seconds, by_multiple, by_length)
    about = {"size": options.size, "utterances": counts, "repeats": options.repeats, "total": options.total}
    report(f"more and longer dialogues, size {options.size}", shown, about, options.json, threads=options.threads)


def time_multiples(
    size: str, multiples: Sequence[int], threads: int, repeats: int
) -> tuple[dict[int, float], dict[int, int]]:
    """Return the median training seconds per utterance and the utterances of an epoch, for each multiple."""
    settings, data = more_dialogues(size, multiples)
    counts = {k: utterances(part) for k, part in data.items()}
    coaches = {str(k): build_coach(settings, part) for k, part in data.items()}
    configure_torch_for_run(threads)
    training_seconds(coaches[str(multiples[0])])

    def epoch(name: str) -> Callable[[], float]:
        return lambda: training_seconds(coaches[name])

    measured = in_turn({name: epoch(name) for name in coaches}, dict.fromkeys(coaches, repeats))
    return {int(name): median(values) / counts[int(name)] for name, values in measured.items()}, counts


def figures(
    seconds: Mapping[int, float],
    by_multiple: Mapping[int, Mapping[str, float]],
    by_length: Mapping[int, Mapping[str, float]],
) -> list[Figure]:
    """Return the figures. seconds: per utterance, of each multiple. by_multiple, by_length: results of `peak`."""
    times = per_utterance("training by utterance, {} x the dialogues", {k: 1e3 * s for k, s in seconds.items()}, "ms")
    spread = max(seconds.values()) / min(seconds.values())
    goal = f"the target of {TARGET_RATIO:g} times at full size"
    flat = figure("dearest / cheapest utterance", spread, "times", TARGET_RATIO, goal)
    gib = per_utterance("peak memory, {} x the dialogues", {k: p["gib"] for k, p in by_multiple.items()}, "GiB")

    def added(peaks: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
        return {k: 2**20 * (p["gib"] - p["before"]) / p["utterances"] for k, p in peaks.items()}

    long = per_utterance("memory of a step by utterance, dialogues of {}", added(by_length), "KiB")
    return [*times, flat, *gib, *long]


def _cut(split: Dialogues, length: int) -> Dialogues:
    """Return the first `length` utterances of each dialogue. Raises ValueError if a dialogue has fewer."""
    if min(split.lengths) < length:
        raise ValueError(
            f"dialogues: expected at least {length} utterances, got {min(split.lengths)}; set a lower --lengths"
        )
    starts = np.cumsum(split.lengths) - split.lengths
    places = (starts[:, None] + np.arange(length)).reshape(-1)
    features = {name: values[places] for name, values in split.features.items()}
    lengths = np.full(len(starts), length)
    return Dialogues(features, split.labels[places], split.speakers[places], lengths, split.ids)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
