"""The trial that a search found: good enough, and the first at the target (study/PLAN.md, "Settings that work").

    python -m study.select_trial SWEEP_FOLDER --target 0.743 --within 0.006

Of the complete trials whose best dev weighted F1 is at most --within below the best of all, the one that reaches --target after the
fewest epochs; of several, the one with the higher F1, then the earlier trial.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from joyful.analysis.arms import differing_settings
from joyful.analysis.convergence import first_reached
from joyful.results import InputError, ResultsError, read_runs


def trials(folder: Path, target: float) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The complete runs below a folder, and the settings that differ between them.

    A row each, indexed by the run's name: `f1` (best dev weighted F1), `epochs` (until dev weighted F1 is at the target; inf where
    it never is), and a column for each of the settings. F1 and target: 0 to 1. Raises InputError where there is no complete run.
    """
    loaded = read_runs(folder, ["f1_weighted"])
    complete = [header for header in loaded.headers if header.status == "completed"]
    if not complete:
        raise InputError(f"{folder}: expected the folder of a search with complete trials, found none")
    complete.sort(key=lambda header: (len(header.name), header.name))  # trials are numbered
    settings = tuple(differing_settings([header.settings for header in complete]))
    dev = loaded.frame[loaded.frame["split"] == "dev"].pivot(index="run", columns="epoch", values="f1_weighted")
    dev = dev.reindex([header.name for header in complete])
    found = pd.DataFrame({"f1": dev.max(axis=1), "epochs": first_reached(dev, target)})
    for name in settings:
        found[name] = pd.Series({header.name: header.settings.get(name) for header in complete}, dtype=object)
    return found.rename_axis("run"), settings


def choose(found: pd.DataFrame, within: float) -> str:
    """The name of the run that is chosen from `trials`. within: F1 that may be given up, 0 to 1."""
    good = found[found["f1"] >= found["f1"].max() - within]
    return str(good.sort_values(["epochs", "f1"], ascending=[True, False], kind="stable").index[0])


def overrides(found: pd.DataFrame, name: str, settings: Sequence[str]) -> list[str]:
    """A trial's settings as words of a command line; a group (loss.name) by its choice (loss=smoothl1), which comes first."""
    ordered = sorted(settings, key=lambda setting: not setting.endswith(".name"))
    return [f"{setting.removesuffix('.name')}={_text(found.at[name, setting])}" for setting in ordered]


def _text(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{float(value):.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=lambda number: number.item())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 the disk refused, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m study.select_trial",
        description="The trial of a search that reaches the target first, of those with nearly the best dev F1.",
        epilog="Exit codes: 0 done, 1 the disk refused, 2 bad input.",
    )
    parser.add_argument("folder", metavar="SWEEP_FOLDER", type=Path)
    parser.add_argument("--target", type=float, required=True, help="dev weighted F1 that is to be reached, 0 to 1")
    parser.add_argument("--within", type=float, required=True, help="dev weighted F1 that may be given up, 0 to 1")
    parsed = parser.parse_args(arguments)
    try:
        for name in ("target", "within"):
            if not 0 <= getattr(parsed, name) <= 1:
                raise InputError(f"--{name}: expected a share from 0 to 1, got {getattr(parsed, name):g}; 0.62 is 62 %")
        found, settings = trials(parsed.folder, parsed.target)
    except (InputError, ResultsError) as error:
        print(f"study.select_trial: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    chosen = choose(found, parsed.within)
    lines = []
    for name in found.sort_values(["f1", "epochs"], ascending=[False, True], kind="stable").index.map(str):
        f1, epochs = (float(found[column][name]) for column in ("f1", "epochs"))
        reached = "not reached" if epochs == float("inf") else f"{epochs:g} epochs"
        sign = "*" if name == chosen else " "
        lines.append(f"{sign} {name}: {100 * f1:.2f} %, {reached}: {' '.join(overrides(found, name, settings))}")
    try:
        print("\n".join([*lines, " ".join(overrides(found, chosen, settings))]), flush=True)
    except BrokenPipeError:  # the reader has seen enough (head): what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
