"""Measures: their scales against effects computed by hand, and a measure that another package registers."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from joyful.analysis import report
from joyful.analysis.claims import judge
from joyful.analysis.claims_file import read_claims
from joyful.analysis.convergence import Target
from joyful.analysis.curves import curves
from joyful.analysis.measures import MEASURES, SPEED, VALUE, Metric, measure, secondary_measures
from joyful.analysis.sweep import Sweep, read_sweep
from joyful.results import InputError
from tests.support.analysis import write_run


@pytest.mark.parametrize(
    ("unit", "direction", "name", "new", "base", "expected"),
    [
        ("percent", "increase", "time_to_target", 4, 5, 25),  # speed: T_base / T_new - 1
        ("percent", "decrease", "time_to_target", 5, 4, 20),  # speed: 1 - T_base / T_new
        ("percent", "increase", "spread", 0.6, 1.0, 40),  # stability: 1 - s_new / s_base
        ("percent", "decrease", "spread", 1.5, 1.0, 50),
        ("percent", "decrease", "final", 0.9, 1.0, 10),  # a loss: 1 - new / base
        ("percent", "increase", "final", 1.1, 1.0, 10),
        ("points", "increase", "best", 0.615, 0.6, 1.5),
        ("points", "decrease", "best", 0.6, 0.615, 1.5),
        ("points", "increase", "drawdown", 0.01, 0.02, 1.0),
        ("points", "decrease", "drawdown", 0.02, 0.01, 1.0),
    ],
)
def test_effects_by_hand(unit: str, direction: str, name: str, new: float, base: float, expected: float) -> None:
    scale = Metric(name, "dev", "x").scale(unit, direction)
    d = scale.differences(pd.Series([new]), pd.Series([base])).iloc[0]
    assert d > 0
    assert scale.effect(d) == pytest.approx(expected)
    assert scale.difference(expected) == pytest.approx(d)
    assert scale.effect(-1e9) < scale.effect(0) == 0


@pytest.mark.parametrize("name", MEASURES)
def test_every_scale_of_every_measure(name: str) -> None:
    """The effect increases with d, `difference` is its inverse, and the two directions have opposite d."""
    kind = MEASURES[name].kind
    d = np.linspace(-1, 1, 21)
    new, base = pd.Series([0.3, 0.5]), pd.Series([0.4, 0.2])
    for (unit, direction), scale in kind.scales.items():
        effects = [scale.effect(x) for x in d]
        assert (np.diff(effects) > 0).all()
        assert [scale.difference(effect) for effect in effects] == pytest.approx(d.tolist())
        assert max(effects) < scale.limit
        opposite = kind.scales[unit, {"increase": "decrease", "decrease": "increase"}[direction]]
        assert (scale.differences(new, base) == -opposite.differences(new, base)).all()
    assert kind.units[0] == "percent"
    assert "dev" in MEASURES[name].splits


def test_the_mean_is_geometric() -> None:
    """exp(mean ln(T_base / T_new)) - 1: halving one time and doubling another cancel, whatever their lengths."""
    scale = Metric("time_to_target", "dev", "x").scale("percent", "increase")
    assert scale.mean_effect(pd.Series([2.0, 40.0]), pd.Series([4.0, 20.0])).estimate == pytest.approx(0)


def test_pairs_without_a_positive_value_are_nan() -> None:
    new, base = pd.Series({1: 0.0, 2: 1.0, 3: np.nan, 5: 1.0}), pd.Series({1: 1.0, 2: 2.0, 3: 1.0, 4: 1.0})
    metric = Metric("final", "dev", "x")
    d = metric.scale("percent", "decrease").differences(new, base)
    assert d.isna().to_dict() == {1: True, 2: False, 3: True}
    points = metric.scale("points", "increase")
    assert points.effect(points.differences(new, base)[1]) == -100
    assert metric.scale("absolute", "decrease").differences(new, base)[1] == 1
    infinite = metric.scale("absolute", "increase").differences(pd.Series({1: np.inf}), base)
    assert infinite.isna().tolist() == [True]


def test_bounds_of_a_ratio() -> None:
    new = pd.DataFrame({"low": [2.0, 0.0, 3.0, np.nan], "high": [4.0, 1.0, np.inf, 1.0]}, index=[1, 2, 3, 4])
    base = pd.DataFrame({"low": [4.0, 0.0, 3.0, 1.0], "high": [8.0, 1.0, np.inf, 2.0]}, index=[1, 2, 3, 4])
    speed = Metric("time_to_target", "dev", "f1_weighted")
    d = speed.scale("percent", "increase").bounds(new, base)
    assert np.exp(d.loc[1]).tolist() == pytest.approx([1, 4])  # from 4 / 4 to 8 / 2
    assert d.loc[[2, 3]].to_numpy().tolist() == [[-np.inf, np.inf]] * 2
    assert d.loc[4].isna().all()
    opposite = speed.scale("percent", "decrease").bounds(new, base)
    assert opposite.loc[1, "low"] == pytest.approx(-d.loc[1, "high"])
    assert opposite.loc[1, "high"] == pytest.approx(-d.loc[1, "low"])


# A measure from outside

DEV = {"mse": [0.1, 0.3, 0.5, 0.4], "smoothl1": [0.2, 0.3, 0.6, 0.6]}

CLAIMS = """
claims:
  - claim: early_value
    metrics: [{measure: middle, split: dev, of: f1_weighted}]
    range: [5, 15]
    unit: points
    direction: increase
  - claim: early_speed
    metrics: [{measure: epochs_to_best, split: dev, of: f1_weighted}]
    range: [10, .inf]
    unit: percent
    direction: increase
