"""Commands and imports under the names that version 0.1 and the note use."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.small_files import curves_table

ROOT = Path(__file__).resolve().parents[1]


def call(*arguments, cwd=ROOT):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("module", "program"),
    [
        ("analysis.report", "joyful report"),
        ("analysis.importers", "joyful import"),
        ("joyful.sweeper", "joyful sweep"),
        ("joyful.data.prepare", "joyful prepare"),
    ],
)
def test_commands_of_version_0_1(module, program):
    done = call("-m", module, "--help")
    assert done.returncode == 0, done.stderr
    assert program in done.stdout


def test_curves_are_imported_and_reported_by_the_earlier_commands(tmp_path):
    (tmp_path / "curves.csv").write_bytes(curves_table())
    for arguments in (
        ("analysis.importers", "csv", "curves.csv", "--out", "runs"),
        ("analysis.report", "runs", "--baseline", "arm=old"),
    ):
        done = call("-m", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/report/index.html").is_file()


@pytest.mark.parametrize(
    ("module", "name", "home"),
    [
        ("joyful.coach", "Coach", "joyful.training.coach"),
        ("joyful.fusion_methods", "AutoFusion", "joyful.model.joyful"),
        ("joyful.fusion_methods_hierarchical", "AutoFusion_Hierarchical", "joyful.model.joyful"),
        ("joyful.loss_utils", "create_reconstruction_loss", "joyful.losses.reconstruction"),
    ],
)
def test_imports_that_the_note_names(module, name, home):
    assert getattr(importlib.import_module(module), name) is getattr(importlib.import_module(home), name)
