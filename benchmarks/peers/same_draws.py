"""joyful's random numbers for the per-utterance trainer, to compare the two step by step.

Masks are functions of (seed, epoch, step, place) and of the position of an utterance in the batch (joyful.randomness).
Here they are drawn for the N utterances of a batch and copied into the trainer's padded rows. joyful has no dropout on
attention weights, so the trainer's is turned off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.peers.per_utterance import Collated, PerUtteranceModel
from benchmarks.peers.per_utterance_graph import RandomSource
from joyful.model.kernels.dropout import dropout
from joyful.randomness import Draws


class SameDraws(RandomSource):
    """Random source of one batch at a time. Call `begin` with the draws of a step before its batch is collated."""

    def __init__(self, model: PerUtteranceModel) -> None:
        self.draws, self.dropping = Draws(0, 0, 0), True
        self._padding_BT: Tensor | None = None
        model.random_source = self
        model.register_forward_pre_hook(self._store_padding)
        for number, layer in enumerate(model.context.layers):
            assert isinstance(layer, nn.TransformerEncoderLayer)
            layer.self_attn.dropout = 0.0
            for part, place in (("dropout1", "attention"), ("dropout", "hidden"), ("dropout2", "feedforward")):
                self._replace(layer, part, f"context.{number}.{place}")
        self._replace(model, "dropout", "classifier")

    def begin(self, draws: Draws) -> None:
        """Set the draws of the next batch."""
        self.draws = draws

    def keep(self, count: int, drop: float, place: str) -> Tensor:
        return self.draws.keep((count,), drop, place, "cpu", "augmentation")

    def uniform(self, count: int, place: str) -> Tensor:
        return self.draws.uniform((count,), place, "cpu", "augmentation")

    def drop(self, x: Tensor, share: float, place: str) -> Tensor:
        """Apply dropout to (N, D), or to padded rows (B, T, D) with the masks of their utterances."""
        if x.ndim == 2:
            return dropout(x, share, self.draws, place)
        assert self._padding_BT is not None
        present_BT = ~self._padding_BT
        kept = torch.ones_like(x)
        kept[present_BT] = dropout(kept[present_BT], share, self.draws, place)
        return x * kept

    def _store_padding(self, module: nn.Module, arguments: tuple[Collated, ...]) -> None:
        self._padding_BT = arguments[0].padding

    def _replace(self, module: nn.Module, name: str, place: str) -> None:
        share = getattr(module, name).p
        setattr(module, name, _Dropout(lambda x: self.drop(x, share, place)))


class _Dropout(nn.Module):
    def __init__(self, drop: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x) if self.training else x
