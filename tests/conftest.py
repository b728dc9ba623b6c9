"""For all tests: the table of injected faults, and the surroundings of the programs that tests start."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import pytest_report_header, pytest_terminal_summary, tally
from tests.support.fork_server import ForkServer

__all__ = ["pytest_report_header", "pytest_terminal_summary", "tally"]

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))

# Where Python is told to write no bytecode, each of about a thousand programs would compile this package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A process with all libraries imported, which runs Python commands in forks."""
    with ForkServer() as server:
        yield server
