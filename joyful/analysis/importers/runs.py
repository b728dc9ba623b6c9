"""The runs that an importer reads: their rows as plain arrays, and the history that results from them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from joyful.results import InputError

if TYPE_CHECKING:
    import numpy as np

#: Splits of a history, in the order of their rows within a step.
SPLITS = ("train", "dev", "test")

#: Maximum number of rows of one run in the source, and of values of its history.
MAXIMUM_RUN_ROWS, MAXIMUM_RUN_VALUES = 400_000, 8_000_000

_NOT_LOGGED = float("nan")


class Column(NamedTuple):
    """A metric of one split.

    Attributes:
        split: Index in SPLITS.
        name: Name of the column of the history.
    """

    split: int
    name: str


@dataclass
class _Series:
    """The measured values of a column, each with the index of its row."""

    rows: array[int] = field(default_factory=lambda: array("I"))
    values: array[float] = field(default_factory=lambda: array("d"))


@dataclass
class ImportedRun:
    """A run as logged by another training program.

    Importers fill it with `row` and `put`. The rows are stored as arrays, because a source may have millions of rows.

    Attributes:
        name: Path of its file relative to the source, with "/". Options such as --arm-from search it.
        files: The files that it was read from, for messages.
        settings: Dotted name -> value. The settings that differ between runs define the arms.
        arm: Name of the arm; None if the source does not say it.
        seed: The seed; None if the source does not say it.
        task: Name of the task; None if there is only one.
        role: comparison, calibration or search.
        unit: What `row` counts in a file: line, record or event.
        strict: Whether a second row of the same step and split, and seconds that decrease, are errors. By default rows of
            one step are merged, the last of several values of a metric is kept, and seconds never decrease.
        counts_from_zero: Whether epochs are numbers of the epoch in progress, the first of which is 0.
        repeated: Number of values that were replaced by a later value of the same step. Set by `history`.

    Example:
        >>> run = ImportedRun("a/log.csv", [Path("a/log.csv")], arm="a", seed=1)
        >>> run.put(run.row(line=2, step=10), Column(1, "nll"), 0.5)
        >>> {name: values.to_pylist() for name, values in run.history().items()}
        {'step': [10], 'split': ['dev'], 'epoch': [None], 'nll': [0.5]}
    """

    name: str
    files: list[Path]
    settings: dict[str, Any] = field(default_factory=dict)
    arm: str | None = None
    seed: int | None = None
    task: str | None = None
    role: str = "comparison"
    unit: str = "line"
    strict: bool = False
    counts_from_zero: bool = False
    repeated: int = 0
    _lines: array[int] = field(default_factory=lambda: array("q"))
    _files: array[int] = field(default_factory=lambda: array("I"))
    _steps: array[int] = field(default_factory=lambda: array("q"))
    _epochs: array[float] = field(default_factory=lambda: array("d"))
    _seconds: array[float] = field(default_factory=lambda: array("d"))
    _tokens: array[float] = field(default_factory=lambda: array("d"))
    _series: dict[Column, _Series] = field(default_factory=dict)

    def row(
        self,
        line: int,
        step: int | None = None,
        epoch: float | None = None,
        seconds: float | None = None,
        tokens: float | None = None,
        file: int = 0,
    ) -> int:
        """Add a row and return its index.

        Args:
            line: Its position in the file, from 1.
            step: Optimizer steps so far, at least 0; None if not logged. Either all rows of a run have a step, or none
                and all have an epoch, or all have seconds.
            epoch: Passes over the training data so far, at least 0; None if not logged.
            seconds: Wall-clock seconds since the start of the run, at least 0; None if not logged.
            tokens: Tokens seen so far, at least 0; None if not logged.
            file: Index of its file in `files`.

        Raises:
            InputError: If the run has more than MAXIMUM_RUN_ROWS rows, or a value is negative or not finite.
        """
        if len(self._lines) >= MAXIMUM_RUN_ROWS:
            raise InputError(
                f"expected at most {MAXIMUM_RUN_ROWS} rows of one run; check what gives the seed, or thin the rows out"
            )
        if step is not None and not 0 <= step < 2**53:
            raise InputError(f"step: expected an integer >= 0, got {step}")
        for name, value in (("epoch", epoch), ("seconds", seconds), ("tokens", tokens)):
            if value is not None and not 0 <= value < float("inf"):
                raise InputError(f"{name}: expected a number >= 0, got '{value:g}'")
        self._lines.append(line)
        self._files.append(file)
        self._steps.append(-1 if step is None else step)
        self._epochs.append(_NOT_LOGGED if epoch is None else epoch)
        self._seconds.append(_NOT_LOGGED if seconds is None else seconds)
        self._tokens.append(_NOT_LOGGED if tokens is None else tokens)
        return len(self._lines) - 1

    def put(self, row: int, column: Column, value: float) -> None:
        """Add the value of a metric to a row. NaN and infinities are measured values."""
        series = self._series.get(column)
        if series is None:
            series = self._series[column] = _Series()
        series.rows.append(row)
        series.values.append(value)

    def where(self, row: int = 0) -> str:
        """Return the file and line of a row, for messages."""
        if not self._lines:
            return str(self.files[0])
        return f"{self.files[self._files[row]]}, {self.unit} {self._lines[row]}"

    def row_of_epoch_zero(self) -> int | None:
        """Return the first row whose epoch is 0; None if there is none."""
        return self._epochs.index(0.0) if 0.0 in self._epochs else None

    def columns(self) -> list[Column]:
        """Return the columns that have values, by split and in the order of the source."""
        return sorted(self._series, key=lambda column: column.split)

    def values(self, column: Column) -> tuple[Sequence[int], Sequence[float]]:
        """Return the rows and the values of a column, in the order of the source."""
        series = self._series.get(column, _Series())
        return series.rows, series.values

    def divide(self, column: Column, divisor: float) -> None:
        """Divide the values of a column by a number."""
        series = self._series.get(column)
        if series is not None:
            series.values = array("d", [value / divisor for value in series.values])

    def history(self) -> dict[str, Any]:
        """Return the columns of history.parquet, with the rows in the order of step and split.

        Returns:
            Column name -> Arrow array; null means not logged.

        Raises:
            InputError: If a row has no step, rows contradict each other, or the run has too many values. The message
                names the file and the row.
        """
        import numpy as np
        import pyarrow as pa

        steps = self._all_steps()
        self.repeated = 0
        known = {"epoch": self._passes(steps), "seconds": np.array(self._seconds), "tokens": np.array(self._tokens)}
        known = {
            name: _by_step(values, steps)
            for name, values in known.items()
            if name == "epoch" or not np.isnan(values).all()
        }
        metrics = sorted({column.name for column in self._series})
        blocks = [
            self._split_rows(split, metrics, steps, known)
            for split in sorted({column.split for column in self._series})
        ] or [{name: np.empty(0) for name in ("step", "split", "#row", *known)}]
        table = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        order = np.lexsort((table["split"], table["step"]))
        table = {name: values[order] for name, values in table.items()}
        if len(order) * (len(metrics) + 5) > MAXIMUM_RUN_VALUES:
            got = f"{len(order)} rows of {len(metrics)} metrics"
            hint = "select metrics with --metrics, or check what gives the seed"
            raise InputError(
                f"{self.where()}: expected at most {MAXIMUM_RUN_VALUES} values of one run, got {got}; {hint}"
            )
        self._check_order(table)
        columns = {
            "step": pa.array(table["step"], pa.int64()),
            "split": pa.array(np.array(SPLITS, dtype=object)[table["split"].astype(int)], pa.string()),
        }
        for name in known:
            columns[name] = pa.array(table[name], pa.float64(), from_pandas=True)
        for name in metrics:
            values, measured = table[name], table[f"#{name}"]
            columns[name] = pa.array(values, pa.float64(), mask=measured == 0.0)
        return columns

    def _all_steps(self) -> np.ndarray:
        """Return the step of every row. Without logged steps, evaluations are numbered by epoch, or by seconds."""
        import numpy as np

        steps, epochs = np.array(self._steps), np.array(self._epochs)
        epochs = np.array(self._seconds) if np.isnan(epochs).all() else epochs
        missing = np.flatnonzero(steps < 0)
        if not missing.size:
            return steps
        if missing.size < steps.size:
            raise InputError(f"{self.where(int(missing[0]))}: expected a step, as other rows of the run have")
        if np.isnan(epochs).any():
            raise InputError(f"{self.where(int(np.flatnonzero(np.isnan(epochs))[0]))}: expected a step or an epoch")
        numbers: np.ndarray = np.unique(epochs, return_inverse=True)[1] + 1
        return numbers

    def _passes(self, steps: np.ndarray) -> np.ndarray:
        """Return the passes over the training data at every row; NaN if not logged.

        An epoch that counts from 0 has ended at its last row. Rows inside it get the share of its steps. Numbers with
        fractions are passes already.
        """
        import numpy as np

        epochs = np.array(self._epochs)
        known = np.flatnonzero(~np.isnan(epochs))
        if not self.counts_from_zero or not known.size:
            return epochs
        numbers, place = np.unique(epochs[known], return_inverse=True)
        ends = np.zeros(len(numbers))
        np.maximum.at(ends, place, steps[known])
        if (numbers % 1).any() or (np.diff(ends) <= 0).any():  # passes already, or not in the order of steps
            return epochs
        first = -1.0 if steps[known].min() == 0 else 0.0
        lengths = np.diff(ends) / np.diff(numbers)
        lengths = np.concatenate([lengths[:1] if len(lengths) else [ends[0] - first], lengths])
        starts = ends - lengths
        lengths[-1] = max(lengths[-2:])  # the last epoch may be incomplete
        share = (steps[known] - starts[place]) / np.maximum(lengths[place], 1e-9)
        whole = ends - starts > (1 - 1e-9) * lengths
        complete = (steps[known] == ends[place]) & whole[place]
        epochs[known] += np.where(complete, 1.0, np.clip(share, 0.0, 1.0))
        return epochs

    def _split_rows(
        self, split: int, metrics: Sequence[str], steps: np.ndarray, known: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Return the columns of one split with a row per step."""
        import numpy as np

        series = {column.name: found for column, found in self._series.items() if column.split == split}
        logged = np.unique(np.concatenate([np.array(found.rows) for found in series.values()]))
        own_steps, place_of_logged = np.unique(steps[logged], return_inverse=True)
        if self.strict and len(own_steps) < len(logged):
            self._refuse_repeated(split, logged, steps)
        place = np.zeros(len(steps), dtype=np.int64)
        place[logged] = place_of_logged
        row = np.zeros(len(own_steps), dtype=np.int64)
        row[place_of_logged] = logged  # the last one counts
        block = {"step": own_steps, "split": np.full(len(own_steps), split), "#row": row}
        for name, values in known.items():
            block[name] = np.full(len(own_steps), np.nan)
            of_split = logged[~np.isnan(values[logged])]
            block[name][place[of_split]] = values[of_split]
        for name in metrics:
            values, measured = np.zeros(len(own_steps)), np.zeros(len(own_steps))
            if name in series:
                at = place[np.array(series[name].rows)]
                values[at], measured[at] = series[name].values, 1.0
                values[np.isnan(values)] = np.nan  # one NaN, because its sign and payload would change the bytes
                self.repeated += len(at) - int(measured.sum())
            block[name], block[f"#{name}"] = values, measured
        return block

    def _refuse_repeated(self, split: int, logged: np.ndarray, steps: np.ndarray) -> None:
        seen: dict[int, int] = {}
        for row in logged.tolist():
            first = seen.setdefault(int(steps[row]), row)
            if first != row:
                where = f"step {steps[row]}" if self._steps[row] >= 0 else f"epoch {self._epochs[row]:g}"
                place = f"{self.unit} {self._lines[first]}"
                hint = "remove one of the rows, or distinguish the runs by arm, seed or a setting"
                raise InputError(
                    f"{self.where(row)}: {where}, {SPLITS[split]} of this run is already in {place}; {hint}"
                )

    def _check_order(self, table: Mapping[str, np.ndarray]) -> None:
        """Make sure that epochs do not decrease with the step, and that seconds do not within a split."""
        import numpy as np

        rows = np.flatnonzero(~np.isnan(table["epoch"]))
        falls = np.flatnonzero(np.diff(table["epoch"][rows]) < 0)
        if falls.size:
            before, after = (int(table["#row"][rows[falls[0] + offset]]) for offset in (0, 1))
            texts = [f"epoch {self._epochs[row]:g} at step {self._steps[row]}" for row in (after, before)]
            decrease = f"{texts[0]}, but {self.unit} {self._lines[before]} has {texts[1]}"
            raise InputError(f"{self.where(after)}: {decrease}; epochs must not decrease with the step")
        for split in range(len(SPLITS)) if "seconds" in table else ():
            rows = np.flatnonzero((table["split"] == split) & ~np.isnan(table["seconds"]))
            falls = np.flatnonzero(np.diff(table["seconds"][rows]) < 0)
            if falls.size and not self.strict:
                table["seconds"][rows] = np.maximum.accumulate(table["seconds"][rows])
            elif falls.size:
                fall = rows[falls[0] + 1]
                decrease = f"the seconds of this run decrease at step {int(table['step'][fall])}"
                expected = "expected seconds since the start of the run"
                raise InputError(f"{self.where(int(table['#row'][fall]))}: {decrease}; {expected}")


def _by_step(values: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the values, with missing ones replaced by one that another row of the same step has."""
    import numpy as np

    place = np.unique(steps, return_inverse=True)[1]
    of_step = np.full(place.max(initial=-1) + 1, np.nan)
    known = ~np.isnan(values)
    of_step[place[known]] = values[known]
    filled: np.ndarray = np.where(known, values, of_step[place])
    return filled
