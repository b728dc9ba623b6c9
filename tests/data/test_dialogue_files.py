"""Files of tables of dialogues: encodings, separators and hostile bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful.data import dialogues, prepared, raw_table, text_files
from joyful.data.dialogues import default_settings, read_table
from joyful.data.text_repair import without_surrogates
from joyful.records import InputError
from tests.support.datasets import check_source
from tests.support.tables import chat, dataset, settings, without, write

UMLAUTS = [{**row, "text": f"Grüße, schöne {row['text']} – “ja”"} for row in chat()]


def texts(data):
    return {text for part in data.splits.values() for text in part.sentences}


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["chat.csv", "chat.jsonl"])
def test_the_encoding_is_found(tmp_path, encoding, name):
    path = tmp_path / name
    if name == "chat.csv":
        write(path, UMLAUTS, encoding=encoding)
    else:
        path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in UMLAUTS).encode(encoding))
    data = check_source(settings(path), tmp_path / "out")
    assert texts(data) == {row["text"] for row in UMLAUTS}
    assert set(data.splits["train"].ids) < {f"d{n}" for n in range(6)}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "latin-1", "mac_roman"])
def test_the_encoding_can_be_named(tmp_path, encoding):
    rows = [{**row, "text": row["text"].replace("–", "-").replace("“", '"').replace("”", '"')} for row in UMLAUTS]
    path = write(tmp_path / "chat.csv", rows, encoding=encoding)
    assert texts(dataset(path, encoding=encoding)) == {row["text"] for row in rows}


@pytest.mark.parametrize(
    ("encoding", "named", "message"),
    [
        (
            "cp1252",
            None,
            r"line 2: byte 0xfc is not utf-8; set data.table.encoding=cp1252 \(Windows, Western Europe\) or",
        ),
        ("utf-16-le", None, r"line \d: byte 0x\w\w is not utf-8; set data.table.encoding=utf-16-le or the encoding"),
        ("utf-16-be", None, r"line \d: byte 0x\w\w is not utf-8; set data.table.encoding=utf-16-be or the encoding"),
        (
            "utf-8",
            "ascii",
            r"line 2: byte 0xc3 is not ascii; set data.table.encoding=utf-8 or the encoding of the file",
        ),
        ("utf-8", "no-such", r"data.table.encoding: expected an encoding such as utf-8, .* got 'no-such'; set"),
        ("utf-8", "base64", r"data.table.encoding: expected an encoding such as"),
        ("utf-8", "idna", r"data.table.encoding: expected an encoding such as"),
    ],
)
def test_a_wrong_encoding_is_named_with_byte_line_and_setting(tmp_path, encoding, named, message):
    path = write(tmp_path / "chat.csv", UMLAUTS, encoding=encoding)
    with pytest.raises(InputError, match=message) as caught:
        dataset(path, encoding=named)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_wrong_byte_is_that_of_an_editor(tmp_path):
    path = tmp_path / "chat.csv"
    for end in ("\n", "\r\n", "\r"):
        lines = ["dialogue,text", *(f"d,{'x' * 50} {n}" for n in range(5000))]
        path.write_bytes(end.join(lines).encode() + f"{end}d,".encode() + b"\xff\n")
        with pytest.raises(InputError, match=r"line 5002: byte 0xff is not utf-8; set data.table.encoding=cp1252"):
            read_table(path, default_settings())
    path.write_bytes(b"dialogue,text\nd,\x81\n")  # not defined in Windows-1252
    with pytest.raises(
        InputError, match=r"line 2: byte 0x81 is not utf-8; set data.table.encoding=latin-1 \(ISO 8859-1\)"
    ):
        read_table(path, default_settings())
    path.write_bytes("dialogue,text\nd,x\n".encode("utf-16-le"))  # its bytes are also UTF-8
    with pytest.raises(
        InputError, match=r"line 1: a NUL character is not text; set data.table.encoding=utf-16-le or the"
    ):
        read_table(path, default_settings())
    path.write_bytes("dialogue,text\nd,x\n".encode("utf-16")[:-1])
    with pytest.raises(InputError, match=r"not utf-16; the file is damaged or cut; save it again, in UTF-8"):
        read_table(path, default_settings())


def test_control_characters_of_windows_1252_are_mapped_and_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [{**row, "text": f"it\x92s {n} \x93ok\x94"} for n, row in enumerate(chat())]
    data = dataset(write(tmp_path / "chat.csv", rows))
    assert texts(data) == {f"it’s {n} “ok”" for n in range(len(rows))}
    assert caplog.text.count("chat.csv: mapped 72 control characters") == 1


# --- separators


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_with_other_separators_in_quotes(tmp_path, separator):
    rows = [{"a,b;c\td": 1, **row} for row in chat()]
    assert dataset(write(tmp_path / "chat.csv", rows, separator)).dimensions["audio"] == 3
    others = "".join({",", ";", "\t"} - {separator})
    rows = [{f"a{others}b": 1, **row, f"{others[0]}c": 2} for row in chat()]  # not in quotes
    assert dataset(write(tmp_path / "chat.csv", rows, separator)).dimensions["audio"] == 3


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_blank_lines_before_the_header(tmp_path, separator):
    path = write(tmp_path / "chat.csv", chat(), separator)
    path.write_text("\n\r\n" + path.read_text())
    table = read_table(path, default_settings())
    assert (len(table), table.line[0]) == (24, 4)


def test_an_ambiguous_header_is_refused_with_what_to_set(tmp_path):
    path = tmp_path / "chat.csv"
    path.write_text("dialogue,text;label\n" + "".join(f"{n},hello;{n % 2}\n" for n in range(9)))
    with pytest.raises(
        InputError, match=r"line 1: the header can be separated by comma or by semicolon; set .*=comma or "
    ):
        dataset(path)
    own = settings(path, separator="semicolon", columns={"dialogue": "dialogue,text", "text": "label"})
    table = read_table(path, own.table)
    assert (table.dialogue[:2], table.text[:2]) == (("0,hello", "1,hello"), ("0", "1"))


def test_rows_of_another_width_are_refused(tmp_path):
    path = tmp_path / "chat.csv"
    path.write_text("dialogue;text\na;one\nb;two; three\n")
    with pytest.raises(InputError, match=r"line 3: expected 2 columns, got 3; put text with a semicolon in quotes"):
        dataset(path)
    path.write_text('dialogue\ttext\na\tone\nb\t"two\n')
    with pytest.raises(InputError, match=r"line 3: not a CSV record \(unexpected end of data\); check for an unclosed"):
        dataset(path)


# --- hostile bytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", r"expected a column 'dialogue' for the dialogue, got ; set"),
        ("[1, 2]\n", r"line 1: expected one JSON object, got '\[1, 2\]'; save one object in each line \(JSON Lines\)"),
        ('[\n{"dialogue": 1}\n]', r"line 1: expected one JSON object, such as"),
        ('{"dialogue": "a"}\n{"dialogue', r"line 2: expected one JSON object, such as"),
        ("[" * 100_000, r"line 1: expected one JSON object"),
        ('{"dialogue": ' + "9" * 5000 + "}", r"line 1: expected one JSON object"),
        ("\n\n", r"has no rows; expected at least one utterance"),
        ('{"dialogue": "' + "x" * 2**20 + '"}', r"line 1: expected at most 1048576 characters"),
        ('{"dialogue": "a", "text": "x", "place": 1e999}', r"line 1: place must be a number"),
    ],
)  # fmt: skip
def test_bad_json_lines_are_refused(tmp_path, content, message):
    (tmp_path / "chat.jsonl").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / "chat.jsonl", default_settings())
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a header"),
        ("\n\n", "is empty"),
        ("dialogue,text\n", "has no rows; expected at least one"),
        ("dialogue,text,Dialogue,text\na,b,c,d\n", "names text, text more than once"),
        ("dialogue,TEXT,Text\na,b,c\n", "names TEXT, Text more than once"),
        ("dialogue,text,audio_0,audio_0\na,b,1,2\n", "the header names audio_0 more than once; keep one"),
    ],
)
def test_bad_headers_are_refused(tmp_path, content, message):
    (tmp_path / "chat.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_table(tmp_path / "chat.csv", default_settings())


def test_sizes_are_limited(tmp_path, monkeypatch):
    path = write(tmp_path / "chat.csv", chat())
    monkeypatch.setattr(raw_table, "MAX_ROWS", 10)
    with pytest.raises(InputError, match=r"line 12: more than 10 rows; check that it is the right file"):
        dataset(path)
    with pytest.raises(InputError, match=r"more than 10 rows"):
        dataset(write(tmp_path / "chat.parquet", chat()))
    monkeypatch.setattr(text_files, "MAX_TEXT_BYTES", 100)
    with pytest.raises(InputError, match=r"expected at most 100 bytes, got \d+; use Parquet, or several files"):
        dataset(path)


def test_a_text_that_is_repeated_is_in_memory_once(tmp_path):
    for text, label in (
        ("x" * 10_000, "joy"),
        (" it\x92s \ud800" * 1000 + "\n", " joy | fear "),
        ("y" * 10_000, "1.0"),
    ):
        rows = [{"dialogue": f"d{n // 100}", "text": text, "label": label} for n in range(2000)]
        path = write(tmp_path / "chat.parquet", [{**row, "text": without_surrogates(text)} for row in rows])
        assert path.stat().st_size < 100_000  # for 20 MB of text
        for separator in (None, "|"):
            table = read_table(path, default_settings().model_copy(update={"label_separator": separator}))
            assert len({id(text) for text in table.text}) == 1
            assert len({id(name) for labels in table.labels for name in labels}) == len(table.labels[0])


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_parquet_with_an_empty_row_group(tmp_path, compression):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist(chat())
    for name, parts in (("chat", (table[:8], table[:0], table[8:])), ("empty", (table[:0],)), ("none", ())):
        with parquet.ParquetWriter(tmp_path / f"{name}.parquet", table.schema, compression=compression) as writer:
            for part in parts:
                writer.write_table(part)
    assert len(read_table(tmp_path / "chat.parquet", default_settings())) == 24
    for name in ("empty", "none"):
        with pytest.raises(InputError, match=rf"{name}.parquet has no rows; expected at least one utterance"):
            read_table(tmp_path / f"{name}.parquet", default_settings())


@pytest.mark.parametrize("label", ["joy \ud83d", ["joy \ud83d"], None])
def test_surrogates_of_texts_and_names_are_replaced(tmp_path, label):
    rows = [
        {**row, "dialogue": f"{row['dialogue']} \ud83d", "text": f"{row['text']} \ude00"}
        for row in without(chat(), "label")
    ]
    for n, row in enumerate(rows):
        row |= {"label_joy \ud83d": n % 2, "label_fear": 1} if label is None else {"label": label if n % 2 else "fear"}
        row |= {"label": ["fear"]} if isinstance(label, list) and n % 2 == 0 else {}
        row["speaker"] = "\ud83d\ude00"
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = check_source(settings(path), tmp_path / "out")
    assert data.labels == ("fear", "joy \ufffd")
    assert texts(data) == {f"message {n} \ufffd" for n in range(len(rows))}
    assert {name for part in data.splits.values() for name in part.ids} == {f"d{n} \ufffd" for n in range(6)}


def test_the_text_of_all_files_is_limited_before_it_is_encoded(tmp_path, monkeypatch):
    rows = [{**row, "text": random.Random(n).randbytes(1000).hex()} for n, row in enumerate(chat())]
    size = len(rows) * 32 + sum(len(row["text"]) + len(row["dialogue"]) for row in rows)
    for name, part in (("a.csv", rows[:8]), ("b.csv", rows[8:])):
        write(tmp_path / name, part)
    monkeypatch.setattr(dialogues, "MAX_TEXT_BYTES", size)
    monkeypatch.setattr(prepared, "_MAX_UTTERANCES_BYTES", 2 * size)
    check_source(settings(tmp_path), tmp_path.parent / "out")
    monkeypatch.setattr(dialogues, "MAX_TEXT_BYTES", size - 1)
    with pytest.raises(
        InputError, match=rf"expected at most {size - 1} bytes of text in all files together, got more; use fewer"
    ):
        dataset(tmp_path, encode=lambda texts: pytest.fail("encoded"))


@pytest.mark.slow
@given(content=st.binary(max_size=300) | st.text(alphabet='dialoguetx,;"\n\r\t 0_{}[]:\x85\u2028', max_size=200))
@pytest.mark.parametrize("name", ["any.csv", "any.jsonl", "any.parquet"])
def test_any_bytes_give_a_table_or_an_input_error(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    for prefix in (b"", b"dialogue,text,audio_0\n", b'{"dialogue": 1, "text": "x"}\n'):
        path.write_bytes(prefix + data)
        with contextlib.suppress(InputError):
            read_table(path, default_settings())


@pytest.mark.slow
@given(at=st.integers(0, 10**6), value=st.integers(0, 255), cut=st.booleans())
def test_damaged_parquet_gives_a_table_or_an_input_error(tmp_path_factory, at, value, cut):
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    rows = [
        {**row, "audio": [1.0, 2.0], "label": ["joy"]} for row in without(chat(2), *(f"audio_{i}" for i in range(3)))
    ]
    data = bytearray(write(path, rows).read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data[: at % len(data)] if cut else data)
    with contextlib.suppress(InputError):
        read_table(path, default_settings())
