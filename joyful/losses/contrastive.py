"""Node-level InfoNCE between two views of the utterances of a batch, with negatives inside and across the views.

    l(u_i, v_i) = -log  exp(s(u_i, v_i) / tau) / [ sum_j exp(s(u_i, v_j) / tau) + sum_{j != i} exp(s(u_i, u_j) / tau) ]
    L = mean over i of (l(u_i, v_i) + l(v_i, u_i)) / 2,   s = cosine similarity

Sources: van den Oord et al. 2018 (InfoNCE); Zhu et al. 2020 (GRACE: intra-view negatives). A node is never its own
negative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(u_NH: Tensor, v_NH: Tensor, temperature: float = 0.2) -> Tensor:
    """Symmetric InfoNCE of two views, (N, H) each -> scalar in nats. With N = 1 there is no negative and the loss is 0.

    Autocast leaves it alone: eight bits of mantissa are too few for a similarity that is divided by the temperature.
    Raises ValueError where the views differ in shape or the temperature is not positive.
    """
    check_views(u_NH, v_NH, temperature)
    u_NH, v_NH = functional.normalize(u_NH, dim=-1), functional.normalize(v_NH, dim=-1)
    n = u_NH.shape[0]
    with torch.autocast(u_NH.device.type, enabled=False):
        across_NN, within_u_NN, within_v_NN = (
            a @ b.T / temperature for a, b in ((u_NH, v_NH), (u_NH, u_NH), (v_NH, v_NH))
        )
    itself_NN = torch.eye(n, dtype=torch.bool, device=u_NH.device)
    positive_N = across_NN.diagonal()

    def one_direction(across: Tensor, within: Tensor) -> Tensor:
        within = within.masked_fill(itself_NN, float("-inf"))
        return torch.logaddexp(torch.logsumexp(across, dim=-1), torch.logsumexp(within, dim=-1)) - positive_N

    if n == 1:  # logsumexp over nothing but -inf has no finite gradient
        return (across_NN - across_NN).sum()
    return 0.5 * (one_direction(across_NN, within_u_NN) + one_direction(across_NN.T, within_v_NN)).mean()


def check_views(u_NH: Tensor, v_NH: Tensor, temperature: float) -> None:
    """Raise ValueError where two views differ in shape or the temperature is not positive."""
    if u_NH.shape != v_NH.shape or u_NH.ndim != 2:
        raise ValueError(
            f"info_nce: expected two views of one shape (N, H), got {tuple(u_NH.shape)} and {tuple(v_NH.shape)}; "
            "pass the same utterances in both"
        )
    if not temperature > 0:
        raise ValueError(
            f"temperature: expected a number > 0, got {temperature!r}; set model.contrastive.temperature=0.2"
        )
