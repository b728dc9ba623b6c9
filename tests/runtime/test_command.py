"""The command that resumes a run or a sweep, as a shell reads it."""

import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from joyful.runtime import command


@pytest.fixture
def typed(monkeypatch):
    """Sets the typed command."""
    return lambda *arguments: monkeypatch.setattr(sys, "argv", list(arguments))


def test_the_typed_command_is_quoted(typed, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__spec__", raising=False)
    arguments = ["-m", "lr=choice(1, 2)", "hydra.sweeper.trials=['a=1','b=$x']", "arms=['a','b']", "both=\"'"]
    typed("my programs/main.py", *arguments)
    text = command.command()
    assert shlex.split(text) == ["python", "my programs/main.py", *arguments]
    assert "\"arms=['a','b']\"" in text
    typed("joyful train", "seed=1")
    assert command.command() == "joyful train seed=1"
    typed("/bin/sweep_it", "seed=1")
    assert command.command() == "sweep_it seed=1"


def test_passwords_are_hidden(typed):
    typed("joyful train", "hydra.sweeper.storage=postgresql://me:secret@host/name", "data.root=s3://bucket/a@b")
    assert command.command() == (
        "joyful train hydra.sweeper.storage=postgresql://me:***@host/name data.root=s3://bucket/a@b"
    )


def test_a_dated_folder_is_named(typed):
    typed("joyful train", "-m", "seed=1,2")
    assert command.resuming_sweep("multirun/mine") == "joyful train -m seed=1,2"
    dated = "multirun/2026-01-31/12-00-00"
    again = f"joyful train -m seed=1,2 hydra.sweep.dir={dated}"
    assert command.resuming_sweep(dated) == again
    typed("joyful train", *again.split()[2:])
    assert command.resuming_sweep(dated) == again  # it is not named twice


@pytest.mark.parametrize("folder", ["runs/a", "my runs/a", "it's", "null", "a=b,c", "2026"])
def test_the_folder_of_a_run_is_read_back(typed, folder):
    typed("joyful train", "seed=1")
    *program, argument = shlex.split(command.resuming_run(folder))
    assert program == ["joyful", "train"]
    assert OverridesParser.create().parse_override(argument).value() == folder


def test_control_characters_do_not_reach_the_terminal(capsys):
    command.print_how_to_go_on("a\x1b[2J", "joyful train")
    assert capsys.readouterr().err == "joyful: folder: a\\x1b[2J\njoyful: to go on: joyful train\n"
