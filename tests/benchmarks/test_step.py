"""The benchmark of a step end to end at its small size: every contender, the limit, and memory."""

import sys

import pytest

from benchmarks import step
from benchmarks.figures import multiplies_bfloat16

SMALL = ("--size", "small", "--threads", "1", "--dialogues", "3", "--repeats", "2")


@pytest.mark.slow
def test_every_contender_is_measured(measured):
    pytest.importorskip("torch_geometric", reason="the peer with its layers needs pip install 'joyful[benchmarks]'")
    named, told = measured(step.main, *SMALL, "--peer-repeats", "1")
    ours, peer = named["step, joyful, fp32"], named[f"step, {step.PER_UTTERANCE}"]
    assert 0 < ours.value < 60
    assert peer.ratio == 1
    assert named["per-utterance trainer / joyful, fp32"].value == pytest.approx(peer.value / ours.value)
    theirs, same = (
        named["step, joyful, fp32, the reference's loss"],
        named["step, per-utterance trainer, joyful's loss"],
    )
    assert named["per-utterance trainer / joyful, fp32, the reference's loss"].value == pytest.approx(
        peer.value / theirs.value
    )
    assert named["per-utterance trainer, joyful's loss / joyful, fp32"].value == pytest.approx(same.value / ours.value)
    limit, share = named["limit, fp32"], named["share of the limit, joyful, fp32"]
    assert limit.to == ours.name
    assert share.value == pytest.approx(limit.value / ours.value)
    assert 0 < share.value < 1
    operations, peak = named["operations of a step"], named["peak, fp32"]
    assert limit.value == pytest.approx(operations.value / peak.value)
    contenders = set(told["repeats"])
    assert contenders == {name.removeprefix("step, ") for name in named if name.startswith("step, ")}
    for name in contenders:
        assert 0.05 < named[f"peak memory, {name}"].value < 3
    assert (step.JOYFUL["bf16"] in contenders) == multiplies_bfloat16()
    assert told["dialogues"] == 3
    assert told["repeats"][step.PER_UTTERANCE] == 1


def test_without_peers_joyful_is_its_own_measure(measured):
    named, told = measured(step.main, *SMALL, "--peers", "")
    assert named["step, joyful, fp32"].ratio == 1
    assert not any("limit" in name or "utterance" in name for name in named)
    assert told["repeats"][step.JOYFUL["fp32"]] == 2


def test_an_unknown_peer_is_refused(capsys):
    with pytest.raises(SystemExit):
        step.main(["--peers", "limit,nobody"])
    assert "--peers: expected some of per_utterance, same_loss, geometric, limit" in capsys.readouterr().err


def test_without_torch_geometric_its_peer_is_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.geometric", raising=False)
    repeats, notes = step.chosen(("geometric", "limit"), 5, 5)
    assert step.GEOMETRIC not in repeats
    assert any("torch_geometric" in note and "joyful[benchmarks]" in note for note in notes)


def test_whose_loss_a_contender_trains(monkeypatch):
    """The names say it, and the trainers do it: so the comparisons with one loss have one on both sides."""
    monkeypatch.setattr(step, "multiplies_bfloat16", lambda: True)
    repeats, _ = step.chosen(("per_utterance", "same_loss"), 5, 6)
    both = {f"joyful, {precision}, the reference's loss" for precision in ("fp32", "bf16")}
    assert (
        set(repeats)
        == {"joyful, fp32", "joyful, bf16", "per-utterance trainer", "per-utterance trainer, joyful's loss"} | both
    )
    built = {}
    monkeypatch.setattr(step, "build_coach", lambda settings, *_: built.update(ours=settings))
    monkeypatch.setattr(
        step, "build_per_utterance", lambda *given, **how: built.update(joyfuls_loss=how["joyfuls_loss"])
    )
    monkeypatch.setattr(step, "as_in_a_run", lambda threads: None)
    monkeypatch.setattr(step, "as_in_the_reference", lambda threads: None)
    for name in repeats:
        step.contender(name, "small", None, 1)
        if "joyfuls_loss" in built:
            assert built.pop("joyfuls_loss") == name.endswith("joyful's loss")
            continue
        settings = built.pop("ours")
        wanted = "legacy_sum" if name.endswith("the reference's loss") else "mean"
        assert (settings.training.precision, settings.loss.encoder_reduction) == (name[8:12], wanted)


def test_processors_with_bfloat16_measure_it_too(monkeypatch):
    monkeypatch.setattr(step, "multiplies_bfloat16", lambda: True)
    repeats, notes = step.chosen(("per_utterance",), 5, 6)
    assert repeats == {"joyful, fp32": 5, "joyful, bf16": 5, step.PER_UTTERANCE: 6}
    assert notes == []
    seconds = {"joyful, fp32": 2.0, "joyful, bf16": 1.0, step.PER_UTTERANCE: 20.0}
    rates = {"fp32": 100e9, "bf16": 400e9, "step": 150e9}
    named = {one.name: one for one in step.figures(seconds, rates, dict.fromkeys(seconds, 0.75))}
    # by hand: limits 1.5 s and 0.375 s
    assert named["share of the limit, joyful, fp32"].value == pytest.approx(0.75)
    assert named["share of the limit, joyful, bf16"].value == pytest.approx(0.375)
    assert named["per-utterance trainer / joyful, bf16"].value == pytest.approx(20)
    assert named["per-utterance trainer / joyful, bf16"].ratio == pytest.approx(20 / 16)
    assert named["peak, bf16"].ratio == pytest.approx(4)
    assert named["peak memory, joyful, bf16"].ratio == pytest.approx(0.5)
