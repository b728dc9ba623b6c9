"""Figures of the loss functions: the curves have the losses' formulas, and the files in docs/images are up to date."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from joyful.config import check
from study import loss_shapes
from tests.support.runs import compose_plain

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def drawn(curves, panel, line):
    rows = curves[(curves["panel"] == panel) & (curves["line"] == line)]
    assert len(rows) > 50
    return rows["x"].to_numpy(), rows["y"].to_numpy()


@pytest.mark.parametrize(("line", "beta"), [("MSE", None), ("SmoothL1, beta 1", 1.0), ("SmoothL1, beta 0.5", 0.5)])
def test_reconstruction_curves_by_formula(line, beta):
    curves = loss_shapes.reconstruction_curves()
    x, value = drawn(curves, "value", line)
    _, gradient = drawn(curves, "gradient", line)
    if beta is None:
        expected = x**2, 2 * x
    else:
        expected = np.where(abs(x) < beta, x**2 / (2 * beta), abs(x) - beta / 2), np.clip(x / beta, -1, 1)
    np.testing.assert_allclose(value, expected[0], atol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-12)


@pytest.mark.parametrize("line", loss_shapes.WEIGHTED)
def test_weighted_curves_are_the_losses_times_the_weight(line):
    loss, weight = loss_shapes.WEIGHTED[line]
    curves = loss_shapes.reconstruction_curves()
    for panel in ("value", "gradient"):
        _, weighted = drawn(curves, f"weighted {panel}", line)
        np.testing.assert_allclose(weighted, weight * drawn(curves, panel, loss)[1], atol=1e-12)


@pytest.mark.parametrize(
    ("line", "overrides"),
    [("0.05 MSE", ("loss=mse", "weights=baseline")), ("0.03 SmoothL1", ("loss=smoothl1", "weights=basic"))],
)
def test_the_two_configured_lines_have_the_configured_weights(line, overrides):
    settings = check(compose_plain(overrides)[0])
    assert loss_shapes.WEIGHTED[line][1] == settings.weights.encoder_loss_weight
    assert (settings.loss.name == "smoothl1") == ("SmoothL1" in loss_shapes.WEIGHTED[line][0])
    assert settings.loss.beta == 1.0


@pytest.mark.parametrize(("line", "gamma"), [("nll", 0.0), ("focal, gamma 2", 2.0)])
def test_classification_curves_by_formula(line, gamma):
    curves = loss_shapes.classification_curves()
    p, value = drawn(curves, "value", line)
    _, gradient = drawn(curves, "gradient", line)
    rest = (1 - p) ** gamma
    np.testing.assert_allclose(value, -rest * np.log(p), rtol=1e-6)  # Lin et al. 2017
    np.testing.assert_allclose(gradient, rest * (gamma * p * np.log(p) - (1 - p)), rtol=1e-6, atol=1e-9)


NUMBER = r"-?\d+\.?\d*(?:e-?\d+)?"


def skeleton(text):
    """Return the tags, texts and paths without numbers, and the numbers. Ids are ignored, because they are digests."""
    root = ET.fromstring(text)
    shape, numbers = [], []
    for node in root.iter():
        path = node.get("d", "")
        shape.append((node.tag, (node.text or "").strip(), node.get("style"), re.sub(NUMBER, "#", path).split()))
        numbers += map(float, re.findall(NUMBER, path))
    return shape, np.array(numbers)


def test_the_committed_files_are_up_to_date(tmp_path, capsys):
    assert loss_shapes.main(["--out", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(loss_shapes.plots())
    assert [Path(line).name for line in capsys.readouterr().out.split()] == list(loss_shapes.plots())
    for name in names:
        written, committed = (skeleton((folder / name).read_text()) for folder in (tmp_path, IMAGES))
        assert written[0] == committed[0], f"docs/images/{name} is out of date: python -m study.loss_shapes"
        np.testing.assert_allclose(written[1], committed[1], atol=0.01)
        assert (IMAGES / name).stat().st_size < 200_000


def test_a_file_needs_no_page(tmp_path):
    """The file defines every colour variable and has no external reference."""
    loss_shapes.main(["--out", str(tmp_path)])
    for path in tmp_path.iterdir():
        text = path.read_text()
        used, defined = set(re.findall(r"var\(--([\w-]+)\)", text)), set(re.findall(r"--([\w-]+):#", text))
        assert used
        assert used <= defined
        assert set(re.findall(r'https?://[^" ]+', text)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_a_folder_that_cannot_be_created_gives_a_one_line_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert loss_shapes.main(["--out", str(tmp_path / "file" / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
