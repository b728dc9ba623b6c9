"""Where the numbers of a report come from: the data, the code, the libraries and the devices of its runs."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from joyful.analysis.commands import made_by
from joyful.analysis.sweep import Sweep
from joyful.results import InputError, read_run
from joyful.results.files import plain


def provenance(sweep: Sweep) -> dict[str, Any]:
    """Return what the runs of a sweep record of their origin, without host names and absolute paths.

    Args:
        sweep: The sweep.

    Returns:
        - `folder`: Name of the folder.
        - `runs`: `used`, `left_out` and `cut`, the runs that ended at the target and are used for times to it.
        - `seeds`: Seeds of the `comparison` and `calibration` runs.
        - `epochs`: Requested epochs. Of a search, whose runs are not compared, those of all runs, and so with what follows.
        - `ends`: Column of the x axis, and the smallest and the largest last value.
        - `models`: Choices of the group `model`.
        - `data`: {`name`, `digest`} of each data set.
        - `git`: {`commit`, `dirty`} of each state of the code.
        - `versions`: Name of each library -> its versions.
        - `devices`: Devices.
        - `dates`: The days on which the first and the last run started, in UTC. Empty if none is recorded.
        - `command`, `place`: The command that made the runs, and the folder of the sweep as it named it, or "" (see
          `joyful.analysis.commands.made_by`).
    """
    runs = sweep.runs[sweep.runs["used"] | sweep.runs["cut"]]
    described = runs if len(runs) else sweep.runs  # of a search no run is used
    headers = list(_headers(sweep, described["run"]))
    origin = made_by(sweep.path, list(described["run"]))
    shortest, longest = sweep.lengths
    libraries = [_mapping(header, "versions") for header in headers]
    return {
        "folder": sweep.path.resolve().name,
        "runs": {
            "used": int(runs["used"].sum()),
            "left_out": len(sweep.left_out) - int(runs["cut"].sum()),
            "cut": int(runs["cut"].sum()),
        },
        "seeds": {role: _seeds(runs[runs["role"] == role]) for role in ("comparison", "calibration")},
        "epochs": distinct(float(epochs) for epochs in described["budget"] if math.isfinite(epochs)),
        "ends": {"x": sweep.x, "shortest": shortest, "longest": longest},
        "models": distinct(_mapping(header, "choices").get("model") for header in headers),
        "data": distinct(_chosen(_mapping(header, "data"), "name", "digest") for header in headers),
        "git": distinct(_chosen(_mapping(header, "git"), "commit", "dirty") for header in headers),
        "versions": {
            name: distinct(known.get(name) for known in libraries)
            for name in sorted({name for known in libraries for name in known})
        },
        "devices": distinct(header.get("device") for header in headers),
        "dates": _dates(header.get("started") for header in headers),
        "command": origin.command,
        "place": origin.folder,
    }


def _headers(sweep: Sweep, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """Yield run.json of each run. Runs without one, such as those of another program, are skipped."""
    for name in names:
        with contextlib.suppress(InputError, OSError):
            yield read_run(sweep.path / name)


def _mapping(header: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = header.get(key)
    return value if isinstance(value, Mapping) else {}


def _chosen(values: Mapping[str, Any], *keys: str) -> dict[str, Any] | None:
    return {key: values.get(key) for key in keys} if values else None


def distinct(values: Iterable[Any]) -> list[Any]:
    """Return the values without repetitions and without None, in a fixed order."""
    texts = {json.dumps(plain(value), sort_keys=True) for value in values if value is not None}
    return sorted((json.loads(text) for text in texts), key=lambda value: (isinstance(value, str), str(value)))


def _dates(started: Iterable[Any]) -> list[str]:
    """Return the first and the last day of times in ISO 8601. Values of another form are skipped."""
    days = sorted(text[:10] for text in started if isinstance(text, str) and re.match(r"\d{4}-\d\d-\d\dT", text))
    return [days[0], days[-1]] if days else []


def _seeds(runs: pd.DataFrame) -> list[int]:
    return sorted({int(seed) for seed in runs["seed"].dropna()})
