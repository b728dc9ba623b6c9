"""Seconds of a whole epoch, with the evaluation of train, dev and test: joyful against the per-utterance trainer.

    python -m benchmarks.epoch [--threads 2] [--repeats 3] [--loss own] [--json FILE]

joyful averages its training batches for the train rows (training.train_metrics=running); "full" evaluates the training
split again, as the per-utterance trainer does, and is shown beside it. The per-utterance trainer is measured on a
quarter of the dialogues of each split, and its seconds are scaled by the number of utterances, since its cost is theirs:
its figure says so. It trains the reference's loss, joyful its own, which is more work; --loss reference or joyful has both
train one. All in turn, medians; the first epoch of each is a warm-up, the per-utterance trainer's one step.
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
    LOSSES,
    SIZES,
    as_in_a_run,
    as_in_the_reference,
    build_coach,
    build_per_utterance,
    dataset,
    of_loss,
    settings_of,
    utterances,
    with_dialogues,
)

RUNNING, FULL, BF16 = "joyful, fp32", "joyful, fp32, train evaluated again", "joyful, bf16"
SCALED = "per-utterance trainer, scaled from a quarter of the dialogues"
OVERRIDES = {
    RUNNING: (),
    FULL: ("training.train_metrics=full",),
    BF16: ("training.precision=bf16",),
}

#: What full size is to reach on two threads, times the per-utterance trainer.
WANTED_TIMES = 11.0


def joyful(name: str, size: str, threads: int, loss: str = "own") -> Callable[[], float]:
    """A callable that trains and evaluates one more epoch and returns its seconds. loss: of LOSSES."""
    settings = settings_of(size, *OVERRIDES[name], *of_loss(loss))
    as_in_a_run(threads)
    coach = build_coach(settings, dataset(settings))
    return lambda: seconds_of(lambda: coach.train_epoch(coach.epoch + 1))


def per_utterance(size: str, threads: int, loss: str = "own") -> Callable[[], float]:
    """A callable that trains and evaluates an epoch of a quarter of each split; returns the seconds of all, by utterances.
    loss: of LOSSES."""
    settings = settings_of(size)
    as_in_the_reference(threads)
    whole = dataset(settings)
    part = with_dialogues(whole, {name: math.ceil(len(d.lengths) / 4) for name, d in whole.splits.items()})
    trainer = build_per_utterance(settings, part, loss)
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
    ours = [name for name in seconds if name != SCALED]
    return shown + [figure(f"per-utterance / {n}", base / seconds[n], "times", WANTED_TIMES, goal) for n in ours]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    line = parser("epoch", __doc__)
    line.add_argument("--threads", type=int, default=2)
    line.add_argument("--repeats", type=int, default=3, help="epochs that are timed (default: %(default)s)")
    line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    line.add_argument("--loss", choices=LOSSES, default="own", help="that is trained (default: %(default)s, see above)")
    line.add_argument("--serve", help=SUPPRESS)
    given = line.parse_args(arguments)
    if given.serve:
        serve(
            per_utterance(given.size, given.threads, given.loss)
            if given.serve == SCALED
            else joyful(given.serve, given.size, given.threads, given.loss)
        )
        return
    names, notes = [RUNNING, FULL], [NO_BFLOAT16]
    if multiplies_bfloat16():
        names, notes = [*names, BF16], []
    names.append(SCALED)
    common = [f"--threads={given.threads}", f"--size={given.size}", f"--loss={given.loss}"]
    with serving("benchmarks.epoch", common, names) as contenders:
        for name, served in contenders.items():
            if name != SCALED:  # the peer has nothing to warm up, and an epoch of it is long
                served()
        measured = in_turn(contenders, dict.fromkeys(contenders, given.repeats))
    data = dataset(settings_of(given.size))
    counts = {name: utterances(data, name) for name in data.splits}
    about = {
        "size": given.size,
        "utterances": counts,
        "loss": given.loss,
        "repeats": given.repeats,
        "seconds": measured,
    }
    title = f"one epoch, size {given.size}, loss {given.loss}, {', '.join(f'{name} {n}' for name, n in counts.items())} utterances"
    shown = figures({name: median(found) for name, found in measured.items()})
    report(title, shown, about, given.json, notes, given.threads)


if __name__ == "__main__":
    main()
