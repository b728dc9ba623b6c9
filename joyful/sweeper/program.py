"""The user's program in another process: its main module and its task function.

A training process imports the main module again, under the name ``__mp_main__``, as `multiprocessing` does with its
start method spawn. Functions and classes of the main module are then found by name. So the module may hold objects that
cannot be pickled, and what the program pickles itself can be loaded again. A main module without a file, such as a
notebook or ``python -c``, cannot be imported. Then its functions are sent by value, with cloudpickle.

The pickles go from a worker to the training process that it has started, and are never stored.
"""

from __future__ import annotations

import base64
import inspect
import io
import operator
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction

from joyful.compat import import_main, main_description
from joyful.results.provenance import GitState, git_state

MAIN = "__main__"

#: Keys of `main_description` that name the file or the module of the main module.
_MAIN_KEYS = ("init_main_from_name", "init_main_from_path")


class ImportedProgramError(Exception):
    """The main module cannot be imported by a training process."""


@dataclass(frozen=True)
class Program:
    """A program that can be rebuilt in another process.

    Attributes:
        main: How to import its main module, as JSON types.
        state: The pickled state: task function, Hydra's context and its singletons, encoded as text.
        git: The state of the repository of its task function.
    """

    main: Mapping[str, Any]
    state: str
    git: GitState

    @classmethod
    def of(cls, hydra_context: HydraContext, task_function: TaskFunction, argv: Sequence[str]) -> Program:
        """Return the program of this process.

        Args:
            hydra_context: Hydra's context of the sweep.
            task_function: The function that `hydra.main` decorates.
            argv: `sys.argv` of the training processes.
        """
        main = main_description() | {"sys_argv": list(argv)}
        state = State(task_function, hydra_context, Singleton.get_state())
        code = getattr(inspect.unwrap(task_function), "__code__", None)
        folder = Path(code.co_filename if code is not None else ".").absolute().parent
        return cls(main, dumps(state, by_reference=_has_file(main)), git_state(folder))

    def pickle(self, value: object) -> str:
        """Return a value as text for `loads` in a process of this program."""
        return dumps(value, by_reference=_has_file(self.main))


@dataclass(frozen=True)
class State:
    """The state of a program that its training processes need.

    Attributes:
        task_function: The function that `hydra.main` decorates.
        hydra_context: Hydra's context of the sweep.
        singletons: The state of Hydra's singletons, with the resolvers of OmegaConf.
    """

    task_function: TaskFunction
    hydra_context: HydraContext
    singletons: Any


class _Rebuilding:
    """Whether this process is importing a program's main module."""

    now = False
    started = False  # whether the program has started itself meanwhile


def refuse_while_importing() -> None:
    """Exit if the main module starts its program while a training process imports it."""
    if _Rebuilding.now:
        _Rebuilding.started = True
        sys.exit(2)


def rebuild(main: Mapping[str, Any], state: str) -> State:
    """Import the main module of a program, and return the state of the program.

    Args:
        main: `Program.main`.
        state: `Program.state`.

    Raises:
        ImportedProgramError: If the main module cannot be imported, or lacks a function or class that the state names.
    """
    where = next((main[key] for key in _MAIN_KEYS if key in main), "the main module")
    _Rebuilding.now = True
    try:
        import_main(main)
    except SystemExit as error:
        problem = f"it exits when it is imported (code {error.code})"
        if _Rebuilding.started:
            problem = (
                "it starts when it is imported; put the call of its main function under if __name__ == '__main__':"
            )
        raise ImportedProgramError(f"{where}: {problem}") from None
    except Exception as error:
        raise ImportedProgramError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        _Rebuilding.now = False
    try:
        rebuilt: State = loads(state)
    except AttributeError as error:
        raise ImportedProgramError(
            f"{where}: {error}; define it at the top level of the module, not under if __name__ == '__main__':"
        ) from error
    return rebuilt


def dumps(value: object, by_reference: bool) -> str:
    """Return a pickled value as text.

    Args:
        value: The value.
        by_reference: Whether functions and classes of the main module are stored as their names.
    """
    buffer = io.BytesIO()
    (_Pickler if by_reference else cloudpickle.Pickler)(buffer).dump(value)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def loads(text: str) -> Any:
    """Return the value that `dumps` has pickled in the worker of this process."""
    return pickle.loads(base64.b64decode(text))  # noqa: S301 - from the worker that has started this process


def from_main(name: str, wrappers: int) -> Any:
    """Return an object of the main module.

    Args:
        name: Its qualified name.
        wrappers: Number of decorators to remove, such as 1 for a function that `hydra.main` decorates.

    Raises:
        AttributeError: If there is no such object.
    """
    value = operator.attrgetter(name)(sys.modules[MAIN])
    for _ in range(wrappers):
        value = value.__wrapped__
    return value


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Stores functions and classes of the main module as their names, where they can be found by name."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)) and obj.__module__ == MAIN and "<" not in obj.__qualname__:
            wrappers = _wrappers(obj.__qualname__, obj)
            if wrappers is not None:
                return from_main, (obj.__qualname__, wrappers)
        return super().reducer_override(obj)


def _wrappers(name: str, wanted: Any) -> int | None:
    """Return how many decorators separate the object of a name from `wanted`; None if `wanted` is not below them.

    The main module of a worker may be another program. Its objects of the user's program came by value, and the name is
    all that is known of them.
    """
    try:
        value = operator.attrgetter(name)(sys.modules[MAIN])
    except AttributeError:
        return 0
    for count in range(100):
        if value is wanted:
            return count
        value = getattr(value, "__wrapped__", None)
        if value is None:
            break
    return None


def _has_file(main: Mapping[str, Any]) -> bool:
    return any(key in main for key in _MAIN_KEYS)
