"""The parts of a page. All text is plain; the HTML and Markdown renderers escape it."""

from __future__ import annotations

import re
import shlex
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
        runs: Index of the column of run folders relative to the sweep, which become links. None if there is none.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    note: str = ""
    restacks: bool = False
    marks: int | None = None
    runs: int | None = None


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
        closed: Whether the section itself is collapsed until the reader opens it.
        ladder: Gains at several targets, among which the reader chooses, or None.
        commands: Commands to copy, each with its purpose.
    """

    key: str
    title: str
    text: tuple[str, ...] = ()
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    closed: bool = False
    ladder: Ladder | None = None
    commands: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Ladder:
    """Gains at several targets.

    Attributes:
        targets: Each target in words, from the nearest to the farthest.
        gains: For each target, the gain of each arm in words.
        chosen: Index of the target that is shown first.
    """

    targets: tuple[str, ...]
    gains: tuple[tuple[str, ...], ...]
    chosen: int


@dataclass(frozen=True)
class Cell:
    """The verdict on one claim, with its place on an axis. Places are in per cent of the width of the axis.

    Attributes:
        verdict: One of `joyful.analysis.verdict.VERDICTS`.
        result: The result in a few words, such as "not faster".
        text: The effect and its interval in words, or why there is none.
        short: The effect as a number, with the sign of per cent, or "".
        zero: Place of no difference.
        band: Places of the edges of the claimed range.
        line: Places of the limits of the interval, or None.
        point: Place of the estimate, or None if there is none or it lies outside the axis.
        before: The estimate if it lies before the axis, or "".
        beyond: The estimate if it lies beyond the axis, or "".
    """

    verdict: str
    result: str
    text: str
    short: str
    zero: float
    band: tuple[float, float]
    line: tuple[float, float] | None = None
    point: float | None = None
    before: str = ""
    beyond: str = ""


@dataclass(frozen=True)
class Row:
    """One claim and metric of the answer.

    Attributes:
        head: What is claimed about.
        detail: The claimed range in words.
        cells: One cell per column. None where nothing is claimed.
    """

    head: str
    detail: str
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Answer:
    """All verdicts at a glance: claims in rows, arms or tasks in columns.

    Attributes:
        columns: Names of the columns.
        rows: The rows.
        note: How to read the figure.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str


@dataclass(frozen=True)
class Page:
    """The content of a report.

    Attributes:
        title: What the page is about, such as the arms that are compared.
        headline: The sentence that answers, or the title.
        source: Name of the folder of the sweep.
        facts: What was run, such as ("data", "meld (digest 0123abcd)").
        command: The command that made the runs, or "".
        place: The folder of the sweep as that command named it, or "".
        options: The options of `joyful report` that make the page again, or "".
        counts: Number of claims per verdict.
        answer: The verdicts at a glance, or None.
        unseen: Reasons why claims were not judged at all.
        arms: Labels of the arms whose curves are drawn, the baseline first.
        sections: The sections.
    """

    title: str
    headline: str
    source: str
    facts: tuple[tuple[str, str], ...] = ()
    command: str = ""
    place: str = ""
    options: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    answer: Answer | None = None
    unseen: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()

    @property
    def report_command(self) -> str:
        """The command that makes the page again."""
        folder = self.place if self.place.rpartition("/")[2] == self.source else self.source
        return f"joyful report {shlex.quote(folder)} {self.options}".strip()
