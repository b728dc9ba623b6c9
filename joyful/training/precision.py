"""Whether bfloat16 pays on this machine's processor: measured, since its instruction sets do not tell.

With amx_bf16 its matrix products are three times as fast as float32's, with avx512_bf16 on AMD's processors twice, on Intel's
half as fast, and without any of them many times slower (docs/PERFORMANCE.md).
"""

from __future__ import annotations

import time

import torch

#: Side of the square matrices that are multiplied: large enough for the caches to matter, some milliseconds a product.
SIDE = 768


def bfloat16_gain(repeats: int = 3) -> float:
    """How many times as fast bfloat16's matrix products are as float32's, on the processor and the threads that torch has now.

    The best of `repeats` products of each, after one that warms up, so that a busy machine does not decide. A tenth of a second.
    """
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(SIDE, SIDE, generator=generator)
    return _seconds(matrix, repeats) / _seconds(matrix.bfloat16(), repeats)


def _seconds(matrix: torch.Tensor, repeats: int) -> float:
    """Wall seconds of the fastest product."""
    found = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            clock = time.perf_counter()
            torch.mm(matrix, matrix)
            found.append(time.perf_counter() - clock)
    return min(found[1:])
