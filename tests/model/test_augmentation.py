import pytest
import torch
from torch.nn import functional

from joyful.model.joyful import Edges, add_neighbours, dialogue_spans, mask_features, rewire, window_edges
from joyful.model.kernels.attention_blocks import attention_blocks
from joyful.randomness import Draws
from tests.support.host_reads import NoHostReads

CPU = torch.device("cpu")
DRAWS = Draws(1, 2, 3)
LENGTHS = (1, 40, 2, 57, 3)
DIALOGUE = torch.repeat_interleave(torch.arange(5), torch.tensor(LENGTHS))
EDGES = window_edges(LENGTHS, 8, 8, CPU)


def rewired(share, draws=DRAWS, place="view1"):
    return rewire(EDGES, *dialogue_spans(LENGTHS, CPU), share, draws, place)


def test_all_rows_have_the_same_masked_columns():
    x = torch.randn(9, 400) + 5
    masked = mask_features(x, 0.25, DRAWS, "view1")
    zero = (masked == 0).all(dim=0)
    assert torch.equal(masked, torch.where(zero, torch.zeros(()), x))  # not scaled, unlike dropout
    assert abs(float(zero.double().mean()) - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5
    assert torch.equal(masked[:2], mask_features(x[:2], 0.25, DRAWS, "view1"))
    assert not torch.equal(masked, mask_features(x, 0.25, DRAWS, "view2"))
    assert not torch.equal(masked, mask_features(x, 0.25, Draws(1, 2, 4), "view1"))
    assert mask_features(x, 0.0, DRAWS, "view1") is x


def test_rewired_edges_stay_within_their_dialogue():
    edges = rewired(0.9)
    assert torch.equal(edges.target, EDGES.target)
    assert torch.equal(DIALOGUE[edges.source], DIALOGUE[edges.target])
    assert not torch.equal(edges.source, EDGES.source)


def test_share_of_rewired_edges():
    # a rewired edge gets its old source again with probability 1 / length
    length = dialogue_spans(LENGTHS, CPU)[1][EDGES.target].double()
    for share in (0.1, 0.5):
        probability = share * (1 - 1 / length)
        sigma = float((probability * (1 - probability)).sum()) ** 0.5
        changed = int((rewired(share).source != EDGES.source).sum())
        assert abs(changed - float(probability.sum())) < 4 * sigma


def test_rewired_sources_are_uniform():
    # One target in a dialogue of 50, with 100,000 edges. The new source must not depend on the choice of the edge.
    # A chi-square of 49 degrees of freedom exceeds 99.7 with probability 1e-4.
    n = 100_000
    many = Edges(torch.zeros(n, dtype=torch.long), torch.full((n,), 60))
    source = rewire(many, torch.full((100,), 50), torch.full((100,), 50), 0.2, DRAWS, "x").source
    drawn = source[source > 0]  # the others keep their source, 0
    assert 0.19 * n < len(drawn) < 0.21 * n
    assert int(drawn.min()) >= 50
    assert int(drawn.max()) < 100
    counts = torch.bincount(drawn - 50, minlength=50).double()
    expected = counts.sum() / 50
    assert float(((counts - expected) ** 2 / expected).sum()) < 99.7


def test_rewiring_is_a_function_of_the_draws():
    assert torch.equal(rewired(0.3).source, rewired(0.3).source)
    for other in (rewired(0.3, Draws(1, 2, 4)), rewired(0.3, Draws(2, 2, 3)), rewired(0.3, place="view2")):
        assert not torch.equal(rewired(0.3).source, other.source)
    assert rewired(0.0) is EDGES


def test_rewiring_does_not_change_the_edges_of_the_anchor():
    before = EDGES.source.clone()
    rewired(0.5)
    assert torch.equal(EDGES.source, before)


def brute_force(x, lengths, k):
    """Return target -> set of its k most similar utterances in the dialogue."""
    similarity = functional.cosine_similarity(x[:, None], x[None], dim=2)
    nearest, start = {}, 0
    for length in lengths:
        places = range(start, start + length)
        for i in places:
            others = sorted((j for j in places if j != i), key=lambda j: -float(similarity[i, j]))
            nearest[i] = set(others[:k])
        start += length
    return nearest


@pytest.mark.parametrize("k", [1, 3, 60])
@pytest.mark.parametrize("lengths", [LENGTHS, (1, 1), (4, 4), (2,)])
def test_neighbours_against_brute_force(lengths, k):
    n = sum(lengths)
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    edges = window_edges(lengths, 1, 1, CPU)
    extended = add_neighbours(edges, x, attention_blocks(lengths, -1, -1, CPU), k)
    old = len(edges.source)
    assert torch.equal(extended.source[:old], edges.source)
    assert torch.equal(extended.target[:old], edges.target)
    if max(lengths) == 1:
        assert extended is edges
        return
    assert (extended.kept[:old] == 1).all()
    neighbours = {i: set() for i in range(n)}
    kept = extended.kept[old:] > 0
    for source, target in zip(extended.source[old:][kept].tolist(), extended.target[old:][kept].tolist(), strict=True):
        assert source not in neighbours[target], "duplicate edge"
        neighbours[target].add(source)
    assert neighbours == brute_force(x, lengths, k)
    # the number of edges depends only on the lengths, and edges that are not kept have valid positions
    assert len(extended.source) == old + n * min(k, max(lengths) - 1)
    assert int(extended.source.max()) < n


def test_neighbours_and_rewiring_preserve_kept():
    edges = window_edges((3, 4), 1, 1, CPU)
    some = Edges(edges.source, edges.target, (torch.arange(len(edges.source)) % 2).float())
    extended = add_neighbours(some, torch.randn(7, 3), attention_blocks((3, 4), -1, -1, CPU), 2)
    assert torch.equal(extended.kept[: len(some.kept)], some.kept)
    again = rewire(some, *dialogue_spans((3, 4), CPU), 0.5, DRAWS, "x")
    assert torch.equal(again.kept, some.kept)


def test_neighbours_have_no_gradient():
    x = torch.randn(7, 3, requires_grad=True)
    extended = add_neighbours(window_edges((3, 4), 1, 1, CPU), x, attention_blocks((3, 4), -1, -1, CPU), 2)
    assert not extended.kept.requires_grad


def test_no_host_reads():
    x, blocks, places = torch.randn(103, 5), attention_blocks(LENGTHS, -1, -1, CPU), dialogue_spans(LENGTHS, CPU)
    with NoHostReads():
        mask_features(x, 0.25, DRAWS, "x")
        rewire(EDGES, *places, 0.3, DRAWS, "x")
        add_neighbours(EDGES, x, blocks, 3)
