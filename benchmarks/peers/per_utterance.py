"""Trainer of the JOYFUL model that fuses one utterance at a time, as the public implementation does.

The collate step runs the fusion utterance by utterance in Python and keeps each J x J softmax for the backward pass.
Dialogues are padded to the longest of their batch, and padded positions are computed. Loops build the graph. An epoch
trains, then evaluates train, dev and test. The trainer is written for the benchmarks in plain torch. It shares no
computation with joyful, so it also serves as an independent check of joyful's functions.

The default loss is that of the reference. The reference resets the reconstruction loss at each dialogue of a batch, so
only the loss of the last dialogue is trained, summed over its utterances. The gate regulariser is weighted inside the
fusion and is part of that sum, so the encoder weight applies to it as well. `encoder_reduction` and `gate_reg` select
joyful's definitions.

One error of the reference is corrected, so that both compute the same function (see also per_utterance_graph):
attention in the context masks padding. The padded positions are still computed.

Shape letters: B dialogues, T utterances of the longest, N utterances, D features, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.per_utterance_fusion import PlainFusion, PlainFusionHierarchical
from benchmarks.peers.per_utterance_graph import (
    Graph,
    PlainGraphTransformer,
    PlainRelationalConv,
    RandomSource,
    add_nearest,
    build_graph,
    contrast,
    mask_columns,
    perturb_edges,
)
from joyful.config import Settings
from joyful.records import Dialogues
from joyful.training.batching import batch_size


@dataclass(frozen=True)
class Dialogue:
    """One dialogue: features by modality (T, D), labels (T,), speakers (T,)."""

    features: dict[str, Tensor]
    labels: Tensor
    speakers: Tensor


@dataclass(frozen=True)
class Collated:
    """A batch after the fusion.

    Attributes:
        fused: Fused vectors (B, T, 2 L), zero at padded positions.
        padding: (B, T), True at padded positions.
        labels: (N,).
        graph: Graph of the batch.
        encoder_losses: B lists of scalars, one scalar per utterance.
        gate_regs: N scalars.
    """

    fused: Tensor
    padding: Tensor
    labels: Tensor
    graph: Graph
    encoder_losses: list[list[Tensor]]
    gate_regs: list[Tensor]


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a split: mean loss and NLL over its utterances, and weighted F1 (0 to 1)."""

    loss: float
    nll: float
    f1_weighted: float


