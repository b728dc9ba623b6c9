"""Select a trial of a search: the fastest to the target among those with nearly the best F1.

    python -m study.select_trial SWEEP_FOLDER --target 0.743 --within 0.006

This is the rule of study/PLAN.md, "Settings that work". Candidates are the complete trials whose best dev weighted F1
is at most --within below the best of all trials. The one that reaches --target after the fewest epochs is selected.
Ties are broken by the higher F1, then by the earlier trial.
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


def read_trials(folder: Path, target: float) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the complete runs of a folder, and the settings that differ between them.

    Args:
        folder: Folder of the sweep.
        target: Target dev weighted F1 (0 to 1).

    Returns:
        A table indexed by the name of the run, with the columns `f1` (best dev weighted F1, 0 to 1), `epochs` (epochs
        until dev weighted F1 reaches the target; inf if it never does) and one column per differing setting. Second,
        the names of these settings.

    Raises:
        InputError: If there is no complete run.
    """
    loaded = read_runs(folder, ["f1_weighted"])
    complete = [header for header in loaded.headers if header.status == "completed"]
    if not complete:
        raise InputError(f"{folder}: expected a folder with complete trials, found none; give the folder of a search")
    complete.sort(key=lambda header: (len(header.name), header.name))  # trials are numbered
    settings = tuple(differing_settings([header.settings for header in complete]))
    dev = loaded.frame[loaded.frame["split"] == "dev"].pivot(index="run", columns="epoch", values="f1_weighted")
    dev = dev.reindex([header.name for header in complete])
    trials = pd.DataFrame({"f1": dev.max(axis=1), "epochs": first_reached(dev, target)})
    for name in settings:
        trials[name] = pd.Series({header.name: header.settings.get(name) for header in complete}, dtype=object)
    return trials.rename_axis("run"), settings


def choose(trials: pd.DataFrame, within: float) -> str:
    """Return the name of the selected run.

    Args:
        trials: Table of `read_trials`.
        within: Loss of F1 (0 to 1) that is accepted for speed.
    """
    good = trials[trials["f1"] >= trials["f1"].max() - within]
    return str(good.sort_values(["epochs", "f1"], ascending=[True, False], kind="stable").index[0])


def overrides(trials: pd.DataFrame, name: str, settings: Sequence[str]) -> list[str]:
    """Return the settings of a trial as overrides. Groups come first, by their choice (loss=smoothl1 for loss.name)."""
    ordered = sorted(settings, key=lambda setting: not setting.endswith(".name"))
    return [f"{setting.removesuffix('.name')}={_text(trials.at[name, setting])}" for setting in ordered]


def _text(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{float(value):.4g}"
    return value if isinstance(value, str) else json.dumps(value, default=lambda number: number.item())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code: 0 done, 1 cannot read a file, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m study.select_trial",
        description="Select the trial that reaches the target first among those with nearly the best dev F1.",
        epilog="Exit codes: 0 done, 1 cannot read a file, 2 bad input.",
    )
    parser.add_argument("folder", metavar="SWEEP_FOLDER", type=Path)
    parser.add_argument("--target", type=float, required=True, help="target dev weighted F1, 0 to 1")
    parser.add_argument("--within", type=float, required=True, help="loss of dev weighted F1 that is accepted, 0 to 1")
    parsed = parser.parse_args(arguments)
    try:
        for name in ("target", "within"):
            if not 0 <= getattr(parsed, name) <= 1:
                raise InputError(
                    f"--{name}: expected a fraction from 0 to 1, got {getattr(parsed, name):g}; set 0.62 for 62 %"
                )
        trials, settings = read_trials(parsed.folder, parsed.target)
    except (InputError, ResultsError) as error:
        print(f"study.select_trial: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    chosen = choose(trials, parsed.within)
    lines = []
    for name in trials.sort_values(["f1", "epochs"], ascending=[False, True], kind="stable").index.map(str):
        f1, epochs = (float(trials[column][name]) for column in ("f1", "epochs"))
        reached = "not reached" if epochs == float("inf") else f"{epochs:g} epochs"
        sign = "*" if name == chosen else " "
        lines.append(f"{sign} {name}: {100 * f1:.2f} %, {reached}: {' '.join(overrides(trials, name, settings))}")
    try:
        print("\n".join([*lines, " ".join(overrides(trials, chosen, settings))]), flush=True)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
