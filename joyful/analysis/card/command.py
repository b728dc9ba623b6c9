"""The command `joyful card`: write a model card in Markdown.

The sections are those of Mitchell et al. (2019), Model Cards for Model Reporting, FAT*, in the order of the template of the
Hugging Face Hub.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from joyful.analysis.card.content import Card, make_card
from joyful.analysis.card.model import read_model
from joyful.analysis.page.markdown import escape, table
from joyful.analysis.page.parts import clean
from joyful.messages import CommandParser, print_utf8
from joyful.results import HISTORY, PREDICTIONS, RUN, TIMING, InputError, ResultsError, write_bytes


class _Markdown(str):
    """Text that is Markdown already."""

    __slots__ = ()


def render(card: Card) -> str:
    """Return the card as GitHub-flavoured Markdown. All text is escaped, so names in files cannot add markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("joyful.analysis", "templates"),
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, _Markdown) else escape(clean(value)),
    )
    environment.filters |= {"facts": _facts, "rows": _rows, "code": _code, "line": _line}
    return environment.get_template("card.md.j2").render(card=card).rstrip() + "\n"


def _facts(rows: Sequence[Sequence[str]]) -> _Markdown:
    return _Markdown("\n".join(f"- {escape(clean(name))}: {escape(clean(text))}" for name, text in rows))


def _rows(rows: Sequence[Sequence[str]], *columns: str) -> _Markdown:
    """Return a table, whose first column is text and whose other columns are numbers if a cell of them begins with one."""
    numeric = [i for i in range(1, len(columns)) if rows and all(row[i][:1].isdigit() or row[i] == "–" for row in rows)]
    return _Markdown(table(columns, [[escape(clean(cell)) for cell in row] for row in rows], numeric))


def _code(text: str) -> _Markdown:
    return _Markdown(clean(text).replace("`", "'"))


def _line(text: str) -> _Markdown:
    return _Markdown(clean(text))


def _check_out(path: Path) -> None:
    """Raise InputError if no card can be written there, or it would replace a file that a run consists of."""
    if not os.path.isdir(path.parent):
        raise InputError(f"--out: expected a file in an existing folder, got {path}; create the folder {path.parent}")
    if os.path.isdir(path):
        raise InputError(f"--out: expected a file, got the folder {path}; add a name, such as {path / 'README.md'}")
    if path.name.lower() in (RUN, HISTORY, TIMING, PREDICTIONS) and os.path.isfile(path.parent / RUN):
        raise InputError(
            f"--out: expected a file that is not part of a run, got {path}; choose a name such as {path.parent / 'README.md'}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `joyful card`.

    Args:
        arguments: Arguments of the command line, by default those of the process.

    Returns:
        The exit code: 0 for success, 1 if the file cannot be written, 2 for invalid input.
    """
    parser = CommandParser(
        prog="joyful card",
        description="Write a model card in Markdown: what a trained model is, its data, its scores with intervals, its licences "
        "and its limits. The folder is that of a run, or of a sweep with several seeds of one configuration.",
        epilog="Read the card before you publish it, and complete what only you can know: the licence of the weights, and who is "
        "responsible for them.",
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="folder of a completed run, or of a sweep")
    add(
        "--arm",
        metavar="ARM",
        help="the configuration to describe, by its name in the report or overrides such as loss=mse",
    )
    add("--out", metavar="FILE", type=Path, help="file to write, such as README.md (default: standard output)")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.out is not None:
            _check_out(parsed.out)
        text = render(make_card(read_model(parsed.folder, parsed.arm)))
        if parsed.out is None:
            print_utf8(text)
        else:
            write_bytes(parsed.out, text.encode())
            print_utf8(f"{parsed.out}\n")
    except (InputError, ResultsError) as error:
        print(f"joyful card: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0
