"""Features of tables of dialogues: columns, lists, arrays beside the table, and what is missing."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful.data.dialogues import default_settings, read_table, source_files
from joyful.data.raw_table import select_columns
from joyful.data.validation import validate
from joyful.records import SPLITS, InputError
from tests.support.datasets import check_source, fake_encode
from tests.support.tables import chat, dataset, settings, without, write

# --- features


def test_columns_of_numbers_are_in_the_order_of_their_numbers(tmp_path):
    rows = [{**row, **{f"audio_{i}": i for i in (10, 9, 2, 1, 0)}, "audio_file": "a.wav"} for row in chat()]
    data = dataset(write(tmp_path / "chat.csv", rows))
    np.testing.assert_array_equal(data.splits["train"].features["audio"][0], [0, 1, 2, 9, 10])
    rows = [{**row, "text_language": "en", "text_length": 3} for row in chat()]  # no vectors of text
    assert dataset(write(tmp_path / "text.csv", rows)).dimensions["text"] == 8
    rows = [{**row, "face_smile": 1.5, "face_age": 3} for row in without(chat(), "visual_0", "visual_1")]
    data = dataset(write(tmp_path / "face.csv", rows), features={"visual": "face_", "audio": None})
    assert list(data.dimensions) == ["text", "visual"]
    np.testing.assert_array_equal(data.splits["train"].features["visual"][0], [1.5, 3])


def test_many_columns_of_numbers_are_found_fast(tmp_path):
    names = ["dialogue", *(f"audio_{n}" for n in range(20_000))]
    start = time.process_time()
    columns = select_columns(tmp_path / "chat.csv", names, default_settings())
    assert time.process_time() - start < 1.0  # 8 s when each column is looked for in a list
    assert columns.numbers == {"audio": tuple(names[1:])}


def test_columns_that_end_in_a_very_long_number_are_text(tmp_path):
    rows = [{**row, f"audio_{'9' * 5000}": "x"} for row in chat()]
    assert dataset(write(tmp_path / "chat.csv", rows)).dimensions["audio"] == 3


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_vectors_of_text_need_no_encoder(tmp_path, ending):
    rows = [{**row, "text_language": "en", "text_0": n, "text_1": -n} for n, row in enumerate(chat())]
    path = write(tmp_path / f"chat.{ending}", rows)
    data = dataset(path, encode=None)
    assert (data.dimensions, data.text_encoder) == ({"audio": 3, "text": 2, "visual": 2}, "file")
    assert dataset(write(tmp_path / f"no.{ending}", without(rows, "text")), encode=None).dimensions["text"] == 2
    assert dataset(path, features={"text": None}).dimensions["text"] == 8


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int32, np.uint8])
def test_arrays_beside_the_table(tmp_path, dtype):
    rows = without(chat(), *(f"audio_{i}" for i in range(3)))
    path = write(tmp_path / "chat.csv", rows)
    numbers = np.arange(len(rows) * 5).reshape(-1, 5).astype(dtype)
    np.save(tmp_path / "chat.audio.npy", numbers)
    own = settings(path)
    assert [file.name for file in source_files(own)] == ["chat.csv", "chat.audio.npy"]
    data = check_source(own, tmp_path / "out")
    assert data.dimensions["audio"] == 5
    first = int(data.splits["train"].ids[0].removeprefix("d")) * 4
    np.testing.assert_array_equal(data.splits["train"].features["audio"][0], numbers[first].astype(np.float32))
    if np.issubdtype(dtype, np.floating):
        numbers[first] = np.nan
        np.save(tmp_path / "chat.audio.npy", np.asfortranarray(numbers))
        part = dataset(path).splits["train"]
        assert part.missing["audio"].tolist() == [True] + [False] * (len(part.labels) - 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((23, 5)), r"expected numbers of shape \(24, WIDTH\), a row for each row of chat.csv, got .*\(23, 5\)"),
        (np.zeros(24), r"expected numbers of shape \(24, WIDTH\)"),
        (np.zeros((24, 0)), r"expected numbers of shape \(24, WIDTH\)"),
        (np.zeros((24, 2, 2)), r"expected numbers of shape \(24, WIDTH\)"),
        (np.full((24, 2), "x"), r"expected numbers of shape .*, got <U1"),
        (np.full((24, 2), 1j), r"expected numbers of shape .*, got complex128"),
        (np.full((24, 2), None), r"is not an array of numbers \(.*\); save it with numpy.save"),
        (np.full((24, 2), np.inf), r"chat.csv, line 2: number 1 of audio must be finite"),
        (np.full((24, 2), 1e300), r"chat.csv, line 2: number 1 of audio must be finite"),
        (np.array([[0, 0]] * 20 + [[0, np.nan]] * 4), r"chat.csv, line 22: audio: 1 of 2 numbers are missing"),
    ],
)  # fmt: skip
def test_bad_arrays_are_refused(tmp_path, array, message):
    path = write(tmp_path / "chat.csv", without(chat(), *(f"audio_{i}" for i in range(3))))
    np.save(tmp_path / "chat.audio.npy", array)
    with pytest.raises(InputError, match=message):
        dataset(path)


def test_an_array_is_checked_before_it_is_loaded(tmp_path, monkeypatch):
    path = write(tmp_path / "chat.csv", without(chat(), *(f"audio_{i}" for i in range(3))))
    file = tmp_path / "chat.audio.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (24, 2**40)})
    with pytest.raises(InputError, match=r"chat.audio.npy is not an array of numbers"):
        dataset(path)
    for damage in (b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00v\x00{" + b"(" * 200, b"\x93NUMPY\x09\x00"):
        file.write_bytes(damage)
        with pytest.raises(InputError, match=r"chat.audio.npy is not an array of numbers"):
            dataset(path)
    with file.open("wb") as stream:  # a sparse file that is as large as its header says
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (24, 2**25)})
        stream.truncate(stream.tell() + 24 * 2**27)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"expected at most 536870912 numbers of an array, got more"):
        dataset(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_columns_and_an_array_of_one_modality_are_refused(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    np.save(tmp_path / "chat.audio.npy", np.zeros((24, 2)))
    with pytest.raises(
        InputError, match=r"has columns of audio, and .*chat.audio.npy is beside it; remove the file, or set"
    ):
        dataset(path)
    assert dataset(path, features={"audio": None}).dimensions["audio"] == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"audio_1": None},
            r" 4: audio: 1 of 3 numbers are missing, the first is number 2; fill them in, or leave all 3",
        ),
        ({"audio_1": float("inf")}, r" 4: number 2 of audio must be finite"),
        ({"audio_1": 1e39}, r" 4: number 2 of audio must be finite"),
    ],
)
def test_rows_with_some_of_the_numbers_are_refused(tmp_path, change, message, ending):
    rows = chat()
    rows[{"csv": 2, "jsonl": 3, "parquet": 3}[ending]] |= change
    with pytest.raises(InputError, match=message):
        dataset(write(tmp_path / f"chat.{ending}", rows))


@pytest.mark.parametrize("value", ["x", "1_000", "0x10", "1,5"])
def test_cells_that_are_no_numbers_are_refused(tmp_path, value):
    rows = chat()
    rows[2]["audio_1"] = value
    with pytest.raises(InputError, match=r"line 4: audio_1 must be a number or empty, got .*; .*features.audio=PREFIX"):
        dataset(write(tmp_path / "chat.csv", rows))
    with pytest.raises(InputError, match=r"line 3: audio_1 must be a number or null, got"):
        dataset(write(tmp_path / "chat.jsonl", rows))
    frame = pd.DataFrame(rows).astype({"audio_1": str})
    frame.to_parquet(tmp_path / "chat.parquet")
    with pytest.raises(
        InputError, match=r"audio_1 must be a column of numbers, got (large_)?string; .*features.audio=PREFIX"
    ):
        dataset(tmp_path / "chat.parquet")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("audio", "message"),
    [
        ([1.0, 2.0, 3.0], r"3: expected 2 numbers in audio, as in (line|row) 1, got 3"),
        ([1.0, None], r"3: audio: 1 of 2 numbers are missing"),
        ([1.0, float("inf")], r"3: number 2 of audio must be finite"),
    ],
)
def test_bad_lists_are_refused(tmp_path, audio, message, ending):
    rows = [{**row, "audio": [1.0, 2.0]} for row in without(chat(), *(f"audio_{i}" for i in range(3)))]
    rows[2]["audio"] = audio
    with pytest.raises(InputError, match=message):
        dataset(write(tmp_path / f"chat.{ending}", rows))
    rows[2]["audio"], rows[3]["audio"] = None, []
    data = dataset(write(tmp_path / f"chat.{ending}", rows))
    assert sum(int(part.missing["audio"].sum()) for part in data.splits.values() if part.missing) == 2


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("empty", [None, []])
def test_a_file_of_empty_lists_has_the_width_of_the_others(tmp_path, empty, ending):
    rows = without(chat(), *(f"audio_{i}" for i in range(3)))
    write(tmp_path / f"b.{ending}", [{**row, "audio": empty} for row in rows[:8]])
    with (
        pytest.raises(InputError, match="audio is missing in all rows; remove it")
        if empty == []
        else contextlib.nullcontext()
    ):
        assert "audio" not in read_table(tmp_path, default_settings()).features
    write(tmp_path / f"a.{ending}", [{**row, "audio": [1.0, 2.0]} for row in rows[8:]])
    table = read_table(tmp_path, default_settings())
    assert table.features["audio"].shape == (24, 2)
    assert table.missing["audio"].tolist() == [False] * 16 + [True] * 8


def test_null_lists_of_a_known_type_have_the_width_of_the_others(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = without(chat(), *(f"audio_{i}" for i in range(3)))
    for name, part, audio in (("a", rows[:8], [1.0, 2.0]), ("b", rows[8:], None)):
        column = pa.array([audio] * len(part), pa.list_(pa.float32()))
        parquet.write_table(pa.Table.from_pylist(part).append_column("audio", column), tmp_path / f"{name}.parquet")
    assert read_table(tmp_path, default_settings()).missing["audio"].tolist() == [False] * 8 + [True] * 16


def test_lists_of_fixed_size(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    rows = without(chat(), *(f"audio_{i}" for i in range(3)))
    numbers = [None if n == 5 else [float(n), 1.0] for n in range(len(rows))]
    table = pa.Table.from_pylist(rows).append_column("audio", pa.array(numbers, pa.list_(pa.float32(), 2)))
    parquet.write_table(table, tmp_path / "chat.parquet")
    data = dataset(tmp_path / "chat.parquet")
    assert {name: int(mask.sum()) for part in data.splits.values() for name, mask in part.missing.items()} == {
        "audio": 1
    }
    for part in data.splits.values():
        first = int(part.ids[0].removeprefix("d")) * 4
        np.testing.assert_array_equal(part.features["audio"][0], [first, 1.0])


def test_missing_modalities_and_empty_texts(tmp_path):
    rows = chat()
    for n in (1, 6):
        rows[n] |= {f"audio_{i}": "" for i in range(3)}
    for n in (2, 3):
        rows[n]["text"] = ("", "  ")[n % 2]
    data = check_source(settings(write(tmp_path / "chat.csv", rows)), tmp_path / "out")
    validate(data)
    missing = {
        name: sum(int(p.missing[name].sum()) for p in data.splits.values() if name in p.missing)
        for name in ("audio", "text")
    }
    assert missing == {"audio": 2, "text": 2}
    for part in data.splits.values():
        for name, mask in part.missing.items():
            assert not part.features[name][mask].any()
            assert mask.any()  # a modality that no utterance lacks has no entry


@pytest.mark.slow
@given(at=st.integers(0, 200), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_array_gives_a_table_or_an_input_error(tmp_path_factory, at, value, cut):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = write(folder / "chat.csv", [{"dialogue": "a", "text": "x"}] * 4)
    np.save(folder / "chat.audio.npy", np.ones((4, 2)))
    data = bytearray((folder / "chat.audio.npy").read_bytes())
    data[at % len(data)] = value
    (folder / "chat.audio.npy").write_bytes(data[: at % len(data)] if cut else data)
    with contextlib.suppress(InputError):
        read_table(path, default_settings())


def test_encoded_text_belongs_to_its_row(tmp_path):
    data = dataset(write(tmp_path / "chat.csv", chat()))
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split].features["text"], fake_encode(data.splits[split].sentences))
