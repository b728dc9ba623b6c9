"""The searches of the study: the trial that each yields by the rule of study/PLAN.md, "Settings that work"."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyful.analysis.formatting import number, percent
from joyful.analysis.page.markdown import table
from study import archive, select_trial


@dataclass(frozen=True)
class Search:
    """The searches on one dataset.

    Attributes:
        name: Name of the dataset in the names of the archives.
        title: Name of the dataset in the tables.
        target: Target dev weighted F1 (0 to 1), that of the main comparison; on MOSI that of its fold 0.
        within: Loss of dev weighted F1 (0 to 1) that is accepted for speed.
    """

    name: str
    title: str
    target: float
    within: float


#: Searches in the order of the table. Those without an archive are left out.
SEARCHES = (
    Search("synthetic", "Synthetic", 0.7425, 0.012),
    Search("meld", "MELD", 0.4861, 0.0073),
    Search("emorynlp", "EmoryNLP", 0.3383, 0.0067),
    Search("mosi", "MOSI, fold 0", 0.6044, 0.0281),
)

#: Last part of an archive's name -> name of the search.
KINDS = {"baseline": "tuned baseline", "weights": "weights alone", "candidate": "candidate"}


def searches_table(archives: Path, folder: Path) -> str:
    """Return a table with a line for each search that has an archive, or "" without archives.

    Args:
        archives: Folder of the archives.
        folder: Folder to unpack them in.
    """
    rows = []
    for search in SEARCHES:
        for kind, label in KINDS.items():
            name = f"search_{search.name}_{kind}"
            if not (archives / f"{name}.parquet").is_file():
                continue
            archive.unpack(archives / f"{name}.parquet", folder / name)
            trials, settings = select_trial.read_trials(folder / name, search.target)
            (chosen,) = select_trial.choose(trials, search.within)
            overrides = " ".join(select_trial.overrides(trials, chosen, settings))
            f1, epochs = (float(trials[column][chosen]) for column in ("f1", "epochs"))
            rows.append(
                [
                    search.title, label, f"{chosen} of {len(trials)}", f"`{overrides}`", percent(f1, 2), percent(search.target, 2),
                    number(epochs, 2),
                ]
            )  # fmt: skip
    columns = ["data", "search", "trial", "settings", "best dev F1", "target", "epochs to target"]
    return table(columns, rows) if rows else ""
