"""The command that made the runs of a sweep, rebuilt from the overrides that Hydra records beside each run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyful.messages import without_passwords
from joyful.results import InputError
from joyful.results.files import read_bounded
from joyful.results.yaml_text import parse_yaml

_MAXIMUM_BYTES = 2**20

#: Maximum number of runs whose overrides are read, which takes about a millisecond each.
_MOST_RUNS = 1000

#: Overrides that the program and the sweeper set themselves.
_OWN = ("hydra.mode=",)


@dataclass(frozen=True)
class Origin:
    """How runs were made. Each text is "" if it is not known.

    Attributes:
        program: The start of the command, such as "python run.py".
        command: The whole command.
        folder: The folder of the sweep as seen from the folder in which the command ran. "" for an absolute path.
    """

    program: str = ""
    command: str = ""
    folder: str = ""


def made_by(folder: Path, runs: Sequence[str]) -> Origin:
    """Return the command that made the runs, such as "python run.py -m +sweeps=first_look".

    The values of a grid are joined again, as in `seed=1,2,3`. Values that a sweeper chose are left out. Absolute paths are
    shortened to their last part and passwords are hidden, because a report may be passed on.

    Args:
        folder: The folder of the sweep.
        runs: Names of its runs. A run that Hydra did not start has no overrides and is skipped. Of more than 1000 runs the
            command is not rebuilt.
    """
    found = [(name, task) for name in runs[:_MOST_RUNS] if (task := _overrides(folder / name / ".hydra")) is not None]
    if not found:
        return Origin()
    section = _mapping(_mapping(_read(folder / found[0][0] / ".hydra" / "hydra.yaml")).get("hydra"))
    given = _mapping(section.get("overrides")).get("hydra") or ()
    own = [text for text in given if isinstance(text, str) and not text.startswith(_OWN)]
    sweep = section.get("mode") == "MULTIRUN"
    chosen = "BasicSweeper" not in str(_mapping(section.get("sweeper")).get("_target_"))
    name = _mapping(section.get("job")).get("name")
    program = "joyful train" if name == "cli" else f"python {shlex.quote(str(name or 'program'))}.py"
    words = [
        *(["-m"] if sweep else []),
        *_joined([task for _, task in found], keep_varying=not (sweep and chosen)),
        *own,
    ]
    place = str(_mapping(section.get("sweep" if sweep else "run")).get("dir") or "")
    return Origin(
        program,
        ""
        if len(runs) > _MOST_RUNS
        else " ".join([program, *(shlex.quote(_portable(without_passwords(word))) for word in words)]),
        "" if Path(place).is_absolute() or "${" in place else place,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _joined(tasks: Sequence[Sequence[str]], *, keep_varying: bool) -> list[str]:
    """Return the overrides of all runs in one list: common ones unchanged, varying ones as KEY=A,B or left out."""
    values: dict[str, dict[str, None]] = {}
    counts: dict[str, int] = {}
    for task in tasks:
        for text in task:
            key, _, value = text.partition("=")
            values.setdefault(key, {})[value] = None
            counts[key] = counts.get(key, 0) + 1
    common = {key for key, found in values.items() if len(found) == 1 and counts[key] == len(tasks)}
    kept = {key: found for key, found in values.items() if key in common or keep_varying}
    return [f"{key}={','.join(found)}" if set(found) != {""} else key for key, found in kept.items()]


def _portable(word: str) -> str:
    return re.sub(r"(?<==)(?:/|[A-Za-z]:\\).*?([^/\\]+)[/\\]?$", r"…/\1", word)


def _overrides(folder: Path) -> list[str] | None:
    found = _read(folder / "overrides.yaml")
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else None


def _read(file: Path) -> Any:
    try:
        return parse_yaml(read_bounded(file, _MAXIMUM_BYTES))
    except (OSError, InputError):
        return None
