"""The searches of the study: the selected trials, which are the arms of the confirmations."""

from pathlib import Path

import pytest
import yaml

from study import archive, select_trial
from study.archive import pack
from study.report import ARCHIVES, ROOT
from study.searches import KINDS, SEARCHES, Search, searches_table
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


def test_without_searches_there_is_no_table(tmp_path):
    assert searches_table(tmp_path, tmp_path) == ""


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
