"""Gives the per-utterance trainer joyful's random numbers, so that the two can be compared step by step.

Masks are functions of (seed, epoch, step, place) and of an utterance's place in the batch (joyful.randomness); here they
are drawn for the N utterances of a batch and laid out as the trainer's padded rows have them. Attention weights have no
dropout in joyful, so the trainer's is turned off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.per_utterance import Collated, PerUtteranceModel
from benchmarks.peers.per_utterance_graph import Chance
from joyful.model.kernels.dropout import dropout
from joyful.randomness import Draws


class SameDraws(Chance):
    """The random numbers of one batch at a time: `begin` names the step's draws before it is collated."""

    def __init__(self, model: PerUtteranceModel) -> None:
        self.draws, self.dropping = Draws(0, 0, 0), True
        self._padding_BT: Tensor | None = None
        model.chance = self
        model.register_forward_pre_hook(self._see)
        for number, layer in enumerate(model.context.layers):
            assert isinstance(layer, nn.TransformerEncoderLayer)
            layer.self_attn.dropout = 0.0
            for part, place in (("dropout1", "attention"), ("dropout", "hidden"), ("dropout2", "feedforward")):
                self._replace(layer, part, f"context.{number}.{place}")
        self._replace(model, "dropout", "classifier")

    def begin(self, draws: Draws) -> None:
        """The next batch draws from these."""
        self.draws = draws

    def keep(self, count: int, drop: float, place: str) -> Tensor:
        return self.draws.keep((count,), drop, place, "cpu", "augmentation")

    def uniform(self, count: int, place: str) -> Tensor:
        return self.draws.uniform((count,), place, "cpu", "augmentation")

    def drop(self, x: Tensor, share: float, place: str) -> Tensor:
        """Dropout of (N, D), or of padded rows (B, T, D) by the masks of their utterances."""
        if x.ndim == 2:
            return dropout(x, share, self.draws, place)
        assert self._padding_BT is not None
        present_BT = ~self._padding_BT
        kept = torch.ones_like(x)
        kept[present_BT] = dropout(kept[present_BT], share, self.draws, place)
        return x * kept

    def _see(self, module: nn.Module, given: tuple[Collated, ...]) -> None:
        self._padding_BT = given[0].padding

    def _replace(self, module: nn.Module, name: str, place: str) -> None:
        share = getattr(module, name).p
        setattr(module, name, _Dropout(lambda x: self.drop(x, share, place)))


class _Dropout(nn.Module):
    def __init__(self, drop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) if self.training else x
