"""The manifest of a report: digests of all that the report was computed from, and every number of its verdicts.

manifest.json lies beside the pages of a report. It has no date, host or absolute path, so that the same folder gives the same
bytes. `joyful.analysis.report_check` compares it with the folder and with the report computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from joyful.analysis.findings import Findings
from joyful.analysis.formatting import count
from joyful.analysis.provenance import distinct
from joyful.results import HISTORY, PREDICTIONS, RUN, TIMING, InputError, find_runs, natural, plain, read_run
from joyful.results.design import DECISIONS, DESIGN, digest
from joyful.results.files import read_bounded
from joyful.results.yaml_text import parse_yaml

MANIFEST = "manifest.json"

#: Version of the file.
SCHEMA = 1

#: Relative difference up to which two numbers count as equal, because versions of SciPy and pandas round differently.
RELATIVE = 1e-9

_MAXIMUM_BYTES = 2**28

#: Keys of the manifest -> their types.
_KEYS: dict[str, type] = {
    "sweep": str, "arguments": dict, "claims": dict, "data": list, "code": list, "versions": list, "computed_with": dict,
    "files_of_sweep": dict, "runs": dict, "verdicts": list, "files": dict,
}  # fmt: skip

#: Keys of run.json that have an entry of their own, or that two trainings of one run need not share.
_OWN = ("schema", "config", "config_hash", "seed", "role", "status", "history_sha256", "started", "host")

#: Entry of a run -> what to say if it was changed.
_CHANGED = {
    "history": f"{HISTORY} was changed",
    "timing": f"{TIMING} was changed",
    "predictions": f"{PREDICTIONS} was changed",
    "config": "its configuration was changed",
    "rest": f"a value of {RUN} was changed that is not the configuration, such as the objective, the device or the versions",
}

#: Distributions whose versions can move the last digits of a report or its pages.
_DISTRIBUTIONS = ("joyful-sweeps", "numpy", "pandas", "scipy", "matplotlib")


def make(findings: Findings, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the manifest of a report.

    Args:
        findings: The results, with the arguments of the report.
        files: Content of the files of the report by name.

    Returns:
        The manifest, as types of JSON.
    """
    described = describe(findings.sweep.path)
    arms = dict(zip(findings.sweep.runs["run"], findings.sweep.runs["arm"], strict=True))
    for name, entry in described["runs"].items():
        entry["arm"] = arms.get(name)
    arguments = dict(findings.arguments or {})
    return {
        "schema": SCHEMA,
        "sweep": findings.sweep.path.resolve().name,
        "arguments": arguments,
        "claims": claim_digests(parse_yaml(str(arguments["claims"]).encode())),
        "computed_with": versions(),
        **described,
        "verdicts": _verdicts(findings),
        "files": {name: sha256(data) for name, data in files.items()},
    }


def describe(folder: Path) -> dict[str, Any]:
    """Return the part of a manifest that follows from the files of a sweep: its runs, design, data, code and versions.

    Args:
        folder: Folder of the sweep.
    """
    found = {name: _run(path) for name, path in find_runs(folder)}
    infos = [info for _, info in found.values()]
    data = [{key: entry.get(key) for key in ("name", "digest")} for info in infos if (entry := info.get("data"))]
    return {
        "data": distinct(data),
        "code": distinct([info.get("git") for info in infos]),
        "versions": distinct([info.get("versions") for info in infos]),
        "files_of_sweep": {name: _digest_of(folder / name) for name in (DESIGN, DECISIONS)},
        "runs": {name: entry for name, (entry, _) in found.items()},
    }


def claim_digests(content: Any) -> dict[str, Any]:
    """Return the digest of the content of a claims file, and that of each claim by name.

    Raises:
        InputError: If this is not the content of a claims file.
    """
    content = plain(content)  # as design.json holds it: an infinite limit is null
    try:
        factors = content.get("factors")
        claims = {str(entry["claim"]): digest([factors, entry]) for entry in content["claims"]}
    except (AttributeError, KeyError, TypeError):
        raise InputError("expected the content of a claims file, with a list of claims") from None
    return {"digest": digest(content), "each": claims}


