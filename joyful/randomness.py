"""Random numbers as a pure function of (seed, purpose, epoch, step, place).

No generator state is advanced or saved. A resumed run therefore draws the same numbers as an uninterrupted one, and the
two runs of a pair see the same masks and batches whatever their losses are. On the device, the SplitMix64 finaliser
(Steele, Lea & Flood 2014) maps counters to random numbers. It uses integer arithmetic only, so CPU and CUDA give the
same bits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from joyful.devices import takes_cpu_branch

if TYPE_CHECKING:
    from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LANES = 4  # 16-bit numbers in one 64-bit word
_WORDS = 1 << 17  # words mixed at a time (1 MiB)


def key(seed: int, purpose: str, epoch: int = 0, step: int = 0, place: str = "") -> int:
    """Return a 64-bit key of the five coordinates: the BLAKE2b digest of their text.

    Args:
        seed: Seed of the run.
        purpose: What the numbers are used for, such as "dropout", "weights" or "batches".
        epoch: Epoch of the draw.
        step: Optimizer step.
        place: Part of the model or of the program that draws the numbers.

    Example:
        >>> key(1, "dropout", step=5) == key(1, "dropout", step=5)
        True
        >>> key(1, "dropout", step=5) == key(1, "dropout", step=6)
        False
    """
    text = f"{seed}\x1f{purpose}\x1f{epoch}\x1f{step}\x1f{place}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def host_generator(seed: int, purpose: str, epoch: int = 0, step: int = 0, place: str = "") -> np.random.Generator:
    """Return a NumPy generator (Philox) for the coordinates of `key`.

    It serves draws on the host, such as the order of batches and synthetic data.

    Example:
        >>> host_generator(1, "batches", epoch=2).integers(10, size=3).tolist()
        [6, 2, 4]
    """
    return np.random.Generator(np.random.Philox(key=key(seed, purpose, epoch, step, place)))


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step.

    Every method takes the place in the model that draws. The numbers of row i depend only on i and on the width of a
    row, not on the number of rows.

    Attributes:
        seed: Seed of the run.
        epoch: Epoch of the step.
        step: Optimizer step.
    """

    seed: int
    epoch: int
    step: int

    def bits16(self, shape: tuple[int, ...], place: str, device: object, purpose: str = "dropout") -> Tensor:
        """Return independent uniform integers from -32768 to 32767, as an int16 tensor of `shape`."""
        import torch

        count = math.prod(shape)
        words = torch.arange(-(-count // _LANES), dtype=torch.int64, device=device)  # type: ignore[call-overload]
        words.mul_(_signed(_GAMMA)).add_(_signed(key(self.seed, purpose, self.epoch, self.step, place)))
        # Mixing in parts keeps its temporary tensors small on the CPU.
        for part in words.split(_WORDS) if takes_cpu_branch(words.device) else (words,):
            _mix(part)
        return words.view(torch.int16)[:count].view(shape)

    def uniform(self, shape: tuple[int, ...], place: str, device: object, purpose: str) -> Tensor:
        """Return independent uniform float32 numbers in [0, 1), multiples of 1 / 65536."""
        return (self.bits16(shape, place, device, purpose).float() + 32768.0) / 65536.0

    def keep(self, shape: tuple[int, ...], drop: float, place: str, device: object, purpose: str = "dropout") -> Tensor:
        """Return a boolean mask of `shape`, True with probability 1 - drop.

        Args:
            shape: Shape of the mask.
            drop: Probability of False, in [0, 1); rounded to a multiple of 1 / 65536.
            place: Place in the model that draws.
            device: Device of the mask.
            purpose: What the mask is used for.
        """
        return self.bits16(shape, place, device, purpose) >= _dropped(drop) - 32768


def keep_scale(drop: float) -> float:
    """Return the scale of inverted dropout, 1 / (1 - drop), for the mask of `Draws.keep`.

    Args:
        drop: Probability of dropping an element, in [0, 1); rounded to a multiple of 1 / 65536 as in `Draws.keep`.
    """
    return 65536.0 / (65536 - _dropped(drop))


def _dropped(drop: float) -> int:
    """Return how many of the 65536 numbers drop an element. At most 65535, which keeps the scale finite."""
    return min(round(drop * 65536), 65535)


def _mix(z: Tensor) -> None:
    """Apply the SplitMix64 finaliser in place to int64 (two's complement; a mask makes right shifts logical)."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        z ^= (z >> shift) & ((1 << (64 - shift)) - 1)
        if factor is not None:
            z *= _signed(factor)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
