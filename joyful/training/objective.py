"""The components of the training loss, computed from the output of the model.

Shape letters: N utterances, B dialogues, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from joyful.config import ClassificationSettings, FusionSettings, LossSettings
from joyful.losses.classification import CLASSIFICATION_LOSSES, ClassificationLoss, class_weights
from joyful.losses.reconstruction import RECONSTRUCTION_LOSSES, ReconstructionLoss
from joyful.model.joyful import ModelOutput
from joyful.records import Batch

#: Weight of each modality in the unimodal loss (ULGM), as in the reference.
UNIMODAL_WEIGHTS = {"text": 1.0, "audio": 0.5, "visual": 0.5}


def reconstruction_criterion(settings: LossSettings, modalities: tuple[str, ...]) -> ReconstructionLoss:
    """Return the reconstruction loss of the settings group `loss`.

    Args:
        settings: The group `loss`.
        modalities: The modalities, in the order in which their features are concatenated.
    """
    weights = {modality: settings.modal_weights.get(modality, 1.0) for modality in modalities}  # type: ignore[call-overload]
    criterion: ReconstructionLoss = RECONSTRUCTION_LOSSES.create(
        settings.name, {**dict(settings), "modal_weights": weights}
    )
    return criterion


def classification_criterion(settings: ClassificationSettings, class_weights: Tensor | None) -> ClassificationLoss:
    """Return the classification loss of the settings group `classification`.

    Args:
        settings: The group `classification`.
        class_weights: (C,) weights of the classes; None weights all classes equally.
    """
    criterion: ClassificationLoss = CLASSIFICATION_LOSSES.create(
        settings.name, dict(settings), class_weights=class_weights
    )
    return criterion


def weights_of_classes(settings: ClassificationSettings, labels: Tensor, n_classes: int) -> Tensor | None:
    """Return the weights of the classes, (C,), which follow from their frequencies; None weights all equally.

    Args:
        settings: The group `classification`.
        labels: (N,) class indices or (N, C) of 0 and 1, of the train split, on the host; -1: without a label.
        n_classes: C.
    """
    labels = labels[labels >= 0] if labels.ndim == 1 else labels.clamp(min=0)
    frequencies = labels.sum(dim=0) if labels.ndim == 2 else torch.bincount(labels, minlength=n_classes)
    return class_weights(frequencies, settings.class_weight)


def reduce_encoder_losses(losses_N: Tensor, lengths: tuple[int, ...], how: str) -> Tensor:
    """Reduce the reconstruction losses of a batch to the scalar that is trained.

    Args:
        losses_N: (N,) losses of the utterances.
        lengths: Numbers of utterances of the B dialogues, sum N.
        how: "mean" averages over all utterances. "legacy_sum" and "legacy_mean" use only the utterances of the last
            dialogue of the batch, as the reference does.

    Returns:
        A scalar.

    Raises:
        ValueError: If `how` is anything else.

    Example:
        >>> losses = torch.tensor([1.0, 2.0, 3.0, 6.0])
        >>> reduce_encoder_losses(losses, (2, 2), "mean"), reduce_encoder_losses(losses, (2, 2), "legacy_mean")
        (tensor(3.), tensor(4.5000))
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
    """Return how many utterances, counted from the end of the batch, `reduce_encoder_losses` uses; None means all."""
    return None if how == "mean" else lengths[-1]


def components(
    output: ModelOutput, batch: Batch, criterion: ClassificationLoss, encoder_reduction: str
) -> dict[str, Tensor]:
    """Return the four unweighted loss components as scalars, in the order of `joyful.records.COMPONENTS`.

    Args:
        output: Output of the model for the batch.
        batch: The batch.
        criterion: The classification loss.
        encoder_reduction: Setting loss.encoder_reduction, see `reduce_encoder_losses`.
    """
    return {
        "classification": classification_loss(output.logits, batch, criterion),
        "contrastive": output.contrastive,
        "encoder": reduce_encoder_losses(output.fusion.encoder_losses, batch.lengths, encoder_reduction),
        "gate_reg": output.fusion.gate_reg_loss,
    }


def classification_loss(logits: Tensor, batch: Batch, criterion: ClassificationLoss) -> Tensor:
    """Return the mean loss over the utterances that have a label, a scalar; 0 if none has one.

    Args:
        logits: (N, C).
        batch: The batch.
        criterion: The classification loss.
    """
    if not batch.n_labelled:
        return logits.sum() * 0.0
    return criterion(*batch.with_labels(logits))


def unimodal_loss(output: ModelOutput, batch: Batch, criterion: ClassificationLoss) -> Tensor:
    """Return the sum of the classification losses of the unimodal (ULGM) heads, weighted by UNIMODAL_WEIGHTS."""
    losses = [
        UNIMODAL_WEIGHTS[m] * classification_loss(logits.float(), batch, criterion)
        for m, logits in output.unimodal.items()
    ]
    return torch.stack(losses).sum()


def unimodal_weight(settings: FusionSettings, epoch: int) -> float:
    """Return the weight of the unimodal loss in an epoch.

    It is 0 during the first `ulgm_delay_epochs` epochs, then rises linearly to `unimodal_loss_weight` over
    `ulgm_warmup_epochs` epochs.

    Args:
        settings: The group `fusion`.
        epoch: Number of the epoch, counted from 1.
    """
    if not settings.use_ulgm or epoch <= settings.ulgm_delay_epochs:
        return 0.0
    rise = (epoch - settings.ulgm_delay_epochs) / max(1, settings.ulgm_warmup_epochs)
    return settings.unimodal_loss_weight * min(1.0, rise)