def versions() -> dict[str, str | None]:
    """Return the versions of the libraries that compute a report."""
    found: dict[str, str | None] = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the content of a manifest.

    Raises:
        InputError: If the file is missing, damaged or of another version.
    """
    try:
        content = json.loads(read_bounded(path, _MAXIMUM_BYTES))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; write the report again with joyful report") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); write the report again with joyful report") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path}: expected a manifest with schema {SCHEMA}; use the version of joyful that wrote it")
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):
            raise InputError(f"{path}: damaged ({key} is not a {kind.__name__}); write the report again")
    rows = [*content["verdicts"], *content["runs"].values()]
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: damaged (a run or a verdict is not an object); write the report again")
    return content


def changed_runs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for each run that was changed, added or removed, and for the files of the sweep.

    Args:
        before: The manifest.
        now: The result of `describe` or `make`.
    """
    lines = []
    runs, found = before["runs"], now["runs"]
    for name in sorted(runs.keys() | found.keys(), key=natural):
        if name not in found:
            lines.append(f"run {name}: it is in the report and no longer in the folder")
        elif name not in runs:
            lines.append(f"run {name}: it is not in the report, which was written before it")
        else:
            lines += [f"run {name}: {text}" for text in _changes(runs[name], found[name])]
    for name, value in now["files_of_sweep"].items():
        if value != (recorded := before["files_of_sweep"].get(name)):
            what = "was added" if recorded is None else "was removed" if value is None else "was changed"
            lines.append(f"{name}: {what} after the report was written")
    lines += [
        f"{name} of the runs: {json.dumps(before[name])} in the report, {json.dumps(now[name])} now"
        for name in ("data", "code", "versions")
        if before[name] != now[name] and not lines
    ]
    return lines


def changed_claims(before: Mapping[str, Any], now: Mapping[str, Any], other: str) -> list[str]:
    """Return one line for each claim that two sets of claims do not share.

    Args:
        before: The claims of the manifest, see `claim_digests`.
        now: Other claims.
        other: Where the other claims are from.
    """
    if before.get("digest") == now["digest"]:
        return []
    each = before.get("each", {})
    lines = [f"claim {name}: it is in the report and not in {other}" for name in each if name not in now["each"]]
    lines += [f"claim {name}: it is in {other} and not in the report" for name in now["each"] if name not in each]
    lines += [
        f"claim {name}: it is another one in the report than in {other}"
        for name in each
        if name in now["each"] and each[name] != now["each"][name]
    ]
    return lines or [f"claims: those of the report and of {other} differ in their order or their factors"]


def changed_verdicts(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]], words: str) -> list[str]:
    """Return one line for each value of the verdicts that differs.

    Args:
        before: Verdicts of a report, as in a manifest.
        now: Verdicts to compare them with.
        words: How to name both values, such as "{} in the report and {} recomputed".
    """
    if len(before) != len(now):
        return [f"verdicts: {words.format(count(len(before), 'verdict'), len(now))}"]
    lines = []
    for old, new in zip(before, now, strict=True):
        names = [name for name in new if name in old and not _equal(old[name], new[name])]
        named = (old.get(key) or new.get(key) for key in ("claim", "metric", "arm", "task"))
        subject = ", ".join(str(name) for name in named if name)
        lines += [f"{subject}: {name} is {words.format(_shown(old[name]), _shown(new[name]))}" for name in names]
    return lines


def table_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table of verdicts as types of JSON: NaN is null, and infinities are "inf" and "-inf"."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _verdicts(findings: Findings) -> list[dict[str, Any]]:
    rows = table_rows(findings.verdict_table)
    return [
        row | {"arm": verdict.arm, "baseline": verdict.baseline, "task": verdict.task}
        for row, verdict in zip(rows, findings.verdicts, strict=True)
    ]


def _plain(value: Any) -> Any:
    if value is pd.NA or value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    value = value.item() if hasattr(value, "item") else value
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _equal(old: Any, new: Any) -> bool:
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new)]
    if all(numbers):
        return math.isclose(old, new, rel_tol=RELATIVE, abs_tol=1e-12)
    return bool((old or None) == (new or None))  # in a CSV file, an empty text is null


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else "empty" if value is None else str(value)


def _run(folder: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the entry of a run, and the content of its run.json, which is empty if it cannot be read."""
    info: Mapping[str, Any] = {}
    config: str | None
    rest: str | None
    try:
        info = read_run(folder)
        config, rest = digest(info.get("config")), digest({k: v for k, v in info.items() if k not in _OWN})
    except (InputError, OSError):  # a run of another program, or a damaged one
        config, rest = _digest_of(folder / ".hydra/config.yaml"), _digest_of(folder / RUN)
    names = {"history": HISTORY, "timing": TIMING, "predictions": PREDICTIONS}
    entry = {key: _digest_of(folder / name) for key, name in names.items()} | {"config": config}
    entry |= {key: info.get(key) for key in ("config_hash", "seed", "role", "status")}
    return entry | {"rest": rest}, info


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in now if name != "arm" and before.get(name) != now[name]]
    return [
        _CHANGED.get(name, f"{name} is {before.get(name)} in the report and {now[name]} now")
        for name in names
        if name != "config_hash" or "config" not in names
    ]


def _digest_of(path: Path) -> str | None:
    try:
        return sha256(read_bounded(path, _MAXIMUM_BYTES))
    except (OSError, InputError):
        return None


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
