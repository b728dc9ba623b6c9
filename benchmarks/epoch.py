"""Benchmark of a whole epoch with the evaluation of train, dev and test: joyful against the per-utterance trainer.

    python -m benchmarks.epoch [--threads 2] [--repeats 3] [--loss own] [--json FILE]
    python -m benchmarks.epoch --model small [--beside CHECKOUT] [--threads 1] [--repeats 5] [--json FILE]

joyful averages its training batches for the train rows (training.train_metrics=running). A second figure evaluates the
training split again ("full"), as the per-utterance trainer does. The per-utterance trainer is measured on a quarter of
the dialogues of each split. Its cost is proportional to the number of utterances, so its seconds are scaled by them,
and the name of its figure says so. By default it trains the reference's loss and joyful its own, which is more work;
with --loss reference or --loss joyful both train the same loss. The contenders run in turn, and medians are reported.
joyful's first epoch is a warm-up; the per-utterance trainer has none.

With --model small, the default run is measured on the embedded data, and experiment=meld if JOYFUL_DATA names a folder that
has MELD. Training and evaluation are separate figures. --beside names another checkout of joyful, such as one that
`git worktree add` made. Its epochs run in turn with those of this one, and the figures are compared.
"""

from __future__ import annotations

import math
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import small_epoch
from benchmarks.figures import Figure, figure, multiplies_bfloat16, parser, report
from benchmarks.machine import NO_BFLOAT16
from benchmarks.measuring import in_turn, seconds_of, serve, serving
from benchmarks.workload import (
    LOSSES,
    SIZES,
    build_coach,
    build_per_utterance,
    configure_torch_for_reference,
    configure_torch_for_run,
    dataset,
    loss_overrides,
    settings_of,
    take_dialogues,
    utterances,
)

RUNNING, FULL, BF16 = "joyful, fp32", "joyful, fp32, train evaluated again", "joyful, bf16"
SCALED = "per-utterance trainer, scaled from a quarter of the dialogues"
OVERRIDES = {
    RUNNING: (),
    FULL: ("training.train_metrics=full",),
    BF16: ("training.precision=bf16",),
}

#: Target at full size on two threads: how many times faster than the per-utterance trainer.
TARGET_SPEEDUP = 11.0


def joyful(name: str, size: str, threads: int, loss: str = "own") -> Callable[[], float]:
    """Return a callable that trains and evaluates the next epoch and returns its seconds. loss: one of LOSSES."""
    settings = settings_of(size, *OVERRIDES[name], *loss_overrides(loss))
    configure_torch_for_run(threads)
    coach = build_coach(settings, dataset(settings))
    return lambda: seconds_of(lambda: coach.train_epoch(coach.epoch + 1))


def per_utterance(size: str, threads: int, loss: str = "own") -> Callable[[], float]:
    """Return a callable that trains and evaluates an epoch on a quarter of each split, and returns scaled seconds.

    The seconds are scaled to the whole splits by the number of utterances. loss: one of LOSSES.
    """
    settings = settings_of(size)
    configure_torch_for_reference(threads)
    whole = dataset(settings)
    part = take_dialogues(whole, {name: math.ceil(len(d.lengths) / 4) for name, d in whole.splits.items()})
    trainer = build_per_utterance(settings, part, loss)
    # The train split is used twice (training and evaluation). The cost of each is proportional to the utterances.
    scale = {name: utterances(whole, name) / utterances(part, name) for name in whole.splits}

    def one_epoch() -> float:
        trained = seconds_of(trainer.train)
        evaluated = {name: seconds_of(partial(trainer.evaluate, name)) for name in whole.splits}
        return scale["train"] * trained + sum(scale[name] * seconds for name, seconds in evaluated.items())

    return one_epoch


def figures(seconds: Mapping[str, float]) -> list[Figure]:
    """Return the figures. seconds: the median of each contender."""
    base = seconds[SCALED]
    shown = [figure(f"epoch, {name}", value, "s", base, f"epoch, {SCALED}") for name, value in seconds.items()]
    goal = f"the target of {TARGET_SPEEDUP:g} times at full size"
    ours = [name for name in seconds if name != SCALED]
    return shown + [figure(f"per-utterance / {n}", base / seconds[n], "times", TARGET_SPEEDUP, goal) for n in ours]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    command_line = parser("epoch", __doc__)
    command_line.add_argument(
        "--model", choices=("reference", "small"), default="reference", help="default: %(default)s"
    )
    command_line.add_argument("--beside", type=Path, metavar="CHECKOUT", help="with --model small: compare with it")
    command_line.add_argument("--threads", type=int, help="default: 2, with --model small 1")
    command_line.add_argument("--repeats", type=int, help="epochs to time (default: 3, with --model small 5)")
    command_line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    command_line.add_argument(
        "--loss", choices=LOSSES, default="own", help="loss to train (default: %(default)s, see above)"
    )
    command_line.add_argument("--serve", help=SUPPRESS)
    options = command_line.parse_args(arguments)
    small = options.model == "small"
    if options.beside and not (options.beside / "run.py").is_file():
        command_line.error(f"--beside: expected a checkout of joyful, got {options.beside}, which has no run.py")
    if options.beside and not small:
        command_line.error("--beside: expected with --model small; add --model small")
    options.threads = options.threads or (1 if small else 2)
    options.repeats = options.repeats or (5 if small else 3)
    if small:
        small_epoch.measure(options.size, options.threads, options.repeats, options.beside, options.json)
    else:
        _against_per_utterance(options)


def _against_per_utterance(options: Namespace) -> None:
    if options.serve:
        serve(
            per_utterance(options.size, options.threads, options.loss)
            if options.serve == SCALED
            else joyful(options.serve, options.size, options.threads, options.loss)
        )
        return
    names, notes = [RUNNING, FULL], [NO_BFLOAT16]
    if multiplies_bfloat16():
        names, notes = [*names, BF16], []
    names.append(SCALED)
    common = [f"--threads={options.threads}", f"--size={options.size}", f"--loss={options.loss}"]
    with serving("benchmarks.epoch", common, names) as contenders:
        for name, served in contenders.items():
            if name != SCALED:  # the per-utterance trainer has nothing to warm up, and its epochs are long
                served()
        measured = in_turn(contenders, dict.fromkeys(contenders, options.repeats))
    data = dataset(settings_of(options.size))
    counts = {name: utterances(data, name) for name in data.splits}
    about = {
        "size": options.size,
        "utterances": counts,
        "loss": options.loss,
        "repeats": options.repeats,
        "seconds": measured,
    }
    sizes = ", ".join(f"{name} {n}" for name, n in counts.items())
    title = f"one epoch, size {options.size}, loss {options.loss}, {sizes} utterances"
    shown = figures({name: median(values) for name, values in measured.items()})
    report(title, shown, about, options.json, notes, options.threads)


if __name__ == "__main__":
    main()
