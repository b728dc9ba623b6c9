"""What a page is made of. Plain text everywhere: escaping is the business of whoever writes HTML or Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from joyful.analysis.plots.style import Plot


def clean(text: object) -> str:
    """The text on one line, without control characters: names and reasons come from files that anyone may have written."""
    joined = re.sub(r"[ \t\r\n\f\v\u0085\u2028\u2029]+", " ", str(text)).strip()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in joined)


@dataclass(frozen=True)
class Table:
    """name: unique in the page. numeric: places of columns that hold numbers. note: under the table.

    A cell may have small print: what follows the first line end.

    restacks: on a phone every row becomes a card (else the table scrolls inside its own box).
    marks: place of a column whose cells are verdicts, shown as badges.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    restacks: bool = False
    marks: int | None = None

    @classmethod
    def of(
        cls, name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *,
        text: Sequence[int] = (0,), note: str = "", restacks: bool = False, marks: int | None = None,
    ) -> Table:  # fmt: skip
        """A table from any cells; text: the places of the columns that do not hold numbers."""
        cells = tuple(tuple("\n".join(map(clean, str(cell).split("\n", 1))) for cell in row) for row in rows)
        numeric = frozenset(range(len(columns))) - set(text)
        return cls(name, caption, tuple(columns), cells, numeric, note, restacks, marks)


@dataclass(frozen=True)
class Section:
    """A chapter of the page. tables stand open, `folded` ones behind a line that opens them."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Point:
    """One line of the summary: a claim (or nothing), what was found, and the small print."""

    head: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Group:
    """Points under one verdict; `verdict` is one of `joyful.analysis.claims.VERDICTS`, or "" for anything else."""

    verdict: str
    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Page:
    """title: what was compared with what. compared: sentences. counts: verdict -> how many. notes: what a reader must
    know of how the sweep was read.
    sizes: effects that this many pairs could have shown."""

    title: str
    source: str
    compared: tuple[str, ...]
    counts: dict[str, int]
    groups: tuple[Group, ...]
    unseen: tuple[str, ...]
    sizes: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())
