"""The notebooks as pages of the documentation site: their text, their code, and what each step shows.

    python -m tests.support.notebooks

It runs each notebook on finished runs, writes docs/notebooks/NAME.md and the pictures, and the made-up file of curves that
`anybodys_curves` reads. Run it after a change to a notebook or to what it shows. The tests compare the pages with the notebooks.
"""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import papermill  # type: ignore[import-untyped]

from study.archive import unpack

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS, PAGES = ROOT / "analysis/notebooks", ROOT / "docs/notebooks"
CURVES = NOTEBOOKS / "curves.csv"

#: Notebook -> the archive of the study on which it is shown. None: it reads a file of its own.
SHOWN_ON = {"convergence": "reference", "stability": "reference", "weight_sweep": "synthetic", "anybodys_curves": None}

#: Largest number of sentences of a step, and of lines of a code cell.
MOST_SENTENCES, MOST_LINES = 2, 6

#: Largest size of a picture in bytes.
MAXIMUM_BYTES = 60_000


def execute(name: str, folder: Path) -> Any:
    """Run a notebook in a folder, in which the runs of its archive are unpacked, and return it with its outputs."""
    archive, parameters = SHOWN_ON[name], {}
    if archive is not None:
        sweep = folder / "multirun" / archive
        if not sweep.exists():
            unpack(ROOT / f"study/archives/{archive}.parquet", sweep)
        parameters = {"sweep_folder": f"multirun/{archive}"}
    shutil.copy(CURVES, folder)
    source, target = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
    return papermill.execute_notebook(str(source), str(target), parameters, cwd=folder, progress_bar=False)


def cells(notebook: Any) -> list[Any]:
    """Return the cells of a notebook without the one that papermill adds for the parameters."""
    return [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]


def page(name: str, notebook: Any) -> tuple[str, dict[str, bytes]]:
    """Return the page of an executed notebook as Markdown, and its pictures by file name."""
    title, *rest = cells(notebook)
    pictures: dict[str, bytes] = {}
    parts = [title.source, _origin(name)]
    for cell in rest:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```py\n{cell.source}\n```")
        for output in cell.outputs:
            parts += _output(output, f"{name}-{len(pictures) + 1}.png", pictures)
    return "\n\n".join(parts) + "\n", pictures


def _origin(name: str) -> str:
    archive = SHOWN_ON[name]
    runs = (
        f"the runs of `study/archives/{archive}.parquet`"
        if archive
        else f"`{CURVES.relative_to(ROOT)}`, which is made up"
    )
    return f"This is `analysis/notebooks/{name}.ipynb`, shown on {runs}. [How to run it](index.md)."


def _output(output: Any, name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        pictures[name] = base64.b64decode(data["image/png"])
        yield re.sub(r'src="data:image/png;base64,[^"]*"', f'src="images/{name}"', data["text/html"])
    elif "text/html" in data:
        table = re.search(r"<table.*</table>", data["text/html"], re.DOTALL)
        assert table is not None, data["text/html"]
        yield re.sub(r"<table[^>]*>", "<table>", re.sub(r'<tr style="[^"]*">', "<tr>", table[0]))
    else:
        yield f"```text\n{(data.get('text/plain') or output['text']).strip()}\n```"


def faults(notebook: Any) -> Iterator[str]:
    """Yield what keeps a notebook from being a title, a cell of parameters and steps of one text and one code cell each."""
    found = cells(notebook)
    if len(found) < 4 or len(found) % 2:
        yield f"expected a title, parameters and pairs of cells, got {len(found)} cells"
    for number, cell in enumerate(found):
        kind = "code" if number % 2 else "markdown"
        if cell.cell_type != kind:
            yield f"cell {number}: expected {kind}, got {cell.cell_type}"
        elif kind == "markdown":
            head, _, text = cell.source.partition("\n\n")
            most = MOST_SENTENCES if number else 1
            if not re.fullmatch(r"## .+" if number else r"# .+", head):
                yield f"cell {number}: expected a heading, got {head!r}"
            if not 1 <= sentences(text) <= most:
                yield f"cell {number}: expected 1 to {most} sentences, got {sentences(text)}"
        elif ("parameters" in cell.metadata.get("tags", [])) != (number == 1):
            yield f"cell {number}: expected the tag parameters on cell 1 and on no other"
        elif number > 1 and len(lines := [line for line in cell.source.splitlines() if line.strip()]) > MOST_LINES:
            yield f"cell {number}: expected at most {MOST_LINES} lines, got {len(lines)}"


def unshown(executed: Any) -> Iterator[str]:
    """Yield the code cells of an executed notebook that do not show exactly one picture or table, or that complain."""
    for number, cell in enumerate(cells(executed)):
        if cell.cell_type != "code" or number == 1:
            continue
        shown = [output for output in cell.outputs if "text/html" in output.get("data", {})]
        if len(shown) != 1:
            yield f"cell {number}: expected one picture or table, got {len(shown)}"
        if any(output.output_type == "error" or output.get("name") == "stderr" for output in cell.outputs):
            yield f"cell {number}: an error or a warning"


def sentences(text: str) -> int:
    """Return the number of sentences of a text, whose last one ends with a full stop or a question mark."""
    return len(re.findall(r"[.?!](?=\s|$)", re.sub(r"`[^`]*`", "", text)))


def made_up_curves() -> str:
    """Return curves of two arms, old and new, of which the new one is faster and ends a little higher."""
    lines = ["arm,seed,step,val_accuracy,train_loss"]
    for seed in range(1, 9):
        shared = np.random.default_rng([5, seed]).normal(size=2)
        for number, (arm, pace, height) in enumerate((("old", 450, 0.74), ("new", 360, 0.75))):
            own = np.random.default_rng([5, seed, number])
            pace, height = pace * np.exp(0.08 * shared[0]), height + 0.01 * shared[1] + 0.003 * own.normal()
            for step in range(100, 2001, 100):
                share = 1 - np.exp(-step / pace)
                accuracy, loss = height * share + 0.004 * own.normal(), 0.4 + 1.8 * (1 - share) + 0.02 * own.normal()
                lines.append(f"{arm},{seed},{step},{accuracy:.4f},{loss:.3f}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the file of curves, the pages and the pictures."""
    CURVES.write_text(made_up_curves())
    shutil.rmtree(PAGES / "images", ignore_errors=True)
    (PAGES / "images").mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in SHOWN_ON:
            text, pictures = page(name, execute(name, Path(folder)))
            (PAGES / f"{name}.md").write_text(text)
            for file, data in pictures.items():
                assert len(data) < MAXIMUM_BYTES, f"{file}: expected less than {MAXIMUM_BYTES} bytes, got {len(data)}"
                (PAGES / "images" / file).write_bytes(data)
            print(f"docs/notebooks/{name}.md: {len(pictures)} pictures, {sum(map(len, pictures.values())) // 1000} kB")


if __name__ == "__main__":
    main()
