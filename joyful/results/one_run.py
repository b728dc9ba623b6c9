"""Read the folder of one run that another process may be writing, and verify its history by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joyful.records import InputError
from joyful.results import tables
from joyful.results.arms import flatten, printable
from joyful.results.files import read_bounded
from joyful.results.run_folder import MAXIMUM_RUN_BYTES, parse_run
from joyful.results.schema import HISTORY, RUN, UNKNOWN_STATUS
from joyful.results.yaml_text import parse_yaml

if TYPE_CHECKING:
    import pyarrow as pa

HYDRA = ".hydra"
_MAXIMUM_YAML_BYTES = 2**20

# A writer may replace the history between our two reads. It changes run.json too, so another attempt usually succeeds.
_ATTEMPTS = 5


@dataclass
class RunHeader:
    """The description of a run, without the rows of its history.

    Attributes:
        name: Folder of the run, relative to the folder that was read ("." for that folder itself).
        damage: Reason why the run is damaged and left out; empty if it is intact.
        status: Status from run.json, "unknown" if there is none.
        reason: Why the run ended as it did; None if not recorded.
        seed: Training seed; None if not recorded.
        role: comparison, calibration or search; None if not recorded.
        epochs: Requested passes over the training split; None if not recorded.
        choices: Hydra's group choices, flattened (see `joyful.results.arms.flatten`).
        settings: Dotted name -> value of every setting.
        rows: Number of rows of the history.
        data_digest: Digest of the dataset; None if not recorded.
    """

    name: str
    damage: str = ""
    status: str = UNKNOWN_STATUS
    reason: str | None = None
    seed: int | None = None
    role: str | None = None
    epochs: float | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    data_digest: str | None = None


def read_run_folder(
    name: str, folder: Path, hydra: bool, columns: Sequence[str] | None
) -> tuple[RunHeader, pa.Table | None]:
    """Read the header and the history of a run. Damage is reported in the header and raises nothing.

    Args:
        name: Name of the run for the header.
        folder: Folder of the run.
        hydra: Whether the folder contains .hydra/.
        columns: History columns to read; None reads all.

    Returns:
        The header, and the history or None if there is none yet or the run is damaged.
    """
    try:
        return _read(name, folder, hydra, columns)
    except InputError as error:
        return RunHeader(name, damage=str(error)), None
    except OSError as error:
        return RunHeader(name, damage=f"it cannot be read: {error.strerror or error}"), None


def _read(name: str, folder: Path, hydra: bool, columns: Sequence[str] | None) -> tuple[RunHeader, pa.Table | None]:
    info, data = _read_files(folder)
    info = info or {}
    choices, config = info.get("choices"), info.get("config")
    if hydra and not choices:
        choices = _section(_hydra_file(folder, "hydra.yaml"), "hydra", "runtime", "choices")
    if hydra and not config:
        config = _section(_hydra_file(folder, "config.yaml"))
    settings = flatten(config or {})
    role = info.get("role", settings.get("role"))
    reason, epochs = info.get("reason"), _number(info.get("epochs"))
    data_digest = (info.get("data") or {}).get("digest")
    header = RunHeader(
        name,
        status=info.get("status", UNKNOWN_STATUS),
        reason=printable(reason) if isinstance(reason, str) else None,
        seed=_integer(info.get("seed", settings.get("seed"))),
        role=printable(role) if isinstance(role, str) else None,
        epochs=_number(settings.get("training.epochs")) if epochs is None else epochs,
        choices=flatten(choices or {}),
        settings=settings,
        data_digest=printable(data_digest) if isinstance(data_digest, str) else None,
    )
    if data is None:
        return header, None
    try:
        table = tables.decode(data, columns, trusted=bool(info.get("history_sha256")))
    except InputError as error:
        raise InputError(f"{HISTORY}: {error}") from None
    header.rows = table.num_rows
    return header, table


def _read_files(folder: Path) -> tuple[dict[str, Any] | None, bytes | None]:
    """Return run.json (None if missing) and the history that matches it (None before the first evaluation)."""
    previous = None
    for _ in range(_ATTEMPTS):
        try:
            written = read_bounded(folder / RUN, MAXIMUM_RUN_BYTES)
            info = None if written == previous else parse_run(written)
        except FileNotFoundError:
            return None, _read_history(folder)
        except InputError as error:
            raise InputError(f"{RUN}: {error}") from None
        if info is None:
            break
        previous = written
        digests = info.get("history_sha256")
        try:
            data = _read_history(folder)
        except FileNotFoundError:
            if digests or info["status"] in ("completed", "pruned"):
                raise InputError(f"{HISTORY}: it is missing") from None
            return info, None
        if not digests or hashlib.sha256(data).hexdigest() in digests:
            return info, data
    raise InputError(f"{HISTORY}: its SHA-256 is not in {RUN}; the file was changed after it was written")


def _read_history(folder: Path) -> bytes:
    try:
        return read_bounded(folder / HISTORY, tables.MAXIMUM_BYTES)
    except InputError as error:
        raise InputError(f"{HISTORY}: {error}") from None


def _hydra_file(folder: Path, name: str) -> Any:
    try:
        return parse_yaml(read_bounded(folder / HYDRA / name, _MAXIMUM_YAML_BYTES))
    except FileNotFoundError:
        return None
    except InputError as error:
        raise InputError(f"{HYDRA}/{name}: {error}") from None


def _section(value: Any, *names: str) -> Mapping[str, Any]:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 2**53 else None


def value_at_best_dev(folder: Path, column: str) -> float | None:
    """Return the test value of a column at the evaluation with the highest dev value, None if it is not recorded.

    Args:
        folder: Folder of the run.
        column: The column, such as "f1_weighted".
    """
    _, history = read_run_folder("", folder, False, [column])
    if history is None or column not in history.column_names:
        return None
    rows = [row for row in history.select(["step", "split", column]).to_pylist() if row[column] is not None]
    dev = [row for row in rows if row["split"] == "dev"]
    if not dev:
        return None
    best = max(dev, key=lambda row: row[column])["step"]  # of equals, the first
    return next((float(row[column]) for row in rows if row["split"] == "test" and row["step"] == best), None)
