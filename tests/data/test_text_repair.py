"""Control characters of Windows-1252 become the characters that were meant, and are counted in one line."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from joyful.data.tables import read_rows
from joyful.data.text_repair import repair, without_surrogates

# By hand, from the table of the WHATWG: the 27 defined bytes from 80 to 9F, in their order.
DEFINED = "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
UNDEFINED = "\x81\x8d\x8f\x90\x9d"


def test_the_27_defined_bytes_are_mapped_and_the_five_others_stay() -> None:
    control = "".join(chr(code) for code in range(0x80, 0xA0) if chr(code) not in UNDEFINED)
    assert repair([control, UNDEFINED]) == ((DEFINED, UNDEFINED), 27)


@pytest.mark.parametrize("text", ["", "plain", "\x7f\xa0", "caf\xe9", "it\u2019s", "\U0001f600\n\t"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert repair([text, "a\x92b"]) == ((text, "a\u2019b"), 1)
    assert repair([text]) == ((text,), 0)
    assert repair([]) == ((), 0)


def test_equal_texts_stay_one_object() -> None:
    text = "a\x92b" * 10
    texts, count = repair([text] * 3)
    assert (len({id(one) for one in texts}), count) == (1, 30)


def test_surrogates_are_joined_or_replaced() -> None:
    assert without_surrogates("\ud83d\ude00 cut: \ud83d, \ude00") == "\U0001f600 cut: \ufffd, \ufffd"
    assert without_surrogates("\ufeffcaf\xe9 \U0001f600") == "\ufeffcaf\xe9 \U0001f600"


def test_a_table_is_repaired_before_white_space_is_stripped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """U+0085 is white space in Python; it stands for an ellipsis."""
    path = tmp_path / "table.csv"
    path.write_text("a,b,c\nwell\x85,don\x92t,\x93\n\x96,x,y\n", "utf-8")
    with caplog.at_level(logging.INFO):
        rows = list(read_rows(path, ("a", "b")))
    assert [(row.text("a"), row.text("b")) for row in rows] == [("well\u2026", "don\u2019t"), ("\u2013", "x")]
    assert caplog.messages == [
        f"{path}: mapped 3 control characters (U+0080 to U+009F) to the characters of Windows-1252 at their places"
    ]
