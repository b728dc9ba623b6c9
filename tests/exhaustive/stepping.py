"""Running code one statement at a time: each statement of the code under test is announced before it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from optuna.study import StudyDirection

from joyful.sweeper.registry import Registry

#: What is left out where a statement is shown: its columns and conditions, whose values follow.
_VERB = re.compile(r"(?<=SELECT ).*(?=FROM)| \(.*| SET .*| WHERE .*|JOIN .*")

DIRECTIONS = [StudyDirection.MAXIMIZE]


@dataclass(frozen=True, eq=False)
class Statement:
    """The next statement of an actor, or a question to the world around it.

    Attributes:
        kind: "read" or "write" of the database; "members", a read after which the failure detector has its verdicts;
            "ended", whether a process of this machine has ended; "kill", a signal to one; "lock" and "train" of the
            training process.
        key: What distinguishes it from others.
        part: The part of the database that it uses, see `databases.PARTS`.
        action: Runs it; None for questions to the world.
        trial: The trial that a write changes in Optuna's tables; None for others.
        lease: The trial whose lease a write changes or checks; None for others.
    """

    kind: str
    key: Hashable
    part: str = ""
    action: Callable[[], Any] | None = None
    trial: int | None = None
    lease: int | None = None

    def __str__(self) -> str:
        """Return it in one line: a statement of SQL without the names of its columns, with its values."""
        if len(self.key) == 2 and isinstance(self.key[1], tuple):  # type: ignore[arg-type, index]
            text, values = self.key  # type: ignore[misc]
            shown = ", ".join(f"{name}={value}" for name, value in values if not name.startswith("study"))
            return f"{_VERB.sub('', text)} [{shown}]"
        return f"{self.kind} {', '.join(str(part) for part in self.key)}"  # type: ignore[union-attr, attr-defined]


class Suspended(BaseException):  # a BaseException, so that no handler of the code under test catches it
    """The code has reached a statement whose answer is not known yet."""


class Stepper(Protocol):
    """Runs the statements of an actor, see `Replay`."""

    def step(self, describe: Callable[[], Statement]) -> Any:
        """Return the answer of the statement that `describe` returns, or raise the error that it ended with."""


class Replay:
    """Answers the first statements from a record, and stops the code at the next one.

    Args:
        answers: The recorded answers.
    """

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers, self._next = answers, 0
        self.pending: Statement | None = None

    def step(self, describe: Callable[[], Statement]) -> Any:
        """Return the recorded answer, or suspend the code."""
        if self._next == len(self._answers):
            self.pending = self.pending or describe()  # the first one; `finally` blocks have others
            raise Suspended
        answer = self._answers[self._next]
        self._next += 1
        if isinstance(answer, Exception):
            raise answer
        return answer


def stepped_registry(base: type[Registry], stepper: Stepper, engine: Any, study_id: int) -> Registry:
    """Return a registry of class `base` whose statements run one at a time.

    Args:
        base: `Registry`, or a broken subclass.
        stepper: Runs the statements.
        engine: The engine of the database, which has the tables.
        study_id: Optuna's id of the study.
    """

    class Stepped(base):  # type: ignore[valid-type, misc]
        def read(self, statement: Any) -> list[Any]:
            answer = stepper.step(lambda: _read(statement, lambda: real.read(statement)))
            if isinstance(answer, tuple):  # with the verdicts of the failure detector
                answer, self.silent = answer
            return list(answer)

        def write(self, statement: Any) -> bool:
            return bool(stepper.step(lambda: _write(statement, lambda: real.write(statement))))

    real = Registry.__new__(Registry)
    real.engine, real.study_id = engine, study_id
    stepped = Stepped.__new__(Stepped)
    stepped.engine, stepped.study_id = engine, study_id
    return stepped


def _read(statement: Any, action: Callable[[], Any]) -> Statement:
    text = str(statement.compile())
    whole = "FROM joyful_member" in text and "joyful_member.id =" not in text and "role =" not in text
    return Statement("members" if whole else "read", (describe(text), parameters(statement)), part_of(text), action)


def _write(statement: Any, action: Callable[[], Any]) -> Statement:
    text, values = str(statement.compile()), parameters(statement)
    number = dict(values).get("number_1", dict(values).get("number"))
    lease = number if statement.table.name == "joyful_lease" else None
    return Statement("write", (describe(text), values), part_of(text), action, lease=lease)


def part_of(text: str) -> str:
    """Return the part of the database that a statement uses. It must be one."""
    (part,) = set(re.findall(r"\bjoyful_(member|lease|configuration)\b|\b(trials)\b", text))
    return part[0] or part[1]


def describe(text: str) -> str:
    """Return a statement in one line."""
    return " ".join(text.split())


def parameters(statement: Any) -> tuple[tuple[str, Any], ...]:
    """Return the values of a statement, by name."""
    values = statement.compile().params
    return tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in values.items()))


class SteppedStorage:
    """Optuna's storage for one worker. The statements that read or change a trial run one at a time.

    Names, numbers and directions never change, so they are answered at once. The attributes that a worker stores when a
    trial starts count as one statement.

    Args:
        stepper: Runs the statements.
        storage: The real storage.
        study_id: Optuna's id of the study.
    """

    #: Attributes that are stored together with "config_hash".
    TOGETHER = ("overrides", "own_overrides", "folder")

    def __init__(self, stepper: Stepper, storage: Any, study_id: int) -> None:
        self._stepper, self._storage, self._study_id = stepper, storage, study_id
        self._numbers = trial_numbers(storage, study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._study_id

    def get_study_directions(self, study_id: int) -> Any:
        return DIRECTIONS

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Any = None) -> list[Any]:
        return []  # read only to fill the cache of Optuna, which is not used here

    def get_trial_id_from_study_id_trial_number(self, study_id: int, number: int) -> int:
        return next(trial for trial, own in self._numbers.items() if own == number)

    def get_trial(self, trial_id: int) -> Any:
        return self._run("read", "get_trial", trial_id)

    def set_trial_state_values(self, trial_id: int, state: Any, values: Any = None) -> bool:
        return bool(self._run("write", "set_trial_state_values", trial_id, state, values and tuple(values)))

    def set_trial_intermediate_value(self, trial_id: int, step: int, value: float) -> None:
        self._run("write", "set_trial_intermediate_value", trial_id, step, value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        if key not in self.TOGETHER:
            self._run("write", "set_trial_user_attr", trial_id, key, value)

    def _run(self, kind: str, method: str, trial_id: int, *arguments: Any) -> Any:
        number = self._numbers[trial_id]

        def action() -> Any:
            return getattr(self._storage, method)(trial_id, *arguments)

        trial = number if kind == "write" else None
        return self._stepper.step(lambda: Statement(kind, (method, number, *arguments), "trials", action, trial=trial))


_known: dict[tuple[int, int], dict[int, int]] = {}


def trial_numbers(storage: Any, study_id: int) -> dict[int, int]:
    """Return the number of each trial by Optuna's id. Read once for each study."""
    if (id(storage), study_id) not in _known:
        trials = storage.get_all_trials(study_id, deepcopy=False)
        _known[id(storage), study_id] = {trial._trial_id: trial.number for trial in trials}
    return _known[id(storage), study_id]
