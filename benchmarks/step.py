"""Seconds of one training step: joyful against its peers and the machine's limit, in turn, each in a process of its own.

    python -m benchmarks.step [--threads 2] [--dialogues 32] [--repeats 5] [--loss own]
        [--peers per_utterance,geometric,limit]

One batch of IEMOCAP-shaped dialogues at full widths (--size reference), random numbers and clipping included, evaluation
not. joyful trains its defaults (the reconstruction loss of all utterances), the per-utterance trainer the reference's
(that of the last dialogue, which is less work); --loss reference or joyful has all train one. All begin with the same
weights; each is warmed up by one step. Peak memory is the most that such a process had resident: interpreter, torch and
data included.

The per-utterance trainer takes some 20 s a step at full size; --peer-repeats sets how often it is measured.
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
    as_in_a_run,
    as_in_the_reference,
    build_coach,
    build_per_utterance,
    dataset,
    of_loss,
    one_batch,
    settings_of,
    training_seconds,
    utterances,
)

PEERS = ("per_utterance", "geometric", "limit")
JOYFUL = {"fp32": "joyful, fp32", "bf16": "joyful, bf16"}
PER_UTTERANCE, GEOMETRIC = "per-utterance trainer", "joyful with torch_geometric's layers, fp32"

#: What full size is to reach on two threads: times the per-utterance trainer, share of the limit, GiB.
WANTED_TIMES, WANTED_SHARE, ALLOWED_GIB = {"fp32": 10.0, "bf16": 16.0}, 0.65, 1.5


def contender(name: str, size: str, train: int | None, threads: int, loss: str = "own") -> Callable[[], float]:
    """A callable that trains one step and returns its seconds. name: of JOYFUL, PER_UTTERANCE or GEOMETRIC. loss: of LOSSES."""
    precision = f"training.precision={name[-4:] if 'bf16' in name else 'fp32'}"
    settings = settings_of(size, *one_batch(size, train), precision, *of_loss(loss))
    data = dataset(settings)
    if name == PER_UTTERANCE:
        as_in_the_reference(threads)
        trainer = build_per_utterance(settings, data, loss)
        return lambda: seconds_of(lambda: trainer.step(trainer.splits["train"]))
    change = None
    if name == GEOMETRIC:
        from benchmarks.peers.geometric import geometric

        change = geometric
    as_in_a_run(threads)
    coach = build_coach(settings, data, change)
    return lambda: training_seconds(coach)


def measure(
    size: str, train: int | None, threads: int, repeats: Mapping[str, int], peers: Sequence[str], loss: str
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Median seconds of a step and peak memory in GiB, by contender; and peak operations a second, by precision, with those
    of a step. repeats: by contender.
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
        as_in_a_run(threads)
        peaks = {precision: Peak(precision, SIDES[size]) for precision in precisions}
        turns |= {f"peak {precision}": peak.round for precision, peak in peaks.items()}
        counts |= {f"peak {precision}": max(repeats.values()) for precision in peaks}
    seconds = {name: median(found) for name, found in in_turn(turns, counts).items() if name in contenders}
    if peaks:
        settings = settings_of(size, *one_batch(size, train), *of_loss(loss))
        rates = {precision: peak.operations_per_second() for precision, peak in peaks.items()}
        rates["step"] = float(operations_of_a_step(build_coach(settings, dataset(settings))))
    return seconds, rates


def figures(seconds: Mapping[str, float], rates: Mapping[str, float], gib: Mapping[str, float]) -> list[Figure]:
    """The figures of a measurement. seconds, gib: by contender. rates: of `measure`."""
    base = seconds.get(PER_UTTERANCE, seconds[JOYFUL["fp32"]])
    to = PER_UTTERANCE if PER_UTTERANCE in seconds else JOYFUL["fp32"]
    steps = {name: figure(f"step, {name}", value, "s", base, f"step, {to}") for name, value in seconds.items()}
    shown = list(steps.values())
    for precision, name in JOYFUL.items():
        if name not in seconds:
            continue
        if PER_UTTERANCE in seconds:
            wanted = WANTED_TIMES[precision]
            times, goal = seconds[PER_UTTERANCE] / seconds[name], f"the {wanted:g} times wanted at full size"
            shown.append(figure(f"per-utterance trainer / {name}", times, "times", wanted, goal))
        if rates:
            limit = against(f"limit, {precision}", rates["step"] / rates[precision], steps[name])
            goal = f"the {WANTED_SHARE:g} wanted at full size"
            share = figure(f"share of the limit, {name}", limit.ratio, "", WANTED_SHARE, goal)
            rate = figure(f"peak, {precision}", rates[precision] / 1e9, "GFLOP/s", rates["fp32"] / 1e9, "peak, fp32")
            shown += [rate, limit, share]
    if rates:
        second = "one second at the peak, fp32"
        shown.append(figure("operations of a step", rates["step"] / 1e9, "GFLOP", rates["fp32"] / 1e9, second))
    allowed = f"the {ALLOWED_GIB:g} GiB allowed at full size"
    return shown + [figure(f"peak memory, {name}", value, "GiB", ALLOWED_GIB, allowed) for name, value in gib.items()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    line = parser("step", __doc__)
    line.add_argument("--threads", type=int, default=2)
    line.add_argument("--dialogues", type=int, help="of the batch (default: 32, of size small 8)")
    line.add_argument("--repeats", type=int, default=5, help="steps that are timed (default: %(default)s)")
    line.add_argument("--peer-repeats", type=int, help="of the per-utterance trainer (default: as --repeats)")
    line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    line.add_argument("--loss", choices=LOSSES, default="own", help="that is trained (default: %(default)s, see above)")
    line.add_argument("--peers", default=",".join(PEERS), help="default: %(default)s; an empty word for none")
    line.add_argument("--serve", help=SUPPRESS)
    given = line.parse_args(arguments)
    peers = [name for name in given.peers.split(",") if name]
    if set(peers) - set(PEERS):
        line.error(f"--peers: expected some of {', '.join(PEERS)}, got {given.peers}")
    if given.serve:
        serve(contender(given.serve, given.size, given.dialogues, given.threads, given.loss))
        return
    repeats, notes = chosen(peers, given.repeats, given.peer_repeats or given.repeats)
    seconds, gib, rates = measure(given.size, given.dialogues, given.threads, repeats, peers, given.loss)
    data = dataset(settings_of(given.size, *one_batch(given.size, given.dialogues)))
    n_utterances, n_dialogues = utterances(data), len(data.splits["train"].lengths)
    shown = figures(seconds, rates, gib)
    about = {
        "size": given.size,
        "dialogues": n_dialogues,
        "utterances": n_utterances,
        "loss": given.loss,
        "repeats": repeats,
    }
    title = (
        f"one training step, size {given.size}, loss {given.loss}, {n_dialogues} dialogues, {n_utterances} utterances"
    )
    report(title, shown, about, given.json, notes, given.threads)


def chosen(peers: Sequence[str], repeats: int, peer_repeats: int) -> tuple[dict[str, int], list[str]]:
    """How often each contender is measured, and what is left out and why."""
    found, notes = {JOYFUL["fp32"]: repeats}, []
    if multiplies_bfloat16():
        found[JOYFUL["bf16"]] = repeats
    else:
        notes.append(NO_BFLOAT16)
    if "geometric" in peers:
        try:
            import benchmarks.peers.geometric  # noqa: F401

            found[GEOMETRIC] = repeats
        except ImportError as error:
            notes.append(f"torch_geometric's layers are left out: {error}; pip install 'joyful[benchmarks]' has them")
    if "per_utterance" in peers:
        found[PER_UTTERANCE] = peer_repeats
    return found, notes


if __name__ == "__main__":
    main()
