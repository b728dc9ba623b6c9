"""Tables of plain text whose lines are never longer than the terminal: one column shrinks, the others keep their width.

The column that shrinks holds settings, such as ``loss=mse seed=3``. Without room for that, it has a narrow column for
each setting, with the values below the names, and cuts long ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from joyful.records import visible

#: Columns are separated by this many spaces.
GAP = 2

#: Smallest width of the settings, and of one setting among them.
MINIMUM, SHORTEST = 8, 4


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        header: Its header.
        cells: A text for each row.
        right: Whether the texts are aligned at the right.
        style: Style of its texts.
        links: URL of each row; () for none.
        minimum: Smallest width, so that a table that is drawn again and again keeps its shape.
    """

    header: str
    cells: Sequence[str]
    right: bool = False
    style: str = ""
    links: Sequence[str] = ()
    minimum: int = 0

    @property
    def width(self) -> int:
        """Width of the longest text."""
        return max([cell_len(self.header), self.minimum, *map(cell_len, self.cells)])


def is_ascii(console: Console) -> bool:
    """Return whether a console cannot show other characters than ASCII, by its encoding or by the locale C.

    Python writes UTF-8 in the locale C, where a terminal need not understand it.
    """
    names = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    coerced = names[0] == "" and names[1] in ("", "C.UTF-8")  # in the locale C, Python sets LC_CTYPE itself
    locale = names[2] if coerced else names[0] or names[1]
    return locale in ("C", "POSIX") or not (console.encoding or "").lower().startswith("utf")


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return the shortest ends of dotted names that are unique among them.

    Example:
        >>> short_names(["weights.encoder_loss_weight", "a.lr", "b.lr", "seed"])
        {'weights.encoder_loss_weight': 'encoder_loss_weight', 'a.lr': 'a.lr', 'b.lr': 'b.lr', 'seed': 'seed'}
    """
    parts = {name: name.replace("/", ".").split(".") for name in names}
    short = {}
    for name, own in parts.items():
        ends = (len(own) - start for start in range(len(own) - 1, -1, -1))
        unique = (n for n in ends if sum(other[-n:] == own[-n:] for other in parts.values()) == 1)
        short[name] = ".".join(own[-next(unique, len(own)) :])
    return short


def cut(text: str, width: int, ascii_only: bool = False) -> str:
    """Return a text of at most `width` columns of a terminal; a longer one ends in an ellipsis."""
    text = visible(text)
    if ascii_only:
        text = text.encode("ascii", "backslashreplace").decode()
    dots = "..." if ascii_only else "…"
    if cell_len(text) <= width:
        return text
    return (set_cell_size(text, max(0, width - len(dots))).rstrip() + dots)[: max(0, width)]


def settings_column(rows: Sequence[Mapping[str, str]], width: int | None, ascii_only: bool = False) -> Column:
    """Return the column with the settings of each row.

    Args:
        rows: Short name -> value of each row.
        width: Largest width; None for any.
        ascii_only: Whether only ASCII is shown.
    """
    rows = [{visible(name): visible(value) for name, value in row.items()} for row in rows]
    texts = [" ".join(f"{name}={value}" for name, value in row.items()) for row in rows]
    whole = Column("settings", texts)
    if width is None or whole.width <= width:
        return whole
    names = list(dict.fromkeys(name for row in rows for name in row))
    needed = {name: max(cell_len(row.get(name, "-")) for row in rows) for name in names}
    sizes = _shrunk({name: max(cell_len(name), needed[name]) for name in names}, needed, width)
    if sum(sizes.values()) + len(sizes) - 1 > width:
        return Column("settings", [cut(text, width, ascii_only) for text in texts])
    lines = [{name: name for name in names}, *rows]
    cells = [
        " ".join(_padded(cut(row.get(n, "-"), k, ascii_only), k) for n, k in sizes.items()).rstrip() for row in lines
    ]
    return Column(cells[0], cells[1:])


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


def _shrunk(sizes: dict[str, int], needed: Mapping[str, int], width: int) -> dict[str, int]:
    """Return widths of columns that fit: first the names in the header are cut, then the longest values."""
    while sum(sizes.values()) + len(sizes) - 1 > width:
        spare = [name for name in sizes if sizes[name] > max(needed[name], SHORTEST)]
        long = spare or [name for name in sizes if sizes[name] > SHORTEST]
        if not long:
            break
        sizes[max(long, key=lambda name: sizes[name])] -= 1
    return sizes


def table(
    columns: Sequence[Column | Sequence[Mapping[str, str]]], width: int | None, ascii_only: bool = False
) -> list[Text]:
    """Return the lines of a table, with its header.

    Args:
        columns: The columns; the settings as their rows.
        width: Largest length of a line; None for any.
        ascii_only: Whether only ASCII is shown.
    """
    fixed = sum(column.width for column in columns if isinstance(column, Column)) + GAP * (len(columns) - 1)
    room = None if width is None else max(MINIMUM, width - fixed)
    full = [column if isinstance(column, Column) else settings_column(column, room, ascii_only) for column in columns]
    lines = [_line(full, None, width)]
    lines += [_line(full, row, width) for row in range(len(full[0].cells))]
    return lines


def _line(columns: Sequence[Column], row: int | None, width: int | None) -> Text:
    """Return the line of a row; None for the header."""
    line = Text(no_wrap=True, overflow="crop")
    for place, column in enumerate(columns):
        text = column.header if row is None else column.cells[row]
        size, last = column.width, place == len(columns) - 1
        padding = " " * (size - cell_len(text))
        style = "dim" if row is None else column.style
        if row is not None and column.links and column.links[row]:
            style = f"{style} link {column.links[row]}".strip()
        line.append(" " * (GAP if place else 0))
        line.append(padding if column.right else "")
        line.append(text, style)
        line.append("" if column.right or last else padding)
    if width is not None:
        line.truncate(width, overflow="crop")
    return line
