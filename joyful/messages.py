"""Messages about wrong names: the nearest known names, unknown settings, and wrong arguments of a command.

This module imports the standard library only.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from joyful.records import visible

#: Least similarity of a name that a message offers.
_LEAST = 0.6

#: Names whose similarity is this close to that of the nearest are offered as well, at most _MOST in all.
_CLOSE, _MOST = 0.04, 3

#: The password in a URL.
_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@/\s]+@")


def similarity(a: str, b: str) -> float:
    """Return how similar two names are, from 0 to 1. Exchanged letters and the case of letters count little.

    Example:
        >>> similarity("mse", "MSE"), similarity("mled", "meld"), similarity("mse", "focal")
        (1.0, 0.95, 0.0)
    """
    a, b = a.lower(), b.lower()
    if a == b:
        return 1.0
    return 0.95 if sorted(a) == sorted(b) else difflib.SequenceMatcher(None, a, b).ratio()


def nearest(given: str, names: Iterable[str]) -> list[str]:
    """Return the most similar of some names, or several that are about equally similar; empty if none is similar.

    Example:
        >>> nearest("smothl1", ["mse", "smoothl1"])
        ['smoothl1']
    """
    return _best({name: similarity(given, name) for name in names})


def _best(ratings: Mapping[str, float]) -> list[str]:
    least = max(_LEAST, max(ratings.values(), default=0.0) - _CLOSE)
    ordered = sorted(ratings, key=lambda name: (-ratings[name], len(name), name))
    return [name for name in ordered if ratings[name] >= least][:_MOST]


@dataclass(frozen=True)
class KnownNames:
    """The names that the configuration of a program has.

    Attributes:
        settings: Dotted names of its settings and sections.
        choices: Config group -> names of its options.
        aliases: Names that users may expect -> the setting or group that they mean.
    """

    settings: tuple[str, ...] = ()
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    def with_settings(self, settings: Iterable[str]) -> KnownNames:
        """Return the names with further settings."""
        return replace(self, settings=tuple(dict.fromkeys([*self.settings, *settings])))

    def near(self, name: str) -> list[str]:
        """Return what a wrong name may mean, the nearest first: settings, groups, or choices as GROUP=OPTION.

        The whole dotted name and its last part are compared with the dotted names of settings and their last parts,
        the groups and their options, and the aliases. The name of an alias means its setting and no other.

        Args:
            name: The wrong name.
        """
        if name in self.aliases:
            return [self.aliases[name]]
        last = re.split(r"[./]", name)[-1]
        best: dict[str, float] = {}
        for candidate, meaning, weight in self._candidates():
            if _is_of_hydra(meaning) and not _is_of_hydra(name):
                if candidate != last:
                    continue
                weight = 0.9
            rating = weight * max(similarity(name, candidate), similarity(last, candidate))
            if candidate.startswith(f"{last}_"):
                rating = max(rating, weight * 0.8)
            if meaning != name:
                best[meaning] = max(best.get(meaning, 0.0), rating)
        return _best(best)

    def _candidates(self) -> Iterator[tuple[str, str, float]]:
        """Yield (name, what it means, weight) of everything that a wrong name may mean."""
        for alias, meaning in self.aliases.items():
            yield alias, meaning, 1.0
        for setting in self.settings:
            yield setting, setting, 1.0
            yield setting.rpartition(".")[2], setting, 0.97
        for group, options in self.choices.items():
            yield group, group if group in self.settings or "/" in group else f"{group}=NAME", 1.0
            for option in options:
                yield option, f"{group}={option}", 0.9

    def unknown(self, name: str, hint: str = "") -> str:
        """Return the message about a setting that does not exist.

        Args:
            name: Its dotted name.
            hint: Text after the names that are offered.

        Example:
            >>> KnownNames(("training", "training.epochs")).unknown("training.epohcs")
            'training.epohcs: there is no such setting; did you mean training.epochs? (--cfg job lists all)'
        """
        part = "hydra" if _is_of_hydra(name) else "job"
        return f"{name}: there is no such setting{did_you_mean(self.near(name))}{hint} (--cfg {part} lists all)"


def _is_of_hydra(name: str) -> bool:
    return name == "hydra" or name.startswith(("hydra.", "hydra/"))


def one_of(names: Sequence[str]) -> str:
    """Return the names in a sentence.

    Example:
        >>> one_of(["a", "b", "c"])
        'a, b or c'
    """
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else "".join(names)


def expected_one_of(given: object, names: Sequence[str]) -> str:
    """Return the text "expected one of A, B, got 'a'; did you mean A?".

    Example:
        >>> expected_one_of("smothl1", ["mse", "smoothl1"])
        "expected one of mse, smoothl1, got 'smothl1'; did you mean smoothl1?"
    """
    near = nearest(given, names) if isinstance(given, str) else []
    return f"expected one of {', '.join(names)}, got {given!r}{did_you_mean(near)}"


def did_you_mean(names: Sequence[str]) -> str:
    """Return the text "; did you mean A or B?", empty without names."""
    return f"; did you mean {one_of(names)}?" if names else ""


def this_command(*options: str) -> str:
    """Return the command of this process with further options before its arguments.

    Example:
        >>> sys.argv = ["run.py", "seed=1,2"]
        >>> this_command("-m")
        'python run.py -m seed=1,2'
    """
    program = sys.argv[0] if sys.argv[0].startswith("joyful") else f"python {shlex.quote(sys.argv[0])}"
    return f"{program} {shlex.join([*options, *sys.argv[1:]])}"


def without_passwords(text: str) -> str:
    """Return text without the passwords in its URLs, such as that of a database.

    Example:
        >>> without_passwords("hydra.sweeper.storage=postgresql://me:secret@host/db")
        'hydra.sweeper.storage=postgresql://me:***@host/db'
    """
    return _PASSWORD.sub(r"\1:***@", text)


class CommandParser(argparse.ArgumentParser):
    """A parser of command lines that reports a wrong argument on one line, with the nearest name, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Print the message to standard error, and exit with code 2."""
        self.exit(2, f"{visible(' '.join(f'{self.prog}: {self._explain(message)}'.split()))}\n")

    def _explain(self, message: str) -> str:
        help_ = f"({self.prog} --help)"
        if choice := re.fullmatch(r"argument (.*?): invalid choice: (.*) \(choose from (.*)\)", message):
            names = [name.strip().strip("'") for name in choice[3].split(",")]
            return f"{choice[1]}: {expected_one_of(choice[2].strip(chr(39)), names)} {help_}"
        if unknown := re.fullmatch(r"unrecognized arguments: (.*)", message):
            given = unknown[1].split()[0]
            options = re.findall(r"--[\w-]+", self.format_usage())
            near = nearest(given.partition("=")[0], options) if given.startswith("-") else []
            kind = "option" if given.startswith("-") else "argument"
            return f"{given}: there is no such {kind}{did_you_mean(near)} {help_}"
        return f"{message} {help_}"


def print_utf8(text: str) -> None:
    """Write text to standard output in UTF-8, whatever encoding it has. Lone surrogates of file names keep their bytes."""
    sys.stdout.flush()
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
    else:  # replaced by an object for text, as in a notebook
        sys.stdout.write(text)
