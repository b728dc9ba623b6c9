"""Benchmark of the kernels: a training step with each kernel against the same step with its plain form.

    python -m benchmarks.kernels [--size reference] [--kernels dropout,relational] [--threads 2] [--repeats 5]

Each kernel of joyful/model/kernels is replaced by the plain form of its module, one at a time. The step with all kernels
and the step with the plain form run in turn, each in a separate process. The figures are the ratio of their processor
seconds, which other work on the machine disturbs little, and the difference of their peak memory: what the kernel saves.
With --size reference a step trains one batch of IEMOCAP-shaped dialogues at full widths; with --size small it is the
mean step of an epoch of the default run (model=small on the embedded data). The plain inter-modal softmax stores a
matrix per utterance; at full size it is measured on 4 dialogues.
"""

from __future__ import annotations

import time
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.figures import Figure, figure, parser, report
from benchmarks.measuring import in_turn, serve, serving
from benchmarks.workload import build_coach, configure_torch_for_run, dataset, one_batch_overrides, settings_of
from joyful.config import Settings, check
from joyful.model import joyful as model
from joyful.model.kernels import (
    attention_blocks,
    contrastive_blocks,
    dialogue_attention,
    dropout,
    intermodal,
    recurrence,
    relational,
)
from tests.support.runs import compose_plain


@dataclass(frozen=True)
class Kernel:
    """A kernel and its plain form.

    Attributes:
        plain: Names in joyful.model.joyful -> their plain forms.
        overrides: Overrides of the run, if the default run does not use the kernel.
        dialogues: Dialogues of the batch at full size; None: the default.
    """

    plain: dict[str, Callable[..., Any]]
    overrides: tuple[str, ...] = ()
    dialogues: int | None = None


KERNELS = {
    "intermodal": Kernel({"intermodal_softmax": intermodal.plain_intermodal_softmax}, dialogues=4),
    "contrastive_blocks": Kernel({"info_nce_of_views": contrastive_blocks.plain_info_nce_of_views}),
    "dialogue_attention": Kernel(
        {"dialogue_attention": dialogue_attention.plain_dialogue_attention}, ("model.context=transformer",)
    ),
    "recurrence": Kernel({"recurrent_layer": recurrence.packed_layer}, ("model.context=gru",)),
    "attention_blocks": Kernel({"block_attention": attention_blocks.plain_attention}),
    "relational": Kernel({"relational_convolution": relational.plain_relational_convolution}),
    "dropout": Kernel({"dropout": dropout.plain_dropout, "relu_dropout_": dropout.plain_relu_dropout}),
}

SIZES = ("reference", "small")
FAST, PLAIN = "kernel", "plain"


def settings_for(name: str, size: str) -> Settings:
    """Return the settings of the run in which a kernel is measured."""
    kernel = KERNELS[name]
    if size == "small":
        few = "data.synthetic.dialogues={train: 120, dev: 1, test: 1}"
        arguments = ("device=cpu", "training.train_metrics=running", few, *kernel.overrides)
        return check(compose_plain(arguments)[0])
    return settings_of("reference", *one_batch_overrides("reference", kernel.dialogues), *kernel.overrides)


def contender(name: str, form: str, size: str, threads: int) -> Callable[[], float]:
    """Return a callable that trains an epoch and returns the processor seconds of a step. form: FAST or PLAIN."""
    if form == PLAIN:
        for attribute, plain in KERNELS[name].plain.items():
            setattr(model, attribute, plain)
    configure_torch_for_run(threads)
    settings = settings_for(name, size)
    coach = build_coach(settings, dataset(settings))

    def step() -> float:
        clock = time.process_time()
        coach.train_epoch(coach.epoch + 1)
        return (time.process_time() - clock) / coach.steps_per_epoch

    return step


def measure(name: str, size: str, threads: int, repeats: int) -> list[Figure]:
    """Return the figures of one kernel."""
    arguments = [f"--threads={threads}", f"--size={size}", f"--kernels={name}"]
    with serving("benchmarks.kernels", arguments, (FAST, PLAIN)) as contenders:
        for warm_up in contenders.values():
            warm_up()
        seconds = {
            form: median(values) for form, values in in_turn(contenders, dict.fromkeys(contenders, repeats)).items()
        }
        gib = {form: served.peak_memory_gib() for form, served in contenders.items()}
    fast = f"{name}, step with the kernel"
    return [
        figure(fast, seconds[FAST], "s", seconds[PLAIN], f"{name}, step with the plain form"),
        figure(f"{name}, step with the plain form", seconds[PLAIN], "s", seconds[FAST], fast),
        figure(f"{name}, peak memory with the kernel", gib[FAST], "GiB", gib[PLAIN], "that with the plain form"),
        figure(f"{name}, memory saved", gib[PLAIN] - gib[FAST], "GiB", gib[PLAIN], "that with the plain form"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the figures."""
    command_line = parser("kernels", __doc__)
    command_line.add_argument("--threads", type=int, default=2)
    command_line.add_argument("--repeats", type=int, default=5, help="steps to time (default: %(default)s)")
    command_line.add_argument("--size", choices=SIZES, default="reference", help="default: %(default)s")
    command_line.add_argument("--kernels", default=",".join(KERNELS), help="default: %(default)s")
    command_line.add_argument("--serve", help=SUPPRESS)
    options = command_line.parse_args(arguments)
    names = [name for name in options.kernels.split(",") if name]
    if set(names) - set(KERNELS):
        command_line.error(f"--kernels: expected some of {', '.join(KERNELS)}, got {options.kernels}")
    if options.serve:
        serve(contender(names[0], options.serve, options.size, options.threads))
        return
    shown = [line for name in names for line in measure(name, options.size, options.threads, options.repeats)]
    about = {"size": options.size, "kernels": names, "repeats": options.repeats}
    report(f"kernels, size {options.size}", shown, about, options.json, [], options.threads)


if __name__ == "__main__":
    main()
