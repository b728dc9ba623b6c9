"""What is known about the columns of the histories: their names in a report, their directions and their units.

Columns are recognised by the beginnings of their names. A column that is not known here is a value of which more is better.
"""

from __future__ import annotations

#: Column -> its name in a report.
NAMES = {
    "f1_weighted": "weighted F1", "f1_macro": "macro F1", "nll": "NLL", "recon_mse": "reconstruction MSE",
    "recon_mae": "reconstruction MAE", "loss_total": "total loss", "loss_encoder": "reconstruction loss",
    "loss_classification": "classification loss", "loss_contrastive": "contrastive loss", "loss_gate_reg": "gate loss",
}  # fmt: skip

#: Beginning of a column -> the groups and settings that its unit depends on.
_UNIT_DEPENDS_ON = {
    "loss_total": ("loss", "weights", "weighting", "classification"),
    "loss_encoder": ("loss",),
    "loss_classification": ("classification",),
    "share_": ("loss", "weights", "weighting", "classification"),
}


def is_score(column: str) -> bool:
    """Return whether a column holds scores, which are fractions from 0 to 1 and compared in points."""
    return column.startswith(("f1", "accuracy"))


def higher_is_better(column: str) -> bool:
    """Return whether higher values of a column are better."""
    return not column.startswith(("nll", "loss", "recon", "grad_norm", "error"))


def unit_depends_on(column: str) -> tuple[str, ...]:
    """Return the groups and settings that determine the unit of a column. Arms that differ in them have other units."""
    return next((names for start, names in _UNIT_DEPENDS_ON.items() if column.startswith(start)), ())
