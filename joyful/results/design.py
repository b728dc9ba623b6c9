"""The design of a comparison, which a sweep records before its first run, and what was decided while it ran.

Two files in the folder of a sweep hold them. design.json lists the designs: the first, and each later one that differs,
with the number of runs that existed when it was recorded. decisions.json holds the state of every claim of a sweep that
buys pairs until its claims are decided. It is replaced after each judged pair.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from joyful.records import InputError
from joyful.results.files import plain, read_bounded, write_json

DESIGN, DECISIONS = "design.json", "decisions.json"

#: Version of both files.
SCHEMA = 1

_MAXIMUM_BYTES = 2**24

#: States of a claim for one arm: more pairs may decide it; decided; it cannot be tested, whatever the number of pairs.
OPEN, DECIDED, NOT_TESTABLE = "open", "decided", "not testable"


@dataclass(frozen=True)
class Design:
    """How a comparison was planned.

    Attributes:
        pairs: Number of pairs, or None if pairs are bought until the claims are decided.
        max_pairs: Largest number of pairs, if `pairs` is None.
        first_seed: The seeds of the pairs are first_seed, first_seed + 1, ...
        arms: Overrides of each arm. The first is the baseline.
        calibration: Seeds of the calibration runs.
        claims: Content of the claims file, or None if no claims were named.
        target: How the target of times is chosen, as a sentence.
        metric: Name of the objective.
        git: {"commit", "dirty"} of the program.
        runs_before: Number of runs that had started when the design was recorded.
    """

    pairs: int | None
    max_pairs: int | None
    first_seed: int
    arms: tuple[str, ...]
    calibration: tuple[int, ...]
    claims: Any
    target: str
    metric: str
    git: Mapping[str, Any]
    runs_before: int = 0

    @property
    def seeds(self) -> range:
        """The seeds of the planned pairs."""
        return range(self.first_seed, self.first_seed + (self.pairs or self.max_pairs or 0))

    @property
    def claims_digest(self) -> str | None:
        """SHA-256 of the content of the claims file, which does not depend on comments and layout. None without claims."""
        return None if self.claims is None else digest(self.claims)

    def same_plan(self, other: Design) -> bool:
        """Return whether another design plans the same: all but the code and the number of runs."""
        mine, others = (plain(asdict(design)) for design in (self, other))
        return all(mine[name] == others[name] for name in mine if name not in ("git", "runs_before"))


@dataclass(frozen=True)
class Line:
    """The state of a claim and metric for one arm.

    Attributes:
        claim: Name of the claim.
        metric: Label of the metric.
        arm: Name of the arm, as in reports. It may change when runs are added.
        state: OPEN, DECIDED or NOT_TESTABLE.
        verdict: The verdict after the pairs of `seeds`.
        detail: Its reason, or "".
        estimate: The effect in the unit of the claim, or None.
        low: Lower limit of its interval, or None if it is not bounded or there is none.
        high: Upper limit of its interval, or None.
        seeds: Seeds of the pairs on which the verdict rests. They never change once it is decided.
        task: The task, or "".
        overrides: The overrides of the arm in the design.
        run: Name of a run of the arm.
        claimed: The claimed range, such as "1 to 2 points".
        stop: The dev value at which a run has shown what this claim needs: {"metric", "value", "higher_is_better"}. None if
            the claim needs whole runs.
    """

    claim: str
    metric: str
    arm: str
    state: str
    verdict: str
    detail: str
    estimate: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    task: str = ""
    overrides: str = ""
    run: str = ""
    claimed: str = ""
    stop: Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies the line: claim, metric, arm and task."""
        return self.claim, self.metric, self.overrides, self.task


@dataclass(frozen=True)
class Decisions:
    """What was decided after the pairs judged so far.

    Attributes:
        through: Seed of the last judged pair, or None before the first.
        pairs: Number of judged pairs, including those of failed runs.
        lines: The state of each claim.
    """

    through: int | None = None
    pairs: int = 0
    lines: tuple[Line, ...] = ()

    @property
    def by_key(self) -> dict[tuple[str, str, str, str], Line]:
        """The lines by `Line.key`."""
        return {line.key: line for line in self.lines}

    @property
    def open(self) -> tuple[Line, ...]:
        """The lines that more pairs may decide."""
        return tuple(line for line in self.lines if line.state == OPEN)


def digest(content: Any) -> str:
    """Return the SHA-256 of data, which does not depend on the order of keys. An infinite number counts as null."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


def read_designs(folder: Path) -> tuple[Design, ...]:
    """Return the designs that a sweep recorded, the first first, or () if it recorded none.

    Raises:
        InputError: If the file is damaged.
    """
    content = _read(folder / DESIGN)
    if content is None:
        return ()
    try:
        return tuple(
            Design(**entry | {"arms": tuple(entry["arms"]), "calibration": tuple(entry["calibration"])})
            for entry in content["designs"]
        )
    except (TypeError, KeyError) as error:
        raise _damaged(folder / DESIGN, error) from None


def record_design(folder: Path, design: Design) -> tuple[Design, ...]:
    """Record the design of a sweep, and return all its designs.

    A design that no run has followed is replaced, and one that plans the same as the last is not recorded again.

    Args:
        folder: Folder of the sweep.
        design: The design.

    Raises:
        InputError: If the file is damaged.
        ResultsError: If the file cannot be written.
    """
    before = read_designs(folder)
    kept = tuple(entry for entry in before if entry.runs_before < design.runs_before)
    if before and before[-1].same_plan(design):
        return before
    designs = (*kept, design)
    write_json(folder / DESIGN, {"schema": SCHEMA, "designs": [asdict(entry) for entry in designs]})
    return designs


def read_decisions(folder: Path) -> Decisions:
    """Return what was decided in a sweep, which is nothing if there is no file.

    Raises:
        InputError: If the file is damaged.
    """
    content = _read(folder / DECISIONS)
    if content is None:
        return Decisions()
    try:
        lines = tuple(Line(**line | {"seeds": tuple(line["seeds"])}) for line in content["lines"])
        return Decisions(content["through"], content["pairs"], lines)
    except (TypeError, KeyError) as error:
        raise _damaged(folder / DECISIONS, error) from None


def write_decisions(folder: Path, decisions: Decisions) -> None:
    """Replace decisions.json. Raises ResultsError if it cannot be written."""
    write_json(folder / DECISIONS, {"schema": SCHEMA, **asdict(decisions)})


def _read(path: Path) -> Any:
    try:
        content = json.loads(read_bounded(path, _MAXIMUM_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _damaged(path, f"expected schema {SCHEMA}")
    return content


def _damaged(path: Path, problem: object) -> InputError:
    return InputError(f"{path}: damaged ({problem}); restore the file from a copy, or delete it to judge without it")
