"""Files that are not pickles, and damaged pickles, are named as what they are in one line with the remedy."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from joyful.data.cogmen.file_kinds import damage, foreign_kind
from joyful.data.cogmen.restricted_pickle import SampleRecord, loads
from joyful.records import InputError
from tests.support.cogmen_pickles import dump

CONTENT = {
    "train": [{"vid": "a", "label": [1, 2], "sentence": ["one\n", "two"], "audio": np.arange(2000.0).reshape(2, 1000)}]
}
PROTOCOLS = range(6)


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def zipped(name: str) -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr(name, b"content")

    return written(write)


def legacy_torch() -> bytes:
    return written(lambda stream: torch.save({"x": torch.ones(2)}, stream, _use_new_zipfile_serialization=False))


FOREIGN = {
    "torch": (
        written(lambda stream: torch.save({"x": torch.ones(2)}, stream)),
        r"from torch.save: load it in torch, con",
    ),
    "legacy torch": (legacy_torch(), r"from torch.save \(the format before torch 1.6\): load it in torch"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0\0", r"an HDF5 file: read it with h5py"),
    "gzip": (gzip.compress(pickle.dumps({})), r"compressed with gzip: unpack it with gunzip"),
    "zip": (zipped("data_iemocap.pkl"), r"a zip archive: unpack it with unzip"),
    "xlsx": (zipped("[Content_Types].xml"), r"an Excel workbook: write a pickle"),
    "npz": (
        written(lambda stream: np.savez(stream, audio=np.ones(3))),
        r"a NumPy .npz archive: read it with numpy.load",
    ),
    "npy": (written(lambda stream: np.save(stream, np.ones(3))), r"a NumPy .npy file"),
    "json": (b' {"train": []}', r"JSON text: write it with pickle.dump"),
    "json list": (b"[]", r"JSON text"),
    "csv of Excel": (b"\xef\xbb\xbfdialogue;label\n", r"text with a byte order mark"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer: run git lfs pull"),
    "page": (b"\n<!DOCTYPE html>\n<html></html>", r"a web page or XML: the download failed, download it again"),
    "matlab": (b"MATLAB 5.0 MAT-file", r"a MATLAB file"),
    "parquet": (b"PAR1\0\0", r"a Parquet file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_another_kind_of_file_is_named(kind: str) -> None:
    data, expected = FOREIGN[kind]
    with pytest.raises(InputError, match=rf"^data.pkl: expected a pickle, got a file that is {expected}") as caught:
        loads(data, "data.pkl")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "name"),
    [("dialogue,label\na,1\n", "commas"), ("dialogue;label\na;1,5\n", "semicolons"), ("dialogue\tlabel\n", "tabs")],
)
def test_a_table_is_named_with_its_separator(text: str, name: str) -> None:
    with pytest.raises(
        InputError, match=rf"data.pkl: not a valid pickle: it is text, a table separated by {name}; write"
    ):
        loads(text.encode(), "data.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_transfer_in_text_mode_is_named(protocol: int) -> None:
    data = dump(CONTENT, protocol).replace(b"\n", b"\r\n")
    with pytest.raises(
        InputError, match=r"not a valid pickle: it has a carriage return before every line feed.* binary"
    ):
        loads(data, "data.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_download_that_stopped_is_named(protocol: int) -> None:
    data = dump(CONTENT, protocol)
    with pytest.raises(InputError, match=rf"not a valid pickle: it is cut off after {len(data) // 2} bytes; copy or"):
        loads(data[: len(data) // 2], "data.pkl")
    zeros = data[: len(data) // 2] + bytes(len(data) - len(data) // 2)
    with pytest.raises(InputError, match=r"not a valid pickle: it ends with zeros, as after a download that stopped"):
        loads(zeros, "data.pkl")


def test_damage_in_the_middle_is_not_an_end() -> None:
    data = dump(CONTENT, 4).replace(b"audio", b"aud\xffo")[:-1]  # not UTF-8, and without its last byte
    with pytest.raises(InputError, match=r"not a valid pickle: 'utf-8' codec can't decode .*\(near \w+ at byte \d+\)"):
        loads(data + b"!", "data.pkl")


def test_an_empty_file_is_named() -> None:
    with pytest.raises(InputError, match=r"data.pkl: not a valid pickle: it is empty; get the file again"):
        loads(b"", "data.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_valid_pickles_are_nothing_else(protocol: int) -> None:
    for value in (CONTENT, ["a,b", "c"], "text, with commas", {}, [], [1], (), "<html>", b"PK\x03\x04"):
        data = pickle.dumps(value, protocol)
        assert foreign_kind(data) is None
        loads(data, "data.pkl")
        assert damage(data, at_end=False) is None or b"\r\n" in data


@pytest.mark.parametrize("name", ["torch", "pandas"])
def test_objects_of_other_packages_are_named_with_a_remedy(name: str) -> None:
    import pandas as pd

    value = {"torch": torch.ones(3), "pandas": pd.DataFrame({"a": [1]})}[name]
    with pytest.raises(
        InputError, match=rf"the pickle calls {name}\..*: convert t\w+ to arrays with .(numpy|to_numpy)\(\)"
    ):
        loads(pickle.dumps({"train": [value]}), "data.pkl")


# Written by hand as Python 2 does: text and bytes are quoted lines in protocol 0, with escapes.
_DTYPE = "cnumpy\ndtype\np7\n(S'f4'\nI0\nI1\ntRp8\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
_DRAFT = "cnumpy.core.multiarray\n_reconstruct\np5\n(cnumpy\nndarray\np6\n(I0\ntS'b'\ntR"


def python_2(sentence: str, numbers: np.ndarray) -> bytes:
    """Return a pickle of {"train": [Sample]} with one sentence, given as Python 2 quotes it, and an array."""
    quoted = repr(numbers.astype("<f4").tobytes())[1:]  # Python 2's repr of a str is that of bytes without the b
    array = f"{_DRAFT}(I1\n(I{len(numbers)}\nt{_DTYPE}I00\nS{quoted}\ntb"
    attributes = f"(dp4\nS'vid'\nS'a'\nsS'sentence'\n(lS{sentence}\nasS'audio'\n{array}s"
    return f"(dp0\nS'train'\np1\n(lp2\n(iSample\nSample\np3\n{attributes}bas.".encode("ascii")


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        (r"'caf\xe9'", "caf\xe9"),
        (r"'it\x92s \x81'", "it\x92s \x81"),
        (r"""'say "no"\n'""", 'say "no"\n'),
        (r'''"it's"''', "it's"),
        ("''", ""),
    ],
)
def test_a_text_pickle_of_python_2_comes_back(sentence: str, expected: str) -> None:
    numbers = np.array([1.5, -3e38])
    (sample,) = loads(python_2(sentence, numbers), "data.pkl")["train"]
    assert type(sample) is SampleRecord
    assert sample.attributes["sentence"] == [expected]
    np.testing.assert_array_equal(sample.attributes["audio"], numbers.astype(np.float32), strict=True)


@pytest.mark.parametrize("line", ["abc", "'abc", "abc'", "'", "'abc\"", r"'\x'"])
def test_text_without_quotes_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="not a valid pickle"):
        loads(f"S{line}\n.".encode(), "data.pkl")


def test_messages_are_short_for_long_files(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        loads(b"a;" * 5_000_000, "data.pkl")
    assert re.fullmatch(r"data.pkl: not a valid pickle: .{1,200}", str(caught.value))
