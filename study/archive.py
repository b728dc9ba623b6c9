"""Archives: a sweep as one small Parquet file that fits in a repository, and run folders restored from it.

    python -m study.archive pack SWEEP_FOLDER FILE.parquet [--columns f1_weighted,nll]
    python -m study.archive unpack FILE.parquet FOLDER

An archive holds what a report needs: settings, seeds, roles, the status of each run, the curves (as float32, seven
digits), and the design and the decisions of the sweep. It does not hold machines, users, folders, times of day or
checkpoints, and of a dataset it holds scores only.
A report of the restored folder equals a report of the sweep up to the eighth digit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joyful import results
from joyful.results import InputError, ResultsError
from joyful.results.design import DECISIONS, DESIGN

#: Version of the file format.
FORMAT = 1

#: Columns to keep of the rows of dev and test. Train rows keep all columns.
KEPT = {
    "dev": (
        "accuracy", "f1_weighted", "f1_macro", "nll", "recon_mse", "recon_mae", "loss_total", "encoder_gradient_ratio",
        "encoder_gradient_cosine",
    ),
    "test": ("accuracy", "f1_weighted", "f1_macro", "nll"),
}  # fmt: skip

KEYS = ("step", "epoch", "split")

#: Settings that are paths. An archive stores None for them.
PLACES = (("data", "root"), ("data", "cache"), ("resume",), ("fork",))

#: Keys of run.json to keep.
HEADER = (
    "status", "objective", "objective_name", "seed", "role", "epochs", "config_hash", "git", "versions", "device", "threads",
    "choices", "config",
)  # fmt: skip

#: Limits on the bytes and the runs of an archive to unpack.
MAXIMUM_BYTES, MAXIMUM_RUNS = 2**26, 20_000


def pack(sweep: Path, file: Path, only: Sequence[str] | None = None) -> int:
    """Write the complete runs of a sweep into one file, in the order of their names.

    The same runs give the same bytes. Runs of a comparison that ended at the target are kept too.

    Args:
        sweep: Folder of the sweep.
        file: Archive to write.
        only: Columns of the history to keep; None: all columns that a report shows.

    Returns:
        The number of runs.

    Raises:
        InputError: If there is no complete run, or a column is in none of the runs.
        ResultsError: If the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    loaded = results.read_runs(sweep, [])
    names = [
        header.name
        for header in loaded.headers
        if header.status == "completed" or (header.status == "pruned" and header.role == "comparison")
    ]
    if not names:
        raise InputError(f"{sweep}: expected a folder with complete runs, found none; give a finished sweep")
    names.sort(key=lambda name: (len(name), name))  # trials are numbered
    columns: dict[str, list[Any]] = {}
    available: set[str] = set()
    count = 0
    for name in names:
        folder = sweep / name
        run = results.RunFolder.open(folder, reading=True)
        header = json.dumps(_header(run.info), sort_keys=True)
        seconds = _seconds(run.timing_rows())
        for row in run.history_rows():
            wanted = KEPT.get(row["split"], row)
            numbers = {key: row[key] for key in row if key in wanted and key not in KEYS}
            numbers["seconds"] = seconds.get(row["epoch"]) if row["split"] == "dev" else None
            available |= numbers.keys()
            kept = {"run": name, "header": header, **{key: row[key] for key in KEYS}}
            kept |= {key: number for key, number in numbers.items() if only is None or key in only}
            for key in kept.keys() - columns.keys():
                columns[key] = [None] * count
            for key, values in columns.items():
                values.append(kept.get(key))
            count += 1
    unknown = sorted(set(only or ()) - available)
    if unknown:
        raise InputError(f"columns: expected some of {', '.join(sorted(available))}; got {', '.join(unknown)}")
    texts, types = ("run", "header", "split"), {"step": pa.int32(), "epoch": pa.float64()}
    floats = sorted(columns.keys() - {*texts, *types})
    arrays = {key: _each_once(columns[key]) for key in texts}
    arrays |= {key: pa.array(columns[key], types.get(key, pa.float32())) for key in (*types, *floats)}
    table = pa.table(arrays)
    files = {name: (sweep / name).read_text() for name in (DESIGN, DECISIONS) if (sweep / name).is_file()}
    table = table.replace_schema_metadata({"joyful_archive": str(FORMAT), **files})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="zstd", compression_level=19, use_dictionary=[*texts, *types],
        use_byte_stream_split=floats, write_statistics=False, row_group_size=max(1, count),
    )  # fmt: skip
    results.write_bytes(file, sink.getvalue().to_pybytes())
    return len(names)


def _each_once(texts: Sequence[str]) -> Any:
    """Return texts as an Arrow array that holds each different text once."""
    import pyarrow as pa

    index = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return pa.DictionaryArray.from_arrays(
        pa.array([index[text] for text in texts], pa.int32()), pa.array(list(index), pa.string())
    )


