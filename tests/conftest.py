"""For all tests: the table of injected faults, and the checkout on the path of the programs that tests start."""

import os
from pathlib import Path

from tests.support.faults import pytest_report_header, pytest_terminal_summary, tally

__all__ = ["pytest_report_header", "pytest_terminal_summary", "tally"]

ROOT = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
