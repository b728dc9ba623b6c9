"""AutoFusion_Hierarchical: AutoFusion with gates in the global branch.

    utterance gate   c = Hardtanh_[0,1](W x) * encode(x)
    dialogue gates   temporal, forget, input = Hardtanh_[0,1](W_. [c, s])    s: a learned global emotion state
    reconstruction   decode(temporal * (forget * s + input * c))
    regulariser      sum over the three gates of mean((gate - 1/2)^2)

The regulariser is returned separately from the reconstruction losses and unweighted.

Shape letters: N utterances, D features of all modalities together, L latent units (512).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from joyful.model.fusion import REFERENCE_SIZES, AutoFusion, Criterion, FusionSizes, decoder, encoder


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
        bias_L = nn.functional.linear(state_L, weight_s, linear.bias)
        gate_NL: Tensor = hardtanh(nn.functional.linear(latent_NL, weight_c, bias_L))
        return gate_NL


def _hardtanh() -> nn.Hardtanh:
    return nn.Hardtanh(0.0, 1.0, inplace=True)  # the backward pass needs only its output


def _distance_from_half(gate: Tensor) -> Tensor:
    """Return mean((gate - 1/2)^2) in at least float32. The backward pass stores no difference."""
    gate = gate.to(torch.promote_types(gate.dtype, torch.float32))
    return nn.functional.mse_loss(gate, gate.new_full((), 0.5).expand_as(gate))


class AutoFusion_Hierarchical(AutoFusion):
    """The gated fusion of the note. Inputs, outputs and errors are those of AutoFusion.

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
        """Initialise the emotion state from a normal distribution with mean 0 and standard deviation 0.01."""
        nn.init.normal_(self.global_emotion_state, std=0.01)

    def _encode_global(self, concatenated_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent_NL = self.utterance_gate(concatenated_ND)
        gated_NL, gate_reg = self.dialogue_gate(latent_NL, self.global_emotion_state)
        return latent_NL, gated_NL, gate_reg

    def _decode_global(self, gated_NL: Tensor) -> Tensor:
        reconstructed_ND: Tensor = self.dialogue_gate.fuse_out(gated_NL)
        return reconstructed_ND
