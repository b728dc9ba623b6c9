"""The page on what the weights do: its numbers follow from data whose effects are known."""

import re

import numpy as np
import pytest

from benchmarks.recorded import Recorded
from joyful.results import InputError
from study import explanation
from study import report as study_report
from study.report import rename_arms
from study.tables import FAIR_NOTE, Part
from tests.support.analysis import Truth, simulate_sweep
from tests.support.findings import findings_of

ENCODER, CONTRAST, GATE = explanation.WEIGHTS


def recorded(n, slopes, noise=0.0, rate=0.0):
    """Configurations with random weights, whose best dev F1 is 80 % plus the slopes times log10 of the weights."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(n):
        logs = rng.uniform(-3, 0, 3)
        log_rate = rng.uniform(-4, -2) if rate else -3.0
        f1 = 80 + logs @ np.array(slopes) - rate * (log_rate + 3) ** 2 + rng.normal(0, noise)
        settings = dict(zip(explanation.WEIGHTS, 10**logs, strict=True)) | {explanation.RATE: 10**log_rate}
        found.append(Recorded(settings, (0.1, f1 / 100)))
    return found


@pytest.mark.parametrize("rate", [0.0, 2.0], ids=["one learning rate", "random learning rates"])
def test_the_effect_of_a_weight_is_its_slope(rate):
    found = explanation.effects(recorded(20, (-0.1, -2.2, 0.3), rate=rate))
    for name, slope in zip((ENCODER, CONTRAST, GATE), (-0.1, -2.2, 0.3), strict=True):
        assert found[name] == pytest.approx((slope, slope, slope), abs=1e-6)


def test_an_interval_is_that_of_a_simple_regression_where_the_other_weights_do_nothing():
    """Against scipy.stats.linregress, which has one explaining variable."""
    from scipy import stats

    data = recorded(200, (0.0, -2.0, 0.0), noise=0.5)
    estimate, low, high = explanation.effects(data)[CONTRAST]
    simple = stats.linregress([np.log10(one.settings[CONTRAST]) for one in data], [100 * one.curve[-1] for one in data])
    assert estimate == pytest.approx(simple.slope, abs=0.05)
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 198) * simple.stderr, rel=0.05)


def test_shares_of_the_variance():
    assert explanation.explained(recorded(20, (-0.1, -2.2, 0.3))) == (pytest.approx(1.0), None)
    by_weights, by_rate = explanation.explained(recorded(300, (0.0, -1.0, 0.0), rate=5.0))
    variances = 0.75, 25 * 4 / 45  # of a uniform variable of width 3, and of 5 times its square for width 2
    assert by_weights == pytest.approx(variances[0] / sum(variances), abs=0.08)
    assert by_rate == pytest.approx(variances[1] / sum(variances), abs=0.08)


def test_the_figure_of_the_weights_names_both_effects():
    plot = explanation.weights(recorded(20, (-0.1, -2.2, 0.3)))
    assert "Ten times the encoder weight changes the best dev F1 by −0.1 points" in plot.finding
    assert "Ten times the contrast weight changes the best dev F1 by −2.2 points" in plot.finding
    encoder, contrast = plot.figure.axes[0].lines
    assert len(encoder.get_xdata()) == len(contrast.get_xdata()) == 20


@pytest.fixture(scope="module")
def note(tmp_path_factory):
    """A sweep like fair/note, in which an average halves the jitter and a lower contrast weight the time."""
    folder = tmp_path_factory.mktemp("note") / "sweep"
    arms = (
        Truth({"loss": "mse", "weights.encoder_loss_weight": 0.05}, tau=4.0, jitter=0.02),
        Truth({"loss": "smoothl1", "weights.encoder_loss_weight": 0.03}, tau=4.0, jitter=0.02),
        Truth({"training.moving_average": 0.98}, tau=4.0, jitter=0.005),
        Truth({"weights.cl_loss_weight": 0.025}, tau=2.0, jitter=0.02),
        Truth({"weights.cl_loss_weight": 0.025, "training.moving_average": 0.98}, tau=2.0, jitter=0.005),
    )
    simulate_sweep(folder, arms, range(201, 209), epochs=20)
    part = Part("fair_note_synthetic", "Synthetic", note=False, arms=FAIR_NOTE, fair=True)
    return part, rename_arms(findings_of(folder, study_report.FAIR_CLAIMS), part)


@pytest.mark.slow
def test_the_tables_of_the_note_have_the_effects_of_their_arm(note):
    part, findings = note
    for arm in (explanation.CONTRAST, explanation.AVERAGED):
        (line,) = explanation.note_table({part: findings}, arm).splitlines()[2:]
        title, speed, steadiness, _ = (cell.strip() for cell in line.strip("|").split("|"))
        assert title == "Synthetic"
        assert speed.endswith(", 8 pairs")
        faster, steadier = (float(re.match(r"[+−\d.]+", cell)[0].replace("−", "-")) for cell in (speed, steadiness))
        assert (faster > 50) == (arm == explanation.CONTRAST)
        assert (steadier > 50) == (arm == explanation.AVERAGED)


@pytest.mark.slow
def test_a_single_run_is_that_of_the_first_pair(note):
    _, findings = note
    plot = explanation.single_runs(findings, "x")
    default, averaged = (float(number) for number in re.findall(r"by ([\d.]+) points", plot.finding))
    assert default > 2 * averaged
    frame = findings.sweep.frame
    rows = frame[
        (frame["arm"] == "averaged") & (frame["seed"] == 201) & (frame["split"] == "dev") & (frame["epoch"] >= 5)
    ]
    assert plot.figure.axes[0].lines[1].get_ydata() == pytest.approx(100 * rows.sort_values("epoch")["f1_weighted"])


def test_a_page_without_a_place_for_a_part_is_refused(tmp_path):
    (tmp_path / "page.md").write_text("<!-- study: explain_shares --><!-- end of study: explain_shares -->")
    with pytest.raises(InputError, match="expected one pair of <!-- study: explain_weights -->"):
        study_report.insert(tmp_path / "page.md", {"explain_shares": "x", "explain_weights": "y"})
