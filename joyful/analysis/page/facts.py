"""What was run: data, model, pairs, seeds, epochs, commit, dates, device, and the commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from joyful.analysis.claims_file import read_content
from joyful.analysis.findings import Findings
from joyful.analysis.formatting import listing, ranges
from joyful.analysis.page.parts import clean
from joyful.analysis.sweep import Sweep
from joyful.results import plain
from joyful.results.yaml_text import parse_yaml

#: Maximum number of values of one fact.
_MOST = 3


def facts(sweep: Sweep, found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return what the runs record about themselves, as (name, value). What is not recorded is left out.

    Args:
        sweep: The sweep.
        found: Its provenance (see `joyful.analysis.provenance.provenance`).
    """
    numbers = found["seeds"]["comparison"]
    pairs = [len(sweep.pairs(arm)) for arm in sweep.others] if sweep.design == "paired" and not sweep.tasks else []
    known = {
        "data": _listed(_data(entry) for entry in found["data"]),
        "model": _listed(clean(model) for model in found["models"]),
        "pairs": " to ".join(dict.fromkeys(map(str, (min(pairs), max(pairs))))) if pairs else "",
        "runs": str(found["runs"]["used"] or len(sweep.runs)),
        "seeds": ranges(numbers),
        "epochs": _listed(f"{epochs:g}" for epochs in found["epochs"]),
        "commit": _listed(_commit(entry) for entry in found["git"]),
        "date": " to ".join(dict.fromkeys(found["dates"])),
        "device": _listed(clean(device) for device in found["devices"]),
    }
    return tuple((name, text) for name, text in known.items() if text)


def options(findings: Findings) -> str:
    """Return the options of `joyful report` that make the page again. Files of the user are shown as FILE."""
    given = findings.arguments or {}
    words: list[str] = []
    if given.get("claims") is not None and not _default_claims(findings.sweep, str(given["claims"])):
        words += ["--claims", "FILE"]
    for name in ("baseline", "target", "x", "task"):
        words += [f"--{name}", str(given[name])] if given.get(name) else []
    words += ["--design", "unpaired"] if given.get("design") == "unpaired" else []
    words += ["--compare", *given["compare"]] if given.get("compare") else []
    for text in given.get("better") or ():
        words += ["--better", text]
    for text in given.get("require") or ():
        words += ["--require", text if isinstance(text, str) else "FILE"]
    return shlex.join(words)


def _default_claims(sweep: Sweep, text: str) -> bool:
    """Return whether these are the claims that a report judges without --claims."""
    registered = sweep.designs[-1].claims if sweep.designs else None
    default = registered if registered is not None else read_content()[0]
    return bool(plain(parse_yaml(text.encode())) == plain(default))


def _data(entry: Mapping[str, Any]) -> str:
    digest = entry.get("digest")
    return clean(f"{entry.get('name')}{f' (digest {str(digest)[:8]})' if digest else ''}")


def _commit(entry: Mapping[str, Any]) -> str:
    commit = entry.get("commit")
    return clean(f"{str(commit)[:7]}{' with changes' if entry.get('dirty') else ''}") if commit else ""


def _listed(texts: Iterable[str]) -> str:
    return listing(list(dict.fromkeys(text for text in texts if text)), _MOST)
