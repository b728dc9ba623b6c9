"""The benchmark of starting, end to end on prepared synthetic data."""

import pytest

from benchmarks import startup


@pytest.mark.slow
@pytest.mark.soak("measures for half a minute; benchmarks are programs of their own")
def test_every_start_is_measured(measured, monkeypatch):
    monkeypatch.delenv("JOYFUL_DATA", raising=False)
    named, document = measured(startup.main, "--repeats", "1", "--threads", "1")
    ours, bare = named[startup.OURS], named[startup.BARE]
    assert named["run.py / bare program"].value == pytest.approx(ours.value / bare.value)
    assert 0 < bare.value < 60
    assert document["data"] == "prepared synthetic data"
    assert any(name.startswith("second start on prepared synthetic data") for name in named)
    assert named["import torch"].value > 0
    assert document["foreign_modules"] == []


@pytest.mark.slow
def test_loss_utils_brings_joyfuls_own_modules_alone(tmp_path):
    document = startup.imports(tmp_path)
    assert "joyful.loss_utils" in document["modules"]
    assert document["foreign"] == []


def test_meld_is_taken_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "meld").mkdir()
    monkeypatch.setenv("JOYFUL_DATA", str(tmp_path))
    name, overrides = startup.data_of_a_start(tmp_path, 2)
    assert name == "MELD"
    assert overrides[:3] == ["data=meld", f"data.root={tmp_path / 'meld'}", "experiment=meld"]


@pytest.mark.soak("takes 4 s; a benchmark, not the product")
@pytest.mark.slow
def test_a_start_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"exit code 2: joyful: training.epochs: expected >= 1"):
        startup.first_step(tmp_path, ["training.epochs=0"])