class PaddedContext(nn.Module):
    """Transformer encoder over padded dialogues with a linear projection: (B, T, D) -> (B, T, H)."""

    def __init__(self, width: int, settings: Settings) -> None:
        super().__init__()
        m = settings.model
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, m.context_heads, m.context_feedforward_size, m.dropout, batch_first=True)
            for _ in range(m.context_layers)
        )
        self.project = nn.Linear(width, m.hidden_size)

    def forward(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
        for layer in self.layers:
            x_BTD = layer(x_BTD, src_key_padding_mask=padding_BT)
        return self.project(x_BTD)


class PerUtteranceModel(nn.Module):
    """The model of `model=reference`: fusion, transformer context, graph and classifier.

    Raises:
        ValueError: If a setting is not supported here (recurrent context, skips, standardisation, ULGM and others).
    """

    def __init__(self, settings: Settings, dimensions: Mapping[str, int], classes: int, n_speakers: int) -> None:
        super().__init__()
        m = settings.model
        _require_reference(settings)
        smooth = settings.loss.name == "smoothl1"
        criterion = nn.SmoothL1Loss(beta=settings.loss.beta) if smooth else nn.MSELoss()
        kind = PlainFusionHierarchical if settings.fusion.name == "hierarchical" else PlainFusion
        self.fusion = kind(dimensions, m.inter_size, m.fusion_hidden_size, m.fusion_latent_size, criterion)
        width, h = 2 * m.fusion_latent_size, m.hidden_size
        self.context = PaddedContext(width, settings)
        self.graph_conv = PlainRelationalConv(h, h, 2 * n_speakers**2)
        self.graph_transformer = PlainGraphTransformer(h, h, m.graph_heads)
        self.norm = nn.BatchNorm1d(h * m.graph_heads)
        self.linear, self.classifier = nn.Linear(h * m.graph_heads, h), nn.Linear(h, classes)
        self.dropout: nn.Module = nn.Dropout(m.dropout)
        self.random_source = RandomSource()
        self.settings, self.n_speakers = m, n_speakers

    def collate(self, dialogues: Sequence[Dialogue]) -> Collated:
        """Fuse the utterances of each dialogue one by one, and pad the dialogues."""
        fused, encoder_losses, gate_regs = [], [], []
        for dialogue in dialogues:
            vectors, losses = [], []
            for t in range(len(dialogue.labels)):
                one = self.fusion(*(dialogue.features[m][t] for m in self.fusion.modalities))
                vectors.append(one.vector)
                losses.append(one.encoder_loss)
                gate_regs.append(one.gate_reg)
            fused.append(torch.stack(vectors))
            encoder_losses.append(losses)
        lengths = torch.tensor([len(part) for part in fused])
        s = self.settings
        return Collated(
            nn.utils.rnn.pad_sequence(fused, batch_first=True),
            torch.arange(int(lengths.max())) >= lengths.unsqueeze(1),
            torch.cat([dialogue.labels for dialogue in dialogues]),
            build_graph([dialogue.speakers for dialogue in dialogues], self.n_speakers, s.wp, s.wf),
            encoder_losses,
            gate_regs,
        )

    def forward(self, batch: Collated) -> tuple[Tensor, Tensor]:
        """Return logits (N, C) and the contrastive loss (scalar)."""
        projected_BTH = self.context(batch.fused, batch.padding)
        lengths = (~batch.padding).sum(dim=1).tolist()
        node_NH = torch.cat([projected_BTH[row, :length] for row, length in enumerate(lengths)])
        graph = batch.graph
        anchor_NH = self.graph_conv(node_NH, graph.source, graph.target, graph.relation(graph.source, graph.target))
        hidden = functional.leaky_relu(self.norm(self.graph_transformer(anchor_NH, graph.source, graph.target)))
        logits = self.classifier(self.dropout(functional.relu(self.linear(hidden))))
        return logits, self.contrastive(node_NH, anchor_NH, graph)

    def contrastive(self, node_NH: Tensor, anchor_NH: Tensor, graph: Graph) -> Tensor:
        """Return the contrastive loss of the graph with two views: perturbed edges, and added nearest neighbours."""
        c = self.settings.contrastive
        views = (
            ("view1", perturb_edges(graph, c.edge_perturbation, self.random_source, "view1")),
            ("view2", add_nearest(graph, node_NH, c.neighbours)),
        )
        total = node_NH.new_zeros(())
        for name, (source, target) in views:
            masked_NH = mask_columns(node_NH, c.feature_mask, self.random_source, f"{name}.features")
            view_NH = self.graph_conv(masked_NH, source, target, graph.relation(source, target))
            total = total + contrast(anchor_NH, view_NH, c.temperature)
        return total

    def load_joyful(self, state: Mapping[str, Tensor]) -> None:
        """Load the state_dict of a joyful GraphModel of the same sizes."""
        renamed = {}
        for name, value in state.items():
            for theirs, ours in ((".qkv.", ".self_attn.in_proj_"), (".out.", ".self_attn.out_proj.")):
                if name.startswith("context.layers."):
                    name = name.replace(theirs, ours)
            renamed[name] = value
        self.load_state_dict(renamed)


class PerUtteranceTrainer:
    """Trains a PerUtteranceModel with Adam and clipped gradients.

    Args:
        settings: Settings of the run.
        model: Model to train.
        splits: Dialogues of each split.
        encoder_reduction: "legacy_sum" or "legacy_mean" (over the last dialogue of a batch), or "mean" (over all
            utterances).
        gate_reg: "inside" as in the reference, or "apart" as in joyful (mean over the utterances of the batch, weighted
            once).
    """

    def __init__(
        self,
        settings: Settings,
        model: PerUtteranceModel,
        splits: Mapping[str, Dialogues],
        encoder_reduction: str = "legacy_sum",
        gate_reg: str = "inside",
    ) -> None:
        self.settings, self.model = settings, model
        self.splits = {name: dialogues_of(split, model.fusion.modalities) for name, split in splits.items()}
        self.encoder_reduction, self.gate_reg = encoder_reduction, gate_reg
        o, s = settings.optimizer, settings.training.scheduler
        self.optimizer = torch.optim.Adam(model.parameters(), lr=o.learning_rate, weight_decay=o.weight_decay)
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=s.factor, patience=s.patience
        )

    def total_loss(self, batch: Collated, logits: Tensor, contrastive: Tensor) -> Tensor:
        """Return the weighted sum of the losses (scalar)."""
        w, inside = self.settings.weights, self.gate_reg == "inside"
        each = [torch.stack(losses) for losses in batch.encoder_losses]
        gates = torch.stack(batch.gate_regs)
        if inside:
            parts = torch.split(w.gate_reg_weight * gates, [len(losses) for losses in each])
            each = [losses + part for losses, part in zip(each, parts, strict=True)]
        encoder = {
            "legacy_sum": lambda: each[-1].sum(),
            "legacy_mean": lambda: each[-1].mean(),
            "mean": lambda: torch.cat(each).mean(),
        }[self.encoder_reduction]()
        total = functional.nll_loss(functional.log_softmax(logits, dim=1), batch.labels)
        total = total + w.cl_loss_weight * contrastive + w.encoder_loss_weight * encoder
        return total if inside else total + w.gate_reg_weight * gates.mean()

    def step(self, dialogues: Sequence[Dialogue]) -> float:
        """Train one step on these dialogues, and return the loss."""
        self.model.train()
        batch = self.model.collate(dialogues)
        self.optimizer.zero_grad()
        loss = self.total_loss(batch, *self.model(batch))
        loss.backward()
        if self.settings.training.max_grad_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.training.max_grad_norm)
        self.optimizer.step()
        return loss.item()

    def evaluate(self, split: str) -> Evaluation:
        """Evaluate a split in evaluation mode, in the order of the file. The fusion runs again."""
        self.model.eval()
        dialogues = self.splits[split]
        size = batch_size(self.settings.training.batch_size, len(dialogues))
        losses, nlls, counts, predicted, labels = [], [], [], [], []
        with torch.no_grad():
            for start in range(0, len(dialogues), size):
                batch = self.model.collate(dialogues[start : start + size])
                logits, contrastive = self.model(batch)
                losses.append(self.total_loss(batch, logits, contrastive).item())
                nlls.append(functional.cross_entropy(logits, batch.labels).item())
                counts.append(len(batch.labels))
                predicted.append(logits.argmax(dim=1).numpy())
                labels.append(batch.labels.numpy())
        return Evaluation(
            float(np.average(losses, weights=counts)),
            float(np.average(nlls, weights=counts)),
            weighted_f1(np.concatenate(predicted), np.concatenate(labels)),
        )

    def train(self, order: Iterable[Sequence[int]] | None = None) -> None:
        """Train one step per batch of `order`, which holds indices of training dialogues; None: all in random order."""
        dialogues = self.splits["train"]
        shuffled = torch.randperm(len(dialogues)).split(self.settings.training.batch_size)
        for chosen in [part.tolist() for part in shuffled] if order is None else order:
            self.step([dialogues[number] for number in chosen])

    def epoch(self, order: Iterable[Sequence[int]] | None = None) -> dict[str, Evaluation]:
        """Train, then evaluate each split, and return the evaluations by split. order: see `train`."""
        self.train(order)
        evaluations = {split: self.evaluate(split) for split in self.splits}
        self.scheduler.step(evaluations["dev"].loss)
        return evaluations


