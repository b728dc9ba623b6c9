"""A context manager that forbids operations in which the host waits for the device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that copy a value to the host, or whose output shape depends on values. On a GPU they wait for the device.
_READS = {
    torch.ops.aten._local_scalar_dense.default,  # item, float, bool, if tensor
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
}


class NoHostReads(TorchDispatchMode):
    """Raises AssertionError for such an operation inside a `with` block, on the CPU as well."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in _READS, f"{func} reads the device from the host"
        return func(*args, **(kwargs or {}))
