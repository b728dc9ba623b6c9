"""The table of faults is for all tests: those of tests/faults and those that inject theirs elsewhere."""

from tests.support.faults import pytest_report_header, pytest_terminal_summary, tally

__all__ = ["pytest_report_header", "pytest_terminal_summary", "tally"]
