"""The notebooks: their form, what each step shows, and their pages in docs/notebooks/."""

import copy
import re
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest

from tests.support import notebooks
from tests.support.notebooks import CURVES, NOTEBOOKS, PAGES, SHOWN_ON

OTHERS = pytest.mark.soak("takes 7 s; one notebook of four runs in make test")


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def test_names():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN_ON)
    assert {path.stem for path in PAGES.glob("*.md")} == {*SHOWN_ON, "index"}


@pytest.mark.parametrize("name", SHOWN_ON)
def test_form_and_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert list(notebooks.faults(notebook)) == []
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def change(number: int, **values: object):
    def apply(notebook: nbformat.NotebookNode) -> None:
        notebook.cells[number].update(values)

    return apply


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda notebook: notebook.cells.pop(4), "expected a title"),
        (lambda notebook: notebook.cells.insert(2, notebook.cells.pop(3)), "cell 2: expected markdown, got code"),
        (change(2, source="## Title\n\nOne. Two `a.b. c`. Three?"), "cell 2: expected 1 to 2 sentences, got 3"),
        (change(2, source="## Title"), "cell 2: expected 1 to 2 sentences, got 0"),
        (change(2, source="No title.\n\nOne."), "cell 2: expected a heading"),
        (change(0, source="# Title\n\nOne. Two."), "cell 0: expected 1 to 1 sentences, got 2"),
        (change(1, metadata={}), "cell 1: expected the tag"),
        (change(5, metadata={"tags": ["parameters"]}), "cell 5: expected the tag"),
        (change(5, source="\n".join("abcdefg")), "cell 5: expected at most 6 lines, got 7"),
    ],
)
def test_a_spoilt_form_is_found(spoil, expected):
    notebook = copy.deepcopy(read("convergence"))
    spoil(notebook)
    assert any(fault.startswith(expected) for fault in notebooks.faults(notebook)), list(notebooks.faults(notebook))


def test_outputs_that_are_missing_are_found():
    notebook = copy.deepcopy(read("convergence"))
    table = nbformat.v4.new_output("display_data", {"text/html": "<table></table>"})
    for cell in notebook.cells[3::2]:
        cell.outputs = [table]
    assert list(notebooks.unshown(notebook)) == []
    notebook.cells[3].outputs = []
    notebook.cells[5].outputs = [table, table]
    notebook.cells[7].outputs = [table, nbformat.v4.new_output("stream", name="stderr", text="careful")]
    assert [fault.partition(":")[0] for fault in notebooks.unshown(notebook)] == ["cell 3", "cell 5", "cell 7"]


@pytest.mark.parametrize("name", SHOWN_ON)
def test_the_page_has_the_text_and_the_code_of_the_notebook(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert re.findall(r"```py\n(.*?)\n```", text, re.S) == [cell.source for cell in read(name).cells[1::2]]
    for cell in read(name).cells[::2]:
        assert f"{cell.source}\n" in text


def test_the_pictures_of_the_pages_are_there_and_small():
    named = {
        picture
        for page in PAGES.glob("*.md")
        for picture in re.findall(r'src="images/([^"]+)"', page.read_text("utf-8"))
    }
    files = {path.name: path.stat().st_size for path in (PAGES / "images").iterdir()}
    assert set(files) == named
    assert max(files.values()) < notebooks.MAXIMUM_BYTES


def test_the_file_of_curves_is_the_made_up_one():
    assert CURVES.read_text() == notebooks.made_up_curves(), "run python -m tests.support.notebooks"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "convergence" else pytest.param(name, marks=OTHERS) for name in SHOWN_ON]
)
def test_each_step_shows_what_the_page_shows(name, tmp_path):
    executed = notebooks.execute(name, tmp_path)
    assert list(notebooks.unshown(executed)) == []
    text, pictures = notebooks.page(name, executed)
    assert text == (PAGES / f"{name}.md").read_text("utf-8"), "run python -m tests.support.notebooks"
    assert len(pictures) >= 4
    assert {path.name for path in (PAGES / "images").glob(f"{name}-*.png")} == set(pictures)


@pytest.mark.slow
@pytest.mark.soak("takes 7 s; tests/analysis judges such columns")
def test_curves_of_another_kind_are_judged(tmp_path):
    """A column without a known direction, of which less is better, in a file with the epoch and the split as columns."""
    rng, lines = np.random.default_rng(3), ["arm,seed,epoch,split,wer"]
    for seed in range(1, 8):
        luck = rng.normal()
        for arm, floor in (("long", 18.0), ("short", 15.0)):
            values = floor + 0.3 * luck + 60 * np.exp(-np.arange(1, 13) / 3) + 0.1 * rng.normal(size=12)
            lines += [f"{arm},{seed},{epoch},dev,{value:.3f}" for epoch, value in enumerate(values, start=1)]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    parameters = {
        "curves_file": "mine.csv", "runs_folder": "mine", "baseline": "long", "column": "wer", "better": "lower",
        "at_the_end": {"at_least": 2, "unit": "absolute", "direction": "decrease"}, "other_target": 25,
    }  # fmt: skip
    source = Path(NOTEBOOKS / "anybodys_curves.ipynb")
    executed = papermill.execute_notebook(
        str(source), str(tmp_path / "out.ipynb"), parameters, cwd=tmp_path, progress_bar=False
    )
    assert list(notebooks.unshown(executed)) == []
    assert len([path for path in (tmp_path / "mine").iterdir() if path.is_dir()]) == 14
    text, _ = notebooks.page("anybodys_curves", executed)
    assert "lower as claimed" in text
    assert "epochs to the target of dev wer" in text
