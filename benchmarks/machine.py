"""Benchmark of the peak rate of matrix products, and the operation count of a training step.

    python -m benchmarks.machine [--threads 2]

Measured: the operations per second of torch's matrix product on these threads, in float32 and, where the processor has
instructions for it, in bfloat16. Each of a few square sizes is timed; the peak is the best rate over the sizes, each by
its median time. A training step cannot take less time than its counted operations divided by that peak.

Counted: the operations of one training step (forward, backward and optimizer), by torch's own counter. It counts matrix
products and attention; the formulas for attention on the CPU, which it lacks, are added here. It does not count
elementwise work, such as the exponentials of the inter-modal softmax, activations, dropout and Adam. The limit is
therefore a lower bound for this way to compute the step. A step with fewer products has a lower limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.figures import Figure, figure, multiplies_bfloat16, parser, report
from benchmarks.measuring import in_turn, seconds_of
from joyful.training.coach import Coach

#: Sides of the square matrices; "small" is for tests.
SIDES = {"reference": (1024, 1536, 2048, 3072), "small": (64, 128)}

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peak:
    """Times matrix products in rounds, so that other contenders can be measured in turn with them."""

    def __init__(self, precision: str, sides: Sequence[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self._matrices = {
            side: [torch.randn(side, side, generator=generator).to(DTYPES[precision]) for _ in range(3)]
            for side in sides
        }
        self._rounds: dict[int, list[float]] = {side: [] for side in sides}

    def round(self) -> float:
        """Time each size as the faster of two products (the first warms the caches), and return the seconds spent."""
        spent = 0.0
        for side, (a, b, out) in self._matrices.items():
            seconds = [seconds_of(partial(torch.mm, a, b, out=out)) for _ in range(2)]
            self._rounds[side].append(min(seconds))
            spent += sum(seconds)
        return spent

    def operations_per_second(self) -> float:
        """Return the rate of the best size by its median time. A product of side n has 2 n^3 operations."""
        return max(2 * side**3 / statistics.median(seconds) for side, seconds in self._rounds.items())


def operations_of_a_step(coach: Coach) -> int:
    """Count the operations of the next training step.

    The epoch is aborted after the step, so do not use the coach again. Compiled code runs uncompiled here, because the
    counter does not see into it.

    Raises:
        RuntimeError: If the epoch has no optimizer step.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    hook = register_optimizer_step_pre_hook(_stop)
    try:
        with torch.compiler.set_stance("force_eager"), counter:
            coach.train_epoch(coach.epoch + 1)
    except _Stepped:
        return int(counter.get_total_flops())
    finally:
        hook.remove()
    raise RuntimeError(
        "operations of a step: expected an optimizer step in the epoch, got none; use a split with batches"
    )


class _Stepped(BaseException):  # not an Exception, so that no handler on the way catches it
    """Raised when the first step has its gradients, since the evaluation after it must not be counted."""


def _stop(*_: Any) -> None:
    raise _Stepped


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the peaks, and print them."""
    command_line = parser("machine", __doc__)
    command_line.add_argument("--threads", type=int, default=2)
    command_line.add_argument("--repeats", type=int, default=7, help="products of each size (default: %(default)s)")
    command_line.add_argument(
        "--size", choices=SIDES, default="reference", help="size of the matrices (default: %(default)s)"
    )
    options = command_line.parse_args(arguments)
    torch.set_num_threads(options.threads)
    precisions = ["fp32", *(["bf16"] if multiplies_bfloat16() else [])]
    peaks = {precision: Peak(precision, SIDES[options.size]) for precision in precisions}
    in_turn({p: peak.round for p, peak in peaks.items()}, dict.fromkeys(peaks, options.repeats))
    rates = {precision: peak.operations_per_second() / 1e9 for precision, peak in peaks.items()}
    figures: list[Figure] = [
        figure(f"matrix products, {p}", rate, "GFLOP/s", rates["fp32"], "matrix products, fp32")
        for p, rate in rates.items()
    ]
    notes = [] if "bf16" in peaks else [NO_BFLOAT16]
    about = {"repeats": options.repeats, "sides": SIDES[options.size]}
    report("peak of matrix products", figures, about, options.json, notes, options.threads)


NO_BFLOAT16 = "bf16 is left out: this processor has neither amx_bf16 nor avx512_bf16"


if __name__ == "__main__":
    main()
