"""Benchmark of one training step: joyful against its peers and the limit of the machine.

    python -m benchmarks.step [--threads 2] [--dialogues 32] [--repeats 5] [--loss own]
        [--peers per_utterance,geometric,limit]

A step trains one batch of IEMOCAP-shaped dialogues at full widths (--size reference). Random numbers and gradient
clipping are included, evaluation is not. The contenders run in turn, each in a separate process, and start with the
same weights. Each has one step of warm-up. By default joyful trains the reconstruction loss of all utterances and the
per-utterance trainer that of the last dialogue, as the reference does, which is less work; with --loss reference or
--loss joyful all train the same loss. Peak memory is the peak resident memory of such a process, with interpreter,
torch and data.

The per-utterance trainer takes about 20 s per step at full size. --peer-repeats sets how often it is measured.
"""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.figures import Figure, against, figure, multiplies_bfloat16, parser, report
from benchmarks.machine import NO_BFLOAT16, SIDES, Peak, operations_of_a_step
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
    one_batch_overrides,
    settings_of,
    training_seconds,
    utterances,
)

PEERS = ("per_utterance", "geometric", "limit")
JOYFUL = {"fp32": "joyful, fp32", "bf16": "joyful, bf16"}
PER_UTTERANCE, GEOMETRIC = "per-utterance trainer", "joyful with torch_geometric's layers, fp32"

#: Targets at full size on two threads: speed relative to the per-utterance trainer, share of the limit, peak memory.
TARGET_SPEEDUP, TARGET_SHARE, MAXIMUM_GIB = {"fp32": 10.0, "bf16": 16.0}, 0.65, 1.5


def contender(name: str, size: str, train: int | None, threads: int, loss: str = "own") -> Callable[[], float]:
    """Return a callable that trains one step and returns its seconds.

    Args:
        name: A value of JOYFUL, PER_UTTERANCE or GEOMETRIC.
        size: One of SIZES.
        train: Dialogues of the batch; None: the default of the size.
        threads: Threads of torch.
        loss: One of LOSSES.
    """
    precision = f"training.precision={name[-4:] if 'bf16' in name else 'fp32'}"
    settings = settings_of(size, *one_batch_overrides(size, train), precision, *loss_overrides(loss))
    data = dataset(settings)
    if name == PER_UTTERANCE:
        configure_torch_for_reference(threads)
        trainer = build_per_utterance(settings, data, loss)
        return lambda: seconds_of(lambda: trainer.step(trainer.splits["train"]))
    change = None
    if name == GEOMETRIC:
        from benchmarks.peers.geometric import geometric

        change = geometric
    configure_torch_for_run(threads)
    coach = build_coach(settings, data, change)
    return lambda: training_seconds(coach)


