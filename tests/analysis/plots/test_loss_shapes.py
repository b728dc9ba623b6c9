"""Figures of the loss functions: the curves agree with joyful.losses, and the files in docs/images are up to date."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from joyful.analysis.plots import loss_shapes
from joyful.config import check
from joyful.losses.classification import FocalLoss, NLLLoss
from joyful.losses.reconstruction import MSELoss, SmoothL1Loss
from tests.support.runs import compose_plain

IMAGES = Path(__file__).resolve().parents[3] / "docs" / "images"

RECONSTRUCTION = {"MSE": MSELoss(), "SmoothL1, beta 1": SmoothL1Loss(), "SmoothL1, beta 0.5": SmoothL1Loss(beta=0.5)}
CLASSIFICATION = {"nll": NLLLoss(), "focal, gamma 2": FocalLoss()}


def drawn(curves, panel, line):
    rows = curves[(curves["panel"] == panel) & (curves["line"] == line)]
    assert len(rows) > 50
    return rows["x"].to_numpy(), rows["y"].to_numpy()


def residuals(x, criterion):
    """Return the value of each element, and its derivative by autograd."""
    r = torch.tensor(x, requires_grad=True)
    values = criterion.elementwise(r, torch.zeros_like(r))
    values.sum().backward()
    return values.detach().numpy(), r.grad.numpy()


def test_all_losses_are_drawn():
    assert list(loss_shapes.RECONSTRUCTION) == list(RECONSTRUCTION)
    assert list(loss_shapes.CLASSIFICATION) == list(CLASSIFICATION)


@pytest.mark.parametrize("line", RECONSTRUCTION)
def test_reconstruction_curves_agree_with_joyful_losses(line):
    curves = loss_shapes.reconstruction_curves()
    x, value = drawn(curves, "value", line)
    _, gradient = drawn(curves, "gradient", line)
    expected = residuals(x, RECONSTRUCTION[line])
    np.testing.assert_allclose(value, expected[0], atol=1e-12)
    np.testing.assert_allclose(gradient, expected[1], atol=1e-12)


@pytest.mark.parametrize("line", loss_shapes.WEIGHTED)
def test_weighted_curves_agree_with_the_losses_times_the_weight(line):
    loss, weight = loss_shapes.WEIGHTED[line]
    curves = loss_shapes.reconstruction_curves()
    x, value = drawn(curves, "weighted value", line)
    _, gradient = drawn(curves, "weighted gradient", line)
    expected = residuals(x, RECONSTRUCTION[loss])
    np.testing.assert_allclose(value, weight * expected[0], atol=1e-12)
    np.testing.assert_allclose(gradient, weight * expected[1], atol=1e-12)


@pytest.mark.parametrize(
    ("line", "overrides"),
    [("0.05 MSE", ("loss=mse", "weights=baseline")), ("0.03 SmoothL1", ("loss=smoothl1", "weights=basic"))],
)
def test_the_two_configured_lines_have_the_configured_weights(line, overrides):
    settings = check(compose_plain(overrides)[0])
    assert loss_shapes.WEIGHTED[line][1] == settings.weights.encoder_loss_weight
    assert (settings.loss.name == "smoothl1") == ("SmoothL1" in loss_shapes.WEIGHTED[line][0])
    assert settings.loss.beta == 1.0


@pytest.mark.parametrize("line", CLASSIFICATION)
def test_classification_curves_agree_with_joyful_losses(line):
    curves = loss_shapes.classification_curves()
    x, value = drawn(curves, "value", line)
    _, gradient = drawn(curves, "gradient", line)
    p = torch.tensor(x)
    for k in range(0, len(x), 7):  # Three classes: the true class has p, the others share the rest unequally
        logits = torch.stack([p[k], 0.3 * (1 - p[k]), 0.7 * (1 - p[k])]).log()[None].requires_grad_()
        loss = CLASSIFICATION[line](logits, torch.tensor([0]))
        loss.backward()
        assert value[k] == pytest.approx(loss.item(), abs=1e-12)
        assert gradient[k] == pytest.approx(logits.grad[0, 0].item(), abs=1e-12)


def test_smooth_l1_is_half_of_mse_near_zero_and_its_derivative_is_bounded():
    r = np.linspace(-50, 50, 1001)
    value, slope = loss_shapes.smooth_l1(r)
    near = np.abs(r) < 1
    np.testing.assert_allclose(value[near], r[near] ** 2 / 2)
    assert np.abs(slope).max() == 1.0


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
        assert written[0] == committed[0], (
            f"docs/images/{name} is out of date: python -m joyful.analysis.plots.loss_shapes"
        )
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
