"""Select trials of a search by the rules of the study's plans.

    python -m study.select_trial SWEEP_FOLDER --target 0.743 --within 0.006 [--rule product] [--count 3]

Candidates are the complete settings whose mean best dev weighted F1 is at most --within below the best of all. Runs that
differ in their seeds only are one setting. The rule `first` (study/PLAN.md) takes the one that reaches --target after the
fewest epochs. The rule `product` (study/FAIR_PLAN.md) takes the one with the smallest mean of log(epochs x spread of dev F1).
Ties are broken by the higher F1, then by the earlier trial. --count takes the next ones too.
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
from joyful.analysis.stability import spread_of_rows
from joyful.results import InputError, ResultsError, read_runs

#: Name of a rule -> the column that it minimises.
RULES = {"first": "epochs", "product": "product"}


def read_trials(folder: Path, target: float) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Read the complete runs of a folder, and the settings that differ between them.

    Args:
        folder: Folder of the sweep.
        target: Target dev weighted F1 (0 to 1).

    Returns:
        A table indexed by the name of the first run of a setting, with the columns `f1` (best dev weighted F1, 0 to 1),
        `epochs` (epochs until dev weighted F1 reaches the target; inf if it never does), `product` (epochs times the
        spread of dev F1 at whole epochs), `seeds` (number of runs) and one column per differing setting. f1 is the mean
        over the runs of a setting, epochs and product are geometric means. Second, the names of these settings.

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
    whole = dev[[epoch for epoch in dev.columns if float(epoch).is_integer()]]
    epochs = first_reached(dev, target)
    runs = pd.DataFrame({"f1": dev.max(axis=1), "epochs": epochs, "product": epochs * spread_of_rows(whole)})
    values = {name: [header.settings.get(name) for header in complete] for name in settings}
    keys = [json.dumps(row) for row in zip(*values.values(), strict=True)] if settings else [""] * len(complete)
    groups = runs.groupby(pd.Series(keys, index=runs.index).map({key: n for n, key in enumerate(dict.fromkeys(keys))}))
    trials = pd.DataFrame(
        {
            "f1": groups["f1"].mean(),
            "epochs": groups["epochs"].agg(_geometric_mean),
            "product": groups["product"].agg(_geometric_mean),
            "seeds": groups.size(),
        }
    )
    firsts = [keys.index(key) for key in dict.fromkeys(keys)]
    trials.index = pd.Index([complete[first].name for first in firsts])
    for name in settings:
        trials[name] = pd.Series([values[name][first] for first in firsts], index=trials.index, dtype=object)
    return trials.rename_axis("run"), settings


def _geometric_mean(values: pd.Series) -> float:
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean()))


def choose(trials: pd.DataFrame, within: float, rule: str = "first", count: int = 1) -> list[str]:
    """Return the names of the selected trials, best first.

    Args:
        trials: Table of `read_trials`.
        within: Loss of F1 (0 to 1) that is accepted.
        rule: A key of `RULES`.
        count: Number of trials to select.
    """
    good = trials[trials["f1"] >= trials["f1"].max() - within]
    ordered = good.sort_values([RULES[rule], "f1"], ascending=[True, False], kind="stable", na_position="last")
    return [str(name) for name in ordered.index[:count]]


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
        description="Select the trials that reach the target first among those with nearly the best dev F1.",
        epilog="Exit codes: 0 done, 1 cannot read a file, 2 bad input.",
    )
    parser.add_argument("folder", metavar="SWEEP_FOLDER", type=Path)
    parser.add_argument("--target", type=float, required=True, help="target dev weighted F1, 0 to 1")
    parser.add_argument("--within", type=float, required=True, help="loss of dev weighted F1 that is accepted, 0 to 1")
    parser.add_argument(
        "--rule", choices=RULES, default="first", help="what is smallest: epochs to the target, or epochs times spread"
    )
    parser.add_argument("--count", type=int, default=1, help="number of trials to select")
    parsed = parser.parse_args(arguments)
    try:
        for name in ("target", "within"):
            if not 0 <= getattr(parsed, name) <= 1:
                raise InputError(
                    f"--{name}: expected a fraction from 0 to 1, got {getattr(parsed, name):g}; set 0.62 for 62 %"
                )
        if parsed.count < 1:
            raise InputError(f"--count: expected 1 or more, got {parsed.count}; set 3 for three trials")
        trials, settings = read_trials(parsed.folder, parsed.target)
    except (InputError, ResultsError) as error:
        print(f"study.select_trial: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    chosen = choose(trials, parsed.within, parsed.rule, parsed.count)
    lines = []
    for name in trials.sort_values(["f1", "epochs"], ascending=[False, True], kind="stable").index.map(str):
        f1, epochs = (float(trials[column][name]) for column in ("f1", "epochs"))
        reached = "not reached" if epochs == float("inf") else f"{epochs:.4g} epochs"
        sign = "*" if name in chosen else " "
        spread = f", spread {100 * trials['product'][name] / epochs:.2f}" if parsed.rule == "product" else ""
        lines.append(
            f"{sign} {name}: {100 * f1:.2f} %, {reached}{spread}: {' '.join(overrides(trials, name, settings))}"
        )
    lines += [" ".join(overrides(trials, name, settings)) for name in chosen]
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
