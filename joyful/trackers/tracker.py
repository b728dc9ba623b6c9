"""What a tracker is: the run that it gets, its methods, and the registry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Protocol

from joyful.records import InputError
from joyful.registry import Registry

#: A setting or a result: what every tracker can store.
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class TrackedRun:
    """A run, as trackers see it.

    Attributes:
        folder: Absolute path of the folder of the run.
        parameters: Dotted name -> value of its settings.
        sweep: Absolute path of the folder of its sweep; None for a run alone.
        varied: Settings and groups that its command sets, or that differ between the runs of its sweep.
    """

    folder: Path
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    sweep: Path | None = None
    varied: frozenset[str] = frozenset()

    def varies(self, parameter: str) -> bool:
        """Return whether the parameter is in `varied`, or names the choice of a group in it, as loss.name does."""
        return parameter in self.varied or parameter.removesuffix(".name") in self.varied

    @property
    def name(self) -> str:
        """The path of the run in its sweep, such as 3; "report" for the sweep itself."""
        if self.sweep is None:
            return self.folder.name
        name = self.folder.relative_to(self.sweep).as_posix()
        return "report" if name == "." else name

    @property
    def group(self) -> str:
        """The name of the sweep; "joyful" for a run alone."""
        return "joyful" if self.sweep is None else self.sweep.name

    @property
    def store(self) -> Path:
        """The folder of what the runs of a sweep share: that of the sweep, or of a run alone."""
        return self.folder if self.sweep is None else self.sweep


class Tracker(Protocol):
    """One run in a tracker. Every method may raise any exception: `Tracking` then goes on without this tracker.

    The constructor gets the run, and if the run is resumed the `id` of the earlier process, otherwise None, and the last
    step that is certainly there. If that process was killed, one more step may be there, which is logged again; the tracker
    must not show it twice. The constructor starts or continues the run and stores its parameters.

    Attributes:
        package: The package that the tracker needs. It is in the extra with the name of the tracker.
        id: What identifies the run in the tracker: up to 64 letters, digits, hyphens and underscores.
    """

    package: ClassVar[str]
    id: str

    def __init__(self, run: TrackedRun, earlier: str | None, step: int) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Store values, all finite, at a step. Steps rise."""

    def attach(self, files: Mapping[str, Path], step: int) -> None:
        """Store files: name -> path. A tracker may leave out those that it cannot show."""

    def finish(self, status: str, scores: Mapping[str, float], step: int) -> None:
        """Store the final status and scores, and end.

        Args:
            status: "completed", "pruned", "failed", or "interrupted" for a run that is to be resumed.
            scores: Name -> value, all finite.
            step: The last step.
        """


#: The trackers. `track=NAME` and `hydra.sweeper.track=[NAME]` select them.
TRACKERS = Registry[type[Tracker]]("track", "joyful.trackers")


def require(names: Iterable[str], setting: str = "track") -> None:
    """Check that trackers exist and that their packages are installed.

    Args:
        names: Names of trackers.
        setting: The setting that names them, for the message.

    Raises:
        InputError: If a name is not one of TRACKERS, or the package of a tracker is not installed.
    """
    for name in names:
        package = TRACKERS[name].package
        if find_spec(package) is None:
            raise InputError(
                f"{setting}={name}: expected the package {package}, which is not installed; run "
                f"pip install 'joyful-sweeps[{name}]', or leave {name} out of {setting}"
            )


@contextmanager
def environment(**defaults: str) -> Iterator[None]:
    """Context in which environment variables that are not set have a default."""
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
