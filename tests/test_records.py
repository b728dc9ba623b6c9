"""Messages contain no control characters, whatever they quote from a file."""

import pickle

import pytest

from joyful.records import InputError, one_line, print_error, visible

HOSTILE = "a\x1b[2Jb\x00c\x9bd\udc80e\u202ef"
ESCAPED = r"a\x1b[2Jb\x00c\x9bd\udc80e\u202ef"


@pytest.mark.parametrize("text", ["plain", "Überraschung, 平静, 😀", ""])
def test_printable_text_does_not_change(text):
    assert visible(text) == one_line(text) == str(InputError(text)) == text


def test_control_characters_are_escaped(capsys):
    assert visible(HOSTILE) == one_line(HOSTILE) == str(InputError(HOSTILE)) == ESCAPED
    assert str(InputError(f"one\n{HOSTILE}")) == f"one\n{ESCAPED}"  # newlines remain
    print_error(RuntimeError(HOSTILE))
    assert capsys.readouterr().err == f"joyful: {ESCAPED}\n"


def test_an_error_survives_pickling():
    error = pickle.loads(pickle.dumps(InputError(HOSTILE)))
    assert (type(error), str(error)) == (InputError, ESCAPED)
