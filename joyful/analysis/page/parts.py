"""The parts of a page. All text is plain; the HTML and Markdown renderers escape it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from joyful.analysis.plots.style import Plot


def clean(text: object) -> str:
    """Return the text on one line, with unprintable characters replaced by U+FFFD.

    Names and reasons come from files that are not trusted.

    Example:
        >>> clean("two\\n  lines")
        'two lines'
    """
    joined = re.sub(r"[ \t\r\n\f\v\u0085\u2028\u2029]+", " ", str(text)).strip()
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in joined)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Text after the first newline in a cell is shown in small print.

    Attributes:
        name: Identifier, unique in the page.
        caption: Title of the table.
        columns: Headings of the columns.
        rows: Cells of the rows.
        numeric: Indices of the columns that contain numbers.
        note: Text below the table.
        restacks: Whether each row becomes a card on a narrow screen. Otherwise the table scrolls inside its box.
        marks: Index of the column of verdicts, which are shown as badges. None if there is none.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    restacks: bool = False
    marks: int | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        key: Identifier, unique in the page.
        title: Heading.
        text: Paragraphs.
        plots: Figures.
        tables: Tables that are always visible.
        folded: Tables that are collapsed until the reader opens them.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Point:
    """One item of the summary.

    Attributes:
        head: Name of the claim, or "".
        text: The result.
        detail: Further information in small print, or "".
    """

    head: str
    text: str
    detail: str = ""


@dataclass(frozen=True)
class Group:
    """Items of the summary that share a verdict.

    Attributes:
        verdict: One of `joyful.analysis.claims.VERDICTS`, or "" for other items.
        title: Heading.
        points: The items.
    """

    verdict: str
    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Page:
    """The content of a report.

    Attributes:
        title: The arms that are compared.
        source: Name of the folder of the sweep.
        compared: Sentences on the comparison.
        counts: Number of claims per verdict.
        groups: The claims by verdict.
        unseen: Reasons why claims were not judged at all.
        sizes: Minimum detectable effects.
        notes: Remarks on how the sweep was read.
        sections: The sections below the summary.
    """

    title: str
    source: str
    compared: tuple[str, ...]
    counts: dict[str, int]
    groups: tuple[Group, ...]
    unseen: tuple[str, ...]
    sizes: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())
