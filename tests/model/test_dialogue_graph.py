import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joyful.model.joyful import dialogue_spans, window_edges
from joyful.model.kernels.attention_blocks import BLOCK_SIZE, attention_blocks

CPU = torch.device("cpu")
LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=6).map(tuple)
WINDOW = st.integers(-1, 14)


def visible(lengths, wp, wf):
    """Return the matrix (target, source) of edges, from the definition in the module docstring."""
    n = sum(lengths)
    matrix = torch.zeros(n, n, dtype=torch.bool)
    start = 0
    for length in lengths:
        for i in range(start, start + length):
            for j in range(start, start + length):
                matrix[i, j] = (wp == -1 or j >= i - wp) and (wf == -1 or j <= i + wf)
        start += length
    return matrix


def count_in_blocks(blocks, n):
    """Return how often the blocks allow each pair (query, key)."""
    count = torch.zeros(n + 1, n + 1, dtype=torch.long)
    for queries, keys, bias in zip(blocks.queries, blocks.keys, blocks.bias[:, 0], strict=True):
        for q, row in zip(queries.tolist(), bias, strict=True):
            for k, value in zip(keys.tolist(), row.tolist(), strict=True):
                assert value in (0.0, float("-inf"))
                count[q, k] += value == 0.0
    return count


@settings(max_examples=80, deadline=None)
@example(lengths=(5, 1, 3), wp=0, wf=0)
@example(lengths=(5, 1, 3), wp=-1, wf=0)
@example(lengths=(5, 1, 3), wp=0, wf=-1)
@given(lengths=LENGTHS, wp=WINDOW, wf=WINDOW)
def test_edges_against_the_definition(lengths, wp, wf):
    edges = window_edges(lengths, wp, wf, CPU)
    target, source = visible(lengths, wp, wf).nonzero(as_tuple=True)
    assert torch.equal(edges.target, target)  # nonzero sorts by target, then source
    assert torch.equal(edges.source, source)
    assert edges.kept is None
    assert edges.source.dtype == torch.int64


@settings(max_examples=60, deadline=None)
@example(lengths=(1,), wp=-1, wf=-1)
@example(lengths=(5, 1, 3), wp=0, wf=0)
@given(lengths=LENGTHS, wp=WINDOW, wf=WINDOW)
def test_blocks_against_the_definition(lengths, wp, wf):
    n = sum(lengths)
    blocks = attention_blocks(lengths, wp, wf, CPU)
    count = count_in_blocks(blocks, n)
    assert torch.equal(count[:n, :n], visible(lengths, wp, wf).long())
    assert (count[:n, n] == 0).all(), "an utterance attends to padding"
    # every query, including padding, attends to a key: a row of only -inf would give NaN
    assert (blocks.bias == 0).any(dim=3).all()
    # every utterance is a query exactly once, at the index in place
    assert torch.equal(blocks.queries.reshape(-1)[blocks.place], torch.arange(n))
    assert int((blocks.queries < n).sum()) == n


@settings(max_examples=30, deadline=None)
@given(lengths=LENGTHS, wp=WINDOW, wf=WINDOW)
def test_gather_and_scatter_are_inverse(lengths, wp, wf):
    blocks = attention_blocks(lengths, wp, wf, CPU)
    x = torch.randn(sum(lengths), 3)
    gathered = blocks.gather(x, blocks.queries)
    assert torch.equal(blocks.scatter(gathered), x)
    assert (gathered[blocks.queries == len(x)] == 0).all()
    assert torch.equal(blocks.gather(x, blocks.keys)[blocks.keys < len(x)], x[blocks.keys[blocks.keys < len(x)]])


@pytest.mark.parametrize(("wp", "wf"), [(8, 8), (0, 3), (70, 0)])
def test_long_dialogues_are_split_into_blocks(wp, wf):
    lengths = (200, 3, 130)
    blocks = attention_blocks(lengths, wp, wf, CPU)
    assert blocks.queries.shape[1] == BLOCK_SIZE
    assert blocks.keys.shape[1] <= BLOCK_SIZE + wp + wf
    assert blocks.queries.shape[0] == 4 + 1 + 3  # 200 / 64 and 130 / 64, rounded up
    assert torch.equal(count_in_blocks(blocks, 333)[:333, :333], visible(lengths, wp, wf).long())


def test_memory_grows_linearly_with_the_length():
    short, long = (attention_blocks((length,), 8, 8, CPU).bias.numel() for length in (400, 4000))
    assert long <= 11 * short
    assert attention_blocks((400,), -1, -1, CPU).bias.numel() == 400**2  # one block for the whole dialogue


def test_dialogue_spans_by_hand():
    first, length = dialogue_spans((2, 1, 3), CPU)
    assert first.tolist() == [0, 0, 2, 3, 3, 3]
    assert length.tolist() == [2, 2, 1, 3, 3, 3]


def test_structures_made_under_inference_mode_work_in_training():
    # structures are cached, so a training step may use those of an evaluation
    lengths = (4, 9, 2)
    with torch.inference_mode():
        attention_blocks(lengths, 3, 3, CPU)
        window_edges(lengths, 3, 3, CPU)
    blocks, edges = attention_blocks(lengths, 3, 3, CPU), window_edges(lengths, 3, 3, CPU)
    x = torch.randn(15, 2, requires_grad=True)
    total = blocks.scatter(blocks.gather(x, blocks.queries)).sum() + x.index_select(0, edges.source).sum()
    total.backward()
    assert x.grad is not None
