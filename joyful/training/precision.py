"""Measurement of the speed of bfloat16 on this processor.

The speed is measured because the instruction sets of a processor do not determine it. Compared with float32, matrix
products in bfloat16 are three times as fast with amx_bf16. With avx512_bf16 they are twice as fast on AMD processors
and half as fast on Intel processors. Without these instructions they are many times slower (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import time

import torch

#: Number of rows and columns of the matrices. A product takes some milliseconds and exceeds the innermost caches.
SIDE = 768


def bfloat16_gain(repeats: int = 3) -> float:
    """Return the speed of matrix products in bfloat16 relative to float32, with the current number of torch's threads.

    The measurement takes about 0.1 s. It compares the fastest products, which makes it robust on a busy machine.

    Args:
        repeats: Number of timed products of each type, after one untimed product.

    Returns:
        The ratio. Above 1 bfloat16 is faster.
    """
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(SIDE, SIDE, generator=generator)
    return _seconds(matrix, repeats) / _seconds(matrix.bfloat16(), repeats)


def _seconds(matrix: torch.Tensor, repeats: int) -> float:
    """Return the wall-clock seconds of the fastest product."""
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            clock = time.perf_counter()
            torch.mm(matrix, matrix)
            seconds.append(time.perf_counter() - clock)
    return min(seconds[1:])
