"""joyful's model with torch_geometric's layers has the same outputs, contrastive loss and gradients."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.workload import build_coach, dataset, settings_of
from joyful.randomness import Draws

pytest.importorskip("torch_geometric", reason="the peer needs pip install 'joyful-sweeps[benchmarks]'")
geometric = pytest.importorskip("benchmarks.peers.geometric")

DRAWS = Draws(24, 1, 0)


@pytest.mark.parametrize("overrides", [(), ("model.wp=-1", "model.wf=1", "data.synthetic.speakers=3")])
def test_outputs_and_gradients_agree(overrides):
    settings = settings_of("small", *overrides)
    coach = build_coach(settings, dataset(settings))
    batch = coach.splits["train"].batch(np.arange(4))
    ours = coach.model
    theirs = geometric.geometric(copy.deepcopy(ours))
    assert {type(m).__name__ for m in theirs.modules()} >= {"RGCNConv", "TransformerConv"}
    # Dialogues with fewer utterances than the requested neighbours have edges that are not kept.
    short = coach.splits["train"].batch(np.argsort(coach.splits["train"].lengths)[:2])
    for one in (batch, short):
        mine, other = (model.train()(one, DRAWS, DRAWS) for model in (ours, theirs))
        torch.testing.assert_close(other.logits, mine.logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other.contrastive, mine.contrastive, rtol=1e-5, atol=1e-5)
        for output in (mine, other):
            (output.logits.square().mean() + output.contrastive).backward()
    ours_by_name = {n: p.grad for n, p in ours.named_parameters() if p.grad is not None}
    theirs_by_name = {n.replace(".conv.", "."): p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    assert set(ours_by_name) == set(theirs_by_name)
    for name, gradient in ours_by_name.items():
        torch.testing.assert_close(
            theirs_by_name[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n} {m}"
        )


def test_it_trains():
    settings = settings_of("small")
    coach = build_coach(settings, dataset(settings), geometric.geometric)
    twin = build_coach(settings, dataset(settings))
    ours, theirs = ({row["split"]: row["nll"] for row in c.train_epoch(1)[0].rows} for c in (twin, coach))
    assert theirs == pytest.approx(ours, rel=1e-4)
