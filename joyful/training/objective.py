"""From the model's output to the components of the loss: the one place where they are put together.

Shape letters: N utterances, B dialogues, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from joyful.config import ClassificationSettings, FusionSettings, LossSettings
from joyful.losses.classification import FocalLoss, NLLLoss
from joyful.losses.reconstruction import MSELoss, SmoothL1Loss, WeightedMSELoss
from joyful.model.graph_model import ModelOutput
from joyful.records import Batch

#: Share of each modality in the unimodal loss (ULGM), as in the reference.
UNIMODAL_SHARE = {"text": 1.0, "audio": 0.5, "visual": 0.5}


def reconstruction_criterion(
    settings: LossSettings, modalities: tuple[str, ...]
) -> MSELoss | SmoothL1Loss | WeightedMSELoss:
    """The criterion that `loss` names, for these modalities in the order of concatenation."""
    if settings.name == "smoothl1":
        return SmoothL1Loss(beta=settings.beta)
    if settings.name == "weighted_mse":
        return WeightedMSELoss({m: settings.modal_weights.get(m, 1.0) for m in modalities})  # type: ignore[call-overload]
    return MSELoss()


def classification_criterion(settings: ClassificationSettings, class_weights: Tensor | None) -> NLLLoss | FocalLoss:
    """The criterion that `classification` names."""
    if settings.name == "focal":
        return FocalLoss(settings.alpha, settings.gamma, class_weights)
    return NLLLoss(class_weights)


def reduce_encoder_losses(losses_N: Tensor, lengths: tuple[int, ...], how: str) -> Tensor:
    """The reconstruction losses of N utterances to the scalar that is trained.

    "mean": over all utterances of the batch. "legacy_sum" and "legacy_mean": over the utterances of the batch's last
    dialogue alone, as the reference came to train it. Raises ValueError for another word.
    """
    if how == "mean":
        return losses_N.mean()
    if how not in ("legacy_sum", "legacy_mean"):
        raise ValueError(
            f"loss.encoder_reduction: expected mean, legacy_sum or legacy_mean, got {how!r}; "
            "set loss.encoder_reduction=mean"
        )
    last = losses_N[-lengths[-1] :]
    return last.sum() if how == "legacy_sum" else last.mean()


def trained_reconstructions(lengths: tuple[int, ...], how: str) -> int | None:
    """How many utterances, the last of the batch, `reduce_encoder_losses` reads; None: all."""
    return None if how == "mean" else lengths[-1]


def components(
    output: ModelOutput, batch: Batch, criterion: NLLLoss | FocalLoss, encoder_reduction: str
) -> dict[str, Tensor]:
    """The four unweighted components as scalars, in the order of joyful.records.COMPONENTS."""
    return {
        "classification": criterion(output.logits, batch.labels),
        "contrastive": output.contrastive,
        "encoder": reduce_encoder_losses(output.fusion.encoder_losses, batch.lengths, encoder_reduction),
        "gate_reg": output.fusion.gate_reg_loss,
    }


def unimodal_loss(output: ModelOutput, batch: Batch, criterion: NLLLoss | FocalLoss) -> Tensor:
    """The ULGM heads' losses, added with weights text 1, audio 0.5, visual 0.5."""
    losses = [UNIMODAL_SHARE[m] * criterion(logits.float(), batch.labels) for m, logits in output.unimodal.items()]
    return torch.stack(losses).sum()


def unimodal_weight(settings: FusionSettings, epoch: int) -> float:
    """Weight of the unimodal loss in this epoch (from 1): 0 for the delay, then a linear rise over the warm-up."""
    if not settings.use_ulgm or epoch <= settings.ulgm_delay_epochs:
        return 0.0
    rise = (epoch - settings.ulgm_delay_epochs) / max(1, settings.ulgm_warmup_epochs)
    return settings.unimodal_loss_weight * min(1.0, rise)
