"""What the fault tests share: how many faults to inject, the seed they are drawn from, and the table of what came of them.

Quick counts by default; JOYFUL_SOAK=MINUTES (set by `make soak`) chooses the full ones. JOYFUL_FAULT_SEED is the seed: 1 by
default, in a soak drawn where it is not given. The table is printed at the end of a test run, and written as JSON to the file
that JOYFUL_FAULT_TABLE names.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

#: Under this name a test's faults travel with its report, from the processes of pytest-xdist too.
PROPERTY = "faults"

#: Fault -> how many were injected, how many completed epochs or trials were lost, how many outcomes were not the documented one.
Table = dict[str, dict[str, int]]


class Tally(Protocol):
    """The fixture `tally`: enters a line into the table."""

    def __call__(self, fault: str, injected: int, lost: int = 0, wrong: int = 0) -> None:
        """fault: what was injected, in words that are the same in every test run."""


def soaking() -> bool:
    """Whether the full counts are asked for."""
    return bool(os.environ.get("JOYFUL_SOAK"))


def count(quick: int, full: int) -> int:
    """How many faults to inject: `full` in a soak."""
    return full if soaking() else quick


def seed() -> int:
    """The seed of all random choices of the fault tests; processes started from here have the same."""
    if "JOYFUL_FAULT_SEED" not in os.environ:
        os.environ["JOYFUL_FAULT_SEED"] = str(random.SystemRandom().randrange(2**31)) if soaking() else "1"
    return int(os.environ["JOYFUL_FAULT_SEED"])


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Enters faults that were injected, with what was lost and what came out wrong, into the table of this test run."""

    def enter(fault: str, injected: int, lost: int = 0, wrong: int = 0) -> None:
        line = {"fault": fault, "injected": injected, "lost": lost, "wrong": wrong}
        request.node.user_properties.append((PROPERTY, line))

    return enter


def added(lines: Iterable[Mapping[str, Any]]) -> Table:
    """The table of these lines, those of one fault added up."""
    table: Table = {}
    for line in lines:
        row = table.setdefault(str(line["fault"]), {"injected": 0, "lost": 0, "wrong": 0})
        for name in row:
            row[name] += int(line[name])
    return dict(sorted(table.items()))


def as_lines(table: Table) -> list[dict[str, Any]]:
    """The lines of a table, as JSON can hold them."""
    return [{"fault": fault, **row} for fault, row in table.items()]


def rendered(table: Table) -> str:
    """The table in Markdown, with its totals."""
    total = {name: sum(row[name] for row in table.values()) for name in ("injected", "lost", "wrong")}
    body = [f"| {fault} | {row['injected']} | {row['lost']} | {row['wrong']} |" for fault, row in table.items()]
    head = ["| fault | injected | lost | wrong |", "|---|---|---|---|"]
    return "\n".join([*head, *body, f"| total | {total['injected']} | {total['lost']} | {total['wrong']} |"])


def pytest_report_header() -> str | None:
    """The seed, where one was given or drawn."""
    return f"faults: JOYFUL_FAULT_SEED={seed()}" if soaking() or "JOYFUL_FAULT_SEED" in os.environ else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the table, and write it where JOYFUL_FAULT_TABLE says."""
    reports = [r for group in terminalreporter.stats.values() for r in group if getattr(r, "when", "") == "call"]
    lines = [line for report in reports for name, line in report.user_properties if name == PROPERTY]
    table = added(lines)
    if os.environ.get("JOYFUL_FAULT_TABLE"):
        Path(os.environ["JOYFUL_FAULT_TABLE"]).write_text(json.dumps(as_lines(table)))
    if table:
        terminalreporter.section(f"faults (JOYFUL_FAULT_SEED={seed()})")
        terminalreporter.write_line(rendered(table))
