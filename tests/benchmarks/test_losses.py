"""The loss that each contender of a benchmark trains, from the settings of its trainer."""

import pytest

from benchmarks import epoch, step


def contenders_of_a_step(loss):
    for name in (step.JOYFUL["fp32"], step.PER_UTTERANCE):
        step.contender(name, "small", None, 1, loss)


def contenders_of_an_epoch(loss):
    epoch.joyful(epoch.RUNNING, "small", 1, loss)
    epoch.per_utterance("small", 1, loss)


@pytest.mark.parametrize(("module", "build"), [(step, contenders_of_a_step), (epoch, contenders_of_an_epoch)])
@pytest.mark.parametrize(
    ("loss", "ours", "theirs"),
    [
        ("own", "mean", ("legacy_sum", "inside")),
        ("reference", "legacy_sum", ("legacy_sum", "inside")),
        ("joyful", "mean", ("mean", "apart")),
    ],
)
def test_a_comparison_with_one_loss_has_it_on_both_sides(monkeypatch, module, build, loss, ours, theirs):
    built = {}
    for name in ("build_coach", "build_per_utterance"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments, f=original, n=name: built.setdefault(n, f(*arguments)))
    build(loss)
    assert built["build_coach"].settings.loss.encoder_reduction == ours
    peer = built["build_per_utterance"]
    assert (peer.encoder_reduction, peer.gate_reg) == theirs