def unpack(file: Path, folder: Path) -> int:
    """Restore the run folders of an archive.

    Args:
        file: Archive that `pack` wrote.
        folder: Folder to write, new or empty.

    Returns:
        The number of runs.

    Raises:
        InputError: If the file is not an archive, or the folder is not empty.
        ResultsError: If the folder cannot be written.
    """
    runs, files = _read(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder}: expected a new or an empty folder, got one with files; choose another")
    except OSError as error:
        raise ResultsError(
            error.errno, f"{folder} cannot be written ({error.strerror}); choose another folder"
        ) from None
    for name, text in files.items():
        results.write_bytes(folder / name, text.encode())
    for name, (header, rows) in runs.items():
        kept = {key: value for key, value in header.items() if key not in ("status", "objective")}
        run = results.RunFolder.create(folder / name, kept | {"started": None, "host": None})
        run.write_timing(
            [
                {"epoch": row["epoch"], "phase": "train", "seconds": row["seconds"]}
                for row in rows
                if row.get("seconds") is not None
            ]
        )
        run.write_history([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
        run.set_status(header["status"], None, header["objective"])
    return len(runs)


def _header(info: Mapping[str, Any]) -> dict[str, Any]:
    header = json.loads(json.dumps({key: info.get(key) for key in HEADER}))
    for *sections, leaf in PLACES:
        node = header["config"]
        for section in sections:
            node = node.get(section) or {}
        if leaf in node:
            node[leaf] = None
    return dict(header)


def _seconds(timing: Sequence[Mapping[str, Any]]) -> dict[float, float]:
    """Return the wall seconds of all phases between each evaluation and the one before it, by epoch."""
    total: dict[float, float] = {}
    for row in timing:
        total[row["epoch"]] = total.get(row["epoch"], 0.0) + row["seconds"]
    return total


def _read(file: Path) -> tuple[dict[str, tuple[dict[str, Any], list[dict[str, Any]]]], dict[str, str]]:
    """Return header and rows of each run of an archive, by name, and the texts of the files of the sweep."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from joyful.results.files import read_bounded
    from joyful.results.parquet_pages import decoded_bytes

    try:
        data = read_bounded(file, MAXIMUM_BYTES)
        if decoded_bytes(data) > MAXIMUM_BYTES:
            raise InputError(f"expected at most {MAXIMUM_BYTES} bytes of data")
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
        if metadata.get(b"joyful_archive") != str(FORMAT).encode():
            raise InputError(f"expected joyful_archive={FORMAT} in the metadata")
        with pq.ParquetFile(pa.BufferReader(data), read_dictionary=["run", "header"]) as parquet:
            table = parquet.read(use_threads=False)
        table.validate(full=True)
        header_of = {text: json.loads(text) for text in table.column("header").unique().to_pylist()}
        runs: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        for row in table.to_pylist():
            name, header = row.pop("run"), row.pop("header")
            if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
                raise InputError(f"expected run names that are folder names, got {name!r}")
            values = {key: value for key, value in row.items() if value is not None}
            runs.setdefault(name, (header_of[header], []))[1].append(values)
            if len(runs) > MAXIMUM_RUNS:
                raise InputError(f"expected at most {MAXIMUM_RUNS} runs")
        if any(set(header) != set(HEADER) for header, _ in runs.values()):
            raise InputError(f"expected headers with the keys {', '.join(HEADER)}")
        return runs, {
            name: metadata[name.encode()].decode() for name in (DESIGN, DECISIONS) if name.encode() in metadata
        }
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; run python -m study.archive pack SWEEP_FOLDER {file}") from None
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{file}: expected an archive of study.archive pack, got another file ({reason})") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit code: 0 done, 1 cannot read or write a file, 2 bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m study.archive",
        description="Pack a sweep into one small Parquet file, or restore run folders from such a file.",
        epilog="Exit codes: 0 done, 1 cannot read or write a file, 2 bad input.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    packing = commands.add_parser("pack", help="write the complete runs of SWEEP_FOLDER to FILE")
    packing.add_argument("sweep", metavar="SWEEP_FOLDER", type=Path)
    packing.add_argument("file", metavar="FILE", type=Path)
    packing.add_argument(
        "--columns",
        metavar="NAME,NAME",
        type=lambda text: [name.strip() for name in text.split(",")],
        help="columns of the history to keep, for a smaller file (default: all that a report shows)",
    )
    unpacking = commands.add_parser("unpack", help="restore the run folders of FILE in the new FOLDER")
    unpacking.add_argument("file", metavar="FILE", type=Path)
    unpacking.add_argument("folder", metavar="FOLDER", type=Path)
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "pack":
            count = pack(parsed.sweep, parsed.file, parsed.columns)
            print(f"{count} runs in {parsed.file} ({parsed.file.stat().st_size / 1e3:,.0f} kB)")
        else:
            count = unpack(parsed.file, parsed.folder)
            print(f"{count} runs in {parsed.folder}; next: joyful report {parsed.folder}")
    except (InputError, ResultsError) as error:
        print(f"study.archive: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
