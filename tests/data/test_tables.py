"""CSV files: line numbers as an editor shows them, and InputError for every invalid file."""

from __future__ import annotations

import contextlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful.data.tables import Utterance, group_dialogues, read_matrix, read_table
from joyful.records import InputError
from joyful.results.csv_text import MAXIMUM_RECORD


def write(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_those_of_an_editor(tmp_path):
    # by hand: the quoted field spans lines 2 to 4, line 6 is blank
    path = write(tmp_path, 'a,b\r\n"one\r\ntwo\r\nthree",x\r\nfour,y\r\n\r\nfive,z\r\n')
    rows = list(read_table(path, ("b", "a")))
    assert [(row.line, row.fields["b"]) for row in rows] == [(2, "x"), (5, "y"), (7, "z")]
    assert rows[0].fields["a"] == "one\r\ntwo\r\nthree"


def test_byte_order_mark_and_columns_in_another_order(tmp_path):
    path = write(tmp_path, b"\xef\xbb\xbfb,extra,a\n1,2,3\n")
    assert [dict(row.fields) for row in read_table(path, ("a", "b"))] == [{"a": "3", "b": "1"}]


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
        list(read_table(write(tmp_path, content), ("a", "b")))
    assert "table.csv" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_folder_or_a_missing_file_is_an_input_error(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(InputError, match="cannot be read"):
            list(read_table(path, ("a", "b")))


def test_a_file_of_endless_fields_takes_bounded_memory(tmp_path):
    path = write(tmp_path, "a,b\n" + "," * 30_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="the record has more than"):
            list(read_table(path, ("a", "b")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # the limit of a record is 1 MiB, and the file has 30 MB


@given(content=st.binary(max_size=300) | st.text(alphabet='a,b"\n\r\t 0\x1c\u2028\udcff', max_size=100))
def test_any_bytes_give_rows_or_an_input_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    readers = (lambda p: read_table(p, ("a", "b")), lambda p: read_matrix(p, 2)[0])
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
    (row,) = read_table(write(tmp_path, f"a,b\n{value},x\n"), ("a", "b"))
    with pytest.raises(InputError, match="line 2: a must be an integer >= 0"):
        row.integer("a")


def utterance(line, dialogue, position, speaker="A"):
    return Utterance(line=line, dialogue=dialogue, position=position, speaker=speaker, label=0, sentence="x")


def test_grouping_sorts_by_position_and_allows_gaps(tmp_path):
    rows = [utterance(2, "two", 9), utterance(3, "one", 4), utterance(4, "two", 1), utterance(5, "two", 5)]
    dialogues = group_dialogues(tmp_path, rows, 9)
    assert [[u.line for u in dialogue] for dialogue in dialogues] == [[4, 5, 2], [3]]


def test_grouping_refuses_duplicates_and_too_many_speakers(tmp_path):
    with pytest.raises(InputError, match="line 5: utterance 3 of 'd' is already in line 2"):
        group_dialogues(tmp_path, [utterance(2, "d", 3), utterance(5, "d", 3)], 9)
    with pytest.raises(InputError, match="line 2: expected at most 2 speakers in a dialogue, got 3 in 'd'"):
        group_dialogues(tmp_path, [utterance(2 + i, "d", i, name) for i, name in enumerate("ABC")], 2)
