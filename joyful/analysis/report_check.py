"""Check of a report: its manifest against the folder of the sweep, its files, and the report computed again."""

from __future__ import annotations

import io
import itertools
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from joyful.analysis import manifest, report
from joyful.analysis.formatting import count
from joyful.analysis.page import html, markdown
from joyful.results import InputError
from joyful.results.design import read_designs
from joyful.results.files import read_bounded
from joyful.results.yaml_text import parse_yaml

#: Largest number of differences between verdicts to list.
_LISTED = 20

_MAXIMUM_BYTES = 2**28


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        differences: One line for each difference, which names what was changed.
        notes: Sentences on what was not compared.
        summary: What the manifest covers, such as "26 runs, 5 claims, 7 verdicts".
    """

    differences: list[str]
    notes: list[str]
    summary: str


def check_report(folder: Path, place: Path, claims: Path | None = None) -> Check:
    """Check a report.

    The manifest is compared with the runs, the design and the decisions in the folder of the sweep, with the files of the
    report, with the given or the registered claims, and with the report computed again from the folder. Numbers are equal
    up to a relative difference of 1e-9.

    Args:
        folder: Folder of the sweep.
        place: Folder of the report.
        claims: Claims file with which the report should have been written. None stands for the claims that the sweep
            registered, if any.

    Raises:
        InputError: If the manifest is missing or damaged, or the claims file cannot be read.
    """
    recorded = manifest.read_manifest(place / manifest.MANIFEST)
    try:
        return _check(recorded, folder, place, claims)
    except (AttributeError, KeyError, TypeError) as error:  # an entry of another type
        problem = f"{type(error).__name__}: {error}"
        raise InputError(f"{place / manifest.MANIFEST}: damaged ({problem}); write the report again") from None


def _check(recorded: Mapping[str, Any], folder: Path, place: Path, claims: Path | None) -> Check:
    now = manifest.describe(folder)
    lines = manifest.changed_runs(recorded, now)
    lines += check_claims(recorded, folder, claims)
    lines += _files(recorded, place)
    again, notes = _compute_again(recorded, folder, place)
    lines += again[:_LISTED] + ([f"and {len(again) - _LISTED} more differences"] if len(again) > _LISTED else [])
    each = recorded["claims"].get("each", {})
    counts = ((len(recorded["runs"]), "run"), (len(each), "claim"), (len(recorded["verdicts"]), "verdict"))
    return Check(lines, notes, ", ".join(count(n, word) for n, word in counts))


def check_claims(recorded: Mapping[str, Any], folder: Path, given: Path | None = None) -> list[str]:
    """Return how the claims of a manifest differ from their own text, and from a file or from those that the sweep registered.

    Args:
        recorded: The manifest.
        folder: Folder of the sweep.
        given: Claims file with which the report should have been written. None stands for the registered claims.

    Raises:
        InputError: If the file cannot be read.
    """
    claims = recorded["claims"]
    others = {"the text of the manifest": parse_yaml(str(recorded["arguments"].get("claims")).encode())}
    if given is not None:
        try:
            others[str(given)] = parse_yaml(read_bounded(given, _MAXIMUM_BYTES))
        except OSError as error:
            raise InputError(f"{given}: the claims file cannot be read ({error.strerror}); check --claims") from None
    registered = [design.claims for design in read_designs(folder) if design.claims is not None]
    if registered and given is None:
        others["the design of the sweep"] = registered[-1]
    return [
        line
        for name, content in others.items()
        for line in manifest.changed_claims(claims, manifest.claim_digests(content), name)
    ]


def _files(recorded: Mapping[str, Any], place: Path) -> list[str]:
    """Return which files of the report were changed, and which numbers of verdicts.csv."""
    lines = []
    for name, expected in ({"verdicts.csv": None} | recorded["files"]).items():
        data = _read(place, name)
        if data is None:
            lines.append(f"{name}: it is missing in the report")
        elif manifest.sha256(data) != expected:
            lines.append(f"{name}: it was changed after the report was written")
        if data is not None and name == "verdicts.csv":
            lines += _changed_table(recorded, data)
    return lines


def _changed_table(recorded: Mapping[str, Any], data: bytes) -> list[str]:
    """Return which numbers of verdicts.csv are not those of the manifest."""
    texts = ("claim", "metric", "verdict", "detail", "arm", "task")
    try:
        names = pd.read_csv(io.BytesIO(data), nrows=0).columns
        empty = {name: [""] for name in names if name not in texts}  # an arm may be called NA
        table = pd.read_csv(io.BytesIO(data), dtype=dict.fromkeys(texts, str), na_values=empty, keep_default_na=False)
    except ValueError:  # the errors of the parser are among them
        return ["verdicts.csv: it cannot be read as a table"]
    rows = manifest.table_rows(table)
    return manifest.changed_verdicts(rows, recorded["verdicts"], "{} in verdicts.csv and {} in the manifest")


def _compute_again(recorded: Mapping[str, Any], folder: Path, place: Path) -> tuple[list[str], list[str]]:
    """Compute the report again. Return how it differs, and notes on what was not compared."""
    arguments = dict(recorded["arguments"])
    compare, require = arguments.pop("compare", None), arguments.pop("require", [])
    try:
        with tempfile.TemporaryDirectory() as scratch:
            claims = Path(scratch, "claims.yaml")
            claims.write_text(str(arguments.pop("claims", "")), "utf-8")
            required = [_requirement(item, Path(scratch, f"{i}.yaml")) for i, item in enumerate(require)]
            findings, page = report.build(
                folder, claims, compare=tuple(compare) if compare else None, require=required, **arguments
            )
    except InputError as error:
        return [f"the report cannot be computed again: {error}"], []
    page = replace(page, source=recorded["sweep"])  # the folder may have been renamed
    again = manifest.make(findings, {})
    lines = [
        f"run {name}: it belongs to the arm {entry.get('arm')} in the report and to {again['runs'][name]['arm']} recomputed"
        for name, entry in recorded["runs"].items()
        if name in again["runs"] and entry.get("arm") != again["runs"][name]["arm"]
    ]
    lines += manifest.changed_verdicts(recorded["verdicts"], again["verdicts"], "{} in the report and {} recomputed")
    if recorded["computed_with"] != again["computed_with"]:
        given, own = (_versions(entry["computed_with"]) for entry in (recorded, again))
        return lines, [f"the pages were not compared, because they were written with {given}, and here is {own}"]
    pages = {
        "report.md": markdown.render(page),
        "index.html": html.render(page, figures=False, links=report.links(folder, place)),
    }
    for name, text in pages.items():
        lines += _changed_line(name, _read(place, name), text)
    return lines, []


def _requirement(item: str | Mapping[str, str], place: Path) -> str:
    """Return a requirement as on the command line. The text of a claims file is written to `place`."""
    if isinstance(item, str):
        return item
    place.write_text(item["file"], "utf-8")
    return str(place)


def _changed_line(name: str, given: bytes | None, computed: str) -> list[str]:
    """Return the first line of a page, without its figures, that is another one than that computed again."""
    if given is None:
        return []  # reported as missing
    text = re.sub(r'(?s)<svg class="plot".*?</svg>', "", given.decode("utf-8", "replace"))
    pages = text.splitlines(), computed.splitlines()
    for old, new in itertools.zip_longest(*pages, fillvalue=""):
        if old != new:
            start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
            old, new = (text[max(0, start - 30) : start + 50].strip() for text in (old, new))
            return [f"{name}: {old!r} in the report and {new!r} recomputed"]
    return []


def _versions(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _read(place: Path, name: str) -> bytes | None:
    try:
        return read_bounded(place / Path(name).name, _MAXIMUM_BYTES)
    except (OSError, InputError):
        return None
