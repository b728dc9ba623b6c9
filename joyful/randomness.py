"""Random numbers as a pure function of (seed, purpose, epoch, step, place).

No generator is ever advanced, so there is none to save: a resumed run draws what the undisturbed one drew, and the two
runs of a pair see the same masks and batches whatever their losses do. On the device the numbers come from counters by
the SplitMix64 finaliser (Steele, Lea & Flood 2014), integer arithmetic alone, so CPU and CUDA give the same bits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LANES = 4  # 16-bit numbers in one 64-bit word
_WORDS = 1 << 17  # mixed at a time: 1 MiB


def key(seed: int, purpose: str, epoch: int = 0, step: int = 0, place: str = "") -> int:
    """A 64-bit key of the five coordinates (BLAKE2b of their text): equal coordinates, equal key."""
    text = f"{seed}\x1f{purpose}\x1f{epoch}\x1f{step}\x1f{place}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def host_generator(seed: int, purpose: str, epoch: int = 0, step: int = 0, place: str = "") -> np.random.Generator:
    """A NumPy generator (Philox) at these coordinates, for what is drawn on the host: batch order, initial weights,
    data."""
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, epoch, step, place)))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step; every method names the place in the model that draws.

    The numbers of row i depend on i and on the row's width alone, not on how many rows there are.
    """

    seed: int
    epoch: int
    step: int

    def bits16(self, shape: tuple[int, ...], place: str, device: object, purpose: str = "dropout") -> Tensor:
        """Independent uniform integers -32768 to 32767, an int16 tensor of `shape`."""
        import torch

        count = math.prod(shape)
        words = torch.arange(-(-count // _LANES), dtype=torch.int64, device=device)  # type: ignore[call-overload]
        words.mul_(_signed(_GAMMA)).add_(_signed(key(self.seed, purpose, self.epoch, self.step, place)))
        # on the processor in parts: what mixing needs beside the words is small then
        for part in words.split(_WORDS) if words.device.type == "cpu" else (words,):
            _mix(part)
        return words.view(torch.int16)[:count].view(shape)

    def uniform(self, shape: tuple[int, ...], place: str, device: object, purpose: str) -> Tensor:
        """Independent uniform float32 numbers in [0, 1), multiples of 1 / 65536."""
        return (self.bits16(shape, place, device, purpose).float() + 32768.0) / 65536.0

    def keep(self, shape: tuple[int, ...], drop: float, place: str, device: object, purpose: str = "dropout") -> Tensor:
        """Boolean mask of `shape`, True with probability 1 - drop (to 1 / 65536); drop in [0, 1)."""
        return self.bits16(shape, place, device, purpose) >= _dropped(drop) - 32768


def keep_scale(drop: float) -> float:
    """The factor of inverted dropout for what `Draws.keep` keeps: 1 / (1 - drop), to 1 / 65536; drop in [0, 1)."""
    return 65536.0 / (65536 - _dropped(drop))


def _dropped(drop: float) -> int:
    """How many of the 65536 numbers mean "dropped": never all, since the rest are scaled to make up for them."""
    return min(round(drop * 65536), 65535)


def _mix(z: Tensor) -> None:
    """The SplitMix64 finaliser, in place on int64 (two's complement; right shifts made logical by a mask)."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        z ^= (z >> shift) & ((1 << (64 - shift)) - 1)
        if factor is not None:
            z *= _signed(factor)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
