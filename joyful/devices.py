"""What depends on the device of a run: the branch that a kernel takes, and the copies between the host and the device.

On CUDA, the host queues operations ahead of the device. An operation that needs a value on the host waits until the
device has reached it, and so does a copy of ordinary memory. Training and evaluation therefore copy with the functions
of this module only.

This module imports torch inside its functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

#: Types of devices on which kernels take the branch for the CPU. On all others they take the branch for CUDA.
CPU_TYPES = frozenset({"cpu"})


def takes_cpu_branch(device: torch.device) -> bool:
    """Return whether kernels take the branch for the CPU on this device.

    That branch may read values on the host and work in small parts. The branch for CUDA does neither, and launches few
    operations. Every kernel with two branches calls this function.
    """
    return device.type in CPU_TYPES


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on the device, without waiting for the device."""
    import numpy as np
    import torch

    # Evaluation and training share cached structures, and autograd refuses inference tensors.
    with torch.inference_mode(False):
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if takes_cpu_branch(device):
            return tensor.to(device)
        return tensor.pin_memory().to(device, non_blocking=True)  # only pinned memory is copied without waiting


def read_values(parts: Sequence[Tensor]) -> list[list[float]]:
    """Return the values of tensors as numbers, a list for each. Waits for the device once.

    Args:
        parts: Tensors of any shape on one device. At least one.

    Example:
        >>> import torch
        >>> read_values([torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor(5)])
        [[1.0, 2.0, 3.0, 4.0], [5.0]]
    """
    import torch

    values = iter(torch.cat([part.double().flatten() for part in parts]).tolist())
    return [[next(values) for _ in range(part.numel())] for part in parts]
