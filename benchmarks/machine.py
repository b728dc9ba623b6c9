"""The machine's own limit: `python -m benchmarks.machine [--threads 2]`.

Measured: how many multiplications and additions a second torch's matrix product reaches on these threads, in float32
and, where the processor has instructions for it, in bfloat16: for each of a few square sizes the median time, and of
the sizes the best. A training step cannot take less than its counted operations divided by that peak.

Counted: the operations of one training step, forward, backward and optimizer, by torch's own counter. It sees matrix
products and attention (attention on the processor, which it does not know, is added here). It does not see elementwise
work, such as the exponentials of the inter-modal softmax, activations, dropout and Adam. So the limit is a lower bound,
and it is the limit of this way of computing the step: a step that needs fewer products has another one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.figures import Figure, figure, multiplies_bfloat16, parser, report
from benchmarks.measuring import in_turn, seconds_of
from joyful.training.coach import Coach
from joyful.training.optimizers import Optimizer

#: Sides of the square matrices; small for tests.
SIDES = {"reference": (1024, 1536, 2048, 3072), "small": (64, 128)}

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Peak:
    """Times matrix products, a round at a time, so that others can be measured in turn with it."""

    def __init__(self, precision: str, sides: Sequence[int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self._matrices = {
            side: [torch.randn(side, side, generator=generator).to(DTYPES[precision]) for _ in range(3)]
            for side in sides
        }
        self._rounds: dict[int, list[float]] = {side: [] for side in sides}

    def round(self) -> float:
        """Time each size (the best of two products, the first of which warms the caches); returns the seconds spent."""
        spent = 0.0
        for side, (a, b, out) in self._matrices.items():
            seconds = [seconds_of(partial(torch.mm, a, b, out=out)) for _ in range(2)]
            self._rounds[side].append(min(seconds))
            spent += sum(seconds)
        return spent

    def operations_per_second(self) -> float:
        """Of the best size, by its median time: a product of side n is 2 n^3 operations."""
        return max(2 * side**3 / statistics.median(seconds) for side, seconds in self._rounds.items())


def operations_of_a_step(coach: Coach) -> int:
    """Count the operations of the next training step. The coach is used up: its epoch ends where the step does.

    Compiled code runs uncompiled meanwhile, for the counter to see it. Raises RuntimeError where no step was seen.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    try:
        with patch.object(Optimizer, "step", _stop), torch.compiler.set_stance("force_eager"), counter:
            coach.train_epoch(coach.epoch + 1)
    except _Stepped:
        return int(counter.get_total_flops())
    raise RuntimeError("no optimizer step was seen; expected one in each epoch of a coach")


class _Stepped(BaseException):  # (not an error, so that no handler on the way takes it for one)
    """The first step has its gradients; the evaluation that would follow is not to be counted (nor can it be: inference mode)."""


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
    """Measure and print the peaks."""
    line = parser("machine", __doc__)
    line.add_argument("--threads", type=int, default=2)
    line.add_argument("--repeats", type=int, default=7, help="products of each size (default: %(default)s)")
    line.add_argument("--size", choices=SIDES, default="reference", help="of the matrices (default: %(default)s)")
    given = line.parse_args(arguments)
    torch.set_num_threads(given.threads)
    precisions = ["fp32", *(["bf16"] if multiplies_bfloat16() else [])]
    peaks = {precision: Peak(precision, SIDES[given.size]) for precision in precisions}
    in_turn({p: peak.round for p, peak in peaks.items()}, dict.fromkeys(peaks, given.repeats))
    rates = {precision: peak.operations_per_second() / 1e9 for precision, peak in peaks.items()}
    figures: list[Figure] = [
        figure(f"matrix products, {p}", rate, "GFLOP/s", rates["fp32"], "matrix products, fp32")
        for p, rate in rates.items()
    ]
    notes = [] if "bf16" in peaks else [NO_BFLOAT16]
    about = {"repeats": given.repeats, "sides": SIDES[given.size]}
    report("peak of matrix products", figures, about, given.json, notes, given.threads)


NO_BFLOAT16 = "bf16 is left out: this processor has neither amx_bf16 nor avx512_bf16"


if __name__ == "__main__":
    main()