def measure(
    size: str, train: int | None, threads: int, repeats: Mapping[str, int], peers: Sequence[str], loss: str
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Measure all contenders. repeats: number of steps of each contender.

    Returns:
        Median seconds of a step by contender, peak memory in GiB by contender, and rates: the peak operations per
            second by
        precision, and the operations of a step as "step".
    """
    common = [f"--threads={threads}", f"--size={size}", f"--loss={loss}", *([f"--dialogues={train}"] if train else [])]
    with serving("benchmarks.step", common, repeats) as contenders:
        for step in contenders.values():
            step()
        seconds, rates = _in_turn(contenders, size, train, threads, repeats, peers, loss)
        return seconds, {name: served.peak_memory_gib() for name, served in contenders.items()}, rates


def _in_turn(
    contenders: Mapping[str, Callable[[], float]],
    size: str,
    train: int | None,
    threads: int,
    repeats: Mapping[str, int],
    peers: Sequence[str],
    loss: str,
) -> tuple[dict[str, float], dict[str, float]]:
    rates: dict[str, float] = {}
    turns = dict(contenders)
    counts = dict(repeats)
    peaks = {}
    if "limit" in peers:
        precisions = [precision for precision, name in JOYFUL.items() if name in contenders]
        configure_torch_for_run(threads)
        peaks = {precision: Peak(precision, SIDES[size]) for precision in precisions}
        turns |= {f"peak {precision}": peak.round for precision, peak in peaks.items()}
        counts |= {f"peak {precision}": max(repeats.values()) for precision in peaks}
    seconds = {name: median(values) for name, values in in_turn(turns, counts).items() if name in contenders}
    if peaks:
        settings = settings_of(size, *one_batch_overrides(size, train), *loss_overrides(loss))
        rates = {precision: peak.operations_per_second() for precision, peak in peaks.items()}
        rates["step"] = float(operations_of_a_step(build_coach(settings, dataset(settings))))
    return seconds, rates


def figures(seconds: Mapping[str, float], rates: Mapping[str, float], gib: Mapping[str, float]) -> list[Figure]:
    """Return the figures of a measurement. seconds, gib: by contender. rates: see `measure`."""
    base = seconds.get(PER_UTTERANCE, seconds[JOYFUL["fp32"]])
    to = PER_UTTERANCE if PER_UTTERANCE in seconds else JOYFUL["fp32"]
    steps = {name: figure(f"step, {name}", value, "s", base, f"step, {to}") for name, value in seconds.items()}
    shown = list(steps.values())
    for precision, name in JOYFUL.items():
        if name not in seconds:
            continue
        if PER_UTTERANCE in seconds:
            target = TARGET_SPEEDUP[precision]
            times, goal = seconds[PER_UTTERANCE] / seconds[name], f"the target of {target:g} times at full size"
            shown.append(figure(f"per-utterance trainer / {name}", times, "times", target, goal))
        if rates:
            limit = against(f"limit, {precision}", rates["step"] / rates[precision], steps[name])
            goal = f"the target of {TARGET_SHARE:g} at full size"
            share = figure(f"share of the limit, {name}", limit.ratio, "", TARGET_SHARE, goal)
            rate = figure(f"peak, {precision}", rates[precision] / 1e9, "GFLOP/s", rates["fp32"] / 1e9, "peak, fp32")
            shown += [rate, limit, share]
    if rates:
        second = "one second at the peak, fp32"
        shown.append(figure("operations of a step", rates["step"] / 1e9, "GFLOP", rates["fp32"] / 1e9, second))
    maximum = f"the limit of {MAXIMUM_GIB:g} GiB at full size"
    return shown + [figure(f"peak memory, {name}", value, "GiB", MAXIMUM_GIB, maximum) for name, value in gib.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    command_line = parser("step", __doc__)
    command_line.add_argument("--threads", type=int, default=2)
    command_line.add_argument("--dialogues", type=int, help="dialogues per batch (default: 32; 8 with --size small)")
    command_line.add_argument("--repeats", type=int, default=5, help="steps to time (default: %(default)s)")
    command_line.add_argument(
        "--peer-repeats", type=int, help="steps of the per-utterance trainer (default: as --repeats)"
    )
    command_line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    command_line.add_argument(
        "--loss", choices=LOSSES, default="own", help="loss to train (default: %(default)s, see above)"
    )
    command_line.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s; an empty string for none")
    command_line.add_argument("--serve", help=SUPPRESS)
    options = command_line.parse_args(arguments)
    peers = [name for name in options.peers.split(",") if name]
    if set(peers) - set(PEERS):
        command_line.error(f"--peers: expected some of {', '.join(PEERS)}, got {options.peers}")
    if options.serve:
        serve(contender(options.serve, options.size, options.dialogues, options.threads, options.loss))
        return
    repeats, notes = choose_contenders(peers, options.repeats, options.peer_repeats or options.repeats)
    seconds, gib, rates = measure(options.size, options.dialogues, options.threads, repeats, peers, options.loss)
    data = dataset(settings_of(options.size, *one_batch_overrides(options.size, options.dialogues)))
    n_utterances, n_dialogues = utterances(data), len(data.splits["train"].lengths)
    shown = figures(seconds, rates, gib)
    about = {
        "size": options.size,
        "dialogues": n_dialogues,
        "utterances": n_utterances,
        "loss": options.loss,
        "repeats": repeats,
    }
    sizes = f"{n_dialogues} dialogues, {n_utterances} utterances"
    title = f"one training step, size {options.size}, loss {options.loss}, {sizes}"
    report(title, shown, about, options.json, notes, options.threads)


def choose_contenders(peers: Sequence[str], repeats: int, peer_repeats: int) -> tuple[dict[str, int], list[str]]:
    """Return the number of steps of each contender, and a note for each contender that is left out."""
    counts, notes = {JOYFUL["fp32"]: repeats}, []
    if multiplies_bfloat16():
        counts[JOYFUL["bf16"]] = repeats
    else:
        notes.append(NO_BFLOAT16)
    if "geometric" in peers:
        try:
            import benchmarks.peers.geometric  # noqa: F401

            counts[GEOMETRIC] = repeats
        except ImportError as error:
            notes.append(f"torch_geometric's layers are left out: {error}; run pip install 'joyful-sweeps[benchmarks]'")
    if "per_utterance" in peers:
        counts[PER_UTTERANCE] = peer_repeats
    return counts, notes


if __name__ == "__main__":
    main()
