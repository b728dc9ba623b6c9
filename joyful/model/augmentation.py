"""The two augmented views of a dialogue graph for the contrastive loss.

    view 1   feature columns masked, a fraction of the edges rewired to random sources in the same dialogue
    view 2   feature columns masked, edges added from the nearest neighbours (cosine) in the same dialogue

Masks and rewirings are functions of the training step (`joyful.randomness`). New edges never connect two dialogues. The
graph of the anchor and of the classifier is not changed.

Shape letters: N utterances, H hidden, E edges, K neighbours, G blocks, T utterances of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from joyful.model.dialogue_graph import AttentionBlocks, Edges
from joyful.randomness import Draws


def mask_features(x_NH: Tensor, share: float, draws: Draws, place: str) -> Tensor:
    """Return x with random columns set to 0, the same columns for all utterances.

    Args:
        x_NH: Features of the utterances.
        share: Probability of masking a column, in [0, 1).
        draws: Random numbers of the step.
        place: Name of the view, for the random numbers.
    """
    if share == 0.0:
        return x_NH
    return x_NH * draws.keep((x_NH.shape[1],), share, place, x_NH.device, "augmentation").to(x_NH.dtype)


def rewire(edges: Edges, first_N: Tensor, length_N: Tensor, share: float, draws: Draws, place: str) -> Edges:
    """Return edges of which some have a new source, drawn uniformly from the dialogue of their target.

    The number of edges does not change.

    Args:
        edges: Edges of the batch.
        first_N: Position of the first utterance of each utterance's dialogue.
        length_N: Number of utterances of each utterance's dialogue.
        share: Probability of rewiring an edge, in [0, 1).
        draws: Random numbers of the step.
        place: Name of the view, for the random numbers.
    """
    if share == 0.0:
        return edges
    count = (edges.source.shape[0],)
    unchanged = draws.keep(count, share, f"{place}.which", edges.source.device, "augmentation")
    uniform = draws.uniform(count, f"{place}.where", edges.source.device, "augmentation")
    length = length_N.index_select(0, edges.target)
    drawn = first_N.index_select(0, edges.target) + (uniform * length).long()
    return Edges(torch.where(unchanged, edges.source, drawn), edges.target, edges.kept)


def add_neighbours(edges: Edges, x_NH: Tensor, blocks: AttentionBlocks, k: int) -> Edges:
    """Return the edges, with edges to each utterance from its k most similar utterances in the dialogue appended.

    In a dialogue with fewer than k + 1 utterances, the missing edges are added with weight 0. The number of edges
    therefore does not depend on the data.

    Args:
        edges: Edges of the batch.
        x_NH: Features; similarity is their cosine. No gradient flows through it.
        blocks: Attention blocks of whole dialogues.
        k: Number of neighbours of each utterance.
    """
    n = x_NH.shape[0]
    k = min(k, blocks.keys.shape[1] - 1)
    if k < 1:
        return edges
    unit_GTH = blocks.gather(torch.nn.functional.normalize(x_NH.detach(), dim=1), blocks.keys)
    similarity_GTT = unit_GTH @ unit_GTH.transpose(1, 2) + blocks.bias.squeeze(1).to(unit_GTH.dtype)
    similarity_GTT.diagonal(dim1=1, dim2=2).fill_(float("-inf"))
    value_GTK, index_GTK = similarity_GTT.topk(k, dim=2)
    place_GTK = blocks.keys.unsqueeze(1).expand(-1, index_GTK.shape[1], -1).gather(2, index_GTK)
    kept_NK = torch.isfinite(blocks.scatter(value_GTK))
    target_NK = torch.arange(n, device=x_NH.device).unsqueeze(1).expand(n, k)
    source_NK = torch.where(kept_NK, blocks.scatter(place_GTK), target_NK)
    before = torch.ones_like(edges.source, dtype=x_NH.dtype) if edges.kept is None else edges.kept
    kept = torch.cat([before, kept_NK.to(before.dtype).flatten()])
    return Edges(torch.cat([edges.source, source_NK.flatten()]), torch.cat([edges.target, target_NK.flatten()]), kept)
