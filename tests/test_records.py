"""What may stand in a message: nothing that a terminal would obey, whatever was read from a file."""

import pickle

import pytest

from joyful.records import InputError, one_line, print_error, visible

HOSTILE = "a\x1b[2Jb\x00c\x9bd\udc80e\u202ef"
SHOWN = r"a\x1b[2Jb\x00c\x9bd\udc80e\u202ef"


@pytest.mark.parametrize("text", ["plain", "Überraschung, 平静, 😀", ""])
def test_what_can_be_printed_stays_as_it_is(text):
    assert visible(text) == one_line(text) == str(InputError(text)) == text


def test_what_a_terminal_would_obey_is_an_escape(capsys):
    assert visible(HOSTILE) == one_line(HOSTILE) == str(InputError(HOSTILE)) == SHOWN
    assert str(InputError(f"one\n{HOSTILE}")) == f"one\n{SHOWN}"  # (lines stay lines)
    print_error(RuntimeError(HOSTILE))
    assert capsys.readouterr().err == f"joyful: {SHOWN}\n"


def test_an_error_crosses_processes_as_it_was():
    error = pickle.loads(pickle.dumps(InputError(HOSTILE)))
    assert (type(error), str(error)) == (InputError, SHOWN)
