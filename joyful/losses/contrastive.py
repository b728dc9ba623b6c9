"""Contrastive loss: node-level InfoNCE between two views of the utterances of a batch.

    l(u_i, v_i) = -log  exp(s(u_i, v_i) / tau) / [ sum_j exp(s(u_i, v_j) / tau) + sum_{j != i} exp(s(u_i, u_j) / tau) ]
    L = mean over i of (l(u_i, v_i) + l(v_i, u_i)) / 2,   s = cosine similarity

The negatives are all other nodes of both views. A node is not a negative of itself.

Sources: A. van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018 (InfoNCE); Y. Zhu et
al., "Deep Graph Contrastive Representation Learning", 2020 (GRACE: negatives within a view).

Shape letters: N utterances, H features of a view.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(u_NH: Tensor, v_NH: Tensor, temperature: float = 0.2) -> Tensor:
    """Return the symmetric InfoNCE loss of two views, with negatives within and across the views.

    The module docstring gives the formula. The similarities are computed outside autocast, because the 8-bit
    significand of bfloat16 is too coarse for a similarity that is divided by the temperature.

    Sources: van den Oord et al. 2018; Zhu et al. 2020.

    Args:
        u_NH: First view, (N, H).
        v_NH: Second view, (N, H). Row i is another view of the utterance in row i of `u_NH`.
        temperature: tau, greater than 0.

    Returns:
        A scalar in nats. It is at least 0, and ln(2N - 1) if all N utterances look alike. It is 0 for N = 1, because
        there are no negatives.

    Raises:
        ValueError: If the views differ in shape or are not matrices, or the temperature is not positive.

    Example:
        >>> import torch
        >>> torch.round(info_nce(torch.eye(3), torch.eye(3)), decimals=3)
        tensor(0.0270)
        >>> torch.round(info_nce(torch.ones(3, 2), torch.ones(3, 2)), decimals=3)  # ln 5
        tensor(1.6090)
    """
    check_views(u_NH, v_NH, temperature)
    u_NH, v_NH = functional.normalize(u_NH, dim=-1), functional.normalize(v_NH, dim=-1)
    n = u_NH.shape[0]
    with torch.autocast(u_NH.device.type, enabled=False):
        across_NN, within_u_NN, within_v_NN = (
            a @ b.T / temperature for a, b in ((u_NH, v_NH), (u_NH, u_NH), (v_NH, v_NH))
        )
    diagonal_NN = torch.eye(n, dtype=torch.bool, device=u_NH.device)
    positive_N = across_NN.diagonal()

    def one_direction(across: Tensor, within: Tensor) -> Tensor:
        within = within.masked_fill(diagonal_NN, float("-inf"))
        return torch.logaddexp(torch.logsumexp(across, dim=-1), torch.logsumexp(within, dim=-1)) - positive_N

    if n == 1:  # the gradient of logsumexp is not finite if all its inputs are -inf
        return (across_NN - across_NN).sum()
    return 0.5 * (one_direction(across_NN, within_u_NN) + one_direction(across_NN.T, within_v_NN)).mean()


def check_views(u_NH: Tensor, v_NH: Tensor, temperature: float) -> None:
    """Check the arguments of `info_nce`.

    Args:
        u_NH: First view, (N, H).
        v_NH: Second view, (N, H).
        temperature: Greater than 0.

    Raises:
        ValueError: If the views differ in shape or are not matrices, or the temperature is not positive.
    """
    if u_NH.shape != v_NH.shape or u_NH.ndim != 2:
        raise ValueError(
            f"info_nce: expected two views of one shape (N, H), got {tuple(u_NH.shape)} and {tuple(v_NH.shape)}; "
            "pass the same utterances in both"
        )
    if not temperature > 0:
        raise ValueError(
            f"temperature: expected a number > 0, got {temperature!r}; set model.contrastive.temperature=0.2"
        )
