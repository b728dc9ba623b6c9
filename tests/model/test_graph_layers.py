"""Comparison with torch_geometric's RGCNConv and TransformerConv, and with plain loops over dialogues and edges."""

import math

import pytest
import torch
from torch_geometric.nn import RGCNConv, TransformerConv

from joyful.model.joyful import GraphTransformer, RelationalGraphConv, window_edges
from joyful.model.kernels import relational
from joyful.model.kernels.attention_blocks import attention_blocks, block_attention, plain_attention
from joyful.model.kernels.relational import Edges, plain_relational_convolution, relation
from tests.support.models import random_batch

CPU = torch.device("cpu")
BATCHES = pytest.mark.parametrize(
    ("lengths", "n_speakers", "wp", "wf"),
    [
        ((1,), 1, 8, 8),
        ((5, 1, 9), 1, 2, 2),
        ((4, 7, 3, 12), 2, 8, 8),
        ((6, 6, 2), 3, -1, -1),
        ((30, 4, 11), 5, 0, 3),
        ((13, 20, 8, 1), 9, 3, -1),
        ((150, 2), 2, 8, 8),
    ],
)


def gradients(output, inputs):
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3))
    return torch.autograd.grad((output * weights).sum(), inputs)


def random_conv(n_speakers, size_in=6, size_out=5):
    torch.manual_seed(0)
    conv = RelationalGraphConv(size_in, size_out, n_speakers)
    torch.nn.init.normal_(conv.bias)
    return conv


def conv_of(conv, x, batch, edges):
    """The output for one view."""
    return conv([x], batch, [edges])[0]


def rgcn(conv, x, batch, edges):
    """Return the output and the parameters of torch_geometric's layer with the same weights."""
    layer = RGCNConv(*conv.weight.shape[1:], num_relations=conv.weight.shape[0], aggr="mean")
    layer.load_state_dict({"weight": conv.weight, "root": conv.root, "bias": conv.bias})
    relations = relation(batch.speakers, edges.source, edges.target, batch.n_speakers)
    return layer(x, torch.stack([edges.source, edges.target]), relations), [layer.weight, layer.root, layer.bias]


