"""Registries: the losses, optimizers, datasets and so on that settings select by name.

Each family has one `Registry`, in the module that defines its members. A member is registered where it is written:

    @RECONSTRUCTION_LOSSES.register("cauchy", "ln(1 + r^2)")
    class CauchyLoss(nn.Module): ...

Other packages add members in the same way. Their modules are imported before the first lookup if they are named by an
entry point of the group ``joyful.plugins`` or by the environment variable JOYFUL_PLUGINS (names separated by commas).

This module imports neither torch nor pandas.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from joyful.messages import expected_one_of
from joyful.records import InputError, first_line_of

T = TypeVar("T")
Member = TypeVar("Member")

#: Group of entry points whose modules register members.
ENTRY_POINTS = "joyful.plugins"

#: Environment variable with further modules, separated by commas.
VARIABLE = "JOYFUL_PLUGINS"


class Registry(Mapping[str, T]):
    """The members of a family by name, sorted by name.

    Args:
        setting: The setting that selects a member, such as "loss.name". Error messages name it.
        package: Package whose modules register members. They are imported before the first lookup. None if all members
            are in the module of the registry.

    Example:
        >>> shapes = Registry[type]("shape")
        >>> @shapes.register("circle", "a round shape")
        ... class Circle: ...
        >>> shapes["circle"].__name__, shapes.summaries()
        ('Circle', {'circle': 'a round shape'})
        >>> shapes["cirle"]
        Traceback (most recent call last):
        joyful.records.InputError: shape: expected one of circle, got 'cirle'; did you mean circle?
    """

    def __init__(self, setting: str, package: str | None = None) -> None:
        self.setting, self._package = setting, package
        self._members: dict[str, T] = {}
        self._summaries: dict[str, str] = {}
        self._settings: dict[str, dict[str, tuple[Any, Any]]] = {}

    def register(self, name: str, summary: str, **settings: tuple[Any, Any]) -> Callable[[Member], Member]:
        """Return a decorator that adds a member.

        Args:
            name: Name of the member.
            summary: What it is, in a few words, for help and tables.
            **settings: Settings of this member that its family does not have: name -> (type, default), as for
                `pydantic.create_model`. `create` passes them to the member.

        Raises:
            ValueError: If the name is taken.
        """

        def add(member: Member) -> Member:
            if name in self._members:
                raise ValueError(f"{self.setting}: the name {name!r} is registered twice")
            self._members[name], self._summaries[name], self._settings[name] = cast(T, member), summary, settings
            return member

        return add

    def summaries(self) -> dict[str, str]:
        """Return the summary of each member by its name."""
        self._load()
        return dict(sorted(self._summaries.items()))

    def settings_of(self, name: str) -> dict[str, tuple[Any, Any]]:
        """Return the own settings of a member (see `register`)."""
        self[name]
        return dict(self._settings[name])

    def create(self, name: str, settings: Mapping[str, Any], **arguments: Any) -> Any:
        """Call a member with its arguments and those settings that are among its parameters.

        Args:
            name: Name of the member.
            settings: Settings by name; the others are not passed.
            **arguments: Further arguments, which are always passed.
        """
        member: Any = self[name]
        accepted = inspect.signature(member).parameters
        return member(**{key: value for key, value in settings.items() if key in accepted} | arguments)

    def __getitem__(self, name: str) -> T:
        """Return a member.

        Raises:
            InputError: If there is no member of that name. The message lists all names and the nearest one.
        """
        self._load()
        try:
            return self._members[name]
        except (KeyError, TypeError):
            raise InputError(f"{self.setting}: {expected_one_of(name, list(self))}") from None

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._members))

    def __len__(self) -> int:
        self._load()
        return len(self._members)

    def _load(self) -> None:
        if self._package is not None:
            package, self._package = importlib.import_module(self._package), None
            for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
                if not module.name.endswith(".__main__"):
                    importlib.import_module(module.name)
        load_plugins()


@functools.cache
def load_plugins() -> None:
    """Import the modules of the entry points `joyful.plugins` and of JOYFUL_PLUGINS, once per process.

    Raises:
        InputError: If one of them cannot be imported.
    """
    points = entry_points(group=ENTRY_POINTS)
    modules = {point.value: f"the entry point {point.name} of {ENTRY_POINTS}" for point in points}
    modules |= {name.strip(): VARIABLE for name in os.environ.get(VARIABLE, "").split(",") if name.strip()}
    for module, where in modules.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            raise InputError(f"{where}: the module {module} cannot be imported ({first_line_of(error)})") from None
