import itertools

import pytest
import torch
from torch.nn import functional

from joyful.losses.reconstruction import SmoothL1Loss
from joyful.model.joyful import AutoFusion_Hierarchical, FusionSizes
from tests.support.host_reads import NoHostReads

WIDTHS = {"audio": 3, "text": 7, "visual": 5}
SUBSETS = [names for k in (1, 2, 3) for names in itertools.combinations(WIDTHS, k)]
GATES = ("temporal_gate", "forget_gate", "input_gate")


def build(widths=WIDTHS, seed=0, **options):
    torch.manual_seed(seed)
    fusion = AutoFusion_Hierarchical(widths, **{"sizes": FusionSizes(6, 9, 5), **options})
    with torch.no_grad():  # the initial state near 0 would hide an error in its use
        fusion.global_emotion_state.normal_()
    return fusion


def features(widths=WIDTHS, n=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, width, generator=generator) for name, width in widths.items()}


def layer(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def two_layers(state, name, x):
    return layer(state, f"{name}.2", layer(state, f"{name}.0", x).tanh())


def plain(state, inputs, error):
    """AutoFusion_Hierarchical on one utterance, from the formulas in the module docstring."""
    x, s = torch.cat(list(inputs.values())), state["global_emotion_state"]
    gate = layer(state, "utterance_gate.gate_net.0", x).clamp(0, 1)
    c = gate * two_layers(state, "utterance_gate.fuse_in", x).relu()
    temporal, forget, entry = (layer(state, f"dialogue_gate.{name}.0", torch.cat([c, s])).clamp(0, 1) for name in GATES)
    reconstructed = two_layers(state, "dialogue_gate.fuse_out", temporal * (forget * s + entry * c))
    gate_reg = sum(((values - 0.5) ** 2).mean() for values in (temporal, forget, entry))
    b = layer(state, "projectB.0", torch.ones(state["projectB.0.weight"].shape[1], dtype=x.dtype))
    mixed = []
    for name, values in inputs.items():
        p = layer(state, f"project{name[0].upper()}", values)
        mixed.append(torch.softmax(b[:, None] * p[None, :], dim=1) @ p)
    y = torch.cat(mixed)
    z = two_layers(state, "fuse_inInter", y).relu()
    inter_reconstructed = two_layers(state, "fuse_outInter", z)
    return {
        "fused": torch.cat([c, z]),
        "loss": error(reconstructed, x) + error(inter_reconstructed, y),
        "gate_reg": gate_reg,
        "recon_mse": functional.mse_loss(reconstructed, x) + functional.mse_loss(inter_reconstructed, y),
        "recon_mae": functional.l1_loss(reconstructed, x) + functional.l1_loss(inter_reconstructed, y),
        "recon_mse_global": functional.mse_loss(reconstructed, x),
        "recon_mae_global": functional.l1_loss(reconstructed, x),
    }


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("smooth", [False, True])
def test_against_a_plain_implementation(names, smooth):
    widths = {name: WIDTHS[name] for name in names}
    fusion, inputs = build(widths, use_smooth_l1=smooth), features(widths)
    error = functional.smooth_l1_loss if smooth else functional.mse_loss
    output, state = fusion(**inputs), fusion.state_dict()
    rows = [plain(state, {name: x[row] for name, x in inputs.items()}, error) for row in range(4)]
    for row, expected in enumerate(rows):
        torch.testing.assert_close(output.fused[row], expected["fused"])
        torch.testing.assert_close(output.encoder_losses[row], expected["loss"])
        for name, values in output.errors.items():
            torch.testing.assert_close(values[row], expected[name])
    # the regulariser is the unweighted mean over utterances, separate from the losses
    torch.testing.assert_close(output.gate_reg_loss, torch.stack([row["gate_reg"] for row in rows]).mean())


def test_gradients_against_the_plain_implementation():
    fusion = build(modal_attention=False).double()
    inputs = {name: x.double() for name, x in features(n=3).items()}
    output = fusion(**inputs)
    (output.fused.square().sum() + 3 * output.encoder_loss + 2 * output.gate_reg_loss).backward()
    state = {name: p.detach().requires_grad_() for name, p in fusion.named_parameters()}
    rows = [plain(state, {name: x[i] for name, x in inputs.items()}, functional.mse_loss) for i in range(3)]
    total = sum(r["fused"].square().sum() + r["loss"] + 2 / 3 * r["gate_reg"] for r in rows)
    total.backward()
    for name, parameter in fusion.named_parameters():
        # 1e-5, because the regulariser is float32 in a float64 model too
        torch.testing.assert_close(parameter.grad, state[name].grad, rtol=1e-5, atol=1e-7)


def test_gate_regulariser_by_hand():
    # the biases set the gates to 1, 0 and 1/2: 1/4 + 1/4 + 0
    fusion = build()
    with torch.no_grad():
        for name, bias in zip(GATES, (7.0, -7.0, 0.5), strict=True):
            linear = getattr(fusion.dialogue_gate, name)[0]
            linear.weight.zero_()
            linear.bias.fill_(bias)
    assert float(fusion(**features()).gate_reg_loss.detach()) == 0.5
    assert fusion.has_gates


def test_one_utterance_is_a_batch_of_one():
    fusion, batch = build(), features()
    output = fusion(**batch)
    one = fusion(**{name: x[2] for name, x in batch.items()})
    assert one.fused.shape == (10,)
    torch.testing.assert_close(one.fused, output.fused[2])
    torch.testing.assert_close(one.encoder_losses, output.encoder_losses[2:3])
    alone = fusion(**{name: x[2:3] for name, x in batch.items()})
    torch.testing.assert_close(one.gate_reg_loss, alone.gate_reg_loss)


def test_state_starts_near_zero():
    torch.manual_seed(0)
    fusion = AutoFusion_Hierarchical({"text": 3}, sizes=FusionSizes(4, 4, 2000))
    state = fusion.global_emotion_state.detach()
    assert float(state.std()) == pytest.approx(0.01, rel=0.1)
    assert abs(float(state.mean())) < 4 * 0.01 / 2000**0.5


#: Names and shapes of the reference's parameters, by hand from its widths: 1380 = 100 + 768 + 512 = 3 * 460.
REFERENCE = {
    "utterance_gate.modal_attention.0": (690, 1380), "utterance_gate.modal_attention.2": (3, 690),
    "utterance_gate.gate_net.0": (512, 1380),
    "utterance_gate.fuse_in.0": (1024, 1380), "utterance_gate.fuse_in.2": (512, 1024),
    "dialogue_gate.temporal_gate.0": (512, 1024), "dialogue_gate.forget_gate.0": (512, 1024),
    "dialogue_gate.input_gate.0": (512, 1024),
    "dialogue_gate.fuse_out.0": (1024, 512), "dialogue_gate.fuse_out.2": (1380, 1024),
    "fuse_inInter.0": (1024, 1380), "fuse_inInter.2": (512, 1024),
    "fuse_outInter.0": (1024, 512), "fuse_outInter.2": (1380, 1024),
    "projectA": (460, 100), "projectT": (460, 768), "projectV": (460, 512), "projectB.0": (460, 460),
}  # fmt: skip


def test_a_state_dict_of_the_reference_loads_and_is_used():
    torch.manual_seed(0)
    state = {"global_emotion_state": torch.randn(512) * 0.01}
    for name, shape in REFERENCE.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            torch.randn(shape) / shape[1] ** 0.5,
            torch.randn(shape[0]) / 10,
        )
    fusion = AutoFusion_Hierarchical(1380)
    fusion.load_state_dict(state, strict=True)
    inputs = features({"audio": 100, "text": 768, "visual": 512}, n=2)
    output = fusion(**inputs)
    for row in range(2):
        expected = plain(state, {name: x[row] for name, x in inputs.items()}, functional.mse_loss)
        torch.testing.assert_close(output.fused[row], expected["fused"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.encoder_losses[row], expected["loss"], rtol=1e-4, atol=1e-5)


def test_modal_attention_is_untrained_or_absent():
    kept, without = build(), build(modal_attention=False)
    head = {name for name, p in kept.named_parameters() if "modal_attention" in name}
    assert len(head) == 4
    assert not any(p.requires_grad for name, p in kept.named_parameters() if name in head)
    assert {name for name, _ in without.named_parameters()} == {name for name, _ in kept.named_parameters()} - head
    without.load_state_dict({name: v for name, v in kept.state_dict().items() if name not in head})
    assert torch.equal(kept(**features()).fused, without(**features()).fused)


@pytest.mark.parametrize("modal_attention", [True, False])
def test_shared_parameters_are_those_that_the_classification_reaches(modal_attention):
    fusion = build(modal_attention=modal_attention)
    fusion(**features()).fused.sum().backward()
    reached = {name for name, p in fusion.named_parameters() if p.grad is not None}
    shared = {id(p) for p in fusion.shared_parameters()}
    assert {name for name, p in fusion.named_parameters() if id(p) in shared} == reached
    fusion.zero_grad()
    fusion(**features(n=30)).encoder_loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in fusion.shared_parameters())
    # the reconstruction loss has a gradient for every trained parameter
    assert all(p.grad is not None for p in fusion.parameters() if p.requires_grad)


def test_criterion():
    assert isinstance(build(use_smooth_l1=True).criterion, SmoothL1Loss)
    mine = SmoothL1Loss(beta=0.5)
    assert build(criterion=mine).criterion is mine


def test_no_host_reads_with_the_exact_form():
    fusion, inputs = build(intermodal="exact"), features()
    with NoHostReads():
        output = fusion(**inputs)
        (output.fused.sum() + output.encoder_loss + output.gate_reg_loss).backward()


def test_autocast_keeps_the_losses_in_float32():
    fusion, inputs = build(), features()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = fusion(**inputs)
    assert output.encoder_losses.dtype == output.gate_reg_loss.dtype == torch.float32
    torch.testing.assert_close(output.gate_reg_loss, fusion(**inputs).gate_reg_loss, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("bad", [883, {"audio": 0}])
def test_bad_widths_are_refused(bad):
    with pytest.raises(ValueError, match="input_features"):
        AutoFusion_Hierarchical(bad)
