"""The results format: written whole or not at all, read as one pandas frame. Without torch and without Hydra.

A run is a folder with run.json, history.parquet and timing.parquet (schema.py names every key and column). One process
writes it, under its `lock`, through `RunFolder`; any process reads all runs below a folder with `load`.
"""

from joyful.records import InputError
from joyful.results.files import plain, remove_leftovers, set_aside, write_bytes, write_file, write_json
from joyful.results.lock import LockLostError, RunLock, lock
from joyful.results.one_run import RunHeader
from joyful.results.provenance import git_state, versions
from joyful.results.reading import Runs, arm_columns, load, read_runs
from joyful.results.run_folder import RunFolder, read_run, read_timing
from joyful.results.schema import (
    HISTORY,
    HISTORY_COLUMNS,
    RUN,
    RUN_KEYS,
    SCHEMA,
    STATUSES,
    TIMING,
    TIMING_COLUMNS,
    ResultsError,
    ResultsWarning,
)

__all__ = [
    "HISTORY",
    "HISTORY_COLUMNS",
    "RUN",
    "RUN_KEYS",
    "SCHEMA",
    "STATUSES",
    "TIMING",
    "TIMING_COLUMNS",
    "InputError",
    "LockLostError",
    "ResultsError",
    "ResultsWarning",
    "RunFolder",
    "RunHeader",
    "RunLock",
    "Runs",
    "arm_columns",
    "git_state",
    "load",
    "lock",
    "plain",
    "read_run",
    "read_runs",
    "read_timing",
    "remove_leftovers",
    "set_aside",
    "versions",
    "write_bytes",
    "write_file",
    "write_json",
]
