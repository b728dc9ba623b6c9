"""Figure of the pruners: the epochs that each rule trains, and how often it loses the best configuration.

python -m benchmarks.pruners --all --json pruners.json
python -m benchmarks.frontier pruners.json docs/images/pruners.svg
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from joyful.analysis.plots.style import MUTED, Plot, drawing, look, standalone
from joyful.results import write_bytes

#: Title of a panel, by the name of the recorded curves.
PANELS = {"curves_synthetic": "embedded data", "curves_meld": "MELD", "curves_emorynlp": "EmoryNLP"}

#: Rule -> its label. The other rules are shown as small points.
NAMED = {
    "none": "none",
    "percentile": "percentile",
    "median": "median",
    "asha": "asha",
    "paused halving 5, 2, promotions first": "asha_promotion",
}

#: Rungs of asha_promotion where trials have 12 epochs.
SHORTER = {"paused halving 3, 2, promotions first": "asha_promotion"}

#: The aim: at most these shares of the epochs and of the searches.
AIM = (35.0, 10.0)


def points(report: dict[str, list[dict[str, float | str]]]) -> pd.DataFrame:
    """Return the table of the rules from the JSON of `benchmarks.pruners`.

    Returns:
        Columns place, rule, epochs (per cent of those of full trials) and lost (per cent of the searches).
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for entry in report["figures"]:
        found = re.fullmatch(r"([^,]+), (.*), (epochs trained|best ended early)", str(entry["name"]))
        if found is not None:
            place, rule, quantity = found.groups()
            column = "epochs" if quantity == "epochs trained" else "lost"
            rows.setdefault((place, rule), {})[column] = 100 * float(entry["ratio"])
    return pd.DataFrame([{"place": p, "rule": r, **values} for (p, r), values in rows.items()])


def plot(table: pd.DataFrame) -> Plot:
    """Draw a panel for each set of recorded curves."""
    panels = [name for name in PANELS if name in set(table["place"])]
    kept = table[(table["epochs"] <= AIM[0]) & (table["lost"] <= AIM[1])]["rule"].value_counts()
    finding = "No rule meets the aim on all data sets." if not (kept == len(panels)).any() else "A rule meets the aim."
    with drawing():
        figure = Figure(figsize=(9.0, 3.4))
        for number, place in enumerate(panels, start=1):
            axes = figure.add_subplot(1, len(panels), number)
            _draw(axes, table[table["place"] == place], NAMED | (SHORTER if place != "curves_synthetic" else {}))
            axes.set_title(PANELS[place], loc="left")
            axes.set_xlabel("epochs trained, %")
            if number == 1:
                axes.set_ylabel("searches that lose the best, %")
                figure.legend(loc="upper left", bbox_to_anchor=(0.06, 1.0), ncols=7, handletextpad=0.3)
        figure.subplots_adjust(left=0.07, right=0.98, bottom=0.16, top=0.8, wspace=0.16)
    return Plot("pruners", "Epochs trained by each rule, and the searches of 100 that lose the best", finding, figure)


def _draw(axes: Axes, table: pd.DataFrame, named: dict[str, str]) -> None:
    axes.add_patch(Rectangle((0, 0), *AIM, facecolor=MUTED, alpha=0.25, linewidth=0))
    axes.text(1, AIM[1] + 1, "aim", color=MUTED)
    axes.plot(table["epochs"], table["lost"], "o", color=MUTED, markersize=2.5, alpha=0.6, label="another rule")
    best = table.sort_values(["epochs", "lost"])
    best = best[best["lost"] < best["lost"].cummin().shift(fill_value=101)]
    axes.step(best["epochs"], best["lost"], where="post", color=MUTED, linewidth=1, label="best known")
    for index, label in enumerate(dict.fromkeys(named.values())):
        rules = [rule for rule, name in named.items() if name == label and rule in set(table["rule"])]
        rows, style = table[table["rule"].isin(rules[-1:])], look(index)
        axes.plot(rows["epochs"], rows["lost"], style.marker, color=style.colour, markersize=7, label=label)
    axes.set_xlim(0, 104)
    axes.set_ylim(-3, 104)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the figure."""
    command_line = argparse.ArgumentParser(prog="python -m benchmarks.frontier", description=__doc__)
    command_line.add_argument("report", type=Path, help="JSON file of python -m benchmarks.pruners --all")
    command_line.add_argument("figure", type=Path, help="SVG file to write")
    options = command_line.parse_args(arguments)
    drawn = plot(points(json.loads(options.report.read_text())))
    write_bytes(options.figure, standalone(drawn).encode())
    print(f"{options.figure}: {drawn.finding}")


if __name__ == "__main__":
    main()
