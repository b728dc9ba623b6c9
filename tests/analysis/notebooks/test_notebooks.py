"""The notebooks run with a sweep folder as parameter, and are committed without outputs."""

from pathlib import Path

import nbformat
import papermill
import pytest

from tests.support.analysis import NOTE_ARMS, Truth, simulate_sweep

ROOT = Path(__file__).resolve().parents[3]
NOTEBOOKS = sorted((ROOT / "analysis" / "notebooks").glob("*.ipynb"))


def test_names():
    assert [path.stem for path in NOTEBOOKS] == ["convergence", "stability", "weight_sweep"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])] == cells[:1]
    assert 'sweep_folder = "multirun/NAME"' in cells[0].source


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sweeps")
    simulate_sweep(folder / "note", NOTE_ARMS, range(1, 7), epochs=8)
    grid = [Truth({"loss": "mse", "weights.encoder_loss_weight": weight}) for weight in (0.05, 0.01, 0.1)]
    simulate_sweep(folder / "grid", grid, range(1, 4), epochs=6)
    return {"convergence": folder / "note", "stability": folder / "note", "weight_sweep": folder / "grid"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_a_folder(path, sweeps, tmp_path):
    executed = papermill.execute_notebook(
        str(path), str(tmp_path / "out.ipynb"), {"sweep_folder": str(sweeps[path.stem])}, cwd=ROOT, progress_bar=False
    )
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [
        output for output in outputs if output.output_type in ("error", "stream") and output.get("name") != "stdout"
    ]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    tables = [output for output in outputs if "text/html" in output.get("data", {})]
    assert len(pictures) >= 2
    assert tables
