"""Hostile checkpoints, Parquet files and tables are refused with one line, in bounded memory.

Each file is read in a separate process (tests.support.bounded). The peak of its resident memory may exceed that of the
program without the file by at most BOUND_MIB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bounded import BOUND_MIB, read_each
from tests.support.faults import Tally
from tests.support.hostile_files import READ, Case, hostile_checkpoints, hostile_runs
from tests.support.hostile_tables import hostile_curves, hostile_emorynlp, hostile_logs, hostile_meld, hostile_prepared

CORPORA: dict[str, tuple[str, Callable[[Path], dict[str, Case]]]] = {
    "safetensors header or checkpoint that lies": ("checkpoint", hostile_checkpoints),
    "Parquet bomb as a history": ("runs", hostile_runs),
    "Parquet bomb or lying header as data": ("prepared", hostile_prepared),
    "CSV bomb as MELD": ("meld", hostile_meld),
    "CSV bomb as EmoryNLP": ("emorynlp", hostile_emorynlp),
    "CSV bomb as curves": ("importer", hostile_curves),
    "logs of another program": ("logs", hostile_logs),
}


def listing(root: Path) -> set[str]:
    return {os.path.join(folder, name) for folder, folders, files in os.walk(root) for name in (*folders, *files)}


#: Corpora that another one of the same kind stands for in `make test`.
REPEATED = {
    "CSV bomb as MELD": pytest.mark.soak("takes 6 s; the curves are such tables too"),
    "CSV bomb as EmoryNLP": pytest.mark.soak("takes 6 s, likewise"),
    "logs of another program": pytest.mark.soak("takes 7 s; the curves come from another program too"),
    "Parquet bomb or lying header as data": pytest.mark.soak("takes 8 s; a history is such a file too"),
}


@pytest.mark.parametrize("fault", [pytest.param(fault, marks=REPEATED.get(fault, ())) for fault in CORPORA])
def test_hostile_files_are_refused_in_one_line_and_bounded_memory(fault: str, tmp_path: Path, tally: Tally) -> None:
    reader, make = CORPORA[fault]
    cases = make(tmp_path / "corpus")
    before = listing(tmp_path)
    outcomes = dict(zip(cases, read_each(reader, [path for path, _ in cases.values()]), strict=True))
    print(
        *(f"{outcome.seconds:6.2f} s {outcome.mebibytes:5.0f} MiB {name}" for name, outcome in outcomes.items()),
        sep="\n",
    )
    wrong = {}
    for name, (_, words) in cases.items():
        outcome = outcomes[name]
        line = outcome.message.isprintable() and len(outcome.message) < 700
        kind = "read" if name.startswith(READ) else "InputError"
        if outcome.kind != kind or words not in outcome.message or not line or outcome.mebibytes > BOUND_MIB:
            wrong[name] = outcome
    tally(fault, len(cases), wrong=len(wrong))
    for name, outcome in wrong.items():
        print(f"{name}: expected {cases[name][1]!r} from {outcome}")
    assert not wrong
    assert listing(tmp_path) == before  # no canary, and no partial import
