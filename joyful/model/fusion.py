"""AutoFusion: fusion of the modalities of an utterance by two autoencoders (Li et al. 2023, section 3.2).

    global branch   g = encode([a, t, v]), reconstructs [a, t, v]
    inter branch    y_m = intermodal_softmax(project_m(m), b), z = encode([y_a, y_t, y_v]), reconstructs [y_a, y_t, y_v]
    fused = [g, z]

Shape letters: N utterances, D features of all modalities together, J units of a projection (460), L latent units (512).

The names in the state dict are those of the reference, so its checkpoints load. A modality that is not used has no
projection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from joyful.losses.reconstruction import MSELoss, SmoothL1Loss, WeightedMSELoss, create_reconstruction_loss
from joyful.model.kernels.intermodal import intermodal_softmax
from joyful.records import MODALITIES, REFERENCE_DIMENSIONS

Criterion = MSELoss | SmoothL1Loss | WeightedMSELoss


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


class AutoFusion(nn.Module):
    """The fusion of the paper: two autoencoders without gates.

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
        criterion: Criterion | None = None,
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

        The backward pass of a decoder costs twice its forward pass, and this skips it for the other rows.
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
