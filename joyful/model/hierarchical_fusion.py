"""AutoFusion_Hierarchical: AutoFusion with gates round the global branch.

    utterance gate   c = Hardtanh_[0,1](W x) * encode(x)
    dialogue gates   temporal, forget, input = Hardtanh_[0,1](W_. [c, s])    s: a learned global emotion state
    reconstruction   decode(temporal * (forget * s + input * c))
    regulariser      sum over the three gates of mean((gate - 1/2)^2), returned apart and weighted once

Shape letters: N utterances, D features of all modalities together, L latent units (512).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from joyful.model.fusion import REFERENCE_SIZES, AutoFusion, Criterion, FusionSizes, decoder, encoder


class UtteranceGate(nn.Module):
    """Gated encoder, (N, D) -> (N, L). `modal_attention` is the reference's head whose output it never uses: it is
    kept, untrained, where checkpoints of the reference are to be loaded."""

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
    """Gated decoder: the latent vectors (N, L) and the state (L,) -> what `fuse_out` reads (N, L), and the gate regulariser
    (scalar)."""

    def __init__(self, width: int, sizes: FusionSizes) -> None:
        super().__init__()
        for name in self.gates:
            setattr(self, name, nn.Sequential(nn.Linear(2 * sizes.latent, sizes.latent), _hardtanh()))
        self.fuse_out = decoder(width, sizes)

    gates = ("temporal_gate", "forget_gate", "input_gate")

    def forward(self, latent_NL: Tensor, state_L: Tensor) -> tuple[Tensor, Tensor]:
        temporal, forget, entry = (self._gate(name, latent_NL, state_L) for name in self.gates)
        gate_reg = torch.stack([_from_half(gate) for gate in (temporal, forget, entry)]).sum()
        return temporal * (forget * state_L + entry * latent_NL), gate_reg

    def _gate(self, name: str, latent_NL: Tensor, state_L: Tensor) -> Tensor:
        """The gate of [c, s]: s is one for all utterances, so its part of the product is a vector, computed once."""
        linear, hardtanh = getattr(self, name)
        weight_c, weight_s = linear.weight.split(latent_NL.shape[1], dim=1)
        bias_L = nn.functional.linear(state_L, weight_s, linear.bias)
        gate_NL: Tensor = hardtanh(nn.functional.linear(latent_NL, weight_c, bias_L))
        return gate_NL


def _hardtanh() -> nn.Hardtanh:
    return nn.Hardtanh(0.0, 1.0, inplace=True)  # what comes out tells the backward pass as much as what went in


def _from_half(gate: Tensor) -> Tensor:
    """mean((gate - 1/2)^2) in at least float32; keeps no difference for the backward pass."""
    gate = gate.to(torch.promote_types(gate.dtype, torch.float32))
    return nn.functional.mse_loss(gate, gate.new_full((), 0.5).expand_as(gate))


class AutoFusion_Hierarchical(AutoFusion):
    """The gated fusion of the note; arguments, inputs, outputs and errors as of AutoFusion."""

    has_gates = True
    decoders = ("dialogue_gate", "global_emotion_state", "fuse_outInter")

    def __init__(
        self,
        input_features: int | Mapping[str, int],
        use_smooth_l1: bool = False,
        *,
        sizes: FusionSizes = REFERENCE_SIZES,
        criterion: Criterion | None = None,
        intermodal: str = "auto",
        modal_attention: bool = True,
    ) -> None:
        self._modal_attention = modal_attention
        super().__init__(input_features, use_smooth_l1, sizes=sizes, criterion=criterion, intermodal=intermodal)

    def _build_global(self) -> None:
        width = self.input_features
        self.utterance_gate = UtteranceGate(width, self.sizes, len(self.dimensions), self._modal_attention)
        self.dialogue_gate = DialogueGate(width, self.sizes)
        self.global_emotion_state = nn.Parameter(torch.empty(self.sizes.latent))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The state starts near zero: N(0, 0.01)."""
        nn.init.normal_(self.global_emotion_state, std=0.01)

    def _encode_global(self, concatenated_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent_NL = self.utterance_gate(concatenated_ND)
        gated_NL, gate_reg = self.dialogue_gate(latent_NL, self.global_emotion_state)
        return latent_NL, gated_NL, gate_reg

    def _decode_global(self, gated_NL: Tensor) -> Tensor:
        reconstructed_ND: Tensor = self.dialogue_gate.fuse_out(gated_NL)
        return reconstructed_ND
