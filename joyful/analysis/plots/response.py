"""Response curves: F1, speed and stability as functions of a weight."""

from __future__ import annotations

import numpy as np
import pandas as pd

from joyful.analysis.formatting import number, three_digits
from joyful.analysis.plots.style import CARD, MOST_LINES, Plot, joined, look, panel, shortened

#: Measure -> (label of the axis, decimals, whether higher is better).
MEASURES = {
    "f1": ("best dev weighted F1 (%)", 2, True),
    "speed": ("epochs to target", 2, False),
    "stability": ("dev F1 spread (points per epoch)", 3, False),
}


def response_curve(response: pd.DataFrame, factor: str, measure: str) -> Plot:
    """Plot one measure against one weight, with 95 % intervals over seeds and one line per loss.

    The axis of weights is logarithmic unless a weight is zero or negative. A hollow marker means that more than half of
    the runs did not reach the target, so that the value is a lower bound. At most MOST_LINES lines are drawn.

    Args:
        response: Frame as returned by `joyful.analysis.response.response`.
        factor: Dotted name of the weight.
        measure: One of MEASURES.

    Returns:
        The figure.
    """
    rows = response[(response["factor"] == factor) & (response["measure"] == measure)]
    quantity, digits, higher_is_better = MEASURES[measure]
    sentences, names = [], shortened(list(dict.fromkeys(rows["line"])))
    with panel() as (figure, axes):
        for index, line in enumerate(list(names)[:MOST_LINES]):
            of_line = rows[(rows["line"] == line) & np.isfinite(rows["estimate"])].sort_values("weight")
            if of_line.empty:
                continue
            style = look(index)
            values = {key: of_line[key].to_numpy(dtype=float) for key in ("weight", "estimate", "low", "high")}
            below = np.nan_to_num(values["estimate"] - values["low"])
            above = np.nan_to_num(values["high"] - values["estimate"])
            axes.errorbar(
                values["weight"], values["estimate"], yerr=[below, above], color=style.colour, linestyle=style.dashes,
                marker=style.marker, capsize=3, label=names[line] or "all arms",
            )  # fmt: skip
            bounds = of_line[of_line["censored"] > 0.5]
            axes.plot(
                bounds["weight"].to_numpy(dtype=float), bounds["estimate"].to_numpy(dtype=float), linestyle="none",
                marker=style.marker, markersize=7, markerfacecolor=CARD, markeredgecolor=style.colour,
            )  # fmt: skip
            order = of_line["estimate"].to_numpy(dtype=float)
            best = of_line.iloc[int(np.argmax(order) if higher_is_better else np.argmin(order))]
            value, weight = number(float(best["estimate"]), digits), three_digits(float(best["weight"]))
            sentences.append(f"{names[line] or 'all arms'}: best value {value} at weight {weight}")
        weights = rows["weight"].to_numpy(dtype=float)
        if len(weights) and (weights > 0).all():
            axes.set_xscale("log")
            if len(set(weights)) <= 8:
                axes.set_xticks(sorted(set(weights)), [f"{weight:g}" for weight in sorted(set(weights))])
                axes.minorticks_off()
        axes.set_xlabel(factor)
        axes.set_ylabel(quantity)
    name = f"response-{factor.replace('.', '-').replace('_', '-')}-{measure}"
    return Plot(name, f"{quantity[:1].upper()}{quantity[1:]} against {factor}", joined(sentences), figure)
