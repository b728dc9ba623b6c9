"""A guard: inside it, no operation may make the host wait for what the device has computed."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that copy a value to the host, or whose shape depends on values: on a GPU each of them waits.
_READS = {
    torch.ops.aten._local_scalar_dense.default,  # item, float, bool, if tensor
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.is_nonzero.default,
}


class NoHostReads(TorchDispatchMode):
    """Context manager that raises AssertionError naming the operation; on the processor too, where no wait can be seen."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in _READS, f"{func} reads the device from the host"
        return func(*args, **(kwargs or {}))