def dialogues_of(split: Dialogues, modalities: Sequence[str]) -> list[Dialogue]:
    """Return a list of the dialogues of a split, the form of the reference's pickles."""
    ends = np.cumsum(split.lengths)
    return [
        Dialogue(
            {m: torch.tensor(split.features[m][start:end]) for m in modalities},
            torch.tensor(split.labels[start:end]),
            torch.tensor(split.speakers[start:end]),
        )
        for start, end in zip(ends - split.lengths, ends, strict=True)
    ]


def weighted_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean F1 of the classes, weighted by their frequency. F1 is 0 for a class without a hit."""
    total = 0.0
    for c in np.unique(labels):
        hits = np.sum((predicted == c) & (labels == c))
        total += 2 * hits / (np.sum(predicted == c) + np.sum(labels == c)) * np.mean(labels == c)
    return float(total)


def _require_reference(settings: Settings) -> None:
    m = settings.model
    unknown = {
        "model.context": m.context != "transformer",
        "model.skip": m.skip,
        "model.classifier_skip": m.classifier_skip,
        "model.standardise": m.standardise,
        "model.speaker_embedding": m.speaker_embedding,
        "model.concat_gin_gout": m.concat_gin_gout,
        "model.use_highway": m.use_highway,
        "model.input_dropout": m.input_dropout,
        "model.node_dropout": m.node_dropout,
        "fusion.use_ulgm": settings.fusion.use_ulgm,
        "loss": settings.loss.name == "weighted_mse",
        "classification": settings.classification.name != "nll" or settings.classification.class_weight != "none",
    }
    unsupported = [name for name, other in unknown.items() if other]
    if unsupported:
        raise ValueError(
            f"per-utterance trainer: expected the model of model=reference with mse or smoothl1 and nll, "
            f"got another value of {', '.join(unsupported)}; set model=reference and leave these settings at their defaults"
        )
