"""The two augmented views of a dialogue graph for the contrastive loss.

    view 1   feature columns masked, a share of the edges rewired to random sources of the same dialogue
    view 2   feature columns masked, edges added from the nearest neighbours (cosine) inside the same dialogue

Masks and rewirings are functions of the step (joyful.randomness); new edges never cross dialogues, and the graph of the
anchor and the classifier stays as it is. Shape letters: N utterances, H hidden, E edges, K neighbours, G blocks, T
utterances.
"""

from __future__ import annotations

import torch
from torch import Tensor

from joyful.model.dialogue_graph import AttentionBlocks, Edges
from joyful.randomness import Draws


def mask_features(x_NH: Tensor, share: float, draws: Draws, place: str) -> Tensor:
    """Set the same random columns of all utterances to 0, each with probability `share`."""
    if share == 0.0:
        return x_NH
    return x_NH * draws.keep((x_NH.shape[1],), share, place, x_NH.device, "augmentation").to(x_NH.dtype)


def rewire(edges: Edges, first_N: Tensor, length_N: Tensor, share: float, draws: Draws, place: str) -> Edges:
    """Give each edge, with probability `share`, a source drawn evenly from the dialogue of its target.

    first_N, length_N: first place and length of each utterance's dialogue. The number of edges stays the same.
    """
    if share == 0.0:
        return edges
    count = (edges.source.shape[0],)
    stays = draws.keep(count, share, f"{place}.which", edges.source.device, "augmentation")
    uniform = draws.uniform(count, f"{place}.where", edges.source.device, "augmentation")
    length = length_N.index_select(0, edges.target)
    drawn = first_N.index_select(0, edges.target) + (uniform * length).long()
    return Edges(torch.where(stays, edges.source, drawn), edges.target, edges.kept)


def add_neighbours(edges: Edges, x_NH: Tensor, blocks: AttentionBlocks, k: int) -> Edges:
    """Add edges to each utterance from the k most similar others of its dialogue (cosine of x, without gradient).

    blocks: whole dialogues. In a dialogue with fewer than k + 1 utterances the missing edges are kept with weight 0, so
    that the number of edges does not depend on the data.
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
