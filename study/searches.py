"""The searches of the study: the trials that the rules of study/PLAN.md and study/FAIR_PLAN.md choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from joyful.analysis.formatting import number, percent
from joyful.analysis.page.markdown import table
from study import archive, select_trial


@dataclass(frozen=True)
class Search:
    """The searches on one dataset.

    Attributes:
        name: Name of the dataset in the names of the archives.
        title: Name of the dataset in the tables.
        target: Target dev weighted F1 (0 to 1); on MOSI that of its fold 0.
        within: Loss of dev weighted F1 (0 to 1) that is accepted.
    """

    name: str
    title: str
    target: float
    within: float


#: Searches of the first plan, in the order of the table. Those without an archive are left out.
SEARCHES = (
    Search("synthetic", "Synthetic", 0.7425, 0.012),
    Search("meld", "MELD", 0.4861, 0.0073),
    Search("emorynlp", "EmoryNLP", 0.3383, 0.0067),
    Search("mosi", "MOSI, fold 0", 0.6044, 0.0281),
)

#: Searches of the second plan, with the targets and bounds of study/FAIR_PLAN.md.
FAIR_SEARCHES = (
    Search("synthetic", "Synthetic", 0.7410, 0.0122),
    Search("meld", "MELD", 0.4850, 0.0073),
    Search("emorynlp", "EmoryNLP", 0.3368, 0.0067),
    Search("mosi", "MOSI, fold 0", 0.6082, 0.0281),
)

#: Last part of an archive's name -> name of the search.
KINDS = {"baseline": "tuned baseline", "weights": "weights alone", "candidate": "candidate"}


@dataclass(frozen=True)
class _Trials:
    """The trials of an archive: what they are, and the two values of `select_trial.read_trials`."""

    search: Search
    label: str
    table: pd.DataFrame
    settings: tuple[str, ...]

    def cells(self, name: str) -> tuple[str, str, str]:
        """Return the settings of a trial, its best dev F1 and its epochs to the target."""
        overrides = " ".join(select_trial.overrides(self.table, name, self.settings))
        f1, epochs = (float(self.table[column][name]) for column in ("f1", "epochs"))
        return f"`{overrides}`", percent(f1, 2), number(epochs, 2)


def _read(archives: Path, folder: Path, searches: Sequence[Search], pattern: str) -> Iterator[_Trials]:
    for search in searches:
        for kind, label in KINDS.items():
            name = pattern.format(search=search.name, kind=kind)
            if (archives / f"{name}.parquet").is_file():
                archive.unpack(archives / f"{name}.parquet", folder / name)
                yield _Trials(search, label, *select_trial.read_trials(folder / name, search.target))


def searches_table(archives: Path, folder: Path) -> str:
    """Return a table with a line for each search of the first plan that has an archive, or "" without archives.

    Args:
        archives: Folder of the archives.
        folder: Folder to unpack them in.
    """
    rows = []
    for trials in _read(archives, folder, SEARCHES, "search_{search}_{kind}"):
        (chosen,) = select_trial.choose(trials.table, trials.search.within)
        settings, f1, epochs = trials.cells(chosen)
        count, target = f"{chosen} of {len(trials.table)}", percent(trials.search.target, 2)
        rows.append([trials.search.title, trials.label, count, settings, f1, target, epochs])
    columns = ["data", "search", "trial", "settings", "best dev F1", "target", "epochs to target"]
    return table(columns, rows) if rows else ""


def finalists_table(archives: Path, folder: Path) -> str:
    """Return a table with a line for each finalist of the second plan, or "" without archives.

    Each line has the means over the seeds of a finalist, and says which one the rule chose.

    Args:
        archives: Folder of the archives.
        folder: Folder to unpack them in.
    """
    rows = []
    for trials in _read(archives, folder, FAIR_SEARCHES, "fair_finalists_{kind}_{search}"):
        (chosen,) = select_trial.choose(trials.table, trials.search.within, "product")
        for name in trials.table.index.map(str):
            settings, f1, epochs = trials.cells(name)
            product = number(100 * float(trials.table["product"][name]), 2)
            answer = "**yes**" if name == chosen else "no"
            rows.append([trials.search.title, trials.label, settings, f1, epochs, product, answer])
    columns = ["data", "search", "settings", "best dev F1", "epochs to target", "epochs × spread, points", "chosen"]
    return table(columns, rows) if rows else ""
