"""For all tests: the table of injected faults, the quick and the long tests, and the surroundings of programs they start."""

import os
import sys
from pathlib import Path

import pytest

from tests.support.faults import pytest_report_header, pytest_terminal_summary, soaking, tally
from tests.support.fork_server import ForkServer, shared
from tests.support.quick import quick_tests

__all__ = ["pytest_report_header", "pytest_terminal_summary", "tally"]

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))

# Where Python is told to write no bytecode, each of about a thousand programs would compile this package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def fork_server() -> ForkServer:
    """A process with all libraries imported, which runs Python commands in forks."""
    return shared()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With -m quick, do not import the files that have no quick test."""
    is_file = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if config.option.markexpr == "quick" and is_file and not quick_tests(collection_path) else None


#: Folders and files of the tests that take longest. They are run first, so that no process waits for one at the end.
LONGEST = (
    "tests/sweeper",
    "tests/examples",
    "tests/faults",
    "tests/test_wheel.py",
    "tests/test_docs.py",
    "tests/study",
    "tests/test_run.py",
    "tests/trackers",
    "tests/training",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the quick tests, skip those of a soak outside a soak, and put the longest first."""
    chooses_quick = "quick" in config.option.markexpr
    items.sort(key=lambda item: next((i for i, x in enumerate(LONGEST) if item.nodeid.startswith(x)), len(LONGEST)))
    for item in items:
        name = getattr(item, "originalname", item.name)
        owner = getattr(item, "cls", None)
        if chooses_quick and (f"{owner.__name__}.{name}" if owner else name) in quick_tests(item.path):
            item.add_marker("quick")
        marker = item.get_closest_marker("soak")
        if marker and not (soaking() or "soak" in config.option.markexpr):
            item.add_marker(pytest.mark.skip(reason=f"runs in make soak: {marker.args[0]}"))
