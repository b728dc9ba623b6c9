"""What is known about the columns of the histories: their names in a report, their directions and their units.

Columns are recognised by the first words of their names. The direction of any other column has to be given.
"""

from __future__ import annotations

from joyful.results import InputError

#: Column -> its name in a report.
NAMES = {
    "f1_weighted": "weighted F1", "f1_macro": "macro F1", "nll": "NLL", "recon_mse": "reconstruction MSE",
    "recon_mae": "reconstruction MAE", "loss_total": "total loss", "loss_encoder": "reconstruction loss",
    "loss_classification": "classification loss", "loss_contrastive": "contrastive loss", "loss_gate_reg": "gate loss",
}  # fmt: skip

#: Short names of columns on the command line.
SHORT = {"f1": "f1_weighted"}

#: The directions that can be better.
BETTER = ("higher", "lower")

#: First words of columns with a known direction. Those of which more is better hold fractions from 0 to 1.
_SCORES, _LOSSES = ("f1", "accuracy"), ("nll", "loss", "recon")

#: First words of a column -> the groups and settings that its unit depends on.
_UNIT_DEPENDS_ON = {
    "loss_total": ("loss", "weights", "weighting", "classification"),
    "loss_encoder": ("loss",),
    "loss_classification": ("classification",),
    "share": ("loss", "weights", "weighting", "classification"),
}


def is_score(column: str) -> bool:
    """Return whether a column is known to hold scores, which are fractions from 0 to 1 and compared in points."""
    return _starts(column, _SCORES)


def units(column: str) -> tuple[float, str]:
    """Return the factor from the values of a column to the axis of a figure, and the unit there."""
    return (100.0, "%") if is_score(column) else (1.0, "nats" if column == "nll" else "")


def known_direction(column: str) -> str:
    """Return "higher" or "lower", whichever is better for a column, or "" if it is not known.

    Example:
        >>> known_direction("f1_weighted"), known_direction("loss"), known_direction("wer")
        ('higher', 'lower', '')
    """
    return "higher" if is_score(column) else "lower" if _starts(column, _LOSSES) else ""


def higher_is_better(column: str, better: str = "") -> bool:
    """Return whether higher values of a column are better.

    Args:
        column: Column of the histories.
        better: "higher" or "lower", or "" for a column whose direction is known.

    Raises:
        InputError: If the direction is neither known nor given.
    """
    direction = better or known_direction(column)
    if not direction:
        hint = f"set better: lower in its metric in the claims file, or --better {column}=lower"
        raise InputError(f"{column}: expected to know whether higher or lower values are better; {hint} (or higher)")
    return direction == "higher"


def unit_depends_on(column: str) -> tuple[str, ...]:
    """Return the groups and settings that determine the unit of a column. Arms that differ in them have other units."""
    return next((names for start, names in _UNIT_DEPENDS_ON.items() if _starts(column, (start,))), ())


def _starts(column: str, words: tuple[str, ...]) -> bool:
    return any(column == word or column.startswith(f"{word}_") for word in words)
