"""What more data cost: seconds and memory per utterance of training, at 1 to 20 times the dialogues and with longer ones.

    python -m benchmarks.scaling [--threads 2] [--repeats 5] [--json FILE]

More dialogues: an epoch of k times as many (32 in the batch, 32 k in the training split), for k of --multiples; seconds
of its training steps by utterance, medians, the multiples in turn; each ratio is to the first. Peak memory is that of a
process of its own which trains one epoch: all features stay in memory, so it grows by their size and no more.

Longer dialogues: batches of --total utterances in dialogues of --lengths, window bounded (wp = wf = 8). What an epoch of
one such step adds to the memory of its process, by utterance: were a part of the step quadratic in the length, this
would grow with it.
"""

from __future__ import annotations

import json
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from benchmarks.figures import Figure, figure, parser, report
from benchmarks.measuring import forget_peak_memory, in_a_process, in_turn, peak_memory_gib
from benchmarks.workload import (
    SIZES,
    as_in_a_run,
    build_coach,
    dataset,
    one_batch,
    settings_of,
    training_seconds,
    utterances,
    with_dialogues,
)
from joyful.config import Settings
from joyful.records import DialogueDataset, Dialogues
from joyful.training.coach import Coach

#: How flat the seconds per utterance are to be over the multiples.
WANTED_WITHIN = 1.15
MULTIPLES, LENGTHS = (1, 2, 5, 10, 20), (50, 100, 200, 500)


def more_dialogues(size: str, multiples: Sequence[int]) -> tuple[Settings, dict[int, DialogueDataset]]:
    """The data of each multiple: the first dialogues of the same split, one each in dev and test."""
    batch = 32 if size == "reference" else 4
    counts = f"data.synthetic.dialogues={{train: {batch * max(multiples)}, dev: 1, test: 1}}"
    settings = settings_of(size, counts, f"training.batch_size={batch}")
    whole = dataset(settings)
    return settings, {k: with_dialogues(whole, {"train": batch * k, "dev": 1, "test": 1}) for k in multiples}


def longer_dialogues(size: str, length: int, total: int) -> Coach:
    """A coach whose one batch has `total` utterances (whole dialogues, at least one) of `length` each; dev and test have
    one such dialogue."""
    count = max(1, total // length)
    generated = f"data.synthetic.utterances={length * 3 // 2 + 20}"  # the mean: hardly any is shorter than `length`
    settings = settings_of(size, *one_batch(size, count), generated, "model.wp=8", "model.wf=8")
    data = dataset(settings)
    splits = {name: _cut(split, length) for name, split in data.splits.items()}
    return build_coach(settings, replace(data, splits=splits))


def peak(size: str, what: str, value: int, given: Mapping[str, int]) -> dict[str, float]:
    """In this process: memory (GiB) before training an epoch and its peak meanwhile, and the utterances of the epoch.

    what: "multiple" or "length", whose value it is. given: threads, total.
    """
    as_in_a_run(given["threads"])
    if what == "length":
        coach = longer_dialogues(size, value, given["total"])
    else:
        settings, data = more_dialogues(size, [value])
        coach = build_coach(settings, data[value])
    n = int(coach.splits["train"].lengths.sum())
    before = forget_peak_memory()
    coach.train_epoch(1)
    return {"before": before, "gib": peak_memory_gib(), "utterances": n}


def per_utterance(prefix: str, values: Mapping[int, float], unit: str) -> list[Figure]:
    """A figure for each value, all against the first."""
    first_name, first = f"{prefix.format(next(iter(values)))}", next(iter(values.values()))
    return [figure(prefix.format(key), value, unit, first, first_name) for key, value in values.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    line = parser("scaling", __doc__)
    line.add_argument("--threads", type=int, default=2)
    line.add_argument("--repeats", type=int, default=5, help="epochs of each multiple (default: %(default)s)")
    line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    line.add_argument("--multiples", type=_numbers, default=MULTIPLES, help="default: 1,2,5,10,20")
    line.add_argument("--lengths", type=_numbers, default=LENGTHS, help="default: 50,100,200,500")
    line.add_argument("--total", type=int, default=2000, help="utterances of a batch of long dialogues (default: 2000)")
    line.add_argument("--peak", nargs=2, help=SUPPRESS)
    given = line.parse_args(arguments)
    if given.peak:
        print(json.dumps(peak(given.size, given.peak[0], int(given.peak[1]), vars(given))))
        return
    seconds, counts = time_multiples(given.size, given.multiples, given.threads, given.repeats)
    common = [f"--size={given.size}", f"--threads={given.threads}", f"--total={given.total}", "--peak"]

    def memory(what: str, values: Sequence[int]) -> dict[int, dict[str, float]]:
        return {value: in_a_process("benchmarks.scaling", [*common, what, str(value)]) for value in values}

    by_multiple, by_length = memory("multiple", given.multiples), memory("length", given.lengths)
    shown = figures(seconds, by_multiple, by_length)
    about = {"size": given.size, "utterances": counts, "repeats": given.repeats, "total": given.total}
    report(f"more and longer dialogues, size {given.size}", shown, about, given.json, threads=given.threads)


def time_multiples(
    size: str, multiples: Sequence[int], threads: int, repeats: int
) -> tuple[dict[int, float], dict[int, int]]:
    """Median seconds of training by utterance, and utterances of an epoch, for each multiple."""
    settings, data = more_dialogues(size, multiples)
    counts = {k: utterances(part) for k, part in data.items()}
    coaches = {str(k): build_coach(settings, part) for k, part in data.items()}
    as_in_a_run(threads)
    training_seconds(coaches[str(multiples[0])])

    def epoch(name: str) -> Callable[[], float]:
        return lambda: training_seconds(coaches[name])

    measured = in_turn({name: epoch(name) for name in coaches}, dict.fromkeys(coaches, repeats))
    return {int(name): median(found) / counts[int(name)] for name, found in measured.items()}, counts


def figures(
    seconds: Mapping[int, float],
    by_multiple: Mapping[int, Mapping[str, float]],
    by_length: Mapping[int, Mapping[str, float]],
) -> list[Figure]:
    """The figures. seconds: by utterance. by_multiple, by_length: of `peak`."""
    times = per_utterance("training by utterance, {} x the dialogues", {k: 1e3 * s for k, s in seconds.items()}, "ms")
    spread = max(seconds.values()) / min(seconds.values())
    goal = f"the {WANTED_WITHIN:g} times wanted at full size"
    flat = figure("dearest / cheapest utterance", spread, "times", WANTED_WITHIN, goal)
    gib = per_utterance("peak memory, {} x the dialogues", {k: p["gib"] for k, p in by_multiple.items()}, "GiB")

    def added(peaks: Mapping[int, Mapping[str, float]]) -> dict[int, float]:
        return {k: 2**20 * (p["gib"] - p["before"]) / p["utterances"] for k, p in peaks.items()}

    long = per_utterance("memory of a step by utterance, dialogues of {}", added(by_length), "KiB")
    return [*times, flat, *gib, *long]


def _cut(split: Dialogues, length: int) -> Dialogues:
    """The first `length` utterances of each dialogue. Raises ValueError where one has fewer."""
    if min(split.lengths) < length:
        raise ValueError(f"expected dialogues of at least {length} utterances, got one of {min(split.lengths)}")
    starts = np.cumsum(split.lengths) - split.lengths
    places = (starts[:, None] + np.arange(length)).reshape(-1)
    features = {name: values[places] for name, values in split.features.items()}
    lengths = np.full(len(starts), length)
    return Dialogues(features, split.labels[places], split.speakers[places], lengths, split.ids)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
