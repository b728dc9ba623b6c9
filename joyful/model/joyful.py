"""The JOYFUL model from top to bottom (Li et al. 2023): fusion, context, graph, contrast, classifier.

    features -> fusion of the modalities -> context over the dialogue -> dialogue graph -> classifier -> logits
                  |                                                         |
                  reconstruction loss, gate regulariser                     contrastive loss of two augmented graphs

1. Fusion (section 3.2 of the paper): two autoencoders over the modalities of an utterance. `AutoFusion`, and
   `AutoFusion_Hierarchical` with gates.
2. Context: a transformer encoder, or a two-way LSTM or GRU, over the utterances of a dialogue.
3. Graph (section 3.3): edges within a window of the dialogue, a relational convolution and a graph transformer.
4. Contrast (section 3.4): two augmented views of the graph.
5. Classifier, and `GraphModel`, the complete model.
6. Initial weights, and the standardisation of the features.

The code is plain PyTorch. The operations imported from `joyful.model.kernels` compute what their names say; each has a
plain implementation beside it in the same file, which gives the same results more slowly or in more memory.

A batch holds dialogues of different lengths one after another, without padding. The names in the state dict are those
of the reference, so its checkpoints load.

Shape letters: N utterances of the batch, D features of all modalities together (or the width of a layer's input),
J units of a projection (460), L latent units (512), H hidden, C classes, S speakers, R = 2 S^2 relations, E edges,
G blocks, T utterances of a block, K neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from joyful.config import ModelSettings, Settings
from joyful.devices import to_device
from joyful.losses.reconstruction import ReconstructionLoss, create_reconstruction_loss
from joyful.model.kernels.attention_blocks import AttentionBlocks, attention_blocks, block_attention
from joyful.model.kernels.contrastive_blocks import info_nce_of_views
from joyful.model.kernels.dialogue_attention import dialogue_attention
from joyful.model.kernels.dropout import dropout, relu_dropout_
from joyful.model.kernels.intermodal import intermodal_softmax
from joyful.model.kernels.recurrence import recurrent_layer
from joyful.model.kernels.relational import Edges, relational_convolution
from joyful.randomness import Draws, key
from joyful.records import MODALITIES, REFERENCE_DIMENSIONS, Batch
from joyful.registry import Registry

#: Setting `fusion.name` -> class.
FUSIONS = Registry[type["AutoFusion"]]("fusion.name")

#: Setting `model.context` -> function that builds the context from the width of its input and the settings.
CONTEXTS = Registry[Callable[[int, ModelSettings], "Context"]]("model.context")


# ------------------------------ 1. Fusion ------------------------------


@dataclass(frozen=True)
class FusionSizes:
    """Layer sizes of a fusion. The defaults are those of the reference.

    Attributes:
        inter: J, units of each modality's projection in the inter-modal branch.
        hidden: Hidden units of both autoencoders.
        latent: L, latent units of each autoencoder.
    """

    inter: int = 460
    hidden: int = 1024
    latent: int = 512


REFERENCE_SIZES = FusionSizes()


class FusionOutput(NamedTuple):
    """Output of a fusion for N utterances.

    Attributes:
        fused: (N, 2 L) fused vectors; (2 L,) if the input was a single utterance given as vectors.
        encoder_losses: (N,) reconstruction loss of each utterance, the sum of both branches.
        gate_reg_loss: Gate regulariser, an unweighted scalar; 0 for a fusion without gates.
        errors: "recon_mse", "recon_mae", "recon_mse_global" and "recon_mae_global" -> (N,) errors, detached. They do
            not depend on the loss that is trained.
    """

    fused: Tensor
    encoder_losses: Tensor
    gate_reg_loss: Tensor
    errors: dict[str, Tensor]

    @property
    def encoder_loss(self) -> Tensor:
        """The mean reconstruction loss over the utterances."""
        return self.encoder_losses.mean()


@FUSIONS.register("auto", "AutoFusion, without gates")
class AutoFusion(nn.Module):
    """The fusion of the paper: two autoencoders without gates.

        global branch   g = encode([a, t, v]), reconstructs [a, t, v]
        inter branch    y_m = intermodal_softmax(project_m(m), b), z = encode([y_a, y_t, y_v]), reconstructs
                        [y_a, y_t, y_v]
        fused = [g, z]

    A modality that is not used has no projection.

    Args:
        input_features: Modality -> feature width, for some of "audio", "text" and "visual"; or 1380, which stands for
            the widths of the reference (100, 768 and 512).
        use_smooth_l1: Use SmoothL1 instead of MSE as the reconstruction loss.
        sizes: Layer sizes.
        criterion: Reconstruction loss; overrides `use_smooth_l1`.
        intermodal: Algorithm of the inter-modal softmax: "auto", "exact" or "interpolated" (see `intermodal_softmax`).

    Raises:
        ValueError: `input_features` is another number, names an unknown modality or holds a width below 1.

    Example:
        >>> fusion = AutoFusion({"audio": 3, "text": 4}, sizes=FusionSizes(inter=5, hidden=6, latent=2))
        >>> output = fusion(audio=torch.ones(7, 3), text=torch.ones(7, 4))
        >>> output.fused.shape, output.encoder_losses.shape
        (torch.Size([7, 4]), torch.Size([7]))
    """

    has_gates = False

    def __init__(
        self,
        input_features: int | Mapping[str, int],
        use_smooth_l1: bool = False,
        *,
        sizes: FusionSizes = REFERENCE_SIZES,
        criterion: ReconstructionLoss | None = None,
        intermodal: str = "auto",
    ) -> None:
        super().__init__()
        self.dimensions = modality_dimensions(input_features)
        self.input_features = sum(self.dimensions.values())
        self.sizes, self.intermodal = sizes, intermodal
        self.criterion = create_reconstruction_loss(use_smooth_l1) if criterion is None else criterion
        self._build_global()
        inter_width = sizes.inter * len(self.dimensions)
        self.fuse_inInter, self.fuse_outInter = encoder(inter_width, sizes), decoder(inter_width, sizes)
        for name, width in self.dimensions.items():
            setattr(self, _projection_name(name), nn.Linear(width, sizes.inter))
        self.projectB = nn.Sequential(nn.Linear(sizes.inter, sizes.inter))

    @classmethod
    def from_settings(
        cls, settings: Settings, dimensions: Mapping[str, int], criterion: ReconstructionLoss, **options: Any
    ) -> Self:
        """Return the fusion for the settings of a run.

        Args:
            settings: The settings of the run.
            dimensions: Modality -> feature width.
            criterion: Reconstruction loss.
            **options: Further arguments of the constructor.
        """
        m = settings.model
        sizes = FusionSizes(m.inter_size, m.fusion_hidden_size, m.fusion_latent_size)
        return cls(dimensions, sizes=sizes, criterion=criterion, intermodal=settings.fusion.intermodal, **options)

    @property
    def output_size(self) -> int:
        """The width of the fused vector, 2 L."""
        return 2 * self.sizes.latent

    def shared_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that receive gradients from both the classification loss and the encoder loss.

        These are the trained parameters that the fused vector depends on; only the decoders are left out.
        """
        return [p for name, p in self.named_parameters() if p.requires_grad and not name.startswith(self.decoders)]

    decoders: tuple[str, ...] = ("fuse_outGlobal", "fuse_outInter")

    def forward(
        self,
        audio: Tensor | None = None,
        text: Tensor | None = None,
        visual: Tensor | None = None,
        *,
        trained: int | None = None,
    ) -> FusionOutput:
        """Fuse the modalities of N utterances, or of one.

        Args:
            audio: (N, D_a), or (D_a,) for one utterance; None if the fusion was built without this modality.
            text: (N, D_t) or (D_t,), in the same way.
            visual: (N, D_v) or (D_v,), in the same way.
            trained: Number of utterances, the last of the batch, whose reconstruction losses have gradients; None for
                all.

        Raises:
            ValueError: A modality is missing or not expected, has the wrong width, or has a different number of
                utterances from the others.
        """
        features = self._check_features({"audio": audio, "text": text, "visual": visual})
        single = features[0].ndim == 1
        batch = [feature.unsqueeze(0) for feature in features] if single else features
        concatenated_ND = torch.cat(batch, dim=1)
        latent_NL, gated_NL, gate_reg = self._encode_global(concatenated_ND)
        inter_N3J = self._inter(batch)
        inter_latent_NL = self.fuse_inInter(inter_N3J)
        losses, errors = self._reconstruct_trained(trained, gated_NL, concatenated_ND, inter_latent_NL, inter_N3J)
        fused = torch.cat([latent_NL, inter_latent_NL], dim=1)
        return FusionOutput(fused[0] if single else fused, losses, gate_reg, errors)

    def _reconstruct_trained(self, trained: int | None, *rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruct all rows, with gradients only for the last `trained`.

        The reductions of the reference train the last dialogue of a batch only. Skipping the backward pass of the
        decoders for the other rows saves 6 % of the operations of a step at full size.
        """
        untrained = 0 if trained is None else len(rows[0]) - trained
        if untrained <= 0:
            return self._reconstruct(*rows)
        with torch.no_grad():
            losses, errors = self._reconstruct(*(part[:untrained].detach() for part in rows))
        last_losses, last_errors = self._reconstruct(*(part[untrained:] for part in rows))
        return torch.cat([losses, last_losses]), {k: torch.cat([v, last_errors[k]]) for k, v in errors.items()}

    def _reconstruct(
        self, gated_NL: Tensor, concatenated_ND: Tensor, inter_latent_NL: Tensor, inter_N3J: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return `encoder_losses` and `errors` of FusionOutput."""
        reconstructed_ND = self._decode_global(gated_NL)
        inter_reconstructed = self.fuse_outInter(inter_latent_NL)
        widths = list(self.dimensions.values())
        losses = self._losses(reconstructed_ND, concatenated_ND, widths)
        losses = losses + self._losses(inter_reconstructed, inter_N3J, [self.sizes.inter] * len(widths))
        with torch.no_grad():
            residual, inter_residual = reconstructed_ND - concatenated_ND, inter_reconstructed - inter_N3J
            mse, mae = residual.square().mean(1), residual.abs().mean(1)
            errors = {
                "recon_mse": mse + inter_residual.square().mean(1),
                "recon_mae": mae + inter_residual.abs().mean(1),
                "recon_mse_global": mse,
                "recon_mae_global": mae,
            }
        return losses, errors

    def _build_global(self) -> None:
        self.fuse_inGlobal = encoder(self.input_features, self.sizes)
        self.fuse_outGlobal = decoder(self.input_features, self.sizes)

    def _encode_global(self, concatenated_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the latent vectors (N, L), the input of the decoder (N, L) and the gate regulariser (scalar)."""
        latent_NL = self.fuse_inGlobal(concatenated_ND)
        return latent_NL, latent_NL, concatenated_ND.new_zeros(())

    def _decode_global(self, gated_NL: Tensor) -> Tensor:
        """Return the reconstruction (N, D)."""
        reconstructed_ND: Tensor = self.fuse_outGlobal(gated_NL)
        return reconstructed_ND

    def _inter(self, features: Sequence[Tensor]) -> Tensor:
        """Return the inter-modal softmax of every modality (N, M J). They share b, so one call computes them all."""
        projections = [getattr(self, _projection_name(m))(x) for m, x in zip(self.dimensions, features, strict=True)]
        b_J = self.projectB(torch.ones(self.sizes.inter, device=features[0].device, dtype=features[0].dtype))
        # float32 under autocast as well: eight bits of mantissa are too few for exponents.
        stacked = torch.cat(projections, dim=0)
        wide = torch.float64 if stacked.dtype == torch.float64 else torch.float32
        mixed = intermodal_softmax(stacked.to(wide), b_J.to(wide), self.intermodal)
        return torch.cat(mixed.chunk(len(projections), dim=0), dim=1)

    def _losses(self, reconstructed: Tensor, target: Tensor, widths: Sequence[int]) -> Tensor:
        return self.criterion.elementwise(reconstructed.to(target.dtype), target, widths).mean(dim=1)

    def _check_features(self, inputs: Mapping[str, Tensor | None]) -> list[Tensor]:
        for name, feature in inputs.items():
            expected = self.dimensions.get(name)
            if (feature is None) != (expected is None):
                given = "nothing" if feature is None else f"shape {tuple(feature.shape)}"
                raise ValueError(
                    f"{name}: expected {'nothing' if expected is None else f'(..., {expected})'}, got {given}; "
                    f"this fusion was built for {', '.join(self.dimensions)}"
                )
            if feature is not None and (feature.ndim not in (1, 2) or feature.shape[-1] != expected):
                raise ValueError(
                    f"{name}: expected ({expected},) or (N, {expected}), got {tuple(feature.shape)}; "
                    "set input_features to the widths of the data"
                )
        features: list[Tensor] = [inputs[name] for name in self.dimensions]  # type: ignore[misc]
        if len({feature.shape[:-1] for feature in features}) > 1:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(self.dimensions, features, strict=True))
            raise ValueError(
                f"fusion: expected the same utterances in every modality, got {shapes}; pass one row per utterance"
            )
        return features


class UtteranceGate(nn.Module):
    """Gated encoder, (N, D) -> (N, L).

    Args:
        width: D.
        sizes: Layer sizes.
        modalities: Number of modalities.
        modal_attention: Add the attention head of the reference. Its output is not used and it is not trained; it only
            allows checkpoints of the reference to load.
    """

    def __init__(self, width: int, sizes: FusionSizes, modalities: int, modal_attention: bool) -> None:
        super().__init__()
        if modal_attention:
            head = nn.Sequential(
                nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, modalities), nn.Softmax(dim=-1)
            )
            self.modal_attention = head.requires_grad_(False)
        self.gate_net = nn.Sequential(nn.Linear(width, sizes.latent), _hardtanh())
        self.fuse_in = encoder(width, sizes)

    def forward(self, x_ND: Tensor) -> Tensor:
        return self.gate_net(x_ND) * self.fuse_in(x_ND)


class DialogueGate(nn.Module):
    """Gated decoder: latent vectors (N, L) and state (L,) -> input of `fuse_out` (N, L), gate regulariser (scalar).

    Args:
        width: Width D of the reconstruction.
        sizes: Layer sizes.
    """

    def __init__(self, width: int, sizes: FusionSizes) -> None:
        super().__init__()
        for name in self.gates:
            setattr(self, name, nn.Sequential(nn.Linear(2 * sizes.latent, sizes.latent), _hardtanh()))
        self.fuse_out = decoder(width, sizes)

    gates = ("temporal_gate", "forget_gate", "input_gate")

    def forward(self, latent_NL: Tensor, state_L: Tensor) -> tuple[Tensor, Tensor]:
        temporal, forget, entry = (self._gate(name, latent_NL, state_L) for name in self.gates)
        gate_reg = torch.stack([_distance_from_half(gate) for gate in (temporal, forget, entry)]).sum()
        return temporal * (forget * state_L + entry * latent_NL), gate_reg

    def _gate(self, name: str, latent_NL: Tensor, state_L: Tensor) -> Tensor:
        """Return the gate of [c, s]. All utterances share s, so its part of the product is computed once."""
        linear, hardtanh = getattr(self, name)
        weight_c, weight_s = linear.weight.split(latent_NL.shape[1], dim=1)
        bias_L = functional.linear(state_L, weight_s, linear.bias)
        gate_NL: Tensor = hardtanh(functional.linear(latent_NL, weight_c, bias_L))
        return gate_NL


def _hardtanh() -> nn.Hardtanh:
    return nn.Hardtanh(0.0, 1.0, inplace=True)  # the backward pass needs only its output


def _distance_from_half(gate: Tensor) -> Tensor:
    """Return mean((gate - 1/2)^2) in at least float32. The backward pass stores no difference."""
    gate = gate.to(torch.promote_types(gate.dtype, torch.float32))
    return functional.mse_loss(gate, gate.new_full((), 0.5).expand_as(gate))


@FUSIONS.register("hierarchical", "AutoFusion_Hierarchical, with gates")
class AutoFusion_Hierarchical(AutoFusion):
    """The gated fusion of the note: AutoFusion with gates in the global branch.

        utterance gate   c = Hardtanh_[0,1](W x) * encode(x)
        dialogue gates   temporal, forget, input = Hardtanh_[0,1](W_. [c, s])    s: a learned global emotion state
        reconstruction   decode(temporal * (forget * s + input * c))
        regulariser      sum over the three gates of mean((gate - 1/2)^2)

    The regulariser is returned separately from the reconstruction losses and unweighted. Inputs, outputs and errors are
    those of AutoFusion.

    Args:
        input_features: See AutoFusion.
        use_smooth_l1: See AutoFusion.
        sizes: See AutoFusion.
        criterion: See AutoFusion.
        intermodal: See AutoFusion.
        modal_attention: Add the unused attention head of the reference, to load its checkpoints.
    """

    has_gates = True
    decoders = ("dialogue_gate", "global_emotion_state", "fuse_outInter")

    def __init__(
        self,
        input_features: int | Mapping[str, int],
        use_smooth_l1: bool = False,
        *,
        sizes: FusionSizes = REFERENCE_SIZES,
        criterion: ReconstructionLoss | None = None,
        intermodal: str = "auto",
        modal_attention: bool = True,
    ) -> None:
        self._modal_attention = modal_attention
        super().__init__(input_features, use_smooth_l1, sizes=sizes, criterion=criterion, intermodal=intermodal)

    @classmethod
    def from_settings(
        cls, settings: Settings, dimensions: Mapping[str, int], criterion: ReconstructionLoss, **options: Any
    ) -> Self:
        """Return the fusion for the settings of a run (see `AutoFusion.from_settings`)."""
        options = {"modal_attention": settings.model.modal_attention, **options}
        return super().from_settings(settings, dimensions, criterion, **options)

    def _build_global(self) -> None:
        width = self.input_features
        self.utterance_gate = UtteranceGate(width, self.sizes, len(self.dimensions), self._modal_attention)
        self.dialogue_gate = DialogueGate(width, self.sizes)
        self.global_emotion_state = nn.Parameter(torch.empty(self.sizes.latent))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the emotion state from a normal distribution with mean 0 and standard deviation 0.01."""
        nn.init.normal_(self.global_emotion_state, std=0.01)

    def _encode_global(self, concatenated_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent_NL = self.utterance_gate(concatenated_ND)
        gated_NL, gate_reg = self.dialogue_gate(latent_NL, self.global_emotion_state)
        return latent_NL, gated_NL, gate_reg

    def _decode_global(self, gated_NL: Tensor) -> Tensor:
        reconstructed_ND: Tensor = self.dialogue_gate.fuse_out(gated_NL)
        return reconstructed_ND


def modality_dimensions(input_features: int | Mapping[str, int]) -> dict[str, int]:
    """Return the width of each modality, in the order audio, text, visual.

    Args:
        input_features: Modality -> width; or 1380 for the widths of the reference.

    Raises:
        ValueError: `input_features` is another number, is empty, names an unknown modality or holds a width below 1.

    Example:
        >>> modality_dimensions(1380)
        {'audio': 100, 'text': 768, 'visual': 512}
    """
    if isinstance(input_features, int):
        if input_features != sum(REFERENCE_DIMENSIONS.values()):
            raise ValueError(
                f"input_features: expected 1380 (audio 100, text 768, visual 512) or the width of each modality, got "
                f"{input_features}; set input_features={{'audio': ..., 'text': ..., 'visual': ...}}"
            )
        return dict(REFERENCE_DIMENSIONS)
    unknown = sorted(set(input_features) - set(MODALITIES.values()))
    if unknown or not input_features or any(size < 1 for size in input_features.values()):
        raise ValueError(
            f"input_features: expected positive widths of some of {', '.join(MODALITIES.values())}, "
            f"got {dict(input_features)}; set input_features to the widths of the data"
        )
    return {name: int(input_features[name]) for name in MODALITIES.values() if name in input_features}


def encoder(width: int, sizes: FusionSizes) -> nn.Sequential:
    """Return the encoder of an autoencoder, (N, width) -> (N, L)."""
    return nn.Sequential(nn.Linear(width, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, sizes.latent), nn.ReLU())


def decoder(width: int, sizes: FusionSizes) -> nn.Sequential:
    """Return the decoder of an autoencoder, (N, L) -> (N, width)."""
    return nn.Sequential(nn.Linear(sizes.latent, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, width))


def _projection_name(modality: str) -> str:
    return f"project{modality[0].upper()}"


# ------------------------------ 2. Context ------------------------------


class Context(Protocol):
    """A sequence context: a module that maps the utterances (N, D) to nodes (N, H), each within its dialogue."""

    def __call__(self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None) -> Tensor:
        """Return the nodes.

        Args:
            x_ND: Input.
            lengths: Number of utterances of each dialogue, sum N.
            blocks: Attention blocks of whole dialogues.
            draws: Random numbers of dropout; None for evaluation.
        """
        ...


class TransformerLayer(nn.Module):
    """Post-norm encoder layer (Vaswani et al. 2017) on utterances without padding, (N, D) -> (N, D).

    Args:
        width: D.
        heads: Number of attention heads; divides D.
        feedforward: Hidden units of the feed-forward part.
        drop: Dropout probability.
    """

    def __init__(self, width: int, heads: int, feedforward: int, drop: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, drop
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.linear1, self.linear2 = nn.Linear(width, feedforward), nn.Linear(feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def reset_parameters(self) -> None:
        """Initialise the joint projection with Glorot's uniform distribution and the attention biases with 0."""
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None, place: str
    ) -> Tensor:
        attended_ND = self.out(dialogue_attention(self.qkv(x_ND), lengths, blocks, self.heads))
        x_ND = self.norm1(x_ND + dropout(attended_ND, self.drop, draws, f"{place}.attention"))
        hidden_NF = relu_dropout_(self.linear1(x_ND), self.drop, draws, f"{place}.hidden")
        fed_ND = dropout(self.linear2(hidden_NF), self.drop, draws, f"{place}.feedforward")
        return self.norm2(x_ND + fed_ND)


class TransformerContext(nn.Module):
    """Transformer encoder over whole dialogues, then a linear projection, (N, D) -> (N, H).

    Args:
        width: D.
        hidden: H.
        layers: Number of encoder layers.
        heads: Number of attention heads; must divide D.
        feedforward: Hidden units of each feed-forward part.
        drop: Dropout probability.

    Raises:
        ValueError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, hidden: int, layers: int, heads: int, feedforward: int, drop: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"model.context_heads: expected a divisor of the context's width {width}, got {heads}; "
                f"set model.context_heads to one of {[h for h in range(1, 17) if width % h == 0]}"
            )
        self.layers = nn.ModuleList(TransformerLayer(width, heads, feedforward, drop) for _ in range(layers))
        self.project = nn.Linear(width, hidden)

    def forward(self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            x_ND = layer(x_ND, lengths, blocks, draws, f"context.{number}")
        return self.project(x_ND)


@CONTEXTS.register("transformer", "transformer encoder")
def _transformer(width: int, s: ModelSettings) -> TransformerContext:
    sizes = s.context_layers, s.context_heads, s.context_feedforward_size
    return TransformerContext(width, s.hidden_size, *sizes, s.dropout)


class RecurrentContext(nn.Module):
    """Bidirectional LSTM or GRU over each dialogue, then a linear projection, (N, D) -> (N, H).

    Args:
        kind: "lstm" or "gru".
        width: D.
        hidden: H; each direction has H units.
        layers: Number of recurrent layers.
        drop: Dropout probability before each layer.
    """

    def __init__(self, kind: str, width: int, hidden: int, layers: int, drop: float) -> None:
        super().__init__()
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        sizes = [width] + [2 * hidden] * (layers - 1)
        # One module per layer, because the dropout between layers must draw from `joyful.randomness`.
        self.layers = nn.ModuleList(cell(size, hidden, batch_first=True, bidirectional=True) for size in sizes)
        self.drop = drop
        self.project = nn.Linear(2 * hidden, hidden)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the module, as in `nn.Module.train`.

        The recurrent layers stay in training mode. They compute the same in both modes, because they have no dropout, but
        cuDNN computes gradients only in training mode, and the encoder gradient ratio needs them in evaluation mode.
        """
        super().train(mode)
        self.layers.train()
        return self

    def forward(self, x_ND: Tensor, lengths: tuple[int, ...], blocks: AttentionBlocks, draws: Draws | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            x_ND = dropout(x_ND, self.drop, draws, f"context.{number}")
            assert isinstance(layer, nn.LSTM | nn.GRU)
            x_ND = recurrent_layer(layer, x_ND, lengths, blocks)
        return self.project(x_ND)


@CONTEXTS.register("lstm", "two-way LSTM")
def _lstm(width: int, s: ModelSettings) -> RecurrentContext:
    return RecurrentContext("lstm", width, s.hidden_size, s.context_layers, s.dropout)


@CONTEXTS.register("gru", "two-way GRU")
def _gru(width: int, s: ModelSettings) -> RecurrentContext:
    return RecurrentContext("gru", width, s.hidden_size, s.context_layers, s.dropout)


# ------------------------------ 3. Graph ------------------------------


@dataclass(frozen=True)
class Structure:
    """Everything that the model derives from the lengths of a batch.

    Attributes:
        dialogues: Attention blocks of whole dialogues.
        window: Attention blocks of the window.
        edges: Edges of the window.
        first: (N,) position of the first utterance of each utterance's dialogue.
        length: (N,) length of each utterance's dialogue.
    """

    dialogues: AttentionBlocks
    window: AttentionBlocks
    edges: Edges
    first: Tensor
    length: Tensor


def structure(batch: Batch, wp: int, wf: int) -> Structure:
    """Return the structure of a batch for a window. The result is cached in the batch.

    Args:
        batch: Batch of dialogues.
        wp: Number of past utterances connected to each utterance; -1 for all.
        wf: Number of future utterances connected to each utterance; -1 for all.
    """
    if (wp, wf) not in batch.structures:
        lengths, device = batch.lengths, batch.speakers.device
        batch.structures[wp, wf] = Structure(
            attention_blocks(lengths, -1, -1, device),
            attention_blocks(lengths, wp, wf, device),
            window_edges(lengths, wp, wf, device),
            *dialogue_spans(lengths, device),
        )
    cached: Structure = batch.structures[wp, wf]
    return cached


def window_edges(lengths: tuple[int, ...], wp: int, wf: int, device: torch.device) -> Edges:
    """Return the edges of dialogues of the given lengths, sorted by target, then by source.

    Args:
        lengths: Number of utterances of each dialogue.
        wp: Number of past utterances connected to each utterance; -1 for all.
        wf: Number of future utterances connected to each utterance; -1 for all.
        device: Device of the edges.

    Example:
        >>> edges = window_edges((3,), wp=1, wf=0, device=torch.device("cpu"))
        >>> list(zip(edges.source.tolist(), edges.target.tolist(), strict=True))
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    """
    counts = np.asarray(lengths)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    last = first + np.repeat(counts, counts) - 1
    place = np.arange(len(first))
    low = first if wp < 0 else np.maximum(first, place - wp)
    high = last if wf < 0 else np.minimum(last, place + wf)
    degree = high - low + 1
    target = np.repeat(place, degree)
    within = np.arange(len(target)) - np.repeat(np.cumsum(degree) - degree, degree)
    return Edges(to_device(np.repeat(low, degree) + within, device), to_device(target, device))


def dialogue_spans(lengths: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the position of the first utterance (N,) and the length (N,) of each utterance's dialogue."""
    counts = np.asarray(lengths)
    starts = np.cumsum(counts) - counts
    return to_device(np.repeat(starts, counts), device), to_device(np.repeat(counts, counts), device)


class RelationalGraphConv(nn.Module):
    """Relational graph convolution (Schlichtkrull et al. 2018) of several views of the nodes, (N, H_in) -> (N, H_out).

        out_i = W_0 x_i + sum_r 1/|N_r(i)| sum_{j in N_r(i)} W_r x_j

    The relation of an edge is (speaker of the source, speaker of the target, whether the source is later). Duplicate
    edges count twice. The output of an utterance without neighbours is W_0 x + bias. The layout of the weight is
    (R, H_in, H_out).

    Args:
        size_in: H_in.
        size_out: H_out.
        n_speakers: S.
    """

    def __init__(self, size_in: int, size_out: int, n_speakers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * n_speakers**2, size_in, size_out))
        self.root = nn.Parameter(torch.empty(size_in, size_out))
        self.bias = nn.Parameter(torch.empty(size_out))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise the matrices with Glorot's uniform distribution (Glorot & Bengio 2010) and the bias with 0."""
        bound = math.sqrt(6.0 / (self.root.shape[0] + self.root.shape[1]))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.root, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, views_NH: Sequence[Tensor], batch: Batch, edges: Sequence[Edges]) -> list[Tensor]:
        """Return the output of each view of the nodes with its edges. The views are computed together."""
        return relational_convolution(views_NH, self.weight, self.root, self.bias, batch, edges)


class GraphTransformer(nn.Module):
    """Multi-head attention over the edges of the graph (Shi et al. 2021), (N, H_in) -> (N, heads * H_out).

        out_i = W_s x_i + sum_j softmax_j(q_i k_j / sqrt(H_out)) v_j        heads concatenated

    Args:
        size_in: H_in.
        size_out: H_out, units of each head.
        heads: Number of heads.
    """

    def __init__(self, size_in: int, size_out: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.lin_query = nn.Linear(size_in, heads * size_out)
        self.lin_key = nn.Linear(size_in, heads * size_out)
        self.lin_value = nn.Linear(size_in, heads * size_out)
        self.lin_skip = nn.Linear(size_in, heads * size_out)

    def forward(self, x_NH: Tensor, blocks: AttentionBlocks) -> Tensor:
        attended = block_attention(self.lin_query(x_NH), self.lin_key(x_NH), self.lin_value(x_NH), blocks, self.heads)
        return attended + self.lin_skip(x_NH)


# ------------------------------ 4. Contrast ------------------------------


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
    unit_GTH = blocks.gather(functional.normalize(x_NH.detach(), dim=1), blocks.keys)
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


# ------------------------------ 5. Classifier and the complete model ------------------------------


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
        self.context = CONTEXTS[settings.context](width, settings)
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

        features = {m: batch.features[m] for m in self.fusion.dimensions}
        if settings.standardise:
            features = {m: self.standardise[m](x) for m, x in features.items()}
        own = {m: share for m, share in settings.modal_dropout.items() if share is not None}
        share: dict[str, float] = dict.fromkeys(features, settings.input_dropout) | {**own}
        features = {m: dropout(x, share[m], draws, f"input.{m}") for m, x in features.items()}
        fusion: FusionOutput = self.fusion(**features, trained=train_reconstruction)
        parts = [fusion.fused]
        if self.skip is not None:
            parts.append(self.skip(torch.cat(list(features.values()), dim=1)))
        if self.speaker is not None:
            parts.append(self.speaker(batch.speakers))
        joined_ND = torch.cat([p.to(fusion.fused.dtype) for p in parts], dim=1) if len(parts) > 1 else fusion.fused
        node_NH = self.context(joined_ND, batch.lengths, graph.dialogues, draws)
        node_NH = dropout(node_NH, settings.node_dropout, draws, "node")

        anchor_NH, contrastive = self._anchor_and_contrast(node_NH, batch, graph, views, train_contrast)
        hidden_NH = functional.leaky_relu(self._normalise(self.graph_transformer(anchor_NH, graph.window)))
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
            functional.batch_norm(x_NH, self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias)
            if single
            else self.norm(x_NH)
        )

    def _anchor_and_contrast(
        self, node_NH: Tensor, batch: Batch, graph: Structure, views: Draws | None, train_contrast: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the convolution of the graph, and the sum of InfoNCE between it and each of two augmented graphs."""
        if views is None:
            return self.graph_conv([node_NH], batch, [graph.edges])[0], node_NH.new_zeros(())
        c = self.settings.contrastive
        rewired = rewire(graph.edges, graph.first, graph.length, c.edge_perturbation, views, "view1")
        extended = add_neighbours(graph.edges, node_NH, graph.dialogues, c.neighbours)
        masked = [mask_features(node_NH, c.feature_mask, views, f"view{k}.features") for k in (1, 2)]
        nodes, edges = [node_NH, *masked], [graph.edges, rewired, extended]
        trained = len(nodes) if train_contrast else 1
        outputs = self.graph_conv(nodes[:trained], batch, edges[:trained])
        with torch.set_grad_enabled(torch.is_grad_enabled() and train_contrast):
            if not train_contrast:  # the anchor has gradients, the views do not
                outputs += self.graph_conv(nodes[trained:], batch, edges[trained:])
            anchor_NH, *views_NH = (output.float() for output in outputs)
            return outputs[0], info_nce_of_views(anchor_NH, views_NH, c.temperature)


# ------------------------------ 6. Initial weights and standardisation ------------------------------


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
        features: Modality -> (N, D), of the utterances that have the modality.
    """
    for modality, layer in model.standardise.items():
        assert isinstance(layer, Standardise)
        layer.fit(features[modality])


def standardisation_means(model: GraphModel) -> dict[str, Tensor]:
    """Return the features that the standardisation maps to 0: modality -> (D,). Empty if the model has none."""
    return {modality: layer.mean for modality, layer in model.standardise.items()}  # type: ignore[misc]
