"""The example of a chat: from the export to a table, and from the table to a trained model."""

import csv
import subprocess
import sys

import pytest

from joyful.data.dialogues import default_settings, read_table
from tests.support.examples import EXAMPLES

CONVERT = EXAMPLES / "chat/convert.py"


def convert(*arguments):
    return subprocess.run([sys.executable, CONVERT, *arguments], capture_output=True, text=True)


def test_the_export_becomes_a_table(tmp_path):
    done = convert(EXAMPLES / "chat/export.txt", tmp_path / "chat.csv", "--labels", EXAMPLES / "chat/labels.csv")
    assert done.stdout == f"{tmp_path}/chat.csv: 64 messages in 12 dialogues, 52 with a label\n", done.stderr
    table = read_table(tmp_path / "chat.csv", default_settings())
    assert len(table) == 64
    assert set(table.speaker) == {"Mia", "Jonas", "Priya"}
    assert table.class_names() == ("anger", "joy", "neutral")
    assert sum(labels is not None for labels in table.labels) == 52
    assert table.text[7] == "They always do this, I am so tired of it.\nAnd then the line went dead."
    assert [len(rows) for rows in table.order()][:3] == [5, 6, 5]


@pytest.mark.parametrize(
    "lines",
    [
        ["1/5/26, 09:00 - Ann: Hi", "1/5/26, 09:01 - Bob: Oh: hi", "1/5/26, 10:02 - Ann: Later"],
        ["[01.05.2026, 09:00:00] Ann: Hi", "[01.05.2026, 09:01:00] Bob: Oh: hi", "[01.05.2026, 10:02:00] Ann: Later"],
        ["\u200e[2026-05-01, 09:00] Ann: Hi", "[2026-05-01, 09:01] Bob: Oh: hi", "[2026-05-01, 10:02] Ann: Later"],
    ],
)
def test_the_forms_of_messengers(tmp_path, lines):
    (tmp_path / "export.txt").write_text("\n".join(["1/5/26, 08:59 - Ann joined", *lines, "a second line"]), "utf-8")
    assert convert(tmp_path / "export.txt", tmp_path / "chat.csv").returncode == 0
    with (tmp_path / "chat.csv").open(newline="") as stream:
        rows = [list(row.values()) for row in csv.DictReader(stream)]
    assert rows == [
        ["1", "talk0001", "1", "Ann", "Hi", ""],
        ["2", "talk0001", "2", "Bob", "Oh: hi", ""],
        ["3", "talk0002", "1", "Ann", "Later\na second line", ""],
    ]


def test_a_file_that_is_no_export_is_refused(tmp_path):
    (tmp_path / "export.txt").write_text("hello\n")
    done = convert(tmp_path / "export.txt", tmp_path / "chat.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "expected lines such as [02/03/2026, 08:14:00] Mia: Hello, got none" in done.stderr


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            "message;label\n1;joy\n",
            "expected the columns message and label with a comma between them, got ['message;label']",
        ),
        ("message,label\n1,joy\n99,joy\n", "expected message numbers from 1 to 64, got 99"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, message):
    (tmp_path / "labels.csv").write_text(labels)
    done = convert(EXAMPLES / "chat/export.txt", tmp_path / "chat.csv", "--labels", tmp_path / "labels.csv")
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/labels.csv: {message}\n")
