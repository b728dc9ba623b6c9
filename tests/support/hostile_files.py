"""Hostile checkpoints and Parquet files: false sizes, memory bombs, and paths that leave their folder.

Each function writes the files of one kind below a folder, and returns name -> (path for the reader, part of the
expected error message).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from joyful.results.tables import MAXIMUM_BYTES, MAXIMUM_ROWS

Case = tuple[Path, str]

#: Name of the largest history that is accepted. Its memory must stay below the bound, too.
READ = "largest_that_is_read"


# --- checkpoints


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file.

    Args:
        header: The header; bytes are used unchanged.
        body: The data of the tensors.
        length: Announced length of the header; None announces the true length.
    """
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(head) if length is None else length) + head + body


def tensor(low: int, high: int, shape: Sequence[int], dtype: str = "F32") -> dict[str, Any]:
    """Return an entry of a header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [low, high]}


def write_checkpoint(folder: Path, data: bytes, **changes: object) -> None:
    """Write a checkpoint "last" with the tensor file `data` and a JSON file with its correct digest."""
    folder.mkdir(parents=True)
    (folder / "last-1.safetensors").write_bytes(data)
    document = {"tensors": "last-1.safetensors", "sha256": hashlib.sha256(data).hexdigest(), "state": {}}
    (folder / "last.json").write_text(json.dumps({**document, **changes}))


def hostile_checkpoints(root: Path) -> dict[str, Case]:
    """Write hostile checkpoint folders."""
    two = {"a": tensor(0, 8, [2])}
    raw = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    files: dict[str, tuple[bytes, str]] = {
        "header_of_2_60": (safetensors(two, bytes(8), 2**60), "announces a header of 1152921504606846976 bytes"),
        "header_of_2_64": (safetensors(two, bytes(8), 2**64 - 1), "announces a header"),
        "header_of_100_mb": (safetensors(b" " * 100_000_000), "announces a header of 100000000 bytes"),
        "header_behind_the_end": (safetensors(two, bytes(8), 4_000_000), "header"),
        "no_header": (b"\x00\x00", "header"),
        "overlapping": (safetensors({"a": tensor(0, 8, [2]), "b": tensor(4, 12, [2])}, bytes(12)), "offset"),
        "the_same_bytes_twice": (safetensors({"a": tensor(0, 8, [2]), "b": tensor(0, 8, [2])}, bytes(8)), "offset"),
        "outside": (safetensors({**two, "b": tensor(8, 2**40, [2**38 - 2])}, bytes(8)), "not fully covered"),
        "turned_round": (safetensors({"a": tensor(8, 0, [2])}, bytes(8)), "damaged one"),
        "hole": (safetensors({"a": tensor(8, 16, [2])}, bytes(16)), "offset"),
        "more_than_is_named": (safetensors(two, bytes(80)), "not fully covered"),
        "overflowing_shape": (safetensors({"a": tensor(0, 8, [2**32, 2**32])}, bytes(8)), "overflow"),
        "huge_shape": (safetensors({"a": tensor(0, 8, [10**12])}, bytes(8)), "damaged one"),
        "negative_offset": (safetensors({"a": tensor(-8, 8, [4])}, bytes(8)), "integer"),
        "negative_shape": (safetensors({"a": tensor(0, 8, [-2])}, bytes(8)), "integer"),
        "text_as_shape": (safetensors({"a": tensor(0, 8, ["2"])}, bytes(8)), "damaged one"),  # type: ignore[list-item]
        "one_name_twice": (safetensors(raw, bytes(8)), "damaged one"),
        "no_utf_8": (safetensors(raw[:2] + b"\xff\xfe" + raw[3:], bytes(8)), "UTF-8"),
        "deep": (safetensors(b'{"__metadata__":' + b'{"a":' * 100_000), "damaged one"),
        "deep_list": (safetensors(b"[" * 1_000_000), "damaged one"),
        "unknown_type": (safetensors({"a": tensor(0, 8, [2], "PICKLE")}, bytes(8)), "PICKLE"),
        "a_pickle": (b"\x80\x04cposix\nsystem\n(S'true'\ntR.", "announces a header"),
    }
    cases: dict[str, Case] = {}
    for name, (data, words) in files.items():
        write_checkpoint(root / name, data)
        cases[name] = root / name, words
    good = safetensors(two, bytes(8))
    for name, value in {
        "leads_out": "../good/last-1.safetensors", "absolute": "/etc/passwd", "parent": "..", "itself": ".", "empty": "",
        "null": "last-1\0.safetensors", "endless": "last-" + "1" * 5000 + ".safetensors", "number": 5, "list": ["last-1"],
    }.items():  # fmt: skip
        write_checkpoint(root / f"name_{name}", good, tensors=value)
        cases[f"name_{name}"] = root / f"name_{name}", "damaged one"
    documents = {
        "deep_json": "[" * 1_000_000, "long_number": '{"state": ' + "9" * 100_000 + "}", "no_json": "\x00",
        "endless_json": '{"state": {"a": "' + "a" * 2**23 + '"}}', "no_mapping": "[]", "no_state": '{"tensors": "a"}',
    }  # fmt: skip
    for name, text in documents.items():
        write_checkpoint(root / name, good)
        (root / name / "last.json").write_text(text)
        cases[name] = root / name, "damaged one"
    write_checkpoint(root / "other_digest", good, sha256="0" * 64)
    cases["other_digest"] = root / "other_digest", "SHA-256 differs"
    for name, file in (("device", "last-1.safetensors"), ("device_json", "last.json")):
        write_checkpoint(root / name, good)
        (root / name / file).unlink()
        (root / name / file).symlink_to("/dev/zero")
        cases[name] = root / name, "symbolic link"
    for name, file in (("pipe", "last-1.safetensors"), ("pipe_json", "last.json")):
        write_checkpoint(root / name, good)
        (root / name / file).unlink()
        os.mkfifo(root / name / file)
        cases[name] = root / name, "not a plain file"
    return cases


# --- Parquet


def varint(value: int, length: int = 0) -> bytes:
    """Return a zigzag varint of Thrift's compact protocol, padded to `length` bytes without changing its value."""
    value = (value << 1) ^ (value >> 63)
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F)
    digits += [0] * (length - len(digits))
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


