"""Shared parts of the fault tests: number of faults, seed and table of results.

By default each test injects a few faults. JOYFUL_SOAK=MINUTES, which `make soak` sets, selects the full numbers.
JOYFUL_FAULT_SEED sets the seed. Its default is 1, or a random number in a soak. The table is printed at the end of a
test run, and written as JSON to the file JOYFUL_FAULT_TABLE if that is set.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

#: User property that holds the faults of a test in its report, which pytest-xdist transfers between processes.
PROPERTY = "faults"

#: Fault -> number of injected faults, of lost completed epochs or trials, and of wrong (undocumented) outcomes.
Table = dict[str, dict[str, int]]


class Tally(Protocol):
    """Type of the fixture `tally`, which adds a row to the table."""

    def __call__(self, fault: str, injected: int, lost: int = 0, wrong: int = 0) -> None:
        """Add a row.

        Args:
            fault: Name of the fault. It must be the same in every test run.
            injected: Number of injected faults.
            lost: Number of completed epochs or trials that were lost.
            wrong: Number of wrong outcomes.
        """


def soaking() -> bool:
    """Return whether this is a soak, which injects the full numbers of faults."""
    return bool(os.environ.get("JOYFUL_SOAK"))


def count(quick: int, full: int) -> int:
    """Return the number of faults to inject: `full` in a soak, otherwise `quick`."""
    return full if soaking() else quick


def seed() -> int:
    """Return the seed of all random choices of the fault tests. Child processes inherit it."""
    if "JOYFUL_FAULT_SEED" not in os.environ:
        os.environ["JOYFUL_FAULT_SEED"] = str(random.SystemRandom().randrange(2**31)) if soaking() else "1"
    return int(os.environ["JOYFUL_FAULT_SEED"])


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Add a row to the table of faults of this test run."""

    def enter(fault: str, injected: int, lost: int = 0, wrong: int = 0) -> None:
        line = {"fault": fault, "injected": injected, "lost": lost, "wrong": wrong}
        request.node.user_properties.append((PROPERTY, line))

    return enter


def add_up(lines: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table of these rows, with the rows of the same fault added up."""
    table: Table = {}
    for line in lines:
        row = table.setdefault(str(line["fault"]), {"injected": 0, "lost": 0, "wrong": 0})
        for name in row:
            row[name] += int(line[name])
    return dict(sorted(table.items()))


def to_rows(table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table, for JSON."""
    return [{"fault": fault, **row} for fault, row in table.items()]


def render(table: Table) -> str:
    """Return the table and its totals as Markdown."""
    total = {name: sum(row[name] for row in table.values()) for name in ("injected", "lost", "wrong")}
    body = [f"| {fault} | {row['injected']} | {row['lost']} | {row['wrong']} |" for fault, row in table.items()]
    head = ["| fault | injected | lost | wrong |", "|---|---|---|---|"]
    return "\n".join([*head, *body, f"| total | {total['injected']} | {total['lost']} | {total['wrong']} |"])


def pytest_report_header() -> str | None:
    """Return the seed, if it was set or drawn."""
    return f"faults: JOYFUL_FAULT_SEED={seed()}" if soaking() or "JOYFUL_FAULT_SEED" in os.environ else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table, and write it to the file JOYFUL_FAULT_TABLE if that is set."""
    reports = [r for group in terminalreporter.stats.values() for r in group if getattr(r, "when", "") == "call"]
    lines = [line for report in reports for name, line in report.user_properties if name == PROPERTY]
    table = add_up(lines)
    if os.environ.get("JOYFUL_FAULT_TABLE"):
        Path(os.environ["JOYFUL_FAULT_TABLE"]).write_text(json.dumps(to_rows(table)))
    if table:
        terminalreporter.section(f"faults (JOYFUL_FAULT_SEED={seed()})")
        terminalreporter.write_line(render(table))
