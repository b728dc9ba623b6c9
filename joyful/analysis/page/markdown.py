"""Render the page as Markdown: the same text and tables as in HTML, with descriptions in place of the figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from joyful.analysis.page.html import MARKS
from joyful.analysis.page.parts import Answer, Page, Table

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
    yield f"# {escape(page.headline)}"
    if page.counts:
        yield " · ".join(f"{MARKS[verdict]} {n} {verdict}" for verdict, n in page.counts.items())
    yield from map(escape, page.unseen)
    if page.answer is not None:
        yield from _answer(page.answer)
    facts = [*page.facts, ("folder", page.source)]
    yield "; ".join(f"{escape(name)} **{escape(text)}**" for name, text in facts) + "."
    commands = [("Made by", page.command), ("This page by", page.report_command)]
    yield "\n".join(f"- {what} {code(command)}" for what, command in commands if command)
    yield "The figures are in [index.html](index.html)."
    for section in page.sections:
        yield f"## {escape(section.title)}"
        yield from map(escape, section.text)
        if section.commands:
            yield "\n".join(f"- {escape(purpose)} {code(command)}" for purpose, command in section.commands)
        for shown in section.tables:
            yield from _table(shown)
        if section.plots:
            yield "\n".join(f"- *{escape(plot.title)}*: {escape(plot.finding)}" for plot in section.plots)
        for shown in section.folded:
            yield from _table(shown)


def code(text: str) -> str:
    """Return a command as a code span, or as escaped text if it has characters that could end the span or be HTML.

    Example:
        >>> code("joyful report x"), code("<b>")
        ('`joyful report x`', '&lt;b&gt;')
    """
    return escape(text) if set(text) & set("`<>") else f"`{text}`"


def _answer(shown: Answer) -> Iterator[str]:
    """Yield the answer as a table: one column with results, or one per arm or task."""
    rows = []
    for row in shown.rows:
        cells = [
            "" if cell is None
            else f"{MARKS[cell.verdict]} {cell.result}: {cell.text}" if len(row.cells) == 1
            else f"{MARKS[cell.verdict]} {cell.short}"
            for cell in row.cells
        ]  # fmt: skip
        rows.append([f"{escape(row.head)}<br>claimed {escape(row.detail)}", *map(escape, cells)])
    columns = ["result"] if len(shown.columns) == 1 else list(map(escape, shown.columns))
    yield table(["claim", *columns], rows)


def _cell(cell: str) -> str:
    main, _, small = cell.partition("\n")
    return f"{escape(main)}<br>{escape(small)}" if small else escape(main)


def _table(shown: Table) -> Iterator[str]:
    yield f"**{escape(shown.caption)}**"
    yield table(list(map(escape, shown.columns)), [list(map(_cell, row)) for row in shown.rows], shown.numeric)
    if shown.note:
        yield escape(shown.note)
