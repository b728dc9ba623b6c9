"""Figures of the loss functions and their derivatives, for docs/LOSS_SETUP_SUMMARY.md.

    python -m study.loss_shapes --out docs/images

A reconstruction loss is a function of the residual r = prediction - target of one element. A classification loss is a
function of the probability p of the true class, and its derivative is with respect to the logit of this class. The
curves are those of `joyful.losses`, with the derivatives of autograd.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from joyful.analysis.plots.style import Plot, drawing, look, short, standalone
from joyful.losses.classification import ClassificationLoss, FocalLoss, NLLLoss
from joyful.losses.reconstruction import MSELoss, ReconstructionLoss, SmoothL1Loss
from joyful.results import ResultsError, write_bytes

Values = NDArray[np.float64]

#: Width and height of one pair of axes, in inches.
PANEL = (4.0, 3.0)

#: Line -> loss, for the first row of panels.
RECONSTRUCTION: dict[str, ReconstructionLoss] = {
    "MSE": MSELoss(),
    "SmoothL1, beta 1": SmoothL1Loss(),
    "SmoothL1, beta 0.5": SmoothL1Loss(beta=0.5),
}

#: Line -> (key of RECONSTRUCTION, encoder weight), for the second row of panels.
WEIGHTED = {
    "0.05 MSE": ("MSE", 0.05),
    "0.03 SmoothL1": ("SmoothL1, beta 1", 0.03),
    "0.10 SmoothL1": ("SmoothL1, beta 1", 0.10),
}

#: Line -> loss.
CLASSIFICATION: dict[str, ClassificationLoss] = {"nll": NLLLoss(), "focal, gamma 2": FocalLoss()}


def of_residuals(loss: ReconstructionLoss, r: Values) -> tuple[Values, Values]:
    """Return the values and the derivatives of a reconstruction loss at the residuals r.

    Example:
        >>> value, derivative = of_residuals(SmoothL1Loss(), np.array([0.5, 2.0]))
        >>> value.tolist(), derivative.tolist()
        ([0.125, 1.5], [0.5, 1.0])
    """
    residual = torch.tensor(r, requires_grad=True)
    values = loss.elementwise(residual, torch.zeros_like(residual))
    (derivatives,) = torch.autograd.grad(values.sum(), residual)
    return values.detach().numpy(), derivatives.numpy()


def of_probabilities(loss: ClassificationLoss, p: Values) -> tuple[Values, Values]:
    """Return the values of a classification loss, and its derivatives with respect to the logit of the true class.

    Args:
        loss: The loss.
        p: Probabilities of the true class, between 0 and 1 (exclusive).
    """
    logits = torch.tensor(np.log(np.stack([p, 1 - p], axis=1)), requires_grad=True)
    values = torch.stack([loss(row[None], torch.tensor([0])) for row in logits])
    (derivatives,) = torch.autograd.grad(values.sum(), logits)
    return values.detach().numpy(), derivatives[:, 0].numpy()


def reconstruction_curves() -> pd.DataFrame:
    """Return the curves of the reconstruction losses as a tidy frame.

    Returns:
        Frame with the columns `panel` ("value", "gradient", "weighted value" or "weighted gradient"), `line`, `x`
        (residual) and `y`.
    """
    r = np.linspace(-2.5, 2.5, 101)
    plain = [_rows(line, r, of_residuals(loss, r)) for line, loss in RECONSTRUCTION.items()]
    weighted = [
        _rows(line, r, of_residuals(RECONSTRUCTION[loss], r), "weighted ", weight)
        for line, (loss, weight) in WEIGHTED.items()
    ]
    return pd.concat(plain + weighted, ignore_index=True)


def classification_curves() -> pd.DataFrame:
    """Return the curves of the classification losses as a tidy frame.

    Returns:
        Frame with the columns `panel` ("value" or "gradient"), `line`, `x` (probability of the true class) and `y`.
    """
    p = np.linspace(0.01, 0.99, 99)
    curves = [_rows(line, p, of_probabilities(loss, p)) for line, loss in CLASSIFICATION.items()]
    return pd.concat(curves, ignore_index=True)


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
        prog="python -m study.loss_shapes",
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
        print(f"study.loss_shapes: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
