"""AutoFusion: one utterance's modalities to one vector, by two autoencoders (Li et al. 2023, section 3.2).

    global branch   g = encode([a, t, v]), reconstructed as [a, t, v]
    inter branch    y_m = intermodal_softmax(project_m(m), b), z = encode([y_a, y_t, y_v]), reconstructed as its input
    fused = [g, z]

Shape letters: N utterances, D features of all modalities together, J units of a projection (460), L latent units (512).
Names in the state dict are the reference's, so its checkpoints load; a modality that is left out has no projection.
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
    """Units of a fusion's layers, the reference's by default: of each modality's projection in the inter-modal branch (J),
    of the hidden layers of both autoencoders, and of their latent vectors (L)."""

    inter: int = 460
    hidden: int = 1024
    latent: int = 512


REFERENCE_SIZES = FusionSizes()


class FusionOutput(NamedTuple):
    """What a fusion returns for N utterances (for one utterance given as vectors, `fused` is (2 L,)).

    fused: (N, 2 L). encoder_losses: (N,) reconstruction loss of each utterance, both branches added.
    gate_reg_loss: scalar, 0 for a fusion without gates, unweighted.
    errors: {"recon_mse", "recon_mae", "recon_mse_global", "recon_mae_global"} -> (N,) detached, whatever loss is
    trained.
    """

    fused: Tensor
    encoder_losses: Tensor
    gate_reg_loss: Tensor
    errors: dict[str, Tensor]

    @property
    def encoder_loss(self) -> Tensor:
        """Mean reconstruction loss over the utterances."""
        return self.encoder_losses.mean()


class AutoFusion(nn.Module):
    """The fusion of the paper. forward(audio, text, visual): (N, D_m) each, or (D_m,) for one utterance; None where
    left out. trained: only the reconstruction losses of so many utterances, the last ones, have gradients (None: all).

    input_features: {"audio": D_a, "text": D_t, "visual": D_v} or a part of it; the number 1380 means 100, 768 and 512.
    use_smooth_l1: SmoothL1 in place of MSE; `criterion` overrides it. sizes: units of the layers. intermodal: form of the
    inter-modal softmax.
    Raises ValueError for other numbers, unknown modalities, a missing modality, features of the wrong width, or of
    different numbers of utterances.
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
        """Width of the fused vector."""
        return 2 * self.sizes.latent

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters on the way to the fused vector: those that the classification loss and the encoder loss both
        move."""
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
        features = self._check_features({"audio": audio, "text": text, "visual": visual})
        single = features[0].ndim == 1
        batch = [feature.unsqueeze(0) for feature in features] if single else features
        concatenated_ND = torch.cat(batch, dim=1)
        latent_NL, gated_NL, gate_reg = self._encode_global(concatenated_ND)
        inter_N3J = self._inter(batch)
        inter_latent_NL = self.fuse_inInter(inter_N3J)
        losses, errors = self._partly(trained, gated_NL, concatenated_ND, inter_latent_NL, inter_N3J)
        fused = torch.cat([latent_NL, inter_latent_NL], dim=1)
        return FusionOutput(fused[0] if single else fused, losses, gate_reg, errors)

    def _partly(self, trained: int | None, *rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """_reconstruct of all rows, with gradients of the last `trained` alone: a decoder's backward pass is twice its forward."""
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
        """Losses (N,) and errors of the decoders of both branches, as FusionOutput has them."""
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
        """Latent vectors (N, L), what the decoder reads (N, L), and the gate regulariser (scalar)."""
        latent_NL = self.fuse_inGlobal(concatenated_ND)
        return latent_NL, latent_NL, concatenated_ND.new_zeros(())

    def _decode_global(self, gated_NL: Tensor) -> Tensor:
        """The reconstruction, (N, D)."""
        reconstructed_ND: Tensor = self.fuse_outGlobal(gated_NL)
        return reconstructed_ND

    def _inter(self, features: Sequence[Tensor]) -> Tensor:
        """The inter-modal softmax of every modality, (N, M J): rows of all modalities in one call, since b is one for
        all."""
        projections = [getattr(self, _projection_name(m))(x) for m, x in zip(self.dimensions, features, strict=True)]
        b_J = self.projectB(torch.ones(self.sizes.inter, device=features[0].device, dtype=features[0].dtype))
        # float32 under autocast too: exponents do not bear eight bits of mantissa
        stacked = torch.cat(projections, dim=0)
        wide = torch.float64 if stacked.dtype == torch.float64 else torch.float32
        mixed = intermodal_softmax(stacked.to(wide), b_J.to(wide), self.intermodal)
        return torch.cat(mixed.chunk(len(projections), dim=0), dim=1)

    def _losses(self, reconstructed: Tensor, target: Tensor, widths: Sequence[int]) -> Tensor:
        return self.criterion.elementwise(reconstructed.to(target.dtype), target, widths).mean(dim=1)

    def _check_features(self, given: Mapping[str, Tensor | None]) -> list[Tensor]:
        for name, feature in given.items():
            expected = self.dimensions.get(name)
            if (feature is None) != (expected is None):
                came = "nothing" if feature is None else f"shape {tuple(feature.shape)}"
                raise ValueError(
                    f"{name}: expected {'nothing' if expected is None else f'(..., {expected})'}, got {came}; "
                    f"this fusion was built for {', '.join(self.dimensions)}"
                )
            if feature is not None and (feature.ndim not in (1, 2) or feature.shape[-1] != expected):
                raise ValueError(
                    f"{name}: expected ({expected},) or (N, {expected}), got {tuple(feature.shape)}; "
                    "set input_features to the widths of the data"
                )
        features: list[Tensor] = [given[name] for name in self.dimensions]  # type: ignore[misc]
        if len({feature.shape[:-1] for feature in features}) > 1:
            shapes = ", ".join(f"{name} {tuple(x.shape)}" for name, x in zip(self.dimensions, features, strict=True))
            raise ValueError(
                f"fusion: expected the same utterances in every modality, got {shapes}; pass a row for each"
            )
        return features


def modality_dimensions(input_features: int | Mapping[str, int]) -> dict[str, int]:
    """{modality: width} in the order audio, text, visual. Raises ValueError for what can't be read so."""
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
            f"got {dict(input_features)}"
        )
    return {name: int(input_features[name]) for name in MODALITIES.values() if name in input_features}


def encoder(width: int, sizes: FusionSizes) -> nn.Sequential:
    """First half of an autoencoder, (N, width) -> (N, L)."""
    return nn.Sequential(nn.Linear(width, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, sizes.latent), nn.ReLU())


def decoder(width: int, sizes: FusionSizes) -> nn.Sequential:
    """Second half of an autoencoder, (N, L) -> (N, width)."""
    return nn.Sequential(nn.Linear(sizes.latent, sizes.hidden), nn.Tanh(), nn.Linear(sizes.hidden, width))


def _projection_name(modality: str) -> str:
    return f"project{modality[0].upper()}"
