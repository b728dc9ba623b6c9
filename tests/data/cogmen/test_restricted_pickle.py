"""The restricted reader of pickles: valid files are read exactly. For hostile and damaged files, see tests/faults."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joyful.data.cogmen.restricted_pickle import SampleRecord, load, loads
from joyful.records import InputError
from tests.support.cogmen_pickles import dump, sample_class, with_old_numpy_names

PROTOCOLS = range(6)

ARRAYS = {
    "float32": np.array([[0.5, -1.0, np.nan], [np.inf, 0.0, 1e30]], np.float32),
    "float64": np.arange(3.0),
    "float16": np.array([1.5], np.float16),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "text": np.array(["", "ab", "\U0001f600"]),
    "bytes": np.array([b"", b"ab"]),
    "big_endian": np.array([1, 2, 3], ">i4"),
    "big_endian_text": np.array(["ab"], ">U2"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12.0).reshape(3, 4)[:, ::2],
    "permuted": np.arange(24).reshape(2, 3, 4).transpose(0, 2, 1),
    "no_axes": np.array(3.0),
    "empty": np.zeros(0, np.float32),
    "no_rows": np.zeros((0, 5)),
}
SCALARS = (np.float32(1.5), np.float64(-2.0), np.int64(7), np.uint8(255), np.bool(True), np.str_("ab"), np.str_(""))


def imported() -> set[str]:
    """Return the loaded modules, except the codecs of Python, which decoding text may load."""
    return {name for name in sys.modules if not name.startswith("encodings")}


def test_the_refusal_names_the_call_and_its_place() -> None:
    with pytest.raises(InputError) as caught:
        loads(b"cos\nsystem\n(S'true'\ntR.", "data/iemocap.pkl")
    assert str(caught.value).startswith(
        "data/iemocap.pkl: refused: the pickle calls os.system (GLOBAL at byte 0); "
        "expected NumPy arrays and Sample records only"
    )


@pytest.mark.parametrize("module", ["Sample", "cogmen.Sample", "cogmen.data.Sample"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("old_names", [False, True], ids=["numpy._core", "numpy.core"])
def test_samples_with_arrays_come_back_as_records(protocol: int, old_names: bool, module: str) -> None:
    audio = [np.arange(4, dtype=np.float32), np.ones(4, np.float64)]
    attributes = {
        "vid": "Ses01",
        "label": [1, 2],
        "audio": audio,
        "text": np.eye(2),
        "speaker": ["M", "F"],
        "sentence": None,
    }
    data = dump({"train": [attributes, {"vid": "Ses02"}]}, protocol, module)
    if old_names:
        data = with_old_numpy_names(data)
        assert b"numpy._core" not in data
    modules = imported()
    first, second = loads(data, "data.pkl")["train"]
    assert imported() == modules
    assert type(first) is SampleRecord
    assert second.attributes == {"vid": "Ses02"}
    assert {key: first.attributes[key] for key in ("vid", "label", "speaker", "sentence")} == {
        "vid": "Ses01", "label": [1, 2], "speaker": ["M", "F"], "sentence": None,
    }  # fmt: skip
    for got, expected in zip([*first.attributes["audio"], first.attributes["text"]], [*audio, np.eye(2)], strict=True):
        np.testing.assert_array_equal(got, expected, strict=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_exactly(name: str, protocol: int) -> None:
    array = loads(pickle.dumps(ARRAYS[name], protocol), "data.pkl")
    np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
    assert not array.flags.writeable


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: type(scalar).__name__)
def test_numpy_scalars_come_back_exactly(scalar: np.generic, protocol: int) -> None:
    value = loads(pickle.dumps(scalar, protocol), "data.pkl")
    assert type(value) is type(scalar)
    assert value == scalar


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_arrays_come_back_as_nested_lists(protocol: int) -> None:
    array = np.empty((2, 2), object)
    array[:] = [["a", None], [1, "b"]]
    assert loads(pickle.dumps(array, protocol), "data.pkl") == [["a", None], [1, "b"]]
    assert loads(pickle.dumps(np.empty((0, 3), object), protocol), "data.pkl") == []


def test_a_byte_that_is_not_a_bool_becomes_true() -> None:
    data = pickle.dumps(np.array([True, False, True]), 5)
    assert loads(data.replace(b"\x01\x00\x01", b"\x02\x00\xff"), "data.pkl").tolist() == [True, False, True]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_class_with_slots_comes_back(protocol: int) -> None:
    with sample_class("Sample", slots=("vid", "label")) as kind:
        sample: Any = kind()
        sample.vid, sample.label = "a", [1]
        data = pickle.dumps(sample, protocol)
    assert loads(data, "data.pkl").attributes == {"vid": "a", "label": [1]}


@pytest.mark.parametrize(
    "instance",
    [
        b"(iSample\nSample\n",
        b"(cSample\nSample\no",
        b"ccopy_reg\n_reconstructor\n(cSample\nSample\nc__builtin__\nobject\nNtR",
    ],
    ids=["INST", "OBJ", "copy_reg"],
)
def test_a_python_2_pickle_comes_back(instance: bytes) -> None:
    """Written by hand. Python 2 wrote bytes as 8-bit text in Latin-1."""
    dtype = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    content = b"(K\x01(K\x01t" + dtype + b"I00\nU\x04\x00\x00\x80\x3ftb"
    record = loads(b"\x80\x02" + instance + b"}(U\x03vidU\x01aU\x05audio" + array + content + b"ub.", "data.pkl")
    assert record.attributes["vid"] == "a"
    np.testing.assert_array_equal(record.attributes["audio"], np.ones(1, np.float32), strict=True)


def test_what_is_shared_in_the_file_may_be_shared_in_the_result() -> None:
    shared = ["x"] * 10
    assert loads(pickle.dumps([shared] * 1000), "data.pkl") == [shared] * 1000


numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans() | st.none()
leaves = numbers | st.text() | st.binary()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=values, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_come_back_as_from_pickle(value: Any, protocol: int) -> None:
    """The expected value is that of pickle.loads, for every protocol."""
    data = pickle.dumps(value, protocol)
    assert repr(loads(data, "data.pkl")) == repr(pickle.loads(data))


HONEST = [
    dump(
        {"train": [{"vid": "a", "label": [1, 2], "audio": [np.arange(3, dtype="f4")] * 2, "speaker": ["M", "F"]}]},
        protocol,
    )
    for protocol in PROTOCOLS
] + [
    pickle.dumps([np.arange(6).reshape(2, 3).T, np.array(["ab", None], object), np.float32(1), 2**40, b"x"], p)
    for p in PROTOCOLS
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_refused(protocol: int) -> None:
    data = HONEST[protocol]
    for length in range(len(data)):
        with pytest.raises(InputError, match=r"not a valid pickle"):
            loads(data[:length], "data.pkl")


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"train": [1]}))
    assert load(path) == {"train": [1]}


@pytest.mark.parametrize(("name", "found"), [("missing.pkl", "no file"), (".", "a folder")])
def test_load_names_what_it_got_instead(tmp_path: Path, name: str, found: str) -> None:
    with pytest.raises(InputError, match=f"expected a pickle, got {found}"):
        load(tmp_path / name)


def test_load_names_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "data.pkl"
    path.touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"data\.pkl: cannot be read \(Permission denied\)"):
        load(path)
