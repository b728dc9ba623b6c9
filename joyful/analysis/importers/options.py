"""The options of all formats: which metrics are read, under which names, and what gives arm, seed and task."""

from __future__ import annotations

import argparse
import re
import statistics
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from joyful.analysis.importers.csv_values import some
from joyful.analysis.importers.runs import SPLITS, Column, ImportedRun
from joyful.results import InputError
from joyful.results.csv_text import quoted
from joyful.results.schema import is_column_name

#: Name of a split in a source -> index in SPLITS.
SPLIT_NAMES = {
    "train": 0, "training": 0, "dev": 1, "val": 1, "valid": 1, "validation": 1, "eval": 1, "evaluation": 1, "test": 2,
}  # fmt: skip

#: Characters between the name of a split and that of a metric: val_loss, val/loss, val.loss.
SEPARATORS = "_/."

#: Names that a metric cannot have, because they are columns of their own.
KEYS = frozenset({"step", "epoch", "split", "seconds", "tokens"})

#: Maximum number of values of an import.
MAXIMUM_VALUES = 20_000_000

#: Names of a setting that gives the seed.
SEEDS = ("seed", "random_seed")

#: Metrics that are fractions. A median above PER_CENT shows that a column is in per cent.
FRACTION = re.compile("accuracy|f1(_.*)?")
PER_CENT = 1.5

#: Regular expressions that messages propose, the first that matches the names of all runs.
_ARM_EXAMPLES = ("^([^/]+)/", "^(.+?)[-_ ]?seed", "^([A-Za-z]+)", "^([^/.]+)")
_SEED_EXAMPLES = (r"seed[-_=]?(\d+)", r"version_(\d+)", r"(\d+)\D*$")


def add_arguments(parser: argparse.ArgumentParser, epochs: str) -> None:
    """Add the options of all formats to a parser.

    Args:
        parser: The parser of a format.
        epochs: See `joyful.analysis.importers.Importer`.
    """
    searched = "REGEX is searched in the run's name, the path of its file in SOURCE; its first group"
    add = parser.add_argument_group("arm, seed and task", f"{searched} (or the whole match) is the value.").add_argument
    add("--arm", metavar="NAME", help="all runs are of this arm; settings of the source are left out")
    add("--arm-from", metavar="REGEX", help="the arm of a run; settings of the source are left out")
    add("--seed-from", metavar="REGEX", help="the seed of a run, an integer")
    add("--task-from", metavar="REGEX", help="the task of a run, for example the name of an environment")
    settings = "settings of the source that define the arms (default: all, or none with --arm or --arm-from)"
    add("--settings", metavar="A,B", help=settings)
    add = parser.add_argument_group("metrics").add_argument
    prefix = (
        "metrics whose name starts with PREFIX belong to SPLIT (train, dev or test), and the prefix is dropped; an "
    )
    prefix += "empty PREFIX stands for all other names; may be given several times, the longest prefix counts"
    add("--split-prefix", metavar="PREFIX=SPLIT", action="append", default=[], help=prefix)
    rename = "read metric FROM as TO; FROM is a name with or without its prefix; may be given several times"
    add("--rename", metavar="FROM=TO", action="append", default=[], help=rename)
    add("--metrics", metavar="A,B", help="read only these metrics (names after --rename, without prefix)")
    add("--percent", metavar="A,B", default="", help="metrics in per cent, to be divided by 100")
    if epochs != "passes":
        default = {"from 0": " (default: 0)"}.get(epochs, "")
        epochs_from = f"number of the first epoch{default}; with 0, a whole number counts as complete at its last row"
        add("--epochs-from", type=int, choices=(0, 1), help=epochs_from)


