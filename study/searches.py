"""The study's searches: the trial that each gave by the plan's rule, from their archives (study/PLAN.md, "Settings that work")."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joyful.analysis.formatting import number, percent
from joyful.analysis.page.markdown import table
from study import archive, select_trial


@dataclass(frozen=True)
class Search:
    """The searches of a dataset. name: of their archives. title: as the tables name it. target: dev weighted F1 to be reached,
    that of the main comparison (on MOSI of its fold 0); within: dev weighted F1 that may be given up for speed, both 0 to 1."""

    name: str
    title: str
    target: float
    within: float


#: In the order of the table; one that is not there yet is left out.
SEARCHES = (
    Search("synthetic", "Synthetic", 0.7425, 0.012),
    Search("meld", "MELD", 0.4861, 0.0073),
    Search("emorynlp", "EmoryNLP", 0.3383, 0.0067),
    Search("mosi", "MOSI, fold 0", 0.6044, 0.0281),
)

#: The last word of an archive's name -> what was searched.
KINDS = {"baseline": "the baseline tuned", "weights": "the weights alone", "candidate": "the candidate"}


def searches_table(archives: Path, folder: Path) -> str:
    """A line for each search whose archive is there, "" where none is. folder: where they are unpacked."""
    rows = []
    for search in SEARCHES:
        for kind, words in KINDS.items():
            name = f"search_{search.name}_{kind}"
            if not (archives / f"{name}.parquet").is_file():
                continue
            archive.unpack(archives / f"{name}.parquet", folder / name)
            found, settings = select_trial.trials(folder / name, search.target)
            chosen = select_trial.choose(found, search.within)
            given = " ".join(select_trial.overrides(found, chosen, settings))
            f1, epochs = (float(found[column][chosen]) for column in ("f1", "epochs"))
            rows.append(
                [
                    search.title, words, f"{chosen} of {len(found)}", f"`{given}`", percent(f1, 2), percent(search.target, 2),
                    number(epochs, 2),
                ]
            )  # fmt: skip
    columns = ["data", "search", "trial", "settings", "best dev F1", "target", "epochs to it"]
    return table(columns, rows) if rows else ""
