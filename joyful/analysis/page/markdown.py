"""Render the page as Markdown: the same text and tables as in HTML, with descriptions in place of the figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from joyful.analysis.page.html import MARKS
from joyful.analysis.page.parts import Page, Point, Table
from joyful.analysis.page.summary import SIZES

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def render(page: Page) -> str:
    """Return the page as GitHub-flavoured Markdown.

    All text is escaped, so names of runs cannot add markup.
    """
    return "\n\n".join(_blocks(page)) + "\n"


def escape(text: str) -> str:
    """Escape a line of text so that Markdown shows it literally.

    Example:
        >>> print(escape("a_b | <c>"))
        a\\_b \\| &lt;c&gt;
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(r"\\\1", text)
    text = re.sub(r"(?i)\b(https?|ftp):", r"\1&#58;", text)  # GitHub turns addresses into links
    text = re.sub(r"(?i)\bwww\.", "www&#46;", text)
    return re.sub(r"^(\d+)(?=[.)]\s)|^(?=[-=+#])", lambda match: f"{match[0]}\\", text)  # lists, rules, headings


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[int] = ()) -> str:
    """Return a Markdown table.

    Args:
        columns: Headings of the columns, as Markdown.
        rows: Cells of the rows, as Markdown.
        numeric: Indices of the columns that are aligned to the right.

    Returns:
        The table without a final newline.
    """
    rule = ["---:" if index in numeric else "---" for index in range(len(columns))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))


def _blocks(page: Page) -> Iterator[str]:
    yield f"# {escape(page.title)}"
    yield f"Sweep: {escape(page.source)}. The figures are in [index.html](index.html)."
    if page.counts:
        yield " · ".join(f"{MARKS[verdict]} {n} {verdict}" for verdict, n in page.counts.items())
    yield "## What was compared"
    yield from map(escape, page.compared)
    if page.notes:
        yield "\n".join(f"- {escape(text)}" for text in page.notes)
    for group in page.groups:
        yield f"## {MARKS[group.verdict]} {escape(group.title)}"
        yield "\n".join(_point(point) for point in group.points)
    if page.unseen or page.sizes:
        yield "## Limits of the comparison"
        yield from map(escape, page.unseen)
    if page.sizes:
        yield escape(SIZES)
        yield "\n".join(_point(point) for point in page.sizes)
    for section in page.sections:
        yield f"## {escape(section.title)}"
        yield from map(escape, section.text)
        for shown in section.tables:
            yield from _table(shown)
        if section.plots:
            yield "\n".join(f"- *{escape(plot.title)}*: {escape(plot.finding)}" for plot in section.plots)
        for shown in section.folded:
            yield from _table(shown)


def _point(point: Point) -> str:
    head = f"**{escape(point.head)}**: " if point.head else ""
    return f"- {head}{escape(point.text)}{' ' * bool(point.detail)}{escape(point.detail)}"


def _cell(cell: str) -> str:
    main, _, small = cell.partition("\n")
    return f"{escape(main)}<br>{escape(small)}" if small else escape(main)


def _table(shown: Table) -> Iterator[str]:
    yield f"**{escape(shown.caption)}**"
    yield table(list(map(escape, shown.columns)), [list(map(_cell, row)) for row in shown.rows], shown.numeric)
    if shown.note:
        yield escape(shown.note)
