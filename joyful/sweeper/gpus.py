"""One visible GPU for each worker, in turn; found without importing torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible(
    environment: Mapping[str, str] | None = None, devices: Path = Path("/proc/driver/nvidia/gpus")
) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those of the variable, else all there are."""
    environment = os.environ if environment is None else environment
    if VARIABLE in environment:
        return [name.strip() for name in environment[VARIABLE].split(",") if name.strip() not in ("", "-1")]
    try:
        return [str(number) for number in range(sum(1 for _ in devices.iterdir()))]
    except OSError:
        return []


def environment(index: int, names: list[str] | None = None) -> dict[str, str]:
    """What the training process of worker `index` (from 0) sees: GPU index mod their number; nothing is set where there is none.

    How many workers share a GPU follows from how many there are (`most_workers`). names: the GPUs, None for those visible here:
    a launcher that gives each job a GPU of its own has set the variable, then there is one, and it stays.
    """
    names = visible() if names is None else names
    return {VARIABLE: names[index % len(names)]} if names else {}


def most_workers(workers_per_gpu: int, names: list[str] | None = None) -> int | None:
    """How many workers this machine's GPUs take, None where it has none."""
    names = visible() if names is None else names
    return len(names) * workers_per_gpu if names else None