"""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two measures, registered as another package does: the median of a curve, and the epoch of its best value."""
    monkeypatch.setattr(MEASURES, "_members", dict(MEASURES._members))
    monkeypatch.setattr(MEASURES, "_summaries", dict(MEASURES._summaries))

    @MEASURES.register("middle", "median over the evaluations")
    @measure("median of {}", VALUE)
    def _middle(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
        return curves(sweep, metric.of, metric.split).median(axis=1)

    @MEASURES.register("epochs_to_best", "epoch of the best value")
    @measure("epochs to the best {}", SPEED, ("dev",))
    def _epochs_to_best(sweep: Sweep, metric: Metric, target: Target | None) -> pd.Series:
        return curves(sweep, metric.of, metric.split).idxmax(axis=1).astype(float)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Seven pairs. The curve of seed s is that of DEV plus s / 1000, and in the new arm plus s / 500."""
    for seed in range(7):
        for loss, dev in DEV.items():
            shift = seed / (500 if loss == "smoothl1" else 1000)
            columns = {"step": [1, 2, 3, 4], "epoch": [1.0, 2.0, 3.0, 4.0], "split": ["dev"] * 4}
            columns["f1_weighted"] = [value + shift for value in dev]
            write_run(tmp_path / f"{loss}{seed}", columns, {"loss": loss, "training.epochs": 4}, seed=seed)
    return tmp_path


def test_a_made_up_measure_is_judged(made_up: None, sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(CLAIMS)
    claims = read_claims(tmp_path / "mine.yaml")
    assert [claim.metrics[0].label for claim in claims] == [
        "median of dev f1_weighted",
        "epochs to the best dev f1_weighted",
    ]
    value, speed = judge(read_sweep(sweep), claims, rng=np.random.default_rng(0))
    # By hand: the medians are 0.35 + s / 1000 and 0.45 + s / 500, so the effects are 10 + s / 10 points, s = 0 ... 6.
    effects = [10 + s / 10 for s in range(7)]
    assert value.pairs.tolist() == pytest.approx(effects)
    assert value.estimate == pytest.approx(10.3)
    assert (value.low, value.high) == pytest.approx(tuple(stats.ttest_1samp(effects, 0).confidence_interval()))
    assert (value.verdict, value.detail, value.n_pairs) == ("supported", "", 7)
    assert value.p_zero == 2 / 2**7  # All pairs have one sign.
    # The best value is at epoch 3 in both arms (the first of equal values), so the speed does not change.
    assert speed.pairs.tolist() == [0] * 7
    assert (speed.verdict, speed.detail) == ("contradicted", "smaller than claimed, direction not established")
    assert speed.secondary == ()


def test_a_made_up_measure_in_the_report_and_in_messages(
    made_up: None, sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(CLAIMS)
    out = tmp_path / "report"
    assert report.main([str(sweep), "--claims", str(tmp_path / "mine.yaml"), "--out", str(out)]) == 0
    assert "median of dev f1_weighted" in (out / "verdicts.csv").read_text()
    assert "not 10 % faster: no change" in (out / "report.md").read_text()
    (tmp_path / "wrong.yaml").write_text(CLAIMS.replace("percent", "points"))
    with pytest.raises(
        InputError, match="epochs_to_best measures a speed: expected unit percent and split dev, got unit"
    ):
        read_claims(tmp_path / "wrong.yaml")
    (tmp_path / "wrong.yaml").write_text(CLAIMS.replace("middle", "midle"))
    with pytest.raises(InputError, match=r"expected one of .*, middle, .*got 'midle'; did you mean middle\?"):
        read_claims(tmp_path / "wrong.yaml")
    with pytest.raises(SystemExit):
        report.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "middle median over the evaluations" in text


def test_the_help_lists_every_measure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        report.main(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    listed = {line[0]: line[1] for line in lines if len(line) == 2}
    assert MEASURES.summaries().items() <= listed.items()
    assert "middle" not in listed


def test_the_table_of_the_document_says_what_the_registry_says() -> None:
    text = (Path(__file__).parents[2] / "docs/CONVERGENCE_ANALYSIS.md").read_text()
    rows = [
        line.strip("|").split(" | ")
        for line in text.splitlines()
        if line.startswith(tuple(f"| {m} |" for m in MEASURES))
    ]
    table = {row[0].strip(): row[1].strip() for row in rows}
    assert len(table) == 8
    assert table.items() <= MEASURES.summaries().items()


def test_measures_without_secondary_measures_or_a_target(sweep: Path) -> None:
    read = read_sweep(sweep)
    arm = read.others[0]
    assert secondary_measures(read, arm, Metric("final", "dev", "f1_weighted"), None) == ()
    assert secondary_measures(read, arm, Metric("time_to_target", "dev", "f1_weighted"), None) == ()
    (test,) = (m for m in secondary_measures(read, arm, Metric("spread", "dev", "f1_weighted"), None) if not m.arm)
    assert test.name == "largest drawdown of dev f1_weighted, smaller"
    assert test.estimate == pytest.approx(10)  # 0.1 in the baseline, 0 in the new arm
    assert math.isclose(test.low, test.high)
    assert json.dumps(test.unit) == '"points"'
