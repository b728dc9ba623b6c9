"""The searches of the study: the chosen trials, which are the arms of the confirmations."""

from pathlib import Path

import pytest
import yaml

from study import archive, select_trial
from study.archive import pack
from study.report import ARCHIVES, ROOT
from study.searches import FAIR_SEARCHES, KINDS, SEARCHES, Search, finalists_table, searches_table
from tests.support.analysis import Truth, simulate_sweep

pytestmark = pytest.mark.slow

#: Overrides that equal the defaults, which the arms of a sweep omit.
DEFAULTS = {"classification=nll", "fusion.use_ulgm=false", "training.moving_average=0", "weighting=fixed"}


def test_the_table_has_the_trial_that_the_rule_selects(tmp_path, monkeypatch):
    weights = (0.05, 0.3, 0.01)
    truths = [
        Truth({"role": "search", "weights.encoder_loss_weight": w}, tau=t)
        for w, t in zip(weights, (3, 2, 9), strict=True)
    ]
    simulate_sweep(tmp_path / "search", truths, [5000], calibration=(), epochs=12)
    pack(tmp_path / "search", tmp_path / "search_meld_weights.parquet", ["f1_weighted"])
    search = Search("meld", "MELD", target=0.5, within=0.1)
    monkeypatch.setattr("study.searches.SEARCHES", (search,))
    line = searches_table(tmp_path, tmp_path / "unpacked").splitlines()[2]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["MELD", KINDS["weights"], "1 of 3", "`weights.encoder_loss_weight=0.3`"]
    assert cells[5] == "50.00 %"
    assert float(cells[6]) < 12


def test_the_finalist_with_the_smallest_mean_product_is_chosen(tmp_path, monkeypatch):
    truths = [
        Truth({"role": "search", "optimizer.learning_rate": rate}, tau=tau, jitter=jitter)
        for rate, tau, jitter in ((0.001, 3, 0.01), (0.002, 4, 0.002), (0.003, 5, 0.01))
    ]
    simulate_sweep(tmp_path / "sweep", truths, [5001, 5002, 5003], calibration=(), epochs=12)
    pack(tmp_path / "sweep", tmp_path / "fair_finalists_baseline_meld.parquet", ["f1_weighted"])
    monkeypatch.setattr("study.searches.FAIR_SEARCHES", (Search("meld", "MELD", target=0.5, within=0.1),))
    lines = finalists_table(tmp_path, tmp_path / "unpacked").splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[-1] for row in cells] == ["no", "**yes**", "no"]
    assert cells[1][:3] == ["MELD", KINDS["baseline"], "`optimizer.learning_rate=0.002`"]
    assert float(cells[0][4]) < float(cells[1][4]) < float(cells[2][4])
    assert float(cells[1][5]) < min(float(cells[0][5]), float(cells[2][5]))


def test_without_searches_there_is_no_table(tmp_path):
    assert searches_table(tmp_path, tmp_path) == ""
    assert finalists_table(tmp_path, tmp_path) == ""


@pytest.mark.soak("takes 3 s; these searches have ended")
@pytest.mark.parametrize("search", FAIR_SEARCHES, ids=lambda search: search.name)
def test_chosen_finalists_are_the_arms_of_the_comparison(search: Search, tmp_path: Path):
    sweep = ROOT / f"study/sweeps/fair/confirm_{search.name}.yaml"
    arms = [set(arm.split()) for arm in yaml.safe_load(sweep.read_text())["hydra"]["sweeper"]["arms"]]
    for kind, arm in (("baseline", arms[0]), ("candidate", arms[4])):
        folder = tmp_path / kind
        archive.unpack(ARCHIVES / f"fair_finalists_{kind}_{search.name}.parquet", folder)
        trials, settings = select_trial.read_trials(folder, search.target)
        (name,) = select_trial.choose(trials, search.within, "product")
        assert set(select_trial.overrides(trials, name, settings)) <= arm


@pytest.mark.soak("takes 8 s; these searches have ended")
@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: search.name)
def test_confirmed_settings_are_those_of_the_searches(search: Search, tmp_path: Path):
    sweep = ROOT / f"study/sweeps/confirm_{search.name}.yaml"
    arms = [set(arm.split()) for arm in yaml.safe_load(sweep.read_text())["hydra"]["sweeper"]["arms"]]
    tuned: set[str] = set()
    for kind in KINDS:
        folder = tmp_path / kind
        archive.unpack(ARCHIVES / f"search_{search.name}_{kind}.parquet", folder)
        trials, settings = select_trial.read_trials(folder, search.target)
        (name,) = select_trial.choose(trials, search.within)
        chosen = set(select_trial.overrides(trials, name, settings)) - DEFAULTS
        if kind == "baseline":
            tuned = chosen
            assert arms[0] == {"loss=mse", "weights=baseline"} | chosen
        elif kind == "weights":
            assert chosen | tuned in arms
        else:
            assert chosen in arms
