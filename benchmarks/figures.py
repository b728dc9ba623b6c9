"""Figures of benchmarks: the printed line of each, the JSON file, and the description of the machine.

This module does not import torch, so that a benchmark can measure a process without it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

#: Instruction sets that affect the speed of matrix products, by their names in /proc/cpuinfo.
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")

#: Load average over one minute at the start of the benchmark, which shows whether other work was running.
LOAD_BEFORE = os.getloadavg()[0]


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: Name, unique within a report.
        value: Measured value.
        unit: Unit of the value.
        ratio: Value divided by the reference value, both in the same unit.
        to: The reference: the name of another figure of the report, or a description.
    """

    name: str
    value: float
    unit: str
    ratio: float
    to: str

    def line(self) -> str:
        """Return the line to print."""
        shown = f"{self.name:<66} {_number(self.value):>12} {self.unit:<12}"
        return f"{shown} {_number(self.ratio):>9} of {self.to}"


def figure(name: str, value: float, unit: str, other: float, to: str) -> Figure:
    """Return a figure with its ratio to `other`, the value of the reference `to`.

    Raises:
        ValueError: If `other` is 0.
    """
    if other == 0:
        raise ValueError(
            f"{name}: expected a reference value other than 0, got 0 for {to}; measure the reference first"
        )
    return Figure(name, value, unit, value / other, to)


def against(name: str, value: float, other: Figure) -> Figure:
    """Return a figure whose reference is another figure of the same unit."""
    return figure(name, value, other.unit, other.value, other.name)


def report(
    title: str,
    figures: Sequence[Figure],
    about: Mapping[str, Any],
    file: Path | None,
    notes: Sequence[str] = (),
    threads: int | None = None,
) -> None:
    """Print the title, the figures and the notes, and write them as JSON if a file is given.

    Args:
        title: First line of the output.
        figures: One line each.
        about: Facts of the measurement for the JSON file, such as sizes and repeats.
        file: JSON file to write, or None.
        notes: What was left out, and why.
        threads: Threads of the measurement; None: the cores that this process may use.
    """
    print(f"{title}; {processor_name()}, {threads or cores()} threads, load before {LOAD_BEFORE:.1f}")
    for one in figures:
        print(one.line())
    for note in notes:
        print(f"note: {note}")
    if file is not None:
        document = {
            **about,
            "machine": machine(threads),
            "notes": list(notes),
            "figures": [asdict(one) for one in figures],
        }
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def machine(threads: int | None = None) -> dict[str, Any]:
    """Return what the figures depend on: processor, instruction sets, cores, threads, load and versions.

    The result holds no host name and no path.
    """
    return {
        "processor": processor_name(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in processor_flags()],
        "cores": cores(),
        "threads": threads,
        "load_before": round(LOAD_BEFORE, 2),
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }


def processor_name() -> str:
    """Return the name of the processor from /proc/cpuinfo, or the architecture if there is none."""
    return _cpuinfo("model name") or platform.machine()


def processor_flags() -> frozenset[str]:
    """Return the instruction sets of the first processor by their names in /proc/cpuinfo; empty without that file."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def multiplies_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16 matrix products, which are slow without them."""
    return bool(processor_flags() & {"amx_bf16", "avx512_bf16", "bf16"})


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the argument parser of `python -m benchmarks.NAME` with --json; the description keeps its line breaks."""
    formatter = argparse.RawDescriptionHelpFormatter
    command_line = argparse.ArgumentParser(
        f"python -m benchmarks.{name}", description=description, formatter_class=formatter
    )
    command_line.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return command_line


def _cpuinfo(field: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _number(value: float) -> str:
    """Format with four significant digits, or without decimals from 1000 on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
