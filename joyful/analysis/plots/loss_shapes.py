"""Figures of the loss functions and their derivatives, for docs/LOSS_SETUP_SUMMARY.md.

    python -m joyful.analysis.plots.loss_shapes --out docs/images

A reconstruction loss is a function of the residual r = prediction - target of one element. A classification loss is a
function of the probability p of the true class, and its derivative is with respect to the logit of this class.

The formulas are implemented here in NumPy because `joyful.analysis` does not depend on torch. A test compares them with
`joyful.losses`.
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

#: Width and height of one pair of axes, in inches.
PANEL = (4.0, 3.0)


def squared_error(r: Values) -> tuple[Values, Values]:
    """Return the squared error r^2 and its derivative 2 r.

    Args:
        r: Residuals.

    Returns:
        The values and the derivatives, each with the shape of `r`.
    """
    return r**2, 2 * r


def smooth_l1(r: Values, beta: float = 1.0) -> tuple[Values, Values]:
    """Return the SmoothL1 loss and its derivative.

    The loss is r^2 / (2 beta) if |r| < beta, and |r| - beta / 2 otherwise. The derivative is r / beta, clipped to
    [-1, 1].

    Args:
        r: Residuals.
        beta: Threshold between the quadratic and the linear part, positive and in the unit of `r`.

    Returns:
        The values and the derivatives, each with the shape of `r`.

    Example:
        >>> value, derivative = smooth_l1(np.array([0.5, 2.0]))
        >>> value.tolist(), derivative.tolist()
        ([0.125, 1.5], [0.5, 1.0])
    """
    value = np.where(np.abs(r) < beta, r**2 / (2 * beta), np.abs(r) - beta / 2)
    return value, np.clip(r / beta, -1.0, 1.0)


def focal(p: Values, gamma: float = 0.0) -> tuple[Values, Values]:
    """Return the focal loss -(1 - p)^gamma ln p and its derivative with respect to the logit of the true class.

    Args:
        p: Probabilities of the true class, between 0 and 1 (exclusive).
        gamma: Focusing exponent, not negative. With 0 the loss is the cross-entropy.

    Returns:
        The values and the derivatives, each with the shape of `p`.

    Source:
        Lin et al. (2017), Focal Loss for Dense Object Detection.
    """
    rest = (1 - p) ** gamma
    return -rest * np.log(p), rest * (gamma * p * np.log(p) - (1 - p))


#: Line -> function from residuals to (value, derivative), for the first row of panels.
RECONSTRUCTION: dict[str, Callable[[Values], tuple[Values, Values]]] = {
    "MSE": squared_error,
    "SmoothL1, beta 1": smooth_l1,
    "SmoothL1, beta 0.5": lambda r: smooth_l1(r, 0.5),
}

#: Line -> (key of RECONSTRUCTION, encoder weight), for the second row of panels.
WEIGHTED = {
    "0.05 MSE": ("MSE", 0.05),
    "0.03 SmoothL1": ("SmoothL1, beta 1", 0.03),
    "0.10 SmoothL1": ("SmoothL1, beta 1", 0.10),
}

#: Line -> gamma.
CLASSIFICATION = {"nll": 0.0, "focal, gamma 2": 2.0}


def reconstruction_curves() -> pd.DataFrame:
    """Return the curves of the reconstruction losses as a tidy frame.

    Returns:
        Frame with the columns `panel` ("value", "gradient", "weighted value" or "weighted gradient"), `line`, `x`
        (residual) and `y`.
    """
    r = np.linspace(-2.5, 2.5, 101)
    plain = [_rows(line, r, function(r)) for line, function in RECONSTRUCTION.items()]
    weighted = [
        _rows(line, r, RECONSTRUCTION[loss](r), "weighted ", weight) for line, (loss, weight) in WEIGHTED.items()
    ]
    return pd.concat(plain + weighted, ignore_index=True)


def classification_curves() -> pd.DataFrame:
    """Return the curves of the classification losses as a tidy frame.

    Returns:
        Frame with the columns `panel` ("value" or "gradient"), `line`, `x` (probability of the true class) and `y`.
    """
    p = np.linspace(0.01, 0.99, 99)
    return pd.concat([_rows(line, p, focal(p, gamma)) for line, gamma in CLASSIFICATION.items()], ignore_index=True)


def _rows(line: str, x: Values, pair: tuple[Values, Values], prefix: str = "", weight: float = 1.0) -> pd.DataFrame:
    panels = zip(("value", "gradient"), pair, strict=True)
    return pd.concat(
        [pd.DataFrame({"panel": prefix + panel, "line": line, "x": x, "y": weight * y}) for panel, y in panels]
    )


def reconstruction(curves: pd.DataFrame) -> Plot:
    """Plot the curves of `reconstruction_curves` in four panels."""
    labels = {"value": "loss per element", "gradient": "derivative"}
    labels |= {"weighted value": "weighted loss", "weighted gradient": "weighted derivative"}
    at_half = curves[np.isclose(curves["x"], 0.5) & (curves["panel"] == "weighted gradient")].set_index("line")["y"]
    derivatives = ", ".join(f"{line} {value:.3f}" for line, value in at_half.items())
    return Plot(
        "reconstruction-losses",
        "Reconstruction losses and their derivatives, against the residual",
        "SmoothL1 with beta 1 is half the squared error near zero and linear beyond 1. Its derivative is at most 1. "
        f"Derivatives of the weighted losses at a residual of 0.5: {derivatives}.",
        _figure(curves, labels, "residual"),
    )


def classification(curves: pd.DataFrame) -> Plot:
    """Plot the curves of `classification_curves` in two panels."""
    labels = {"value": "loss per utterance", "gradient": "derivative (true logit)"}
    return Plot(
        "classification-losses",
        "Classification losses and their derivatives, against the probability of the true class",
        "The focal loss reduces the loss of well-classified utterances: at p = 0.9 it is a hundredth of the "
        "cross-entropy.",
        _figure(curves, labels, "probability of the true class"),
    )


def _figure(curves: pd.DataFrame, labels: dict[str, str], x_label: str) -> Figure:
    rows = len(labels) // 2
    width, height = 2 * PANEL[0], rows * PANEL[1]
    with drawing():
        figure = Figure(figsize=(width, height))
        for number, (panel, label) in enumerate(labels.items(), start=1):
            axes = figure.add_subplot(rows, 2, number)
            _draw(axes, curves[curves["panel"] == panel], legend=number % 2 == 1)  # One legend per row
            axes.set_xlabel(x_label)
            axes.set_ylabel(label)
        figure.subplots_adjust(
            left=0.62 / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.35 / height, wspace=0.24, hspace=0.38
        )  # fmt: skip
    return figure


def _draw(axes: Axes, curves: pd.DataFrame, legend: bool) -> None:
    for index, line in enumerate(dict.fromkeys(curves["line"])):
        style, rows = look(index), curves[curves["line"] == line]
        x, y = rows["x"].to_numpy(), rows["y"].to_numpy()
        axes.plot(x, y, color=style.colour, linestyle=style.dashes, label=short(line))
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2)


def plots() -> dict[str, Plot]:
    """Return the figures that the command writes, by file name."""
    return {
        "reconstruction_losses.svg": reconstruction(reconstruction_curves()),
        "classification_losses.svg": classification(classification_curves()),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: write the figures and print their paths.

    Args:
        arguments: The arguments. None stands for those of the process.

    Returns:
        The exit code: 0 on success, 1 if a file cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="python -m joyful.analysis.plots.loss_shapes",
        description="Plot the loss functions and write them as SVG files.",
    )
    default = Path("docs/images")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=default, help=f"default: {default}")
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