def with_small_footer(data: bytes) -> bytes:
    """Return the Parquet file with a false footer, in which sizes above 1 MiB are replaced by 100 bytes."""
    import pyarrow.parquet as pq

    size = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - size : -8]
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    sizes = {group.total_byte_size} | {group.column(i).total_uncompressed_size for i in range(group.num_columns)}
    for number in sizes:
        if number > 2**20:
            footer = footer.replace(varint(number), varint(100, len(varint(number))))
    return data[: -8 - size] + footer + data[-8:]


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    """Return a strongly compressed Parquet file of these columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    options = {"compression": "zstd", "write_statistics": False, **options}
    pq.write_table(pa.table(dict(columns)), sink, **options)
    return sink.getvalue()


def repeated(text: str, rows: int) -> Any:
    """Return a dictionary-encoded column that repeats one text, which is small in a file."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text])


def parquet_bombs() -> dict[str, tuple[bytes, str]]:
    """Return histories of some kB that expand to gigabytes."""
    rows, key = MAXIMUM_ROWS, {"step": [1], "epoch": [1.0]}
    zeros = np.zeros(rows)
    many = {"step": np.zeros(rows, np.int64), "epoch": zeros, "split": repeated("dev", rows)}
    many |= {f"c{i}": zeros for i in range(MAXIMUM_BYTES // (8 * rows) - 3)}
    long = {**key, "split": ["a" * 300_000_000]}
    plain = {"use_dictionary": False}
    return {
        READ: (parquet(many), ""),
        "many_values": (parquet({**many, "nll": zeros}), f"announces {rows} rows, 9 columns"),
        "many_rows": (parquet({"step": np.zeros(rows + 1, np.int64)}), f"announces {rows + 1} rows"),
        "many_columns": (parquet({f"c{i}": [0] for i in range(10_001)}), "10001 columns"),
        "long_text": (parquet(long, **plain), "announces 1 rows, 3 columns and 3000"),
        "long_text_lying": (with_small_footer(parquet(long, **plain)), "announces 1 rows, 3 columns and 3000"),
        "long_text_lying_brotli": (with_small_footer(parquet(long, compression="brotli", **plain)), "and 3000"),
        "long_text_lying_in_a_dictionary": (with_small_footer(parquet(long, dictionary_pagesize_limit=2**30)), "and 3000"),
        "long_text_lying_data_page_2": (with_small_footer(parquet(long, data_page_version="2.0", **plain)), "and 3000"),
        "long_text_repeated": (
            parquet({"step": np.arange(rows), "epoch": np.arange(rows), "split": repeated("x" * 100_000, rows)}),
            "column split: expected train, dev, test",
        ),
        "footer_of_gigabytes": (b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1", "cannot be read as a Parquet file"),
        "footer_of_zeros": (b"PAR1" + bytes(2**20) + struct.pack("<I", 2**20) + b"PAR1", "cannot be read"),
    }  # fmt: skip


def hostile_runs(root: Path) -> dict[str, Case]:
    """Write run folders with a hostile history, each with and without a run.json that has its digest."""
    cases: dict[str, Case] = {}
    for name, (data, words) in parquet_bombs().items():
        for vouched in (False, True):
            folder = root / f"{name}{'_vouched' if vouched else ''}"
            (folder / ".hydra").mkdir(parents=True)
            (folder / "history.parquet").write_bytes(data)
            if vouched:
                digest = [hashlib.sha256(data).hexdigest()]
                run = {"schema": 1, "status": "completed", "seed": 1, "history_sha256": digest}
                (folder / "run.json").write_text(json.dumps(run))
            cases[folder.name] = folder, words
    return cases
