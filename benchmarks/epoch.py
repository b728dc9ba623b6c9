"""Seconds of a whole epoch, with the evaluation of train, dev and test: joyful against the per-utterance trainer.

    python -m benchmarks.epoch [--threads 2] [--repeats 3] [--json FILE]

The per-utterance trainer trains the reference's loss, joyful its own by default; both are measured with the other's, too.

joyful averages its training batches for the train rows (training.train_metrics=running); "full" evaluates the training
split again, as the per-utterance trainer does, and is shown beside it. The per-utterance trainer is measured on a
quarter of the dialogues of each split, and its seconds are scaled by the number of utterances, since its cost is theirs:
its figure says so. All in turn, medians; the first epoch of each is a warm-up, the per-utterance trainer's one step.
"""

from __future__ import annotations

import math
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median

from benchmarks.figures import Figure, figure, multiplies_bfloat16, parser, report
from benchmarks.machine import NO_BFLOAT16
from benchmarks.measuring import in_turn, seconds_of, serve, serving
from benchmarks.workload import (
    JOYFULS_LOSS,
    OF_REFERENCES_LOSS,
    REFERENCES_LOSS,
    SIZES,
    as_in_a_run,
    as_in_the_reference,
    build_coach,
    build_per_utterance,
    dataset,
    settings_of,
    utterances,
    with_dialogues,
)

RUNNING, FULL, BF16 = "joyful, fp32", "joyful, fp32, train evaluated again", "joyful, bf16"
SCALED = "per-utterance trainer, scaled from a quarter of the dialogues"
OVERRIDES = {
    RUNNING: (),
    RUNNING + REFERENCES_LOSS: OF_REFERENCES_LOSS,
    FULL: ("training.train_metrics=full",),
    BF16: ("training.precision=bf16",),
}

#: What full size is to reach on two threads, times the per-utterance trainer.
WANTED_TIMES = 11.0


def joyful(name: str, size: str, threads: int) -> Callable[[], float]:
    """A callable that trains and evaluates one more epoch and returns its seconds."""
    settings = settings_of(size, *OVERRIDES[name])
    as_in_a_run(threads)
    coach = build_coach(settings, dataset(settings))
    return lambda: seconds_of(lambda: coach.train_epoch(coach.epoch + 1))


def per_utterance(name: str, size: str, threads: int) -> Callable[[], float]:
    """A callable that trains and evaluates an epoch of a quarter of each split; returns the seconds of all, by utterances."""
    settings = settings_of(size)
    as_in_the_reference(threads)
    whole = dataset(settings)
    part = with_dialogues(whole, {name: math.ceil(len(d.lengths) / 4) for name, d in whole.splits.items()})
    trainer = build_per_utterance(settings, part, joyfuls_loss=name.endswith(JOYFULS_LOSS))
    # train counts twice, once for each use; a step costs more than an evaluation, but both by the utterance
    scale = {name: utterances(whole, name) / utterances(part, name) for name in whole.splits}

    def one_epoch() -> float:
        trained = seconds_of(trainer.train)
        evaluated = {name: seconds_of(partial(trainer.evaluate, name)) for name in whole.splits}
        return scale["train"] * trained + sum(scale[name] * seconds for name, seconds in evaluated.items())

    return one_epoch


def figures(seconds: Mapping[str, float]) -> list[Figure]:
    """The figures of the median seconds of each contender."""
    base = seconds[SCALED]
    shown = [figure(f"epoch, {name}", value, "s", base, f"epoch, {SCALED}") for name, value in seconds.items()]
    goal = f"the {WANTED_TIMES:g} times wanted at full size"
    pairs = {f"per-utterance / {name}": base / value for name, value in seconds.items() if name in OVERRIDES}
    pairs[f"per-utterance{JOYFULS_LOSS} / {RUNNING}"] = seconds[SCALED + JOYFULS_LOSS] / seconds[RUNNING]
    return shown + [figure(name, times, "times", WANTED_TIMES, goal) for name, times in pairs.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    line = parser("epoch", __doc__)
    line.add_argument("--threads", type=int, default=2)
    line.add_argument("--repeats", type=int, default=3, help="epochs that are timed (default: %(default)s)")
    line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    line.add_argument("--serve", help=SUPPRESS)
    given = line.parse_args(arguments)
    if given.serve:
        serve(
            per_utterance(given.serve, given.size, given.threads)
            if given.serve.startswith(SCALED)
            else joyful(given.serve, given.size, given.threads)
        )
        return
    names, notes = [name for name in OVERRIDES if name != BF16], [NO_BFLOAT16]
    if multiplies_bfloat16():
        names, notes = [*names, BF16], []
    names += [SCALED, SCALED + JOYFULS_LOSS]
    common = [f"--threads={given.threads}", f"--size={given.size}"]
    with serving("benchmarks.epoch", common, names) as contenders:
        for name, served in contenders.items():
            if name in OVERRIDES:  # the peer has nothing to warm up, and an epoch of it is long
                served()
        measured = in_turn(contenders, dict.fromkeys(contenders, given.repeats))
    data = dataset(settings_of(given.size))
    counts = {name: utterances(data, name) for name in data.splits}
    about = {"size": given.size, "utterances": counts, "repeats": given.repeats, "seconds": measured}
    title = f"one epoch, size {given.size}, {', '.join(f'{name} {n}' for name, n in counts.items())} utterances"
    shown = figures({name: median(found) for name, found in measured.items()})
    report(title, shown, about, given.json, notes, given.threads)


if __name__ == "__main__":
    main()
