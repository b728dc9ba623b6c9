"""A loss, a dataset and a measure from another package: trained, resumed, swept and judged from the command line."""

import os
from pathlib import Path

import pandas as pd
import pytest

from joyful import results
from tests.support.runs import TINY

ROOT = Path(__file__).resolve().parents[1]

PLUGIN = '''
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import nn

from joyful.analysis.curves import curves
from joyful.analysis.measures import MEASURES, VALUE, measure
from joyful.data.sources import SOURCES, Source
from joyful.losses.reconstruction import RECONSTRUCTION_LOSSES
from joyful.records import DialogueDataset, Dialogues


@RECONSTRUCTION_LOSSES.register(
    "cauchy", "ln(1 + r^2 / scale^2)", scale=(Annotated[float, Field(gt=0, description="scale of a residual")], 1.0)
)
class CauchyLoss(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def elementwise(self, prediction, target, modal_dims=None):
        return torch.log1p(((prediction - target) / self.scale) ** 2)


def coins(settings, encode):
    """Two classes that the only feature tells apart."""
    rng = np.random.default_rng(0)

    def split(count):
        labels = rng.integers(2, size=4 * count)
        text = (labels[:, None] + rng.normal(scale=0.1, size=(4 * count, 3))).astype(np.float32)
        ids = tuple(str(i) for i in range(count))
        return Dialogues({"text": text}, labels, np.zeros(4 * count, dtype=np.int64), np.full(count, 4), ids)

    splits = {"train": split(8), "dev": split(4), "test": split(4)}
    return DialogueDataset("coins", {"text": 3}, ("heads", "tails"), 1, False, splits)


SOURCES.register("coins", "tossed coins")(Source(coins, lambda settings: []))


@MEASURES.register("worst", "worst value")
@measure("worst {}", VALUE)
def worst(sweep, metric, target):
    return curves(sweep, metric.of, metric.split).min(axis=1)
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the plugin's module and its files in the groups `loss` and `data`."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "tossed.py").write_text(PLUGIN)
    for group, text in {
        "loss/cauchy": "defaults: [_common]\nname: cauchy\nscale: 1.0\n",
        "data/coins": "defaults: [synthetic]\nsource: coins\nname: coins\n",
    }.items():
        file = folder / "conf" / f"{group}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    return folder


@pytest.fixture
def joyful(place, fork_server):
    """Return a function that runs a command of `python` in the folder of the plugin."""

    def run(*arguments, plugins="tossed"):
        environment = {**os.environ, "PYTHONPATH": str(place), "JOYFUL_PLUGINS": plugins}
        return fork_server.run(arguments, place, environment)

    return run


#: Beginning of the commands.
RUN = (str(ROOT / "run.py"), "--config-dir", "conf")


OWN = (*TINY, "data=coins", "modalities=t", "loss=cauchy", "loss.scale=0.5", "training.threads=1")


def test_a_loss_and_a_dataset_from_outside_train_and_resume(place, joyful):
    done = joyful(*RUN, *OWN, "optimizer.learning_rate=0.01", "training.epochs=8", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    info = results.read_run(place / "run")
    assert (info["config"]["loss"]["scale"], info["config"]["data"]["source"]) == (0.5, "coins")
    assert info["objective"] > 0.9, "the classes are told apart by their feature"
    rows = results.load(place / "run").query("split == 'dev'")
    assert (rows["loss_encoder"] < rows["recon_mse"] / 0.5**2).all(), "ln(1 + x) < x"
    again = joyful(*RUN, "resume=run")
    assert again.returncode == 0, again.stderr
    other = joyful(*RUN, "resume=run", "loss=cauchy", "loss.scale=1.5")
    assert (other.returncode, "loss.scale: 0.5 -> 1.5" in other.stderr) == (2, True)


@pytest.mark.soak("takes 6 s; a run of this loss trains above")
def test_a_sweep_over_a_loss_from_outside(place, joyful):
    done = joyful(
        *RUN, "-m", *TINY, "data=coins", "modalities=t", "training.epochs=2", "hydra/sweeper=optuna_pruned",
        "hydra.sweeper.trials=['loss=mse','loss=cauchy','loss=cauchy loss.scale=2.0']", "sweep_name=losses",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = results.load(place / "multirun/losses").groupby("run")["loss_encoder"].last()
    assert len(runs) == runs.nunique() == 3


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (("loss=cauchy", "loss.scale=-1.0"), ["loss.scale: expected > 0, got -1.0 (scale of a residual)"]),
        (
            ("loss.name=cauchi", "+loss.scale=1.0", "data.source=coin"),
            [
                "loss.name: expected one of cauchy, mse, smoothl1, weighted_mse, got 'cauchi'; did you mean cauchy?",
                "loss.scale: there is no such setting",
                "did you mean coins?",
            ],
        ),
        (
            ("loss=cauchi",),
            ["loss: expected one of cauchy, mse, smoothl1, weighted_mse, got 'cauchi'; did you mean cauchy?"],
        ),
    ],
)
def test_bad_settings_are_refused_in_one_line(place, joyful, overrides, messages):
    done = joyful(*RUN, *TINY, *overrides)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert all(message in done.stderr for message in messages), done.stderr


def test_without_the_plugin_its_names_are_unknown(place, joyful):
    done = joyful(*RUN, *OWN, plugins="")
    assert done.returncode == 2
    assert "loss.name: expected one of mse, smoothl1, weighted_mse, got 'cauchy'" in done.stderr


CLAIMS = """
claims:
  - claim: worst_f1
    metrics: [{measure: worst, split: dev, of: f1_weighted}]
    range: [10, 20]
    unit: points
    direction: increase
"""


def test_a_measure_from_outside_gets_a_verdict(place, joyful):
    rows = ["arm,seed,split,epoch,f1_weighted"]
    for seed in range(8):  # the worst value rises from 0.3 to about 0.45
        for arm, values in (("old", (0.3, 0.6)), ("new", (0.6, 0.45 + seed / 1000))):
            rows += [f"{arm},{seed},dev,{epoch},{value}" for epoch, value in enumerate(values, start=1)]
    (place / "curves.csv").write_text("\n".join(rows))
    (place / "claims.yaml").write_text(CLAIMS)
    for arguments in (
        ("import", "csv", "curves.csv", "--out", "imported"),
        ("report", "imported", "--baseline", "arm=old", "--claims", "claims.yaml"),
    ):
        done = joyful("-m", "joyful.cli", *arguments)
        assert done.returncode == 0, done.stderr
    (verdict,) = pd.read_csv(place / "imported/report/verdicts.csv").to_dict("records")
    assert (verdict["metric"], verdict["verdict"]) == ("worst dev f1_weighted", "supported")
    assert verdict["estimate"] == pytest.approx(15.35)  # 100 (0.45 + the mean of 0 to 7 thousandths - 0.3)


def test_the_help_lists_choices_of_a_further_folder(place, joyful):
    done = joyful(*RUN, "--help")
    assert "loss: cauchy, mse, smoothl1, weighted_mse" in done.stdout
    assert "data: coins, dialogues, emorynlp" in done.stdout
    assert done.stderr == ""
