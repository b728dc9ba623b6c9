"""The two fusion autoencoders for a single utterance, as in the reference.

Written in plain torch without code of joyful. The inter-modal softmax is the J x J matrix of the formula, and it is
stored for the backward pass. Parameters have the names of the reference, so joyful's parameters can be loaded.

Shape letters: D features of one modality or of all, J units of a projection (460), L latent units (512).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Fused:
    """Fusion of one utterance: vector (2 L,), reconstruction loss of both branches and gate regulariser (scalars)."""

    vector: Tensor
    encoder_loss: Tensor
    gate_reg: Tensor


class PlainFusion(nn.Module):
    """AutoFusion: two autoencoders. The input is one vector (D,) per modality, in the order of `dimensions`."""

    def __init__(
        self, dimensions: Mapping[str, int], inter: int, hidden: int, latent: int, criterion: nn.Module
    ) -> None:
        super().__init__()
        self.modalities, self.inter, self.hidden, self.latent = tuple(dimensions), inter, hidden, latent
        self.width, self.criterion = sum(dimensions.values()), criterion
        for modality, width in dimensions.items():
            setattr(self, f"project{modality[0].upper()}", nn.Linear(width, inter))
        self.projectB = nn.Sequential(nn.Linear(inter, inter))
        self.fuse_inInter = self.encoder(inter * len(dimensions))
        self.fuse_outInter = self.decoder(inter * len(dimensions))
        self.build_global()

    def build_global(self) -> None:
        self.fuse_inGlobal, self.fuse_outGlobal = self.encoder(self.width), self.decoder(self.width)

    def forward(self, *vectors: Tensor) -> Fused:
        together = torch.cat(vectors)
        compressed, rebuilt, gate_reg = self.global_branch(together)
        mixed = torch.cat([self.intermodal(m, vector) for m, vector in zip(self.modalities, vectors, strict=True)])
        inter_compressed = self.fuse_inInter(mixed)
        inter_rebuilt = self.fuse_outInter(inter_compressed)
        loss = self.criterion(rebuilt, together) + self.criterion(inter_rebuilt, mixed)
        return Fused(torch.cat([compressed, inter_compressed]), loss, gate_reg)

    def global_branch(self, together: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        compressed = self.fuse_inGlobal(together)
        return compressed, self.fuse_outGlobal(compressed), together.new_zeros(())

    def intermodal(self, modality: str, vector: Tensor) -> Tensor:
        """Return (J,): each unit of the constant branch attends to all units of the projection of this modality."""
        x = getattr(self, f"project{modality[0].upper()}")(vector)
        b = self.projectB(torch.ones(self.inter, dtype=vector.dtype))
        weights_JJ = torch.softmax(torch.outer(b, x), dim=1)
        return weights_JJ @ x

    def encoder(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, self.hidden), nn.Tanh(), nn.Linear(self.hidden, self.latent), nn.ReLU())

    def decoder(self, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(self.latent, self.hidden), nn.Tanh(), nn.Linear(self.hidden, width))


class UtteranceGate(nn.Module):
    """The gated encoder. The attention over modalities is computed and its output is discarded, as in the reference."""

    def __init__(self, fusion: PlainFusion) -> None:
        super().__init__()
        width, modalities = fusion.width, len(fusion.modalities)
        self.modal_attention = nn.Sequential(
            nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, modalities), nn.Softmax(dim=-1)
        )
        self.gate_net = nn.Sequential(nn.Linear(width, fusion.latent), nn.Hardtanh(0.0, 1.0))
        self.fuse_in = fusion.encoder(width)

    def forward(self, together: Tensor) -> Tensor:
        self.modal_attention(together)
        return self.gate_net(together) * self.fuse_in(together)


class DialogueGate(nn.Module):
    """The gated decoder: latent vector and learned state, (L,) each, to (D,) and the gate regulariser."""

    def __init__(self, fusion: PlainFusion) -> None:
        super().__init__()
        joined = 2 * fusion.latent
        self.temporal_gate = nn.Sequential(nn.Linear(joined, fusion.latent), nn.Hardtanh(0.0, 1.0))
        self.forget_gate = nn.Sequential(nn.Linear(joined, fusion.latent), nn.Hardtanh(0.0, 1.0))
        self.input_gate = nn.Sequential(nn.Linear(joined, fusion.latent), nn.Hardtanh(0.0, 1.0))
        self.fuse_out = fusion.decoder(fusion.width)

    def forward(self, compressed: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        joined = torch.cat([compressed, state])
        temporal, forget, entry = self.temporal_gate(joined), self.forget_gate(joined), self.input_gate(joined)
        regulariser = compressed.new_zeros(())
        for gate in (temporal, forget, entry):
            regulariser = regulariser + (gate - 0.5).pow(2).mean()
        return self.fuse_out(temporal * (forget * state + entry * compressed)), regulariser


class PlainFusionHierarchical(PlainFusion):
    """AutoFusion_Hierarchical: AutoFusion with gates around the global branch."""

    def build_global(self) -> None:
        self.utterance_gate, self.dialogue_gate = UtteranceGate(self), DialogueGate(self)
        self.global_emotion_state = nn.Parameter(0.01 * torch.randn(self.latent))

    def global_branch(self, together: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        compressed = self.utterance_gate(together)
        rebuilt, regulariser = self.dialogue_gate(compressed, self.global_emotion_state)
        return compressed, rebuilt, regulariser
