"""Hostile CSV tables and prepared datasets: memory bombs, false sizes and files of other formats.

Each function writes the files of one kind below a folder, and returns name -> (path for the reader, part of the
expected error message).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from joyful.data import emorynlp, meld, prepared
from tests.support import small_files
from tests.support.faults import count
from tests.support.hostile_files import Case, parquet, repeated, safetensors, tensor, with_small_footer

MILLION = 1_000_000


def bad_tables(honest: bytes, row: bytes) -> dict[str, tuple[bytes, str]]:
    """Return hostile tables that every reader must refuse.

    Args:
        honest: A valid table.
        row: A further row of it.
    """
    header = honest.splitlines()[0]
    return {
        "million_columns": (b",".join(b"c%d" % i for i in range(MILLION)) + b"\n1\n", "characters"),
        "million_empty_columns": (header + b"," * MILLION + b"\n" + row, "columns"),
        "half_a_million_empty_columns": (header + b"," * (MILLION // 2) + b"\n" + row, "columns"),
        "million_fields": (honest + b"," * MILLION + b"x\n", "columns"),
        "one_gigantic_field": (honest + b'"' + b"x" * 60 * MILLION + b'"\n', "characters"),
        "one_gigantic_line": (b"x" * 60 * MILLION, "characters"),
        "open_quote": (honest + b'"' + b"x\n" * 20 * MILLION, "not a CSV record"),
        "only_quotes": (b'"' * 20 * MILLION, "characters"),
        "only_line_ends": (b"\n" * 2 * MILLION, "empty"),
        "header_only": (header + b"\n", ""),
        "null_bytes": (honest + b"\0" * 1000, ""),
        "sparse": (b"", "bytes"),
        "utf_16": (honest.decode().encode("utf-16"), "UTF-8"),
        "not_utf_8": (honest + row.replace(b"1", b"\xff\xfe", 1), "UTF-8"),
        "a_pickle": (b"\x80\x04cposix\nsystem\n(S'true'\ntR.", ""),
        "an_archive": (b"PK\x03\x04" + bytes(1000), ""),
    }


def _many_rows(row: str, count: int = 201_000) -> bytes:
    return "".join(row.format(i) for i in range(1, count + 1)).encode()


def hostile_meld(root: Path) -> dict[str, Case]:
    """Write MELD folders with a hostile train file and valid dev and test files."""
    rows = _many_rows("1,x,A,joy,p,{}9,1,1,1,a,b\r\n")
    tables = {
        **bad_tables(small_files.meld_table(), small_files.meld_row(dialogue=9).encode() + b"\r\n"),
        "many_rows": (small_files.meld_table() + rows, "more than 200000 rows"),
        "huge_number": (small_files.meld_table(small_files.meld_row(dialogue=10**30)), "Dialogue_ID must be an integer"),
        "many_speakers": (
            small_files.meld_table(*(small_files.meld_row(speaker=f"S{i}", dialogue=7, place=i) for i in range(10))),
            "speakers in a dialogue, got 10",
        ),
    }  # fmt: skip
    return _folders(root, tables, small_files.write_meld, meld.FILES[0])


def hostile_emorynlp(root: Path) -> dict[str, Case]:
    """Write EmoryNLP folders with a hostile train file. The text in its column Speaker must not be evaluated."""
    canary = root / "canary"
    speakers = {
        "call": f"__import__('os').system('touch {canary}')",
        "comprehension": f"[open('{canary}', 'w') for _ in 'a']",
        "in_a_list": f"[open('{canary}', 'w')]",
        "formatted": "[f'{1}']",
        "deep": "[" * 900 + "]" * 900,
        "power": "[9**9**9]",
        "endless": "['a', " * 300 + "]",
        "numbers": "[1, 2]",
        "none": "None",
    }  # fmt: skip
    tables = bad_tables(small_files.emorynlp_table(), small_files.emorynlp_row(scene=9).encode() + b"\r\n")
    for name, text in speakers.items():
        row = small_files.emorynlp_row(speaker=text, place=9)
        tables[f"speaker_{name}"] = small_files.emorynlp_table(row), "Speaker must be a list of names"
    return _folders(root, tables, small_files.write_emorynlp, emorynlp.FILES[0])


def hostile_curves(root: Path) -> dict[str, Case]:
    """Write hostile tables for `joyful import csv`."""
    honest = small_files.curves_table()
    metrics = b",".join(b"m%d" % i for i in range(900))
    tables = {
        **bad_tables(honest, b"new,2,5,1,dev,0.1,1.0\n"),
        "thousand_columns": (b"arm,seed,epoch,split," + metrics + b"," + metrics.replace(b"m", b"n") + b"\n", "columns"),
        "many_settings": (b"seed,epoch,split,nll," + metrics.replace(b"m", b"a.m") + b"\n", "settings (names with a dot), got 900"),
        "many_values": (
            b"arm,seed,epoch,split," + metrics + b"\n" + (b"a,1,1,dev,1" + b"," * 899 + b"\n") * count(1000, 30_000),
            "values",
        ),
        "many_rows_of_a_run": (honest + _many_rows("old,1,{0},{0},dev,,\n", 430_000), "rows of one run"),
        "many_runs": (honest + _many_rows("old,{},1,1,dev,,\n", 101_000), "at most 100000 runs"),
        "huge_number": (honest + b"new,1e400,1,1,dev,,\n", "seed"),
        "setting_and_section": (b"a.b,a.b.c,seed,epoch,split,nll\n1,2,1,1,dev,1\n", "a.b"),
    }  # fmt: skip
    cases = {}
    root.mkdir(parents=True)
    for name, (data, words) in tables.items():
        path = root / f"{name}.csv"
        _write(path, name, data)
        cases[name] = path, words
    return cases


def hostile_logs(root: Path) -> dict[str, Case]:
    """Write hostile logs of other programs, each in a folder with the name of its format."""
    state = b'{"log_history": [%s]}'
    header = struct.pack("<Q", 2**60)
    checksum = struct.pack("<I", masked_crc32c(header))
    files = {
        "huggingface/deep1": (b"[" * MILLION, "trainer_state.json of transformers"),
        "huggingface/lists1": (state % (b"[]," * 5 * MILLION + b"[]"), "expected an object with an integer step"),
        "huggingface/large1": (state % (b"[]," * 10 * MILLION + b"[]"), "at most 16777216 are read"),
        "huggingface/digits1": (state % b'{"step": %s}' % (b"9" * MILLION), "not JSON"),
        "huggingface/huge1": (state % b'{"step": 1, "loss": %s}' % (b"9" * 400), "loss: expected a number"),
        "huggingface/names1": (
            state % b",".join(b'{"step": 1, "m%d": 1}' % i for i in range(200_000)), "at most 100000 names of metrics"
        ),
        "tensorboard/length1": (header + checksum + b"x" * 1000, "the record is damaged"),
        "tensorboard/zeros1": (bytes(60 * MILLION), "the record is damaged"),
        "wandb/wide1": (b'"Step",' + b",".join(b"r%d - a" % i for i in range(40_000)) + b"\n", "at most 30000 columns"),
        "sb3/1.monitor.csv": (b"r,l,t\n" + b"1,1,1\n" * MILLION, "at most 400000 episodes"),
        "keras/rows1": (b"epoch,loss\n" + b"".join(b"%d,1\n" % i for i in range(500_000)), "at most 400000 rows"),
    }  # fmt: skip
    cases = {}
    for name, (data, words) in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        cases[name] = path, words
    return cases


def hostile_prepared(root: Path) -> dict[str, Case]:
    """Write prepared datasets, each with one hostile file."""
    row = {"dialogue": ["a"], "sentence": ["b" * 600_000_000]}
    plain = parquet(row, use_dictionary=False)
    many = {"dialogue": repeated("a", 10**7), "sentence": repeated("b" * 1000, 10**7)}
    size = len(small_files.meld_table())
    utterances = {
        "long_text": (plain, "decodes to 6000"),
        "long_text_lying": (with_small_footer(plain), "decodes to 6000"),
        "many_rows": (parquet(many), "expected 9 rows, got 10000000"),
        "numbers": (parquet({"dialogue": np.zeros(9), "sentence": np.zeros(9)}), "must be text"),
        "lists": (parquet({"dialogue": [["a"]] * 9, "sentence": [["b"]] * 9}), "not a valid prepared dataset"),
        "no_parquet": (b"PAR1" + bytes(size) + b"\xff\xff\xff\x7fPAR1", "footer"),
        "empty": (b"", "footer"),
    }
    speakers = {"train/speakers": tensor(0, 8, [1], "I64")}
    arrays = {
        "header_of_2_60": (safetensors(speakers, bytes(8), 2**60), "no valid header"),
        "header_behind_the_end": (safetensors(speakers, bytes(8), 2**19), "no valid header"),
        "outside": (safetensors({"a": tensor(0, 2**40, [2**38])}, bytes(8)), "do not fit the file"),
        "negative": (safetensors({"a": tensor(-8, 0, [2])}, bytes(8)), "do not fit the file"),
        "overflowing": (safetensors({"a": tensor(0, 8, [2**62, 2**62])}, bytes(8)), "do not fit the file"),
        "no_bytes": (safetensors({"train/speakers": tensor(0, 0, [0, 2**60], "I64")}), "prepared dataset"),
        "boolean": (safetensors({"a": tensor(0, 8, [True, 2])}, bytes(8)), "do not fit the file"),
        "unknown_type": (safetensors({"a": tensor(0, 8, [1], "O")}, bytes(8)), "prepared dataset"),
        "deep": (safetensors(b"[" * 500_000), "prepared dataset"),
        "no_utf_8": (safetensors(b'{"\xff":1}'), "prepared dataset"),
        "overlapping": (safetensors({f"{s}/{n}": tensor(0, 8, [1], "I64") for s in ("train", "dev", "test")
                                     for n in ("speakers", "lengths", "labels")}, struct.pack("<q", 2**62)), "prepared dataset"),
    }  # fmt: skip
    cases: dict[str, Case] = {}
    for file, files in ((prepared.UTTERANCES, utterances), (prepared.ARRAYS, arrays)):
        for name, (data, words) in files.items():
            folder = root / f"{file.partition('.')[0]}_{name}"
            small_files.write_prepared(folder)
            small_files.rewrite_prepared(folder, file, data)
            cases[folder.name] = folder, words
    metas = {
        "deep": "[" * 500_000, "empty": "", "list": "[]", "long_number": '{"format": ' + "9" * 100_000 + "}",
        "large": " " * 2**25, "other_format": '{"format": 99, "origin": {}}',
    }  # fmt: skip
    for name, text in metas.items():
        folder = root / f"meta_{name}"
        small_files.write_prepared(folder)
        (folder / prepared.META).write_text(text)
        cases[folder.name] = folder, "format 99" if name == "other_format" else "not a valid prepared dataset"
    for key, value in {"n_speakers": 10**9, "labels": [], "dimensions": {"text": -1}, "name": None}.items():
        folder = root / f"meta_{key}"
        small_files.write_prepared(folder)
        meta = json.loads((folder / prepared.META).read_text())
        (folder / prepared.META).write_text(json.dumps({**meta, key: value}))
        if key != "name" and key != "n_speakers":
            cases[folder.name] = folder, ""
    return cases


def _folders(root: Path, tables: dict[str, tuple[bytes, str]], write: object, file: str) -> dict[str, Case]:
    cases = {}
    for name, (data, words) in tables.items():
        folder = root / name
        write(folder)  # type: ignore[operator]
        _write(folder / file, name, data)
        cases[name] = folder, words
    return cases


def _write(path: Path, name: str, data: bytes) -> None:
    path.write_bytes(data)
    if name == "sparse":
        with path.open("r+b") as file:
            file.truncate(2**40)
