"""The JOYFUL model: fusion, sequence context, graph layers, classifier and contrastive views.

Shape letters: N utterances of the batch, D features, H hidden, C classes, S speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from joyful.config import ModelSettings
from joyful.model import augmentation
from joyful.model.context import RecurrentContext, TransformerContext
from joyful.model.dialogue_graph import Structure, structure
from joyful.model.fusion import AutoFusion, FusionOutput
from joyful.model.graph_layers import GraphTransformer, RelationalGraphConv, Speakers
from joyful.model.kernels.contrastive_blocks import info_nce_of_views
from joyful.model.kernels.dropout import dropout, relu_dropout_
from joyful.randomness import Draws, key
from joyful.records import Batch


@dataclass(frozen=True)
class ModelOutput:
    """Output of the model.

    Attributes:
        logits: (N, C), float32.
        contrastive: Contrastive loss, a scalar in nats; 0 if no views were requested.
        fusion: Output of the fusion.
        unimodal: Modality -> (N, C) logits of its unimodal head (ULGM); empty without these heads.
    """

    logits: Tensor
    contrastive: Tensor
    fusion: FusionOutput
    unimodal: dict[str, Tensor]


class Standardise(nn.Module):
    """Scale each column by the mean and standard deviation of the training split, (N, D) -> (N, D).

    Columns that are constant in the training split become 0. Before `fit`, the output is the input.

    Args:
        width: D.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def fit(self, x_ND: Tensor) -> None:
        """Compute mean and standard deviation (without Bessel's correction) of each column, in float64."""
        deviation, mean = torch.std_mean(x_ND.double(), dim=0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(
            torch.where(deviation > 1e-8 * mean.abs().clamp(min=1.0), 1 / deviation, torch.zeros_like(mean))
        )

    def forward(self, x_ND: Tensor) -> Tensor:
        return (x_ND - self.mean) * self.scale


class UnimodalHead(nn.Module):
    """Unimodal classification head of one modality (ULGM), (N, D) -> (N, C) logits.

    Args:
        width: D.
        hidden: Hidden units.
        classes: C.
        drop: Dropout probability.
    """

    def __init__(self, width: int, hidden: int, classes: int, drop: float) -> None:
        super().__init__()
        self.linear1, self.linear2, self.drop = nn.Linear(width, hidden), nn.Linear(hidden, classes), drop

    def forward(self, x_ND: Tensor, draws: Draws | None, place: str) -> Tensor:
        return self.linear2(relu_dropout_(self.linear1(x_ND), self.drop, draws, place))


class Highway(nn.Module):
    """Highway layer (Srivastava et al. 2015), (N, H) -> (N, H): y = t relu(W x) + (1 - t) x with t = sigmoid(V x).

    Args:
        width: H.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_NH: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x_NH))
        return gate * self.transform(x_NH).relu() + (1 - gate) * x_NH


class GraphModel(nn.Module):
    """The complete model.

    The logits of an utterance depend only on its own dialogue. Two parts use the whole batch: batch normalisation in
    training mode, and the contrastive loss.

    Args:
        settings: Sizes and options of the model.
        fusion: Fusion for the feature widths of the data.
        classes: C.
        n_speakers: S.
        n_unimodal: Hidden units of the unimodal heads (ULGM); 0 for no such heads.

    Raises:
        ValueError: `settings.context_heads` does not divide the width of the transformer context.
    """

    def __init__(
        self, settings: ModelSettings, fusion: AutoFusion, classes: int, n_speakers: int, n_unimodal: int = 0
    ) -> None:
        super().__init__()
        self.settings, self.n_speakers, self.fusion = settings, n_speakers, fusion
        self.standardise = nn.ModuleDict(
            {m: Standardise(d) for m, d in fusion.dimensions.items()} if settings.standardise else {}
        )
        width = fusion.output_size + settings.speaker_embedding
        # The projection is the default, because at full width the skip would be most of a small model.
        self.skip: nn.Module | None = None
        if settings.skip:
            project = settings.skip_projection
            self.skip = nn.Linear(fusion.input_features, settings.fusion_latent_size) if project else nn.Identity()
            width += settings.fusion_latent_size if project else fusion.input_features
        self.speaker = nn.Embedding(n_speakers, settings.speaker_embedding) if settings.speaker_embedding else None
        h, drop = settings.hidden_size, settings.dropout
        self.context: TransformerContext | RecurrentContext
        if settings.context == "transformer":
            self.context = TransformerContext(
                width, h, settings.context_layers, settings.context_heads, settings.context_feedforward_size, drop
            )
        else:
            self.context = RecurrentContext(settings.context, width, h, settings.context_layers, drop)
        self.graph_conv = RelationalGraphConv(h, h, n_speakers)
        self.graph_transformer = GraphTransformer(h, h, settings.graph_heads)
        self.norm = nn.BatchNorm1d(h * settings.graph_heads)
        joined = h * settings.graph_heads + (h if settings.concat_gin_gout else 0)
        joined += fusion.input_features if settings.classifier_skip else 0
        self.highway = Highway(joined) if settings.use_highway else None
        self.linear, self.classifier = nn.Linear(joined, h), nn.Linear(h, classes)
        self.unimodal = nn.ModuleDict(
            {m: UnimodalHead(d, n_unimodal, classes, drop) for m, d in fusion.dimensions.items()} if n_unimodal else {}
        )

    def forward(
        self,
        batch: Batch,
        draws: Draws | None = None,
        views: Draws | None = None,
        train_contrast: bool = True,
        train_reconstruction: int | None = None,
    ) -> ModelOutput:
        """Return logits and losses of a batch.

        Args:
            batch: Batch of dialogues.
            draws: Random numbers of dropout; None for evaluation without dropout.
            views: Random numbers of the augmented views; None to skip the contrastive loss.
            train_contrast: Whether the contrastive loss has gradients.
            train_reconstruction: Number of utterances, the last of the batch, whose reconstruction losses have
                gradients; None for all.
        """
        settings = self.settings
        graph = structure(batch, settings.wp, settings.wf)
        speakers = Speakers(batch.speakers, batch.speaker_order, batch.speaker_rank, batch.speaker_sizes)

        features = {m: batch.features[m] for m in self.fusion.dimensions}
        if settings.standardise:
            features = {m: self.standardise[m](x) for m, x in features.items()}
        features = {m: dropout(x, settings.input_dropout, draws, f"input.{m}") for m, x in features.items()}
        fusion: FusionOutput = self.fusion(**features, trained=train_reconstruction)
        parts = [fusion.fused]
        if self.skip is not None:
            parts.append(self.skip(torch.cat(list(features.values()), dim=1)))
        if self.speaker is not None:
            parts.append(self.speaker(batch.speakers))
        joined_ND = torch.cat([p.to(fusion.fused.dtype) for p in parts], dim=1) if len(parts) > 1 else fusion.fused
        node_NH = self.context(joined_ND, batch.lengths, graph.dialogues, draws)
        node_NH = dropout(node_NH, settings.node_dropout, draws, "node")

        anchor_NH = self.graph_conv(node_NH, speakers, graph.edges)
        contrastive = node_NH.new_zeros(())
        if views is not None:  # computed first, so that its temporary memory is free again for the rest
            with torch.set_grad_enabled(torch.is_grad_enabled() and train_contrast):
                contrastive = self._contrast(node_NH, anchor_NH, speakers, graph, views)
        hidden_NH = nn.functional.leaky_relu(self._normalise(self.graph_transformer(anchor_NH, graph.window)))
        if settings.concat_gin_gout:
            hidden_NH = torch.cat([node_NH, hidden_NH], dim=1)
        if settings.classifier_skip:
            hidden_NH = torch.cat([hidden_NH, *features.values()], dim=1)
        if self.highway is not None:
            hidden_NH = self.highway(hidden_NH)
        hidden_NH = relu_dropout_(self.linear(hidden_NH), settings.dropout, draws, "classifier")
        unimodal = {m: head(features[m], draws, f"unimodal.{m}") for m, head in self.unimodal.items()}
        return ModelOutput(self.classifier(hidden_NH).float(), contrastive, fusion, unimodal)

    def _normalise(self, x_NH: Tensor) -> Tensor:
        # A batch of one utterance has no variance and uses the running statistics instead.
        single = self.training and x_NH.shape[0] == 1
        return (
            nn.functional.batch_norm(
                x_NH, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias
            )
            if single
            else self.norm(x_NH)
        )

    def _contrast(
        self, node_NH: Tensor, anchor_NH: Tensor, speakers: Speakers, graph: Structure, views: Draws
    ) -> Tensor:
        """Return the sum of InfoNCE between the original graph and each of the two augmented graphs."""
        c = self.settings.contrastive
        rewired = augmentation.rewire(graph.edges, graph.first, graph.length, c.edge_perturbation, views, "view1")
        extended = augmentation.add_neighbours(graph.edges, node_NH, graph.dialogues, c.neighbours)
        masked1 = augmentation.mask_features(node_NH, c.feature_mask, views, "view1.features")
        masked2 = augmentation.mask_features(node_NH, c.feature_mask, views, "view2.features")
        view1_NH = self.graph_conv(masked1, speakers, rewired)
        view2_NH = self.graph_conv(masked2, speakers, extended)
        return info_nce_of_views(anchor_NH.float(), [view1_NH.float(), view2_NH.float()], c.temperature)


def initialise(model: nn.Module, seed: int) -> None:
    """Initialise all parameters as a function of the seed and of each module's name.

    Two models that share a module therefore start with the same weights in it. Each module's `reset_parameters` runs
    with PyTorch's generator seeded for that module; the state of the generator is restored afterwards. Child modules
    are initialised before their parents, so a parent can override the values of its children.

    Args:
        model: Model to initialise, in place.
        seed: Seed of the run.
    """
    with torch.random.fork_rng(devices=[]):
        for name, module in reversed(list(model.named_modules())):
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if reset is not None:
                torch.manual_seed(key(seed, "weights", place=name) >> 1)
                reset()


def parameter_groups(model: GraphModel) -> dict[str, list[nn.Parameter]]:
    """Return the trained parameters by part of the model, for gradient norms.

    The keys are "fusion", "context", "graph" and "classifier". Modules of no other part belong to "classifier".
    """
    group_of = {
        "fusion": "fusion",
        "context": "context",
        "graph_conv": "graph",
        "graph_transformer": "graph",
        "norm": "graph",
    }
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(group_of.get(name.split(".")[0], "classifier"), []).append(parameter)
    return groups


def standardise(model: GraphModel, features: Mapping[str, Tensor]) -> None:
    """Fit the standardisation to the features of the training split. Does nothing if the model has none.

    Args:
        model: Model to change, in place.
        features: Modality -> (N, D).
    """
    for modality, layer in model.standardise.items():
        assert isinstance(layer, Standardise)
        layer.fit(features[modality])
