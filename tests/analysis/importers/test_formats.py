"""The formats of `joyful import`: their help, a wrong name, and a format that another package registers."""

import argparse
import json
import re
from pathlib import Path

import pytest

from joyful.analysis import importers
from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.__main__ import main
from joyful.analysis.importers.runs import ImportedRun
from joyful.results import InputError, load

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "IMPORTING.md"


def test_every_module_that_reads_a_source_registers_a_format():
    folder = Path(importers.__file__).parent
    lines = [re.findall(r'^FORMATS.register\("(\w+)"', path.read_text(), re.MULTILINE) for path in folder.glob("*.py")]
    assert sorted(name for names in lines for name in names) == sorted(FORMATS)


def test_every_format_has_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = " ".join(capsys.readouterr().out.split())
    for name, summary in FORMATS.summaries().items():
        assert f"{name} {summary}" in listed
        with pytest.raises(SystemExit) as raised:
            main([name, "--help"])
        assert raised.value.code == 0
        out = capsys.readouterr().out
        assert "--out FOLDER" in out
        assert FORMATS[name].help.strip().splitlines()[-1] in out
        assert "--seed-from REGEX" in out
        # tests/test_docs.py runs the commands of this page
        example = FORMATS[name].help.partition("\nexample\n")[2].replace("\\\n", " ")
        assert " ".join(example.split()) in DOCUMENT.read_text().splitlines()


@pytest.mark.parametrize(("given", "hint"), [("cvs", "; did you mean csv?"), ("parquet", "")])
def test_a_wrong_format_names_the_nearest(capsys, given, hint):
    with pytest.raises(SystemExit) as raised:
        main([given, "curves.csv", "--out", "runs"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        f"joyful import: format: expected one of {', '.join(FORMATS)}, got '{given}'{hint} (joyful import --help)\n"
    )


def test_without_a_format(capsys):
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "the following arguments are required: FORMAT" in capsys.readouterr().err


@pytest.fixture
def json_lines(monkeypatch):
    """A format of one JSON object per line, registered as another package does."""
    monkeypatch.setattr(FORMATS, "_members", dict(FORMATS._members))
    monkeypatch.setattr(FORMATS, "_summaries", dict(FORMATS._summaries))

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--scale", type=float, default=1.0, help="factor of the values")

    def read(source: Path, options: Options) -> list[ImportedRun]:
        runs = []
        for line in source.read_text().splitlines():
            seed, arm, values = json.loads(line)
            if not values:
                raise InputError(f"{source}: expected values of seed {seed}, got none")
            run = ImportedRun(source.name, [source], arm=arm, seed=seed)
            column = options.column("nll", "dev")
            for number, value in enumerate(values, start=1):
                run.put(run.row(line=1, step=number, epoch=number), column, value * options.arguments.scale)
            runs.append(run)
        return runs

    FORMATS.register("lines", "one JSON list per line")(Importer("Import JSON lines.", read, add_arguments))


def test_a_made_up_format_is_imported(json_lines, tmp_path, capsys):
    source = tmp_path / "curves.jsonl"
    source.write_text('[1, "a", [3, 2]]\n[1, "b", [2, 1]]\n')
    assert main(["lines", str(source), "--out", str(tmp_path / "runs"), "--scale", "0.5"]) == 0
    assert "2 runs of 2 arms in" in capsys.readouterr().out
    assert load(tmp_path / "runs").groupby("arm", observed=True).nll.apply(list).to_dict() == {
        "a": [1.5, 1],
        "b": [1, 0.5],
    }
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "one JSON list per line" in capsys.readouterr().out
    source.write_text('[1, "a", []]\n')
    assert main(["lines", str(source), "--out", str(tmp_path / "other")]) == 2
    assert "expected values of seed 1, got none" in capsys.readouterr().err
