"""Figures: the drawn values and the descriptions agree with the frames."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from joyful.analysis import plots
from joyful.analysis.claims import Verdict
from joyful.analysis.claims_file import Claim
from joyful.analysis.measures import Metric
from joyful.analysis.plots import gradient_ratio, study
from joyful.analysis.plots.rows import MOST_ROWS
from joyful.analysis.statistics import UNKNOWN, Estimate

ARMS = ["base", "new"]
METRIC = Metric("time_to_target", "dev", "f1_weighted")
CLAIM = Claim("convergence_speed", "Faster.", (METRIC,), 15, 25, "percent", "increase")
SCALE = METRIC.scale("percent", "increase")


def exact(*effects: float, metric: Metric = METRIC) -> pd.DataFrame:
    """Differences of pairs with these effects in per cent."""
    d = [metric.scale("percent", "increase").difference(effect) for effect in effects]
    return pd.DataFrame({"low": d, "high": d}, index=range(1, len(d) + 1))


VERDICT = Verdict(
    CLAIM, METRIC, "new", "base", exact(18, 20, 22), mean=Estimate(20.0, 16.0, 24.0).map(SCALE.difference)
)


def lines(plot: plots.Plot) -> list[tuple[list[float], list[float]]]:
    axes = plot.figure.axes[0]
    return [
        (np.asarray(x, float).tolist(), np.asarray(y, float).tolist()) for x, y in (li.get_data() for li in axes.lines)
    ]


def labels(plot: plots.Plot) -> list[str]:
    axes = plot.figure.axes[0]
    return [text.get_text() for text in axes.texts]


def band(**values: list[float]) -> pd.DataFrame:
    rows = [
        {"arm": arm, "x": float(e), "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 4}
        for arm, means in values.items()
        for e, mean in enumerate(means, start=1)
    ]
    return pd.DataFrame(rows)


def test_learning_curves():
    plot = plots.learning_curves(
        band(base=[0.3, 0.5], new=[0.4, 0.6]), ARMS, name="f1", quantity="dev F1", scale=100, unit="%", target=0.55
    )
    drawn = lines(plot)
    assert ([1, 2], pytest.approx([30, 50])) in drawn
    assert ([1, 2], pytest.approx([40, 60])) in drawn
    assert any(y == pytest.approx([55, 55]) for _, y in drawn)
    assert "base ends at 50.0 (95 % interval 40.0 to 60.0, 4 seeds); new ends at 60.0" in plot.finding
    assert plot.title == "Dev F1 (%) over training"
    assert [text.get_text() for text in plot.figure.axes[0].get_legend().get_texts()] == ARMS


def test_learning_curves_of_many_arms_describe_the_extremes():
    values = {f"arm {i}": [0.1 * i] for i in range(1, 8)}
    plot = plots.learning_curves(band(**values), list(values), name="x", quantity="q")
    assert plot.finding.startswith("highest: arm 7 ends at 0.700")
    assert "lowest: arm 1 ends at 0.100" in plot.finding


def test_learning_curves_skip_missing_values():
    frame = band(base=[0.3, math.nan, 0.5], new=[math.nan] * 3)
    plot = plots.learning_curves(frame, ARMS, name="x", quantity="q")
    assert ([1, 3], [0.3, 0.5]) in lines(plot)
    assert "new" not in plot.finding


def test_forest_shows_interval_pairs_claim_and_minimum_detectable_effect():
    plot = plots.forest([VERDICT], "forest", ARMS)
    drawn = lines(plot)
    assert any(x == pytest.approx([16, 24]) and y[0] == y[1] for x, y in drawn if len(x) == 2)
    assert any(x == pytest.approx([20]) for x, _ in drawn if len(x) == 1)
    assert any(x == pytest.approx([18, 20, 22]) for x, _ in drawn if len(x) == 3)
    spans = [patch.get_extents().get_points()[:, 0] for patch in plot.figure.axes[0].patches]
    claimed = plot.figure.axes[0].transData.inverted().transform([(x, 0) for x in spans[0]])[:, 0]
    assert claimed == pytest.approx([15, 25])
    assert labels(plot) == ["epochs to the target of dev weighted F1", "supported"]
    assert plot.finding == (
        "epochs to the target of dev weighted F1: +20.0 %, 95 % interval 16.0 to 24.0 %, supported; "
        "claimed 15 to 25 % increase."
    )


def test_forest_bounds_the_axis_with_a_wide_interval():
    wide = replace(
        VERDICT,
        mean=Estimate(0.2, -20.0, 20.0),
        differences=pd.DataFrame({"low": [-20.0, 20.0]}).assign(high=lambda table: table["low"]),
    )
    assert wide.pairs[1] > 1e6 < wide.minimum_detectable
    low, high = plots.forest([wide], "forest", ARMS).figure.axes[0].get_xlim()
    assert -200 < low < 0 < 25 < high < 200


def test_forest_ends_an_interval_without_a_limit_in_an_arrow():
    unbounded = replace(VERDICT, mean=Estimate(0.2, 0.1, math.inf), differences=exact(18, 20))
    plot = plots.forest([unbounded], "forest", ARMS)
    assert [line.get_marker() for line in plot.figure.axes[0].lines if line.get_marker() in "<>"] == [">"]
    assert "95 % interval 10.5 % or more" in plot.finding


def test_forest_writes_an_effect_beyond_the_axis_at_its_edge():
    metric = Metric("spread", "dev", "f1_weighted")
    mean = Estimate(-517.0, -600.0, -434.0).map(metric.scale("percent", "increase").difference)
    far = replace(VERDICT, metric=metric, mean=mean, differences=exact(-600.0, 22.14, metric=metric))
    plot = plots.forest([far], "forest", ARMS)
    low, _ = plot.figure.axes[0].get_xlim()
    assert low > -200
    assert labels(plot)[0] == "−517.0 %"
    drawn = [x for line, _ in lines(plot) for x in line]
    assert pytest.approx(22.14, abs=0.01) in drawn  # the pair within the axis
    assert min(drawn) >= min(low, -434.0)
    assert not [line for line in plot.figure.axes[0].lines if line.get_marker() == "D"]


def test_forest_of_an_untestable_claim_without_upper_edge():
    untestable = replace(VERDICT, mean=UNKNOWN, reason="units differ", claim=replace(CLAIM, upper=math.inf))
    plot = plots.forest([replace(VERDICT, claim=untestable.claim), untestable], "forest", ARMS)
    assert labels(plot)[-1] == "not testable"
    assert "not testable; claimed 15 % increase or more" in plot.finding
    assert plot.svg()


def test_forest_of_many_arms_is_labelled_by_arm_and_bounded():
    means = [Estimate(float(i), 16.0, 24.0).map(SCALE.difference) for i in range(MOST_ROWS + 6)]
    many = [replace(VERDICT, arm=f"arm {i}", mean=mean) for i, mean in enumerate(means)]
    plot = plots.forest(many, "forest", ["base", *(v.arm for v in many)])
    assert labels(plot)[:2] == ["arm 0", "arm 1"]
    assert len(labels(plot)) == 2 * MOST_ROWS
    assert "30 of 30 supported; largest effect, arm 29: +29.0 %" in plot.finding
    assert f"the first {MOST_ROWS} rows are drawn" in plot.finding


def test_time_to_target_steps_and_censoring():
    survival = pd.DataFrame(
        {
            "arm": ["base", "base", "new"], "x": [2.0, 4.0, 3.0], "reached": [0.5, 0.5, 1.0],
            "low": [0.1, 0.1, math.nan], "high": [0.9, 0.9, math.nan], "at_risk": [2, 1, 2], "censored": [0, 1, 0],
        }
    )  # fmt: skip
    rates = pd.DataFrame({"n": [2, 2], "reached": [1, 2], "rate": [0.5, 1.0]}, index=ARMS)
    plot = plots.time_to_target(survival, rates, ARMS, name="t", target="0.6", end=4)
    drawn = lines(plot)
    assert ([0, 2, 4, 4], [0, 50, 50, 50]) in drawn
    assert ([0, 3, 4], [0, 100, 100]) in drawn
    assert ([4], [50]) in drawn  # The censored run
    assert "base: 1 of 2 runs reached the target (50 %), median 2.00 epochs" in plot.finding


def test_strips_join_pairs_and_show_the_mean():
    index = pd.MultiIndex.from_product([ARMS, [1, 2]], names=["arm", "seed"])
    values = pd.Series([1.0, 4.0, 2.0, 8.0], index=index)
    plot = plots.strips(values, ARMS, name="s", title="T", axis="points", geometric=True)
    drawn = lines(plot)
    assert any(x == [1, 2] and y[0] != y[1] for x, y in drawn)  # Seed 1 of both arms
    assert any(x == [1, 4] and y[0] == y[1] for x, y in drawn)  # Dots of base
    assert any(x == pytest.approx([2]) for x, _ in drawn)  # sqrt(1 · 4)
    assert "new: geometric mean 4 over 2 runs" in plot.finding


def test_shares():
    bands = {"classification": band(base=[0.9, 0.8]), "encoder": band(base=[0.002, 0.001])}
    plot = plots.shares(bands, "base", "shares")
    assert ([1, 2], pytest.approx([0.2, 0.1])) in lines(plot)
    assert (
        "reconstruction 0.1 % at the end, 0.2 % on average" in plot.finding
    )  # (0.2 + 0.1) / 2 = 0.15, rounded to even
    assert plots.shares({}, "base", "none").finding == "base: nothing was measured."


def gradient_ratio_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "arm": ARMS, "x": [1.0, 1.0], "n": [3, 3], "ratio": [0.05, 0.01], "ratio_low": [0.04, 0.008],
            "ratio_high": [0.06, 0.012], "cosine": [0.1, -0.1], "cosine_low": [0.0, -0.2], "cosine_high": [0.2, 0.0],
            "is_baseline": [True, False],
        }
    )  # fmt: skip


def test_gradient_ratio():
    frame = gradient_ratio_frame()
    assert "base ends at 0.05; new ends at 0.01" in gradient_ratio.ratio_over_training(frame, ARMS).finding
    assert "new ends at −0.100" in gradient_ratio.cosine_over_training(frame, ARMS).finding
    plot = gradient_ratio.arms_by_ratio(frame, ARMS)
    assert labels(plot)[:2] == ["new", "base (baseline)"]  # Sorted by ratio
    assert any(x == [0.008, 0.012] for x, _ in lines(plot))
    assert plot.figure.axes[0].get_xscale() == "log"


def test_response_curve():
    frame = pd.DataFrame(
        {
            "factor": "w", "line": ["mse"] * 3, "measure": "f1", "weight": [0.1, 0.01, 1.0], "estimate": [62.0, 60.0, 61.0],
            "low": [61.0, 59.0, 60.0], "high": [63.0, 61.0, 62.0], "censored": math.nan,
        }
    )  # fmt: skip
    plot = plots.response_curve(frame, "w", "f1")
    assert ([0.01, 0.1, 1.0], [60, 62, 61]) in lines(plot)
    assert plot.finding == "mse: best value 62.00 at weight 0.1."
    assert plot.figure.axes[0].get_xscale() == "log"
    with_zero = frame.assign(weight=[0.0, 0.01, 1.0])
    assert plots.response_curve(with_zero, "w", "f1").figure.axes[0].get_xscale() == "linear"
    less_is_better = plots.response_curve(frame.assign(measure="speed"), "w", "speed")
    assert less_is_better.finding == "mse: best value 60.00 at weight 0.01."


def test_study_history_and_importances():
    trials = pd.DataFrame(
        {"number": [0, 1, 2], "state": ["complete", "pruned", "complete"], "value": [0.5, 0.4, 0.6], "parameters": ""}
    )
    plot = study.history(trials, "F1 (%)", scale=100)
    assert plot.finding == "3 trials: 2 complete, 1 pruned; the best is trial 2 with 60."
    assert ([0, 2], pytest.approx([50, 60])) in lines(plot)
    lower = study.history(trials, "NLL", maximise=False)
    assert "the best is trial 0 with 0.5" in lower.finding
    assert study.importances(pd.Series({"a": 0.2, "b": 0.8})).finding == "b 0.80; a 0.20."
    assert study.importances(pd.Series(dtype=float)).finding == "Nothing was measured."


def test_study_curves_mark_the_pruned_trials_and_the_best():
    reported = pd.DataFrame({"number": [0, 0, 1, 2, 2], "step": [1, 2, 1, 1, 2], "value": [0.1, 0.5, 0.2, 0.3, 0.6]})
    plot = study.curves(reported, {0: "complete", 1: "pruned", 2: "complete"}, "F1", 2)
    assert plot.finding == "2 complete, 1 pruned; the thick line is the best, trial 2."
    assert [text for *_, text in plot.marks][-1] == "trial 2, step 2: 0.6"
    widths = [line.get_linewidth() for line in plot.figure.axes[0].lines[:3]]
    assert widths[2] > widths[0]
    assert [text.get_text() for text in plot.figure.axes[0].get_legend().get_texts()] == ["complete", "pruned"]


def test_score_against_numbers_and_choices():
    trials = pd.DataFrame({"number": [0, 1, 2], "state": "complete", "value": [0.5, 0.4, 0.6]})
    plot = study.against(trials, pd.Series({0: 0.001, 1: 0.1, 2: 1.0}), "weight", "F1", "parameter-1")
    assert plot is not None
    assert plot.figure.axes[0].get_xscale() == "log"
    assert ([0.001, 0.1, 1.0], [0.5, 0.4, 0.6]) in lines(plot)
    chosen = study.against(trials, pd.Series({0: "mse", 1: "smoothl1"}), "loss", "F1", "parameter-2")
    assert chosen is not None
    assert ([0, 1], [0.5, 0.4]) in lines(chosen)
    assert [tick.get_text() for tick in chosen.figure.axes[0].get_xticklabels()] == ["mse", "smoothl1"]
    assert study.against(trials, pd.Series({i: f"text {i}" for i in range(30)}), "x", "F1", "parameter-3") is None


def test_the_time_line_puts_trials_that_overlap_into_rows():
    trials = pd.DataFrame(
        {"number": range(4), "state": "complete", "start": [0.0, 0, 50, 60], "end": [50.0, 60, 100, 100]}
    )
    plot = study.timeline(trials)
    assert plot.finding == "4 trials on 2 workers in 100.0 s; they were busy 100 % of it."
    assert sorted(round(bar.get_y() + 0.4) for bar in plot.figure.axes[0].patches) == [-1, -1, 0, 0]


def test_the_front_is_drawn():
    plot = study.front(pd.DataFrame({"score": [0.5, 0.6, 0.4], "cost": [1.0, 2.0, 1.5]}), [0, 1])
    assert plot.title == "cost against score"
    assert ([0.5, 0.6], [1.0, 2.0]) in lines(plot)
    assert plot.finding == "2 of 3 complete trials are on the front: 0, 1."


def test_the_marks_of_a_figure_are_its_values():
    band = pd.DataFrame({"arm": "a", "x": [1.0, 2.0], "mean": [0.5, 0.75], "low": 0.4, "high": 0.9, "n": 3})
    plot = plots.learning_curves(band, ["a"], name="x", quantity="dev F1")
    assert [(arm, text) for _, _, arm, text in plot.marks] == [(0, "epoch 1: 0.5"), (0, "epoch 2: 0.75")]
    (x0, y0, *_), (x1, y1, *_) = plot.marks
    assert x1 > x0  # to the right
    assert y1 < y0  # and up, in the coordinates of an SVG
    assert plot.svg().count('data-arm="0"') == 2  # the line and its band
    assert "<" not in plot.values()
