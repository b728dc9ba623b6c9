"""The table of settings in docs/SWEEPS.md, from the sweeper. ``python -m tests.support.sweep_settings`` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from joyful.sweeper.plugin import DEFAULTS
from joyful.sweeper.settings import SweepSettings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "SWEEPS.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end of settings -->\n"

#: Settings that `SweepSettings` does not hold.
OTHERS = {
    "check": "function that checks the configuration of a trial before the sweep starts: `_target_: NAME`; null: none"
}


def table() -> str:
    """Return the table as Markdown, with a row for each setting."""
    rows = []
    for name, default in DEFAULTS.items():
        if name not in ("defaults", "_target_"):
            description = OTHERS.get(name) or SweepSettings.model_fields[name].description
            rows.append(f"| `{name}` | `{_text(default)}` | {description} |\n")
    return "| setting | default | what |\n|---|---|---|\n" + "".join(rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def with_table(text: str) -> str:
    """Return the text with the table between its marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
