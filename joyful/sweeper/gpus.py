"""Assignment of one visible GPU to each worker, round-robin, without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible(
    environment: Mapping[str, str] | None = None, devices: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        environment: Environment variables; None: those of this process.
        devices: The folder in which the NVIDIA driver lists the GPUs, used if the environment does not set the
            variable.

    Example:
        >>> visible({"CUDA_VISIBLE_DEVICES": "0, 2"})
        ['0', '2']
    """
    environment = os.environ if environment is None else environment
    if VARIABLE in environment:
        return [name.strip() for name in environment[VARIABLE].split(",") if name.strip() not in ("", "-1")]
    try:
        return [str(number) for number in range(sum(1 for _ in devices.iterdir()))]
    except OSError:
        return []


def environment(index: int, names: Sequence[str] | None = None) -> dict[str, str]:
    """Return the environment variables that assign a GPU to the training process of a worker.

    Workers take the GPUs round-robin. A launcher that assigns a GPU to each job has set the variable already. Then one
    GPU is visible, and the worker uses it.

    Args:
        index: Number of the worker, from 0.
        names: The GPUs; None: those visible to this process.

    Returns:
        The variable, or nothing if there is no GPU.

    Example:
        >>> environment(2, ["4", "7"])
        {'CUDA_VISIBLE_DEVICES': '4'}
    """
    names = visible() if names is None else names
    return {VARIABLE: names[index % len(names)]} if names else {}
