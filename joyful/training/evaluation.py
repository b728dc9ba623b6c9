"""Accumulation of the rows of history.parquet on the device.

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from joyful.model.joyful import ModelOutput
from joyful.records import COMPONENTS, Batch
from joyful.results import class_scores
from joyful.training import metrics

#: Means over the utterances that have a label. All other means are over all utterances.
_OF_LABELS = ("nll", "loss_classification")


class Accumulator:
    """Accumulates the metrics of a split over its batches.

    Each loss is averaged over batches, weighted by their numbers of utterances; the losses of the classification by
    their numbers of utterances that have a label. No method waits for the device.

    Args:
        keep_logits: Whether to keep the logits too.

    Attributes:
        utterances: Number of utterances added so far.
        labelled: Number of those that have a label.
    """

    def __init__(self, keep_logits: bool = False) -> None:
        self._logits: list[Tensor] | None = [] if keep_logits else None
        self._sums: dict[str, Tensor] = {}
        self._counts: Tensor | None = None
        self.utterances = self.labelled = 0

    def add(self, output: ModelOutput, batch: Batch, components: Mapping[str, Tensor]) -> None:
        """Add a batch: its classification counts, plain NLL, reconstruction errors and loss components.

        Args:
            output: Output of the model for the batch.
            batch: The batch.
            components: The unweighted loss components. A component that is absent is not measured, nor is the total.
        """
        n = batch.n_utterances
        with torch.no_grad():
            logits, labels = batch.with_labels(output.logits)
            values = {"nll": _negative_log_likelihood(logits, labels)}
            values |= {name: error.mean() for name, error in output.fusion.errors.items()}
            values |= {f"loss_{name}": loss.detach() for name, loss in components.items()}
            for name, value in values.items():
                total = self._sums.get(name)
                term = value.double() * (batch.n_labelled if name in _OF_LABELS else n)
                self._sums[name] = term if total is None else total + term
            batch_counts = metrics.counts(logits, labels)
            self._counts = batch_counts if self._counts is None else self._counts + batch_counts
            if self._logits is not None:
                self._logits.append(output.logits.detach())
        self.utterances += n
        self.labelled += batch.n_labelled

    def logits(self) -> Tensor:
        """Return the (N, C) logits of all batches. They stay on the device, and this method does not wait for it."""
        assert self._logits, "the split has no batch, or keep_logits is off"
        return torch.cat(self._logits)

    def values(self, weights: Mapping[str, float | Tensor]) -> Tensor:
        """Return what `row` needs of the device, as one vector in float64.

        Args:
            weights: Component -> its current weight in the total loss.
        """
        assert self._counts is not None, "the split has no batch"
        flat = torch.stack([*self._sums.values(), *(_tensor(weights[c], self._counts) for c in COMPONENTS)])
        return torch.cat([flat, self._counts.flatten()])

    def row(self, values: Sequence[float]) -> dict[str, float]:
        """Return the scores, losses, weights and shares of the total loss, by columns of history.parquet.

        Args:
            values: The vector of `values`, read from the device.

        Returns:
            Column -> value. Scores are fractions. The shares are NaN if the total loss is 0. Without a component that has a
            weight, there are neither total nor shares.
        """
        assert self._counts is not None, "the split has no batch"
        names = list(self._sums)
        means = {
            name: value / (self.labelled if name in _OF_LABELS else self.utterances)
            for name, value in zip(names, values, strict=False)
        }
        weight = dict(zip(COMPONENTS, values[len(names) :], strict=False))
        classes = self._counts.shape[1]
        table = np.array(values[len(names) + len(COMPONENTS) :]).reshape(4, classes)
        row = class_scores.scores(table, self.labelled) | means
        row |= {f"weight_{c}": weight[c] for c in COMPONENTS}
        if any(weight[c] and f"loss_{c}" not in means for c in COMPONENTS):
            return row
        # A component of weight 0 does not enter the total, even if it is NaN.
        weighted = {c: weight[c] * means[f"loss_{c}"] if weight[c] else 0.0 for c in COMPONENTS}
        total = math.fsum(weighted.values())
        row["loss_total"] = total
        for c in COMPONENTS:
            row[f"share_{c}"] = weighted[c] / total if total else math.nan
        return row


def gradient_ratio(dot: float, encoder: float, classification: float, weight: float) -> dict[str, float]:
    """Return the encoder gradient ratio and cosine. They are NaN if a norm in their denominator is 0.

    Args:
        dot: Dot product of the gradients of the encoder loss and of the classification loss.
        encoder: Norm of the first, without its weight.
        classification: Norm of the second.
        weight: Weight of the encoder loss.
    """
    norms = encoder * classification
    return {
        "encoder_gradient_ratio": weight * encoder / classification if classification else math.nan,
        "encoder_gradient_cosine": dot / norms if norms else math.nan,
    }


def _negative_log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    if not len(labels):
        return logits.new_zeros(())
    if labels.ndim == 2:
        return functional.binary_cross_entropy_with_logits(logits, labels)
    return functional.cross_entropy(logits, labels)


def _tensor(value: float | Tensor, like: Tensor) -> Tensor:
    return value.to(like).reshape(()) if isinstance(value, Tensor) else like.new_full((), value)
