"""A report as a gate for scripts: requirements on the command line, their outcome as an exit code, and JSON.

A requirement is a claim that decides the exit code. It is written in a claims file or in the short form, NAME=KIND:VALUE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from joyful.analysis.claims_file import KINDS, SPLITS, Claim, parse_claims, read_claims
from joyful.analysis.columns import SHORT, is_score
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import count, interval, quantity
from joyful.analysis.measures import MEASURES, Metric
from joyful.analysis.page.parts import clean
from joyful.analysis.provenance import provenance
from joyful.analysis.registration import sentence
from joyful.analysis.sweep import Sweep
from joyful.analysis.verdict import Verdict
from joyful.messages import expected_one_of
from joyful.results import InputError
from joyful.results.files import json_bytes, plain

#: Version of the JSON document.
SCHEMA = 1

#: Verdict -> what it means for a requirement.
ANSWERS = {
    "supported": "holds",
    "contradicted": "does not hold",
    "inconclusive": "undecided",
    "not testable": "undecided",
}

HELP = """\
  A claims file, or NAME=KIND:VALUE, such as f1=no_worse_than:0.5, speed=at_least:10% or final.train_loss=within:0.01.
  NAME is [MEASURE.]COLUMN. The measure is best by default. The column may begin with train_, dev_ or test_, dev by default.
  f1 is short for f1_weighted, and speed for time_to_target.f1. KIND is between, at_least, within or no_worse_than.
  VALUE is a number, and L,U for between. It may end with %, points or absolute. By default scores are compared in points,
  times in per cent and other columns in their own unit."""

#: Short name of a metric -> measure and column.
_METRICS = {"speed": "time_to_target.f1"}

#: Unit at the end of a value -> its name in a claims file.
_UNITS = {"%": "percent", "points": "points", "absolute": "absolute"}

_FORM = "NAME=KIND:VALUE such as f1=no_worse_than:0.5"


def parse_requirement(text: str, better: Mapping[str, str] | None = None) -> Claim:
    """Return the claim of a requirement in the short form. `HELP` describes the form.

    Args:
        text: The requirement, such as "f1=no_worse_than:0.5".
        better: Column -> "higher" or "lower", for columns whose direction is not known.

    Raises:
        InputError: If the text has another form, or the claim is not valid.

    Example:
        >>> claim = parse_requirement("speed=no_worse_than:5%")
        >>> claim.metrics[0].label, claim.lower, claim.unit
        ('epochs to the target of dev f1_weighted', -5.0, 'percent')
    """
    try:
        return _claim(text, better or {})
    except InputError as error:
        message = re.sub(r"^claims\[0\][\w.\[\]]*: ", "", str(error))
        raise InputError(f"--require {text!r}: {message}") from None


def _claim(text: str, better: Mapping[str, str]) -> Claim:
    name, equals, rest = (part.strip() for part in text.partition("="))
    kind, colon, amount = (part.strip() for part in rest.partition(":"))
    if not (name and equals and colon and amount):
        raise InputError(f"expected a claims file or {_FORM}, got no such file")
    if kind not in KINDS:
        raise InputError(expected_one_of(kind, list(KINDS)))
    metric = _metric(name, better)
    value, unit = _value(kind, amount)
    entry = {
        "claim": name.replace(".", "_"),
        "metrics": [{"measure": metric.measure, "split": metric.split, "of": metric.of}],
        kind: value,
        "unit": unit or _default_unit(metric),
    }
    if kind in ("between", "at_least"):
        entry["direction"] = metric.better_direction
    (claim,) = parse_claims({"claims": [entry]}, better)
    return claim


def _metric(name: str, better: Mapping[str, str]) -> Metric:
    measure, _, column = _METRICS.get(name, name).rpartition(".")
    if measure and measure not in MEASURES:
        raise InputError(f"measure: {expected_one_of(measure, list(MEASURES))}")
    split, _, rest = column.partition("_")
    split, column = (split, rest) if split in SPLITS and rest else ("dev", column)
    if not column.isidentifier():
        raise InputError(f"expected a name of the form [MEASURE.]COLUMN such as f1 or final.train_loss, got {name!r}")
    column = SHORT.get(column, column)
    return Metric(measure or "best", split, column, better.get(column, ""))


def _value(kind: str, text: str) -> tuple[float | list[float], str]:
    """Return the value of a claim as in a claims file, and its unit, which is "" if none is given."""
    parts = [re.fullmatch(rf"(.*?)\s*({'|'.join(_UNITS)})?", part.strip()) for part in text.split(",")]
    units = {match[2] for match in parts if match and match[2]}
    try:
        numbers = [float(match[1]) for match in parts if match]
    except ValueError:
        numbers = []
    if len(numbers) != (2 if kind == "between" else 1) or len(units) > 1:
        expected = "two numbers L,U" if kind == "between" else "a number"
        raise InputError(f"expected {expected}, and a unit of {', '.join(_UNITS)} or none, after {kind}, got {text!r}")
    return numbers if kind == "between" else numbers[0], _UNITS[units.pop()] if units else ""


def _default_unit(metric: Metric) -> str:
    units = metric.definition.kind.units
    return units[0] if len(units) == 1 else "points" if is_score(metric.of) else "absolute"


def short_form(claim: Claim, metric: Metric) -> str:
    """Return a claim on one of its metrics in the short form, without what is the default.

    A claimed direction that is not the better one is added at the end.

    Example:
        >>> claim = parse_requirement("best.dev_f1_weighted = no_worse_than: 0.5points")
        >>> short_form(claim, claim.metrics[0])
        'f1=no_worse_than:0.5'
    """
    measure = "" if metric.measure == "best" else f"{metric.measure}."
    split = "" if metric.split == "dev" else f"{metric.split}_"
    name = f"{measure}{split}{_key(SHORT, metric.of)}"
    value = f"{claim.lower if claim.kind in ('between', 'at_least') else -claim.lower:g}"
    value += f",{claim.upper:g}" if claim.kind == "between" else ""
    unit = "" if claim.unit == _default_unit(metric) != "percent" else _key(_UNITS, claim.unit)
    direction = claim.direction_of(metric)
    other = "" if direction == metric.better_direction else f" {direction}"
    return f"{_key(_METRICS, name)}={claim.kind}:{value}{unit}{other}"


def _key(names: Mapping[str, str], value: str) -> str:
    """Return the short name of a value, or the value if it has none."""
    return next((short for short, full in names.items() if full == value), value)


def requirements(texts: Sequence[str], better: Mapping[str, str]) -> list[Claim]:
    """Return the claims that a command requires.

    Args:
        texts: Each is the path of a claims file, or a requirement in the short form.
        better: Column -> "higher" or "lower", for columns whose direction is not known.

    Raises:
        InputError: If a file or a requirement is not valid.
    """
    claims: list[Claim] = []
    for text in texts:
        if "=" in text and not Path(text).exists():
            claims.append(parse_requirement(text, better))
            continue
        if not Path(text).exists():
            raise InputError(f"--require {text!r}: expected a claims file or {_FORM}, got no such file")
        try:
            claims += read_claims(text, better)
        except InputError as error:
            raise InputError(f"--require {error}") from None
    return claims


def self_contained(texts: Sequence[str]) -> list[str | dict[str, str]]:
    """Return requirements with the text of each claims file, {"file": text}, in place of its path."""
    return [{"file": Path(text).read_text("utf-8")} if Path(text).exists() else text for text in texts]


def joined(claims: Sequence[Claim], required: Sequence[Claim]) -> tuple[list[Claim], list[Claim]]:
    """Return the claims to judge, and those among them that are required.

    A required claim that states what another one states is that claim. One that has the name of another claim gets a
    number at the end of its name.
    """
    judged, found = list(claims), []
    for claim in required:
        same = next((other for other in judged if other.content == claim.content), None)
        if same is None:
            names = {other.name for other in judged}
            free = (name for number in range(2, len(names) + 3) if (name := f"{claim.name}_{number}") not in names)
            same = replace(claim, name=next(free)) if claim.name in names else claim
            judged.append(same)
        if same not in found:
            found.append(same)
    return judged, found


def required_verdicts(findings: Findings) -> list[Verdict]:
    """Return the verdicts on the required claims, in the order of the requirements."""
    return [verdict for claim in findings.required for verdict in findings.verdicts if verdict.claim == claim]


def answer(verdict: Verdict, sweep: Sweep) -> tuple[str, str]:
    """Return what a verdict means for its requirement, and why a supported claim does not count, or "".

    A requirement is undecided if runs of the arm failed: an arm that fails on some seeds must not pass with the others.
    """
    runs = sweep.runs[(sweep.runs["arm"] == verdict.arm) & (sweep.runs["role"] == "comparison")]
    failed = int((runs["status"] == "failed").sum())
    if verdict.verdict == "supported" and failed:
        return "undecided", f"{failed} of {len(runs)} runs of the arm failed"
    return ANSWERS[verdict.verdict], ""


def outcome(verdicts: Sequence[Verdict], sweep: Sweep) -> tuple[int, list[str]]:
    """Return the exit code of a gate, and a line for each verdict.

    With several arms, metrics or tasks, a requirement must hold for each.

    Args:
        verdicts: The verdicts on the required claims.
        sweep: The sweep.

    Returns:
        0 if all hold, 3 if one does not, else 4, and the lines.
    """
    if not verdicts:
        return 4, [f"{'undecided':<13}  there is no arm to compare with the baseline"]
    answers, reasons = zip(*(answer(verdict, sweep) for verdict in verdicts), strict=True)
    code = 3 if "does not hold" in answers else 4 if "undecided" in answers else 0
    labels = [short_form(verdict.claim, verdict.metric) for verdict in verdicts]
    width = max(map(len, labels))
    lines = [
        f"{word:<13}  {label:<{width}}  {clean(verdict.subject)}: {_measured(verdict)}{reason and f'; {reason}'}"
        for word, reason, label, verdict in zip(answers, reasons, labels, verdicts, strict=True)
    ]
    return code, lines


def _measured(verdict: Verdict) -> str:
    """Return the effect, its interval, the number of pairs and the reason, on one line."""
    claim, parts = verdict.claim, []
    if math.isfinite(verdict.estimate):
        size = count(verdict.n_pairs, "pair") if verdict.n_pairs else f"{verdict.runs[0]} and {verdict.runs[1]} runs"
        effect = quantity(verdict.estimate, claim.unit, claim.digits, signed=True)
        falls = "decrease " if verdict.direction == "decrease" else ""
        parts = [f"{falls}{effect} ({interval(verdict.low, verdict.high, '', claim.digits)}), {size}"]
    if verdict.verdict != "supported":
        parts += [verdict.detail, verdict.note]
    return clean("; ".join(part.rstrip(".") for part in parts if part)).replace("−", "-")


def as_json(findings: Findings, code: int) -> str:
    """Return the verdicts of a report, its requirements and its provenance as a JSON document.

    The document depends on the runs and the arguments only. It holds no date, host name or absolute path, and the same
    findings give the same text. A number that is unknown or infinite is null.

    Args:
        findings: The results of the report.
        code: The exit code.
    """
    content = {
        "schema": SCHEMA,
        "code": code,
        "requirements": [_requirement(verdict, findings.sweep) for verdict in required_verdicts(findings)],
        "verdicts": [_verdict(verdict) for verdict in findings.verdicts],
        "notes": list(findings.sweep.notes),
        "design": _design(findings.sweep),
        "provenance": _origin(findings.sweep) | {"claims_digest": findings.claims_digest},
    }
    return json_bytes(plain(content)).decode("ascii")


def _origin(sweep: Sweep) -> dict[str, Any]:
    """Return the provenance without dates, so that the same runs give the same document whenever they were trained."""
    return {name: value for name, value in provenance(sweep).items() if name != "dates"}


def _requirement(verdict: Verdict, sweep: Sweep) -> dict[str, Any]:
    return {
        "require": short_form(verdict.claim, verdict.metric), "claim": verdict.claim.name, "metric": verdict.metric.label,
        "arm": verdict.arm, "task": verdict.task or None, "answer": answer(verdict, sweep)[0],
    }  # fmt: skip


def _verdict(verdict: Verdict) -> dict[str, Any]:
    claim, family = verdict.claim, verdict.family_effect
    return {
        "claim": claim.name, "says": claim.says, "metric": verdict.metric.label, "kind": claim.kind,
        "lower": claim.lower, "upper": claim.upper, "unit": claim.unit, "direction": verdict.direction,
        "arm": verdict.arm, "baseline": verdict.baseline, "task": verdict.task or None,
        "pairs": verdict.n_pairs, "seeds": sorted({int(s) for s in verdict.differences.index.get_level_values(-1)}),
        "runs": list(verdict.runs), "estimate": verdict.estimate, "low": verdict.low, "high": verdict.high,
        "verdict": verdict.verdict, "detail": verdict.detail,
        "rule": verdict.rule.name,
        "p_zero": verdict.p_zero, "p_lower_edge": verdict.p_lower_edge, "p_holm": verdict.p_holm,
        "family_low": family.low, "family_high": family.high, "note": verdict.note,
    }  # fmt: skip


def _design(sweep: Sweep) -> dict[str, Any]:
    recorded = [{**asdict(design), "claims_digest": design.claims_digest} for design in sweep.designs]
    return {"recorded": recorded or None, "sentence": sentence(sweep)}
