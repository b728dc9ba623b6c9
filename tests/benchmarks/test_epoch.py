"""The benchmark of an epoch, end to end at the small size."""

import math
from pathlib import Path

import pytest

from benchmarks import epoch
from benchmarks.workload import build_per_utterance, dataset, settings_of, take_dialogues, utterances


@pytest.mark.slow
@pytest.mark.soak("measures for 10 s; benchmarks are programs of their own")
def test_every_contender_is_measured(measured):
    named, document = measured(epoch.main, "--size", "small", "--threads", "1", "--repeats", "2", "--loss", "reference")
    ours, peer = named[f"epoch, {epoch.RUNNING}"], named[f"epoch, {epoch.SCALED}"]
    assert 0 < ours.value < 60
    assert named[f"per-utterance / {epoch.RUNNING}"].value == pytest.approx(peer.value / ours.value)
    assert named[f"per-utterance / {epoch.RUNNING}"].ratio == pytest.approx(peer.value / ours.value / 11)
    assert "quarter" in peer.name
    assert document["loss"] == "reference"
    assert all(len(values) == 2 for values in document["seconds"].values())
    data = dataset(settings_of("small"))
    assert document["utterances"] == {name: utterances(data, name) for name in ("train", "dev", "test")}


def test_a_quarter_is_scaled_by_utterances(monkeypatch):
    whole = dataset(settings_of("small"))
    quarter = take_dialogues(whole, {name: math.ceil(len(d.lengths) / 4) for name, d in whole.splits.items()})
    one_epoch = epoch.per_utterance("small", threads=1)
    monkeypatch.setattr(epoch, "seconds_of", lambda action: 1.0)
    scale = {name: utterances(whole, name) / utterances(quarter, name) for name in whole.splits}
    assert one_epoch() == pytest.approx(2 * scale["train"] + scale["dev"] + scale["test"])
    assert scale["train"] == pytest.approx(4, rel=0.5)  # two dialogues of eight


def test_the_trainer_of_a_quarter_sees_the_same_dialogues():
    settings = settings_of("small")
    whole = dataset(settings)
    quarter = take_dialogues(whole, {"train": 2, "dev": 1, "test": 1})
    ours, other = (build_per_utterance(settings, data).splits["train"] for data in (whole, quarter))
    assert len(other) == 2
    for one, two in zip(ours, other, strict=False):
        assert all(one.features[name].equal(two.features[name]) for name in one.features)
        assert one.labels.equal(two.labels)
    with pytest.raises(ValueError, match="at most 8 dialogues, got 9"):
        take_dialogues(whole, {"train": 9, "dev": 1, "test": 1})


@pytest.mark.slow
@pytest.mark.soak("measures for 15 s; benchmarks are programs of their own")
def test_the_small_model_beside_another_checkout(measured):
    root = Path(epoch.__file__).parents[1]
    arguments = ("--model", "small", "--size", "small", "--repeats", "2", "--beside", str(root))
    named, document = measured(epoch.main, *arguments)
    for part in ("epoch", "training", "evaluation"):
        here, there = (named[f"{part}, synthetic, {name} checkout"] for name in ("this", "the other"))
        assert 0 < here.value < 60
        assert here.ratio == pytest.approx(here.value / there.value)
    assert named["epoch, synthetic, this checkout"].value >= named["training, synthetic, this checkout"].value
    assert all(len(values["epoch"]) == 2 for values in document["seconds"]["synthetic"].values())
    assert (document["model"], document["machine"]["threads"]) == ("small", 1)


def test_another_checkout_is_refused_with_the_reference(capsys):
    with pytest.raises(SystemExit):
        epoch.main(["--beside", "."])
    assert "add --model small" in capsys.readouterr().err
