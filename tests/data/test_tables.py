"""CSV files: line numbers as an editor shows them, and InputError for every invalid file."""

from __future__ import annotations

import contextlib
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful.data.dialogue_table import Utterance, concatenate, to_dataset, to_dialogues, to_table
from joyful.data.tables import read_matrix, read_rows
from joyful.records import SPLITS, InputError
from joyful.results.csv_text import MAXIMUM_RECORD


def write(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_those_of_an_editor(tmp_path):
    # by hand: the quoted field spans lines 2 to 4, line 6 is blank
    path = write(tmp_path, 'a,b\r\n"one\r\ntwo\r\nthree",x\r\nfour,y\r\n\r\nfive,z\r\n')
    rows = list(read_rows(path, ("b", "a")))
    assert [(row.line, row.fields["b"]) for row in rows] == [(2, "x"), (5, "y"), (7, "z")]
    assert rows[0].fields["a"] == "one\r\ntwo\r\nthree"


def test_byte_order_mark_and_columns_in_another_order(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfb,extra,a\n1,2,3\n")
    assert [dict(row.fields) for row in read_rows(path, ("a", "b"))] == [{"a": "3", "b": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a header with the columns a, b"),
        ("\n\n", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,c\n1,2\n", r"line 1: the header lacks the columns b; it has 'a', 'c'"),
        ("a;b;c\n1;2;3\n", r"line 1: the header is separated by semicolons; save it with commas"),
        ("c\tb\ta\n1\t2\t3\n", r"line 1: the header is separated by tabs; save it with commas"),
        ("a;c\n1;2\n", r"line 1: the header lacks the columns a, b; it has 'a;c'"),
        ("a,b,a\n1,2,3\n", "names a more than once"),
        ("a,b\n1,2\n1,2,3\n", r"line 3: expected 2 columns, got 3"),
        ("a,b\n1\n", r"line 2: expected 2 columns, got 1"),
        ('a,b\n1,"2\n3,4\n', r"line 2: not a CSV record \(unexpected end of data\); check for an unclosed"),
        ('a,b\n1,"2"3\n', "line 2: not a CSV record"),
        (b"a,b\n1,2\n1,\xff\n", r"line 3: not UTF-8 text"),
        (b"a,b\n1,2\n1,\0\n", r"line 3: not UTF-8 text"),
        ("a,b\n1,2\n".encode("utf-16"), r"line 1: not UTF-8 text"),
        ("a,b\n" + "x" * 200_000 + ",1\n", "line 2: not a CSV record"),
        ("a,b\n1," + "x" * (MAXIMUM_RECORD + 1), "line 2: the record has more than"),
        ('a,b\n"' + "\n" * (MAXIMUM_RECORD + 1), "line 2: "),
        ("a,b\n" + "," * 1_000_000 + "\n", "line 2: expected 2 columns, got 1000001"),
        ("," * 1_000_000 + "\n1,2\n", "line 1: the header lacks the columns a, b"),
        ("a,b\n" + '"x\n",' * 500_000 + "\n", "line 2: the record has more than"),
    ],
)
def test_bad_files_are_input_errors(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(write(tmp_path, content), ("a", "b")))
    assert "table.csv" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_folder_or_a_missing_file_is_an_input_error(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            list(read_rows(path, ("a", "b")))


def test_a_file_of_endless_fields_takes_bounded_memory(tmp_path):
    path = write(tmp_path, "a,b\n" + "," * 30_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="the record has more than"):
            list(read_rows(path, ("a", "b")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # the limit of a record is 1 MiB, and the file has 30 MB


@given(content=st.binary(max_size=300) | st.text(alphabet='a,b"\n\r\t 0\x1c\u2028\udcff', max_size=100))
def test_any_bytes_give_rows_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    readers = (lambda p: read_rows(p, ("a", "b")), lambda p: read_matrix(p, 2)[0])
    for reader in readers:
        with contextlib.suppress(InputError):
            list(reader(path))


def test_matrix(tmp_path):
    values, lines = read_matrix(write(tmp_path, '"1.5",-2e3\r\n\r\n0,4\r\n'), 2)
    np.testing.assert_array_equal(values, np.array([[1.5, -2000], [0, 4]], dtype=np.float32), strict=True)
    assert lines == [1, 3]


@pytest.mark.parametrize("value", ["nan", "inf", "-Infinity", "", "1_000", "x", "1e39", "0x10"])
def test_values_that_are_not_finite_float32_are_input_errors(tmp_path, value):
    with pytest.raises(InputError, match=r"line 2: column 2 must be a finite number, got"):
        read_matrix(write(tmp_path, f"1,2\n3,{value}\n"), 2)


@pytest.mark.parametrize("value", ["-1", "1.0", "", "²", "٣", "9" * 5000, "one"])
def test_integers_have_only_digits(tmp_path, value):
    (row,) = read_rows(write(tmp_path, f"a,b\n{value},x\n"), ("a", "b"))
    with pytest.raises(InputError, match="line 2: a must be an integer >= 0"):
        row.integer("a")


def table(path, *rows):
    """Return a table of rows (line, dialogue, place, speaker)."""
    return to_table(path, [Utterance(line, name, place, speaker, "x", "joy") for line, name, place, speaker in rows])


def test_dialogues_are_sorted_by_place_and_may_have_gaps(tmp_path):
    rows = [(2, "two", 9, "A"), (3, "one", 4, "A"), (4, "two", 1, "A"), (5, "two", 5.5, "A")]
    one = table(tmp_path, *rows)
    assert [one.line[dialogue].tolist() for dialogue in one.order()] == [[4, 5, 2], [3]]


def test_duplicates_and_too_many_speakers_are_refused(tmp_path):
    with pytest.raises(InputError, match="line 5: utterance 3 of 'd' is already in line 2"):
        table(tmp_path, (2, "d", 3, "A"), (5, "d", 3, "A")).order()
    crowd = table(tmp_path, *((2 + i, "d", i, name) for i, name in enumerate("ABC")))
    with pytest.raises(InputError, match="line 2: expected at most 2 speakers in a dialogue, got 3 in 'd'"):
        to_dialogues(crowd, ["joy"], 2)


def test_dialogues_of_the_same_name_in_two_splits_stay_apart(tmp_path):
    parts = [to_table(tmp_path / f"{split}.csv", [Utterance(2, "d", 0, split, "x", "joy")], split) for split in SPLITS]
    data = to_dataset(concatenate(parts), "corpus", ["joy", "anger"], 1, lambda texts: np.ones((len(texts), 2)))
    assert {split: (part.ids, len(part.labels)) for split, part in data.splits.items()} == dict.fromkeys(
        SPLITS, (("d",), 1)
    )


def test_dialogues_of_the_same_name_in_separate_sources_stay_apart(tmp_path):
    parts = [to_table(tmp_path / f"{n}.csv", [Utterance(2, "d", n, "A", str(n), "joy")], "train") for n in range(2)]
    joined = concatenate(parts)
    for separate, ids, lengths in ((False, ("d",), [2]), (True, ("d", "d"), [1, 1])):
        part = to_dialogues(replace(joined, separate_sources=separate), ["joy"], 1)
        assert (part.ids, part.lengths.tolist(), part.sentences) == (ids, lengths, ("0", "1"))


def test_rows_of_a_table_are_taken_in_any_order_and_without_a_copy_if_they_follow_each_other(tmp_path):
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    one = replace(
        table(tmp_path, *((2 + row, "d", row, "A") for row in range(4))),
        features={"audio": values},
        missing={"audio": np.zeros(4, bool)},
    )
    for rows in ([1, 2], [2, 0], [0, 2], [3], []):
        taken = one.take(np.array(rows, dtype=np.int64))
        assert (taken.place, taken.line.tolist()) == (tuple(rows), [2 + row for row in rows])
        np.testing.assert_array_equal(taken.features["audio"], values[rows] if rows else values[:0])
        assert np.shares_memory(taken.features["audio"], values) == (rows in ([1, 2], [3]))


def test_a_table_without_text_has_no_sentences(tmp_path):
    one = replace(table(tmp_path, (2, "d", 0, "A"), (3, "d", 1, "A")), text=(None, "Hm."))
    assert to_dialogues(one, ["joy"], 1).sentences == ("", "Hm.")
    assert to_dialogues(replace(one, text=(None, None)), ["joy"], 1).sentences is None


def test_columns_of_a_file_in_another_file_are_named_with_it(tmp_path):
    parts = [to_table(tmp_path / f"{name}.csv", [Utterance(2, "d", 0, "A", "x", "joy")]) for name in ("a", "b")]
    with pytest.raises(InputError, match=r"b\.csv, line 2: utterance 0 of 'd' is already in .*a\.csv, line 2; remove"):
        concatenate(parts).order()
