"""How values of an objective are shown: their name, and per cent for those that are known to be fractions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """The name and the unit of an objective.

    Attributes:
        name: Its name, such as "dev F1" or "value".
        percent: Whether its values are fractions that are shown in per cent.
        column: Column of the dev rows of history.parquet with its current value. The reported value is then the best so
            far. None: the reported value is the current one.
    """

    name: str = "value"
    percent: bool = False
    column: str | None = None

    def text(self, value: float | None) -> str:
        """Return a value as text, "" for None.

        Example:
            >>> Metric("dev F1", True).text(0.4123), Metric().text(1.3e-10)
            ('41.2 %', '1.3e-10')
        """
        if value is None:
            return ""
        return f"{100 * value:.1f} %" if self.percent else format_value(value)


#: Names of objectives that `joyful train` gives to a study.
KNOWN = {"dev_f1": Metric("dev F1", percent=True, column="f1_weighted"), "epochs_to_target": Metric("epochs to target")}


def metric_of(name: str | None) -> Metric:
    """Return the metric of the first objective of a study by the name that it has there, None for no name."""
    return KNOWN.get(name, Metric(name)) if name is not None else Metric()


def format_value(value: float) -> str:
    """Return a value with four decimals, or with four digits if that would hide it.

    Example:
        >>> format_value(0.59192), format_value(1.3083e-10), format_value(0.0)
        ('0.5919', '1.308e-10', '0.0000')
    """
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