class Options:
    """The options of an import, and what it left out.

    Args:
        arguments: The parsed options.
        prefixes: Further split prefixes of the format: prefix -> name of the split.
        split: Split of the names without a prefix; None refuses such names.
        epochs: See `joyful.analysis.importers.Importer`.

    Attributes:
        arguments: The parsed options, with those of the format.
        left_out: What was left out -> how often, for the closing lines.
        notes: Further lines to print at the end.

    Raises:
        InputError: If an option is not valid.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        prefixes: Mapping[str, str] | None = None,
        split: str | None = "train",
        epochs: str = "passes",
    ) -> None:
        self.arguments = arguments
        self.left_out: Counter[str] = Counter()
        self.notes: list[str] = []
        self._split = None if split is None else SPLITS.index(split)
        known = {f"{name}{separator}": name for name in SPLIT_NAMES for separator in SEPARATORS} | dict(prefixes or {})
        self._prefixes = {prefix.lower(): SPLIT_NAMES[name] for prefix, name in known.items()}
        for item in arguments.split_prefix:
            prefix, _, name = item.rpartition("=")
            if name.lower() not in SPLIT_NAMES or "=" not in item:
                raise InputError(f"--split-prefix {quoted(item)}: expected PREFIX=train, PREFIX=dev or PREFIX=test")
            if prefix:
                self._prefixes[prefix.lower()] = SPLIT_NAMES[name.lower()]
            else:
                self._split = SPLIT_NAMES[name.lower()]
        self._renaming: dict[str, str] = {}
        for item in arguments.rename:
            old, equals, new = item.rpartition("=")
            if not (equals and old and new):
                raise InputError(f"--rename {quoted(item)}: expected FROM=TO")
            self._renaming[old] = new
        self.renamed: set[str] = set()  # the names of --rename that were found
        self._metrics = None if arguments.metrics is None else listed(arguments.metrics)
        self._percent = listed(arguments.percent)
        self._settings = None if arguments.settings is None else listed(arguments.settings)
        self._patterns = {name: _pattern(arguments, name) for name in ("arm_from", "seed_from", "task_from")}
        given = getattr(arguments, "epochs_from", None)
        self._epochs_from = given if given is not None else {"passes": 1, "from 0": 0}.get(epochs)
        self._columns: dict[tuple[str, str | None], Column | None] = {}
        self._owners: dict[Column, tuple[str, str | None]] = {}
        self._values = 0

    def gives(self, name: str) -> bool:
        """Return whether an option gives the arm, the seed or the task, so that the source need not."""
        return self._patterns.get(f"{name}_from") is not None or (name == "arm" and self.arguments.arm is not None)

    def needs_settings(self) -> bool:
        """Return whether settings beside the curves are used: for the arm, for the seed, or for --settings."""
        return not (self.gives("arm") and self.gives("seed")) or self._settings is not None

    def column(self, raw: str, split: str | None = None, place: str = "") -> Column | None:
        """Return the column of a metric.

        Args:
            raw: Name of the metric in the source.
            split: Name of its split in the source, one of SPLIT_NAMES. None takes it from the prefix of the name.
            place: Position of the name in the source, for messages.

        Returns:
            The column; None if --metrics does not select it.

        Raises:
            InputError: If the name gives no valid column name or no split, or another metric has the same column.
        """
        key = (raw, None if split is None else SPLITS[SPLIT_NAMES[split]])
        if key not in self._columns:
            if len(self._columns) >= 100_000:
                raise InputError(f"{place}: expected at most 100000 names of metrics; check the source")
            self._columns[key] = column = self._resolve(raw, split, f"{place}: " if place else "")
            if column is not None:
                owner = self._owners.setdefault(column, key)
                if owner != key:
                    both = f"{quoted(owner[0])} and {quoted(raw)} both become {column.name} ({SPLITS[column.split]})"
                    hint = f"set --rename {quoted(f'{raw}=NAME')}"
                    raise InputError(f"{f'{place}: ' if place else ''}metrics {both}; {hint}")
        return self._columns[key]

    def count(self, values: int) -> None:
        """Count values that are read. Raise InputError if there are more than MAXIMUM_VALUES."""
        self._values += values
        if self._values > MAXIMUM_VALUES:
            raise InputError(f"expected at most {MAXIMUM_VALUES} values; import the source in parts")

    def finish(self, runs: Sequence[ImportedRun]) -> None:
        """Give every run its arm, seed and task, check the metrics of all runs, and apply --percent.

        Raises:
            InputError: If an arm or a seed is not known, two runs are the same, an option names no metric, or a
                fraction is in per cent.
        """
        for run in runs:
            self._identify(run)
        self._check_known(runs)
        self._check_distinct(runs)
        found = {column.name for run in runs for column in run.columns()}
        if runs:
            self._check_names(found)
        for run in runs:
            run.counts_from_zero = self._epochs_from == 0
            zero = run.row_of_epoch_zero() if self._epochs_from is None else None
            if zero is not None:
                hint = "set --epochs-from 0 if it is the first epoch (1 is then added), or --epochs-from 1 if it is "
                raise InputError(f"{run.where(zero)}: epoch 0 is ambiguous; {hint}an evaluation before training")
            for column in run.columns():
                if column.name in self._percent:
                    run.divide(column, 100.0)
        for name in sorted(found - self._percent):
            if FRACTION.fullmatch(name):
                _check_fraction(runs, name)

    def _resolve(self, raw: str, split: str | None, place: str) -> Column | None:
        own, base = self._split_of(raw)
        if split is None:
            number, name = own, base
        else:  # the name keeps what looks like a prefix
            number, name = SPLIT_NAMES[split], raw
        for old in dict.fromkeys((raw, name, normal(name))):
            if old in self._renaming:
                self.renamed.add(old)
                new_split, name = self._split_of(self._renaming[old]) if split is None else (None, self._renaming[old])
                number = number if new_split is None else new_split
                break
        number = self._split if number is None else number
        column = normal(name)
        if self._metrics is not None and not self._metrics & {column, raw}:
            return None
        if number is None:
            example = f"set --split-prefix '{raw}=dev', or --split-prefix =dev for all names without a prefix"
            raise InputError(
                f"{place}metric {quoted(raw)}: the split is not known; {example}, or select others with --metrics"
            )
        if not is_column_name(column) or column in KEYS:
            expected = "a name that starts with a letter, except run, status, seed, role, " + ", ".join(sorted(KEYS))
            hint = f"set --rename {quoted(f'{raw}=NAME')}, or select other metrics with --metrics"
            raise InputError(f"{place}metric {quoted(raw)}: expected {expected}; {hint}")
        return Column(number, column)

    def _split_of(self, name: str) -> tuple[int | None, str]:
        """Return the split that the prefix of a name gives, and the rest of the name."""
        lower = name.lower()
        fitting = [prefix for prefix in self._prefixes if lower.startswith(prefix)]
        if not fitting:
            return None, name
        longest = max(fitting, key=len)
        return self._prefixes[longest], name[len(longest) :] or name

    def _identify(self, run: ImportedRun) -> None:
        given = run.settings
        for name in ("arm", "task"):
            if name in given and getattr(run, name) is None:
                setattr(run, name, str(given[name]))
        if run.seed is None:
            run.seed = _seed_of(given)
        run.settings = {name: value for name, value in given.items() if name not in ("arm", "task", "seed", "role")}
        for name in ("arm", "seed", "task"):
            pattern = self._patterns[f"{name}_from"]
            if pattern is not None:
                setattr(run, name, _found(pattern, f"--{name}-from", run))
        if self.arguments.arm is not None:
            run.arm = self.arguments.arm
        if self._settings is not None:
            if unknown := sorted(self._settings - run.settings.keys()):
                known = some(list(run.settings)) or "none"
                raise InputError(
                    f"{run.where()}: --settings: expected settings of the run ({known}), got {some(unknown)}"
                )
            run.settings = {name: value for name, value in run.settings.items() if name in self._settings}
        elif self.gives("arm"):
            run.settings = {}

    def _check_known(self, runs: Sequence[ImportedRun]) -> None:
        for run in runs:
            missing = ["arm"] if run.arm is None and not run.settings else []
            missing += ["seed"] if run.seed is None else []
            if missing:
                options = [_example(name, [run.name, *(other.name for other in runs)]) for name in missing]
                unknown = " and the ".join(missing)
                verb = "are" if len(missing) > 1 else "is"
                raise InputError(
                    f"{run.files[0]}: the {unknown} of the run {quoted(run.name)} {verb} not known; set {', '.join(options)}"
                )

    def _check_distinct(self, runs: Sequence[ImportedRun]) -> None:
        seen: dict[Any, ImportedRun] = {}
        for run in runs:
            settings = tuple(sorted((name, repr(value)) for name, value in run.settings.items()))
            other = seen.setdefault((run.arm, run.task, run.seed, run.role, settings), run)
            if other is not run:
                named = [f"{name} {value}" for name, value in (("arm", run.arm), ("task", run.task)) if value]
                same = ", ".join([*named, f"seed {run.seed}"])
                hint = "distinguish them with --arm-from, --seed-from or --task-from, or remove one"
                raise InputError(
                    f"{run.where()}: the run {quoted(run.name)} has the same {same} as {quoted(other.name)} "
                    f"({other.where()}); {hint}"
                )

    def _check_names(self, found: set[str]) -> None:
        raws = {raw for raw, _ in self._columns}
        names = found | {column.name for column in self._owners}
        for option, given, known in (
            ("--metrics", self._metrics or set(), names | raws),
            ("--percent", self._percent, names),
            ("--rename", self._renaming.keys() - self.renamed, raws),
        ):
            if unknown := sorted(given - known):
                expected = some(sorted(raws if option == "--metrics" else known)) or "none"
                raise InputError(f"{option}: expected metrics of the source ({expected}), got {some(unknown)}")


def normal(name: str) -> str:
    """Return a name as a column name: in lower case, with _ for every run of other characters.

    Example:
        >>> normal("rollout/ep_rew_mean"), normal("Top-1 Accuracy (%)")
        ('rollout_ep_rew_mean', 'top_1_accuracy')
    """
    return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")


def listed(text: str) -> set[str]:
    """Return the names of a list such as "A,B"."""
    return {name.strip() for name in text.split(",") if name.strip()}


def _pattern(arguments: argparse.Namespace, name: str) -> re.Pattern[str] | None:
    text = getattr(arguments, name)
    try:
        return None if text is None else re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        option = f"--{name.replace('_', '-')}"
        raise InputError(f"{option} {quoted(text)}: expected a regular expression ({error})") from None


def _found(pattern: re.Pattern[str], option: str, run: ImportedRun) -> str | int:
    match = pattern.search(run.name)
    text = None if match is None else next(iter(match.groups()), match[0])
    if not text:
        raise InputError(
            f"{option} {quoted(pattern.pattern)}: expected a match in every run's name, got {quoted(run.name)}"
        )
    if option != "--seed-from":
        return str(text)
    if not re.fullmatch("-?[0-9]{1,15}", text):
        raise InputError(f"{option}: expected an integer, got {quoted(text)} from the run {quoted(run.name)}")
    return int(text)


def _seed_of(settings: dict[str, Any]) -> int | None:
    """Remove the setting that gives the seed, and return its value."""
    names = [name for name in SEEDS if name in settings]
    names = names or [name for name in settings if name.rpartition(".")[2] in SEEDS]
    if len(names) != 1:
        return None
    value = settings[names[0]]
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,15}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**53:
        return None
    del settings[names[0]]
    return value


def _example(name: str, names: Sequence[str]) -> str:
    """Return an option that gives the arm or the seed, with its value for the first of the names."""
    patterns = _ARM_EXAMPLES if name == "arm" else _SEED_EXAMPLES
    fitting = [pattern for pattern in patterns if all(re.search(pattern, one) for one in names)]
    pattern = fitting[0] if fitting else "REGEX"
    match = re.search(pattern, names[0]) if fitting else None
    gives = f" (here {quoted(match[1])})" if match else ""
    return f"--{name}-from '{pattern}'{gives}" + (" or --arm NAME" if name == "arm" else "")


def _check_fraction(runs: Sequence[ImportedRun], name: str) -> None:
    """Refuse a fraction that is in per cent: the median of its values is above PER_CENT."""
    values = array("d")
    first = ""
    for run in runs:
        for column in run.columns():
            if column.name == name:
                rows, own = run.values(column)
                values.extend(value for value in own if value == value)
                high = next((index for index, value in enumerate(own) if value > PER_CENT), None)
                if high is not None:
                    first = (
                        first
                        or f"{run.where(rows[high])}: {name}: expected a fraction from 0 to 1, got '{own[high]:g}'"
                    )
    if first and statistics.median(values) > PER_CENT:
        raise InputError(f"{first}; for per cent set --percent {name}")
