"""The results format: write the folder of a run, and read many runs as one pandas frame.

A run is a folder with run.json, history.parquet and timing.parquet, and predictions.parquet once it has ended (schema.py
lists every key and column). Files are written atomically. One process writes a run: it holds the `lock` of the folder
and uses `RunFolder`. Any process reads all runs below a folder with `load`. This package imports neither torch nor Hydra.
"""

from joyful.records import InputError
from joyful.results.files import plain, remove_leftovers, set_aside, write_bytes, write_file, write_json
from joyful.results.lock import LockLostError, RunLock, lock
from joyful.results.one_run import RunHeader
from joyful.results.predictions import class_names, read_predictions
from joyful.results.provenance import git_state, versions
from joyful.results.reading import Runs, arm_columns, find_runs, load, natural, read_runs
from joyful.results.run_folder import RunFolder, read_run, read_timing
from joyful.results.schema import (
    HISTORY,
    HISTORY_COLUMNS,
    OUTCOME_KEYS,
    PREDICTION_COLUMNS,
    PREDICTIONS,
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
    "OUTCOME_KEYS",
    "PREDICTIONS",
    "PREDICTION_COLUMNS",
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
    "class_names",
    "find_runs",
    "git_state",
    "load",
    "lock",
    "natural",
    "plain",
    "read_predictions",
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
