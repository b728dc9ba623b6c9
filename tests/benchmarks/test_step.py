"""The benchmark of a step, end to end at the small size: every contender, the limit, and memory."""

import sys

import pytest

from benchmarks import step
from benchmarks.figures import multiplies_bfloat16

SMALL = ("--size", "small", "--threads", "1", "--dialogues", "3", "--repeats", "2")


@pytest.mark.slow
@pytest.mark.soak("measures for half a minute; benchmarks are programs of their own")
def test_every_contender_is_measured(measured):
    pytest.importorskip(
        "torch_geometric", reason="the peer with its layers needs pip install 'joyful-sweeps[benchmarks]'"
    )
    named, document = measured(step.main, *SMALL, "--peer-repeats", "1")
    ours, peer = named["step, joyful, fp32"], named[f"step, {step.PER_UTTERANCE}"]
    assert 0 < ours.value < 60
    assert peer.ratio == 1
    assert named["per-utterance trainer / joyful, fp32"].value == pytest.approx(peer.value / ours.value)
    limit, share = named["limit, fp32"], named["share of the limit, joyful, fp32"]
    assert limit.to == ours.name
    assert share.value == pytest.approx(limit.value / ours.value)
    assert 0 < share.value < 1
    operations, peak = named["operations of a step"], named["peak, fp32"]
    assert limit.value == pytest.approx(operations.value / peak.value)
    contenders = set(document["repeats"])
    assert contenders == {name.removeprefix("step, ") for name in named if name.startswith("step, ")}
    for name in contenders:
        assert 0.05 < named[f"peak memory, {name}"].value < 3
    assert (step.JOYFUL["bf16"] in contenders) == multiplies_bfloat16()
    assert document["dialogues"] == 3
    assert document["loss"] == "own"
    assert document["repeats"][step.PER_UTTERANCE] == 1


@pytest.mark.slow
@pytest.mark.soak("measures for 5 s; benchmarks are programs of their own")
def test_without_peers_joyful_is_its_own_measure(measured):
    named, document = measured(step.main, *SMALL, "--peers", "")
    assert named["step, joyful, fp32"].ratio == 1
    assert not any("limit" in name or "utterance" in name for name in named)
    assert document["repeats"][step.JOYFUL["fp32"]] == 2


def test_an_unknown_peer_is_refused(capsys):
    with pytest.raises(SystemExit):
        step.main(["--peers", "limit,nobody"])
    assert "--peers: expected some of per_utterance, geometric, limit" in capsys.readouterr().err


def test_without_torch_geometric_its_peer_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.geometric", raising=False)
    repeats, notes = step.choose_contenders(("geometric", "limit"), 5, 5)
    assert step.GEOMETRIC not in repeats
    assert any("torch_geometric" in note and "joyful-sweeps[benchmarks]" in note for note in notes)


def test_processors_with_bfloat16_measure_it_too(monkeypatch):
    monkeypatch.setattr(step, "multiplies_bfloat16", lambda: True)
    repeats, notes = step.choose_contenders(("per_utterance",), 5, 6)
    assert repeats == {"joyful, fp32": 5, "joyful, bf16": 5, step.PER_UTTERANCE: 6}
    assert notes == []
    seconds = {"joyful, fp32": 2.0, "joyful, bf16": 1.0, step.PER_UTTERANCE: 20.0}
    rates = {"fp32": 100e9, "bf16": 400e9, "step": 150e9}
    named = {one.name: one for one in step.figures(seconds, rates, dict.fromkeys(seconds, 0.75))}
    # By hand: the limits are 1.5 s and 0.375 s.
    assert named["share of the limit, joyful, fp32"].value == pytest.approx(0.75)
    assert named["share of the limit, joyful, bf16"].value == pytest.approx(0.375)
    assert named["per-utterance trainer / joyful, bf16"].value == pytest.approx(20)
    assert named["per-utterance trainer / joyful, bf16"].ratio == pytest.approx(20 / 16)
    assert named["peak, bf16"].ratio == pytest.approx(4)
    assert named["peak memory, joyful, bf16"].ratio == pytest.approx(0.5)
