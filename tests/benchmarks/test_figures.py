"""Figures, their printed lines, and the JSON file, which holds the same figures and nothing private."""

import json
import socket

import pytest

from benchmarks import figures
from benchmarks.figures import Figure, against, figure, report


def test_a_ratio_is_the_quotient():
    step = figure("step", 3.0, "s", 12.0, "the peer's")
    assert step == Figure("step", 3.0, "s", 0.25, "the peer's")
    assert against("twice", 6.0, step) == Figure("twice", 6.0, "s", 2.0, "step")


def test_nothing_to_compare_with_is_an_error():
    with pytest.raises(ValueError, match=r"step: expected a reference value other than 0, got 0 for rows; measure"):
        figure("step", 3.0, "s", 0.0, "rows")


def test_numbers_keep_four_digits_or_are_whole():
    assert " 3,000,000 rows " in figure("rows", 3_000_000, "rows", 1.0, "x").line()
    assert figure("rows", 9.0, "rows", 4.0, "x").line().endswith(" 2.25 of x")
    assert "0.01235 s" in figure("a", 0.0123456, "s", 1.0, "x").line()


def test_the_file_says_what_was_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "processor_name", lambda: "Abacus 3")
    report("title", [figure("a", 1.0, "s", 2.0, "b")], {"repeats": 5}, tmp_path / "f.json", ["no b"], threads=7)
    document = json.loads((tmp_path / "f.json").read_text())
    assert document["repeats"] == 5
    assert document["figures"] == [{"name": "a", "value": 1.0, "unit": "s", "ratio": 0.5, "to": "b"}]
    assert document["machine"]["processor"] == "Abacus 3"
    assert document["machine"]["threads"] == 7
    assert document["machine"]["torch"].startswith("2.")
    title, line, note = capsys.readouterr().out.splitlines()
    assert title.startswith("title; Abacus 3, 7 threads, load before ")
    assert line == figure("a", 1.0, "s", 2.0, "b").line()
    assert note == "note: no b"
    written = json.dumps(document)
    assert socket.gethostname() not in written
    assert str(tmp_path) not in written


def test_bfloat16_is_for_processors_that_have_it(monkeypatch):
    for text, expected in (
        ("model name\t: A\nflags\t\t: fpu avx2 avx512f\n", False),
        ("model name\t: A\nflags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: amx_tile amx_bf16\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("", False),
    ):
        monkeypatch.setattr(figures.Path, "read_text", lambda *_, text=text, **__: text)
        assert figures.multiplies_bfloat16() is expected, text
    assert figures.processor_name()
