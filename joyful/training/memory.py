"""Failed allocations of memory."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error is a failed allocation of memory, on the host or on the device."""
    # torch raises a plain RuntimeError for the host.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
