"""The contents that a study's database takes. Each is kept once, and a statement runs once on each."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Hashable
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from tests.exhaustive.stepping import Statement

#: Parts of the database, and what is compared of each. Times of day are left out. A statement uses one part only.
PARTS = {
    "member": ["SELECT id, role, driver, machine, pid, born, beats, stop FROM joyful_member ORDER BY id"],
    "lease": ["SELECT number, owner, term, epochs, deaths, epochs_at_death FROM joyful_lease ORDER BY number"],
    "configuration": ["SELECT digest, number FROM joyful_configuration ORDER BY digest"],
    "trials": [
        "SELECT number, state FROM trials ORDER BY number",
        "SELECT trial_id, objective, value FROM trial_values ORDER BY 1, 2",
        "SELECT trial_id, step, intermediate_value FROM trial_intermediate_values ORDER BY 1, 2",
        "SELECT trial_id, key, value_json FROM trial_user_attributes ORDER BY 1, 2",
    ],
}

#: Names of the parts, in order.
NAMES = tuple(PARTS)

#: For each part, the number of its content.
Content = tuple[int, ...]


class Interned:
    """Numbers values: equal keys get the same number."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self.values: list[Any] = []

    def number(self, key: Hashable, value: Any) -> int:
        """Return the number of a key. A new key gets the next number and keeps `value`."""
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append(value)
        return self._numbers[key]


def key_of(answer: Any) -> Hashable:
    """Return what distinguishes an answer of the database from others, without times of day."""
    if isinstance(answer, list):
        return ("rows", answer[0]._fields if answer else (), tuple(tuple(row) for row in answer))
    if isinstance(answer, FrozenTrial):
        return (
            "trial",
            answer.number,
            answer.state,
            str(answer.values),
            str(sorted(answer.intermediate_values.items())),
        )
    if isinstance(answer, Exception):
        return ("error", type(answer), str(getattr(answer, "orig", answer)))
    return ("value", answer)


class Databases:
    """All contents of one study's database that were reached, and what each statement does to each part of them.

    A statement reads and writes one part, so it runs once on each content of that part, in any database that has it.
    That it leaves the other parts alone is checked.

    Args:
        n_trials: Number of waiting trials.
    """

    def __init__(self, n_trials: int) -> None:
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        pool: dict[str, Any] = {"poolclass": sqlalchemy.StaticPool, "creator": lambda: self._connection}
        self.engine = sqlalchemy.create_engine("sqlite://", **pool)
        self.storage = RDBStorage("sqlite://", engine_kwargs=pool)
        self.study_id = create_study(self.storage, "study", n_trials)
        self._parts = [Interned() for _ in NAMES]  # the rows of each content of each part
        self._files: dict[tuple[int, int], bytes] = {}  # a serialised database that has a content of a part
        self._done: dict[tuple[int, Statement], tuple[int, int]] = {}
        self.answers = Interned()

    @property
    def statements(self) -> int:
        """Number of statements that were run."""
        return len(self._done)

    def keep(self) -> Content:
        """Return the present content of the database, and keep a copy of its parts."""
        content, file = [], None
        for part, queries in enumerate(PARTS.values()):
            rows = [self._connection.execute(query).fetchall() for query in queries]
            number = self._parts[part].number(str(rows), rows)
            content.append(number)
            if (part, number) not in self._files:
                file = file or self._connection.serialize()
                self._files[part, number] = file
        return tuple(content)

    def rows(self, content: Content, part: str, query: int = 0) -> list[tuple[Any, ...]]:
        """Return the rows of a part, those of one of its queries."""
        place = NAMES.index(part)
        found: list[tuple[Any, ...]] = self._parts[place].values[content[place]][query]
        return found

    def run(self, content: Content, statement: Statement) -> tuple[Content, int]:
        """Run a statement on a content. Return the new content and the number of the answer."""
        place = NAMES.index(statement.part)
        done = self._done.get((content[place], statement))
        if done is None:
            assert statement.action is not None
            self._connection.deserialize(self._files[place, content[place]])
            before = self.keep()
            answer = answer_of(statement.action)
            after = self.keep()
            assert _without(before, place) == _without(after, place), f"{statement} changed more than its part"
            done = after[place], self.answers.number(key_of(answer), answer)
            self._done[content[place], statement] = done
        return (*content[:place], done[0], *content[place + 1 :]), done[1]


def _without(content: Content, place: int) -> Content:
    return (*content[:place], *content[place + 1 :])


def answer_of(action: Callable[[], Any]) -> Any:
    """Return what a statement returns, or the error of the database or of Optuna that it raises."""
    try:
        return action()
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError) as error:
        return error


def create_study(storage: RDBStorage, name: str, n_trials: int) -> int:
    """Create a study with waiting trials, and return its id."""
    opened = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    for _ in range(n_trials):
        opened.add_trial(create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {}}))
    return int(opened._study_id)
