"""The losses themselves, value and gradient, as docs/LOSS_SETUP_SUMMARY.md shows them.

    python -m joyful.analysis.plots.loss_shapes --out docs/images

    reconstruction   of the residual r = prediction - target of one number
    classification   of the probability p that the right class is given; the gradient is that by its logit

The formulas stand here once more, in NumPy, since `analysis` knows no torch; a test holds them to joyful.losses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from joyful.analysis.plots.style import Plot, drawing, look, short, standalone
from joyful.results import ResultsError, write_bytes

Values = NDArray[np.float64]

#: Inches of one pair of axes.
PANEL = (4.0, 3.0)


def squared_error(r: Values) -> tuple[Values, Values]:
    """r^2 and its derivative 2 r."""
    return r**2, 2 * r


def smooth_l1(r: Values, beta: float = 1.0) -> tuple[Values, Values]:
    """r^2 / (2 beta) where |r| < beta, |r| - beta / 2 elsewhere; the derivative r / beta, held between -1 and 1.

    beta > 0, in the unit of r.
    """
    value = np.where(np.abs(r) < beta, r**2 / (2 * beta), np.abs(r) - beta / 2)
    return value, np.clip(r / beta, -1.0, 1.0)


def focal(p: Values, gamma: float = 0.0) -> tuple[Values, Values]:
    """-(1 - p)^gamma ln p, for 0 < p < 1, and its derivative by the logit of the right class; gamma 0 is the cross-entropy."""
    rest = (1 - p) ** gamma
    return -rest * np.log(p), rest * (gamma * p * np.log(p) - (1 - p))


#: Line -> (value, derivative) of residuals; the first panel row.
RECONSTRUCTION: dict[str, Callable[[Values], tuple[Values, Values]]] = {
    "MSE": squared_error,
    "SmoothL1, beta 1": smooth_l1,
    "SmoothL1, beta 0.5": lambda r: smooth_l1(r, 0.5),
}

#: Line -> (loss of RECONSTRUCTION, encoder weight); the second panel row.
WEIGHTED = {
    "0.05 MSE": ("MSE", 0.05),
    "0.03 SmoothL1": ("SmoothL1, beta 1", 0.03),
    "0.10 SmoothL1": ("SmoothL1, beta 1", 0.10),
}

#: Line -> gamma.
CLASSIFICATION = {"nll": 0.0, "focal, gamma 2": 2.0}


def reconstruction_curves() -> pd.DataFrame:
    """Tidy: panel (value, gradient, weighted value, weighted gradient), line, x (residual), y."""
    r = np.linspace(-2.5, 2.5, 101)
    rows = []
    for line, of in RECONSTRUCTION.items():
        rows += _rows(line, r, of(r), ("value", "gradient"))
    for line, (loss, weight) in WEIGHTED.items():
        value, slope = RECONSTRUCTION[loss](r)
        rows += _rows(line, r, (weight * value, weight * slope), ("weighted value", "weighted gradient"))
    return pd.concat(rows, ignore_index=True)


def classification_curves() -> pd.DataFrame:
    """Tidy: panel (value, gradient), line, x (probability of the right class), y."""
    p = np.linspace(0.01, 0.99, 99)
    rows = []
    for line, gamma in CLASSIFICATION.items():
        rows += _rows(line, p, focal(p, gamma), ("value", "gradient"))
    return pd.concat(rows, ignore_index=True)


def _rows(line: str, x: Values, pair: tuple[Values, Values], panels: tuple[str, str]) -> list[pd.DataFrame]:
    return [pd.DataFrame({"panel": panel, "line": line, "x": x, "y": y}) for panel, y in zip(panels, pair, strict=True)]


def reconstruction(curves: pd.DataFrame) -> Plot:
    """Four panels of `reconstruction_curves`."""
    labels = {
        "value": "loss of one number",
        "gradient": "its derivative",
        "weighted value": "loss times weight",
        "weighted gradient": "its derivative",
    }
    at_half = curves[np.isclose(curves["x"], 0.5) & (curves["panel"] == "weighted gradient")].set_index("line")["y"]
    told = ", ".join(f"{line} {value:.3f}" for line, value in at_half.items())
    return Plot(
        "reconstruction-losses",
        "Reconstruction losses and their derivatives, against the residual",
        "SmoothL1 with beta 1 is half the squared error near zero and a straight line beyond 1; its derivative is never above 1. "
        f"Pull of the weighted losses at a residual of 0.5: {told}.",
        _figure(curves, labels, "residual"),
    )


def classification(curves: pd.DataFrame) -> Plot:
    """Two panels of `classification_curves`."""
    labels = {"value": "loss of one utterance", "gradient": "derivative by the right logit"}
    return Plot(
        "classification-losses",
        "Classification losses and their derivatives, against the probability of the right class",
        "The focal loss leaves an utterance alone that is right already: at p = 0.9 it is a hundredth of the cross-entropy.",
        _figure(curves, labels, "probability of the right class"),
    )


def _figure(curves: pd.DataFrame, labels: dict[str, str], x_label: str) -> Figure:
    rows = len(labels) // 2
    width, height = 2 * PANEL[0], rows * PANEL[1]
    with drawing():
        figure = Figure(figsize=(width, height))
        for number, (panel, label) in enumerate(labels.items(), start=1):
            axes = figure.add_subplot(rows, 2, number)
            _draw(axes, curves[curves["panel"] == panel], legend=number % 2 == 1)  # one for each row
            axes.set_xlabel(x_label)
            axes.set_ylabel(label)
        figure.subplots_adjust(
            left=0.62 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.35 / height, wspace=0.24, hspace=0.38
        )  # fmt: skip
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, legend: bool) -> None:
    for index, line in enumerate(dict.fromkeys(curves["line"])):
        style, rows = look(index), curves[curves["line"] == line]
        axes.plot(
            rows["x"].to_numpy(), rows["y"].to_numpy(), color=style.colour, linestyle=style.dashes, label=short(line)
        )
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)


def plots() -> dict[str, Plot]:
    """File name -> figure: all that the command writes."""
    return {
        "reconstruction_losses.svg": reconstruction(reconstruction_curves()),
        "classification_losses.svg": classification(classification_curves()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the figures and print where they are; returns the exit code: 0 done, 1 the disk refused."""
    parser = argparse.ArgumentParser(
        prog="python -m joyful.analysis.plots.loss_shapes", description="Draw the losses as SVG files."
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, default=Path("docs/images"), help="where to write (default: docs/images)"
    )
    out = parser.parse_args(arguments).out
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, plot in plots().items():
            write_bytes(out / name, standalone(plot).encode())
            print(out / name)
    except (ResultsError, OSError) as error:
        print(f"joyful.analysis.plots.loss_shapes: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