@BATCHES
def test_relational_convolution_against_torch_geometric(lengths, n_speakers, wp, wf):
    batch = random_batch(lengths, n_speakers)
    edges = window_edges(lengths, wp, wf, CPU)
    conv = random_conv(n_speakers)
    x = torch.randn(sum(lengths), 6, requires_grad=True)
    ours = conv_of(conv, x, batch, edges)
    theirs, parameters = rgcn(conv, x, batch, edges)
    twin = plain_relational_convolution([x], conv.weight, conv.root, conv.bias, batch, [edges])[0]
    torch.testing.assert_close(ours, twin, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    mine = gradients(ours, [x, conv.weight, conv.root, conv.bias])
    for one, other in zip(mine, gradients(theirs, [x, *parameters]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def plain_convolution(conv, x, who, edges):
    """The formula of the class, edge by edge."""
    speakers = math.isqrt(conv.weight.shape[0] // 2)
    messages = {}  # (target, relation) -> sources
    for source, target in zip(edges.source.tolist(), edges.target.tolist(), strict=True):
        r = (who[source] * speakers + who[target]) * 2 + (source > target)
        messages.setdefault((target, r), []).append(source)
    rows = [x[i] @ conv.root + conv.bias for i in range(len(x))]
    for (target, r), sources in messages.items():
        rows[target] = rows[target] + torch.stack([x[j] @ conv.weight[r] for j in sources]).mean(dim=0)
    return torch.stack(rows)


@pytest.mark.parametrize("n_speakers", [1, 2, 4])
def test_relational_convolution_against_a_loop(n_speakers):
    lengths = (5, 2, 7)
    batch = random_batch(lengths, n_speakers)
    edges = window_edges(lengths, 2, 1, CPU)
    conv, x = random_conv(n_speakers), torch.randn(14, 6)
    expected = plain_convolution(conv, x, batch.speakers.tolist(), edges)
    torch.testing.assert_close(conv_of(conv, x, batch, edges), expected)
    # duplicate edges, edges beyond the window, and utterances without edges
    some = Edges(torch.tensor([0, 0, 3, 1, 13]), torch.tensor([1, 1, 1, 2, 7]))
    expected = plain_convolution(conv, x, batch.speakers.tolist(), some)
    torch.testing.assert_close(conv_of(conv, x, batch, some), expected)
    torch.testing.assert_close(expected[5], x[5] @ conv.root + conv.bias)


@BATCHES
def test_views_together_against_each_view_alone(lengths, n_speakers, wp, wf):
    batch, conv = random_batch(lengths, n_speakers), random_conv(n_speakers)
    edges = window_edges(lengths, wp, wf, CPU)
    every_other = Edges(edges.source, edges.target, (torch.arange(len(edges.source)) % 2).float())
    views = [torch.randn(sum(lengths), 6, requires_grad=True) for _ in range(3)]
    some = [edges, every_other, window_edges(lengths, 0, -1, CPU)]
    inputs = [*views, *conv.parameters()]
    together = conv(views, batch, some)
    plain = plain_relational_convolution(views, conv.weight, conv.root, conv.bias, batch, some)
    for one, other in zip(together, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    mine, theirs = (gradients(torch.stack(outputs), inputs) for outputs in (together, plain))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_duplicate_edges_against_torch_geometric():
    batch = random_batch((6, 5), 2)
    edges = window_edges((6, 5), 2, 2, CPU)
    twice = Edges(torch.cat([edges.source, edges.source[::3]]), torch.cat([edges.target, edges.target[::3]]))
    conv, x = random_conv(2), torch.randn(11, 6)
    torch.testing.assert_close(conv_of(conv, x, batch, twice), rgcn(conv, x, batch, twice)[0])
    assert not torch.allclose(conv_of(conv, x, batch, twice), conv_of(conv, x, batch, edges))


def test_edges_that_are_not_kept_have_no_effect():
    batch = random_batch((6, 5), 2)
    edges = window_edges((6, 5), 2, 2, CPU)
    kept = torch.rand(len(edges.source), generator=torch.Generator().manual_seed(0)) < 0.5
    kept[edges.target == 4] = False
    conv, x = random_conv(2), torch.randn(11, 6, requires_grad=True)
    some = Edges(edges.source, edges.target, kept.float())
    masked = conv_of(conv, x, batch, some)
    twin = plain_relational_convolution([x], conv.weight, conv.root, conv.bias, batch, [some])[0]
    torch.testing.assert_close(masked, twin)
    left = conv_of(conv, x, batch, Edges(edges.source[kept], edges.target[kept]))
    torch.testing.assert_close(masked, left)
    torch.testing.assert_close(masked[4], x[4] @ conv.root + conv.bias)
    for one, other in zip(gradients(masked, [x, conv.weight]), gradients(left, [x, conv.weight]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("part", [1, 5, 23])
def test_the_part_size_of_messages_changes_nothing(part, monkeypatch):
    batch = random_batch((6, 5), 2)
    edges = window_edges((6, 5), 2, 2, CPU)
    conv, x = random_conv(2), torch.randn(11, 6, requires_grad=True)

    def run():
        output = conv_of(conv, x, batch, edges)
        return [output, *gradients(output, [x, *conv.parameters()])]

    expected = run()
    monkeypatch.setattr(relational, "PART_SIZE", part)
    assert all(torch.equal(a, b) for a, b in zip(run(), expected, strict=True))


def test_more_neighbours_than_bfloat16_can_count():
    # 600 connected utterances of one speaker: each has a share of about 1 / 300, and bfloat16 counts only to 256
    lengths = (600,)
    batch = random_batch(lengths, 1)
    edges = window_edges(lengths, -1, -1, CPU)
    conv, x = random_conv(1), torch.ones(600, 6)
    expected = conv_of(conv, x, batch, edges)
    half = conv_of(conv.to(torch.bfloat16), x.to(torch.bfloat16), batch, edges)
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_relation_by_hand():
    # speakers 0 1 1; (source speaker * 2 + target speaker) * 2 + (source later than target)
    edges = Edges(torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 0, 1]))
    assert relation(torch.tensor([0, 1, 1]), edges.source, edges.target, 2).tolist() == [0, 2, 5, 5, 7]


def test_weights_have_glorot_initialisation():
    conv = random_conv(3, 20, 30)
    conv.reset_parameters()
    bound = (6 / 50) ** 0.5
    for matrix in (conv.weight, conv.root):
        assert float(matrix.detach().abs().max()) <= bound
        assert float(matrix.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not conv.bias.any()


@BATCHES
def test_graph_transformer_against_torch_geometric(lengths, n_speakers, wp, wf):
    torch.manual_seed(0)
    ours, theirs = GraphTransformer(6, 5, heads=3), TransformerConv(6, 5, heads=3)
    theirs.load_state_dict(ours.state_dict())  # same names
    x = torch.randn(sum(lengths), 6, requires_grad=True)
    edges = window_edges(lengths, wp, wf, CPU)
    output = ours(x, attention_blocks(lengths, wp, wf, CPU))
    expected = theirs(x, torch.stack([edges.source, edges.target]))
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)
    named = dict(theirs.named_parameters())
    mine = gradients(output, [x, *ours.parameters()])
    other = gradients(expected, [x, *(named[name] for name, _ in ours.named_parameters())])
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@BATCHES
def test_block_attention_against_its_plain_form(lengths, n_speakers, wp, wf):
    torch.manual_seed(0)
    q, k, v = (torch.randn(sum(lengths), 6, requires_grad=True) for _ in range(3))
    blocks = attention_blocks(lengths, wp, wf, CPU)
    ours, plain = block_attention(q, k, v, blocks, 2), plain_attention(q, k, v, blocks, 2)
    torch.testing.assert_close(ours, plain)
    for one, other in zip(gradients(ours, [q, k, v]), gradients(plain, [q, k, v]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_graph_transformer_against_a_loop():
    torch.manual_seed(0)
    layer, lengths = GraphTransformer(4, 3, heads=2), (4, 1, 6)
    x = torch.randn(11, 4)
    q, k, v = (linear(x).view(11, 2, 3) for linear in (layer.lin_query, layer.lin_key, layer.lin_value))
    expected = layer.lin_skip(x).view(11, 2, 3).clone()
    start = 0
    for length in lengths:
        for i in range(start, start + length):
            seen = [j for j in range(start, start + length) if i - 2 <= j <= i + 1]
            for head in range(2):
                scores = torch.stack([q[i, head] @ k[j, head] / 3**0.5 for j in seen]).softmax(0)
                expected[i, head] += (scores[:, None] * v[seen, head]).sum(0)
        start += length
    output = layer(x, attention_blocks(lengths, 2, 1, CPU))
    torch.testing.assert_close(output, expected.flatten(1))
