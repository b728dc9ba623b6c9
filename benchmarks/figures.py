"""What all benchmarks share: a figure, the line that shows it, and the JSON file that keeps it with the machine's facts.

This module imports no torch, so that a benchmark can measure a process that has none.
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

#: Instruction sets that decide how fast matrices are multiplied, as /proc/cpuinfo writes them.
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")

#: The machine's load (one minute's mean) when the benchmark began: what else it was doing.
LOAD_BEFORE = os.getloadavg()[0]


@dataclass(frozen=True)
class Figure:
    """One measured number. ratio: value / the value of what `to` names, in one unit; `to` is another figure of the same
    report, or says in words what is meant."""

    name: str
    value: float
    unit: str
    ratio: float
    to: str

    def line(self) -> str:
        """As it is printed."""
        shown = f"{self.name:<66} {_number(self.value):>12} {self.unit:<12}"
        return f"{shown} {_number(self.ratio):>9} of {self.to}"


def figure(name: str, value: float, unit: str, other: float, to: str) -> Figure:
    """A figure and its ratio to `other`, the value of what `to` names. Raises ValueError where `other` is 0."""
    if other == 0:
        raise ValueError(f"{name}: expected something to compare it with, got 0 for {to}; measure that first")
    return Figure(name, value, unit, value / other, to)


def against(name: str, value: float, other: Figure) -> Figure:
    """A figure in the unit of another one, compared with it."""
    return figure(name, value, other.unit, other.value, other.name)


def report(
    title: str,
    figures: Sequence[Figure],
    about: Mapping[str, Any],
    file: Path | None,
    notes: Sequence[str] = (),
    threads: int | None = None,
) -> None:
    """Print the title, a line for each figure and each note, and write all of it to `file` where one is given.

    about: what was measured (sizes, repeats). notes: what was left out, and why. threads: those of the measurement.
    """
    print(f"{title}; {processor_name()}, {threads or cores()} threads, load before {LOAD_BEFORE:.1f}")
    for one in figures:
        print(one.line())
    for note in notes:
        print(f"note: {note}")
    if file is not None:
        told = {**about, "machine": machine(threads), "notes": list(notes), "figures": [asdict(one) for one in figures]}
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def machine(threads: int | None = None) -> dict[str, Any]:
    """What the figures depend on: processor, instruction sets, cores, threads, load, versions. No host name, no path."""
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
    """As /proc/cpuinfo has it, or what Python knows of it."""
    return _cpuinfo("model name") or platform.machine()


def processor_flags() -> frozenset[str]:
    """The instruction sets of the first processor, in the names of /proc/cpuinfo; empty where there is no such file."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for matrices of bfloat16; without them torch computes them slowly."""
    return bool(processor_flags() & {"amx_bf16", "avx512_bf16", "bf16"})


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """A command line `python -m benchmarks.NAME` that has --json already; the description is shown as it was written."""
    formatter = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(f"python -m benchmarks.{name}", description=description, formatter_class=formatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return made


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
    """Four significant digits; whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
