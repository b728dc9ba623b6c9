"""A two-way GRU over dialogues of different lengths, for the processor: what nn.GRU computes, in a part of its time.

    r = sigmoid(a_r + U_r h + c_r)    z = sigmoid(a_z + U_z h + c_z)    n = tanh(a_n + r * (U_n h + c_n))    h' = n + z (h - n)

(Cho et al. 2014, with the reset gate behind the product as in cuDNN). nn.GRU's own way on the processor adds a gradient of the
weights at every step of time and computes the directions one after another. Here the products with the input, a = W x + b, are
one multiplication; both directions go through time together, in one batched multiplication a step; and the gradients of the
weights are one multiplication at the end. Nothing is padded: dialogues are sorted by length, and a step computes those that
still run.

Shape letters: B dialogues, N utterances, D input width, H hidden, T steps (length of the longest dialogue).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Order:
    """Utterances sorted by step of time, then by dialogue, the longest first.

    of: (2, N) the utterance at each place, for the way forwards and back; place: (2, N) its inverses; sizes: (T,) dialogues
    that still run at each step.
    """

    of: Tensor
    place: Tensor
    sizes: tuple[int, ...]


def two_way_gru(layer: nn.GRU, x_ND: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Hidden states (N, 2 H), forwards then back, of one two-way layer of nn.GRU over dialogues of these lengths, x (N, D).

    Computes in the weights' precision, whatever autocast says: a rounding error would be carried through the dialogue. Gradients
    of first order only.
    """
    order, parameters = _order(lengths), dict(layer.named_parameters())

    def both_ways(name: str) -> list[Tensor]:
        return [parameters[name], parameters[f"{name}_reverse"]]

    with torch.autocast(x_ND.device.type, enabled=False):
        x_ND = x_ND.to(parameters["weight_ih_l0"].dtype)
        weight, bias = (torch.cat(both_ways(name)) for name in ("weight_ih_l0", "bias_ih_l0"))
        forwards, back = torch.addmm(bias, x_ND, weight.T).chunk(2, dim=1)
        inputs = torch.stack([forwards.index_select(0, order.of[0]), back.index_select(0, order.of[1])])
        recurrent, offset = (torch.stack(both_ways(name)) for name in ("weight_hh_l0", "bias_hh_l0"))
        states: Tensor = _Recurrence.apply(inputs, recurrent, offset, order.sizes)
    return torch.cat([states[way].index_select(0, order.place[way]) for way in (0, 1)], dim=1)


class _Recurrence(torch.autograd.Function):
    """inputs: (2, N, 3 H) by step of time, gates r, z, n; weight: (2, 3 H, H); bias: (2, 3 H) -> states (2, N, H)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, sizes: tuple[int, ...]) -> Tensor:
        h = weight.shape[2]
        ways, n = inputs.shape[:2]
        gates = inputs.new_empty(ways, n, 3 * h)  # r, z, n of every utterance
        candidate = inputs.new_empty(ways, n, h)  # U_n h + c_n
        states = inputs.new_empty(ways, n, h)
        before = inputs.new_zeros(ways, sizes[0], h)
        turned, offset = weight.transpose(1, 2), bias.unsqueeze(1)
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            before = before[:, :size]
            products = torch.baddbmm(offset, before, turned)
            rz, new = gates[:, now, : 2 * h], gates[:, now, 2 * h :]
            torch.add(inputs[:, now, : 2 * h], products[:, :, : 2 * h], out=rz).sigmoid_()
            candidate[:, now] = products[:, :, 2 * h :]
            torch.addcmul(inputs[:, now, 2 * h :], rz[:, :, :h], products[:, :, 2 * h :], out=new).tanh_()
            before = torch.lerp(new, before, rz[:, :, h:])
            states[:, now] = before
            start += size
        ctx.sizes = sizes
        ctx.save_for_backward(weight, gates, candidate, states)
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, gates, candidate, states = ctx.saved_tensors
        h = weight.shape[2]
        r, z, new = gates.split(h, dim=2)
        # the state before each: that of the same dialogue one step of time earlier, zeros at the first
        before = torch.zeros_like(states)
        starts = np.cumsum(ctx.sizes) - ctx.sizes
        for start, earlier, size in zip(starts[1:], starts, ctx.sizes[1:], strict=False):
            before[:, start : start + size] = states[:, earlier : earlier + size]
        # factors of the gradient of h' at the arguments of tanh and of the sigmoids, all steps at once
        to_new = (1 - z) * (1 - new.square())
        to_z = (before - new) * z * (1 - z)
        to_r = candidate * r * (1 - r)
        inner = torch.empty_like(gates)  # gradient at U h + c
        outer_new = torch.empty_like(states)  # gradient at a_n, which the reset gate does not scale
        carried = gradient.new_zeros(gradient.shape[0], ctx.sizes[0], h)
        for start, size in zip(starts[::-1], ctx.sizes[::-1], strict=True):
            now = slice(start, start + size)
            total = carried[:, :size] + gradient[:, now]
            at_new = torch.mul(total, to_new[:, now], out=outer_new[:, now])
            torch.mul(at_new, to_r[:, now], out=inner[:, now, :h])
            torch.mul(total, to_z[:, now], out=inner[:, now, h : 2 * h])
            torch.mul(at_new, r[:, now], out=inner[:, now, 2 * h :])
            carried[:, :size] = torch.baddbmm(total * z[:, now], inner[:, now], weight)
        grad_weight = torch.bmm(inner.transpose(1, 2), before)
        return torch.cat([inner[:, :, : 2 * h], outer_new], dim=2), grad_weight, inner.sum(dim=1), None


@lru_cache(maxsize=64)
def _order(lengths: tuple[int, ...]) -> _Order:
    counts = np.asarray(lengths)
    starts = np.cumsum(counts) - counts
    longest_first = np.argsort(-counts, kind="stable")
    counts, starts = counts[longest_first], starts[longest_first]
    sizes = [int((counts > step).sum()) for step in range(int(counts[0]))]
    forwards = np.concatenate([starts[:size] + step for step, size in enumerate(sizes)])
    back = np.concatenate([(starts + counts - 1)[:size] - step for step, size in enumerate(sizes)])
    of = np.stack([forwards, back])
    with torch.inference_mode(False):  # they are kept, and training could not use what evaluation has made
        return _Order(torch.from_numpy(of), torch.from_numpy(np.argsort(of, axis=1)), tuple(sizes))
