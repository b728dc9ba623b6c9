"""Add the values of a source that logs one metric at a time to its run."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from joyful.analysis.importers.options import Options
from joyful.analysis.importers.runs import MAXIMUM_RUN_ROWS, ImportedRun
from joyful.results import InputError

#: Metric (in lower case) -> the key of a row that it gives.
KEYS = {"epoch": "epoch", "_runtime": "seconds", "tokens": "tokens"}

#: Maximum number of metrics of one run.
MAXIMUM_NAMES = 10_000


@dataclass(slots=True)
class _Row:
    """A row of a step while it is collected: the position of its first value and the keys that were logged."""

    file: int
    line: int
    epoch: float | None = None
    seconds: float | None = None
    tokens: float | None = None


class Points:
    """The values of one run, collected by step.

    Args:
        run: The run to add the values to.
        options: The options, which select and name the metrics.

    Attributes:
        earliest: The earliest time of a value, in seconds; infinity without times.
    """

    def __init__(self, run: ImportedRun, options: Options) -> None:
        self._run, self._options = run, options
        self.earliest = float("inf")
        self._rows: dict[float, _Row] = {}
        self._values: dict[str, tuple[array[float], array[float]]] = {}  # metric -> steps and values

    def add(self, name: str, step: float, value: float, line: int, seconds: float | None = None, file: int = 0) -> None:
        """Add a value.

        Args:
            name: Name of the metric in the source. "epoch", "_runtime" and "tokens" give the epoch, the seconds and the
                tokens of the step.
            step: The step, or without steps the position on another axis, which `close` interprets.
            value: The value.
            line: Its position in the file.
            seconds: Its time in seconds; None if not logged. The last of a step counts.
            file: Index of its file in the files of the run.

        Raises:
            InputError: If there are too many values.
        """
        self._options.count(1)
        row = self._rows.get(step)
        if row is None:
            if len(self._rows) >= MAXIMUM_RUN_ROWS:
                raise InputError(f"expected at most {MAXIMUM_RUN_ROWS} steps of one run; thin the rows out")
            row = self._rows[step] = _Row(file, line)
        if seconds is not None:
            row.seconds = seconds
            self.earliest = min(self.earliest, seconds)
        key = KEYS.get(name.lower())
        if key is not None:
            setattr(row, key, value)
        elif name.lower().endswith(("/epoch", "/step")):  # their meaning differs between programs
            self._options.left_out["values named epoch or step with a prefix"] += 1
        else:
            if name not in self._values:
                if len(self._values) >= MAXIMUM_NAMES:
                    raise InputError(f"expected at most {MAXIMUM_NAMES} metrics of one run")
                self._values[name] = array("d"), array("d")
            steps, values = self._values[name]
            steps.append(step)
            values.append(value)

    def close(self, axis: str = "step", origin: float = 0.0) -> None:
        """Add the collected rows and values to the run.

        Args:
            axis: What `step` was: "step", "epoch" or "seconds". On the latter two, evaluations are numbered.
            origin: Seconds at the start of the run, which are subtracted from those of the values.

        Raises:
            InputError: If a step, epoch or time is negative, or a metric has no valid name or no split.
        """
        indices = {}
        for step, row in sorted(self._rows.items()):
            seconds = None if row.seconds is None else max(0.0, row.seconds - origin)
            keys = {"epoch": row.epoch, "seconds": seconds, "tokens": row.tokens}
            if axis != "step":
                keys[axis] = step
            try:
                indices[step] = self._run.row(row.line, int(step) if axis == "step" else None, **keys, file=row.file)
            except InputError as error:
                place = f"{self._run.files[row.file]}, {self._run.unit} {row.line}"
                raise InputError(f"{place}: {error}") from None
        for name, (steps, values) in self._values.items():
            column = self._options.column(name, place=str(self._run.files[0]))
            if column is not None:
                for step, value in zip(steps, values, strict=True):
                    self._run.put(indices[step], column, value)
