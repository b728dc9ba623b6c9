"""The table of choices in docs/GUIDE.md, from the registries. ``python -m tests.support.choices`` writes it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from joyful.config import REGISTRIES
from joyful.registry import Registry

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "GUIDE.md"
BEGIN, END = "<!-- choices -->\n", "<!-- end of choices -->\n"

#: Further registries: module and variable.
OTHERS = (
    ("joyful.trackers", "TRACKERS"),
    ("joyful.analysis.measures", "MEASURES"),
    ("joyful.analysis.importers", "FORMATS"),
)


def registries() -> list[Registry[Any]]:
    """Return the registries of all families."""
    return [getattr(importlib.import_module(module), name) for module, name in (*REGISTRIES.values(), *OTHERS)]


def table() -> str:
    """Return the table as Markdown, with a row for each registry."""
    rows = [
        f"| `{registry.setting}` | {'; '.join(f'`{name}` ({what})' for name, what in registry.summaries().items())} |\n"
        for registry in registries()
    ]
    return "| setting | names |\n|---|---|\n" + "".join(rows)


def with_table(text: str) -> str:
    """Return the text with the table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    GUIDE.write_text(with_table(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
