import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from joyful.losses.reconstruction import MSELoss, SmoothL1Loss, WeightedMSELoss
from joyful.model.joyful import AutoFusion, AutoFusion_Hierarchical, FusionOutput, FusionSizes, modality_dimensions
from tests.support.host_reads import NoHostReads

SIZES = FusionSizes(inter=6, hidden=9, latent=5)
WIDTHS = {"audio": 3, "text": 7, "visual": 5}
SUBSETS = [names for k in (1, 2, 3) for names in itertools.combinations(WIDTHS, k)]


def build(cls=AutoFusion, widths=WIDTHS, seed=0, **options):
    torch.manual_seed(seed)
    return cls(widths, **{"sizes": SIZES, **options})


def features(widths=WIDTHS, n=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, width, generator=generator) for name, width in widths.items()}


def layer(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def encode(state, name, x):
    return layer(state, f"{name}.2", layer(state, f"{name}.0", x).tanh()).relu()


def decode(state, name, x):
    return layer(state, f"{name}.2", layer(state, f"{name}.0", x).tanh())


def plain_inter(state, inputs, error):
    """Latent vector, loss, squared and absolute error of the inter-modal branch for one utterance, with the full softmax."""
    b = layer(
        state, "projectB.0", torch.ones(state["projectB.0.weight"].shape[1], dtype=state["projectB.0.weight"].dtype)
    )
    outputs = []
    for name, x in inputs.items():
        p = layer(state, f"project{name[0].upper()}", x)
        weights = torch.softmax(b[:, None] * p[None, :], dim=1)  # over j
        outputs.append(weights @ p)
    target = torch.cat(outputs)
    latent = encode(state, "fuse_inInter", target)
    reconstructed = decode(state, "fuse_outInter", latent)
    residual = reconstructed - target
    return latent, error(reconstructed, target), residual.square().mean(), residual.abs().mean()


def plain(state, inputs, error):
    """AutoFusion on one utterance, from the formulas in the module docstring."""
    target = torch.cat(list(inputs.values()))
    latent = encode(state, "fuse_inGlobal", target)
    reconstructed = decode(state, "fuse_outGlobal", latent)
    residual = reconstructed - target
    inter, loss, mse, mae = plain_inter(state, inputs, error)
    return {
        "fused": torch.cat([latent, inter]),
        "loss": error(reconstructed, target) + loss,
        "recon_mse": residual.square().mean() + mse,
        "recon_mae": residual.abs().mean() + mae,
        "recon_mse_global": residual.square().mean(),
        "recon_mae_global": residual.abs().mean(),
    }


def assert_matches(fusion, inputs, expected_of, error):
    output = fusion(**inputs)
    state = fusion.state_dict()
    for row in range(len(output.fused)):
        expected = expected_of(state, {name: x[row] for name, x in inputs.items()}, error)
        torch.testing.assert_close(output.fused[row], expected["fused"])
        torch.testing.assert_close(output.encoder_losses[row], expected["loss"])
        assert set(output.errors) == {"recon_mse", "recon_mae", "recon_mse_global", "recon_mae_global"}
        for name, values in output.errors.items():
            assert not values.requires_grad
            torch.testing.assert_close(values[row], expected[name])


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("intermodal", ["auto", "exact"])
def test_against_a_plain_implementation(names, smooth, intermodal):
    widths = {name: WIDTHS[name] for name in names}
    fusion = build(widths=widths, use_smooth_l1=smooth, intermodal=intermodal)
    error = functional.smooth_l1_loss if smooth else functional.mse_loss
    assert_matches(fusion, features(widths), plain, error)


def test_gradients_against_the_plain_implementation():
    fusion = build().double()
    inputs = {name: x.double().requires_grad_() for name, x in features(n=2).items()}
    output = fusion(**inputs)
    (output.fused.square().sum() + 3 * output.encoder_loss).backward()
    mine = {name: p.grad.clone() for name, p in fusion.named_parameters()}
    mine |= {name: x.grad.clone() for name, x in inputs.items()}
    state = {name: p.detach().requires_grad_() for name, p in fusion.named_parameters()}
    inputs = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    rows = [plain(state, {name: x[i] for name, x in inputs.items()}, functional.mse_loss) for i in range(2)]
    total = sum(row["fused"].square().sum() for row in rows) + 3 * sum(row["loss"] for row in rows) / 2
    total.backward()
    for name, tensor in {**state, **inputs}.items():
        torch.testing.assert_close(mine[name], tensor.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_shapes_and_one_utterance(names):
    widths = {name: WIDTHS[name] for name in names}
    fusion = build(widths=widths)
    batch = features(widths)
    output = fusion(**batch)
    assert isinstance(output, FusionOutput)
    assert output.fused.shape == (4, 10)
    assert fusion.output_size == 10
    assert output.encoder_losses.shape == (4,)
    assert output.gate_reg_loss.shape == ()
    assert float(output.gate_reg_loss) == 0.0
    torch.testing.assert_close(output.encoder_loss, output.encoder_losses.mean())
    one = fusion(**{name: x[2] for name, x in batch.items()})
    assert one.fused.shape == (10,)
    torch.testing.assert_close(one.fused, output.fused[2])
    torch.testing.assert_close(one.encoder_losses, output.encoder_losses[2:3])
    assert not fusion.has_gates
    projections = {name for name in fusion.state_dict() if name.startswith("project")}
    assert projections == {
        f"{p}.{part}" for p in ["projectB.0", *(f"project{n[0].upper()}" for n in names)] for part in ("weight", "bias")
    }


def test_modalities_are_concatenated_in_the_order_of_the_reference():
    shuffled = build(widths={"visual": 5, "text": 7, "audio": 3})
    assert list(shuffled.dimensions.items()) == [("audio", 3), ("text", 7), ("visual", 5)]
    assert_matches(shuffled, features(), plain, functional.mse_loss)


def test_weighted_criterion():
    fusion = build(criterion=WeightedMSELoss((0.5, 2.0, 0.0)))

    def error(reconstructed, target):
        widths = (3, 7, 5) if len(target) == 15 else (6, 6, 6)
        weights = torch.repeat_interleave(torch.tensor([0.5, 2.0, 0.0]), torch.tensor(widths))
        return (weights * (reconstructed - target) ** 2).mean()

    assert_matches(fusion, features(), plain, error)


def test_criterion_is_the_one_asked_for():
    assert isinstance(build().criterion, MSELoss)
    assert isinstance(build(use_smooth_l1=True).criterion, SmoothL1Loss)
    mine = SmoothL1Loss(beta=0.5)
    assert build(use_smooth_l1=False, criterion=mine).criterion is mine
    # as the note uses it
    assert float(build().criterion(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0]))) == 5.0


#: Names and shapes of the reference's parameters, by hand from its widths: 1380 = 100 + 768 + 512 = 3 * 460.
REFERENCE_SHARED = {
    "fuse_inInter.0": (1024, 1380), "fuse_inInter.2": (512, 1024),
    "fuse_outInter.0": (1024, 512), "fuse_outInter.2": (1380, 1024),
    "projectA": (460, 100), "projectT": (460, 768), "projectV": (460, 512), "projectB.0": (460, 460),
}  # fmt: skip
REFERENCE_AUTO = {
    "fuse_inGlobal.0": (1024, 1380), "fuse_inGlobal.2": (512, 1024),
    "fuse_outGlobal.0": (1024, 512), "fuse_outGlobal.2": (1380, 1024),
    **REFERENCE_SHARED,
}  # fmt: skip


def state_of(linear):
    state = {}
    for name, shape in linear.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            torch.randn(shape) / shape[1] ** 0.5,
            torch.randn(shape[0]) / 10,
        )
    return state


def test_a_state_dict_of_the_reference_loads_and_is_used():
    torch.manual_seed(0)
    fusion, state = AutoFusion(1380), state_of(REFERENCE_AUTO)
    fusion.load_state_dict(state, strict=True)
    inputs = features({"audio": 100, "text": 768, "visual": 512}, n=2)
    assert fusion(**inputs).fused.shape == (2, 1024)
    assert_matches(fusion, inputs, plain, functional.mse_loss)


def gradient_reaches(fusion, inputs):
    """Return the names of the trained parameters that the fused vector depends on."""
    fusion.zero_grad()
    fusion(**inputs).fused.sum().backward()
    return {name for name, p in fusion.named_parameters() if p.grad is not None}


def test_shared_parameters_are_those_that_the_classification_reaches():
    fusion = build()
    shared = {id(p) for p in fusion.shared_parameters()}
    assert {name for name, p in fusion.named_parameters() if id(p) in shared} == gradient_reaches(fusion, features())
    # the reconstruction loss has a gradient for each of them
    fusion.zero_grad()
    fusion(**features()).encoder_loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in fusion.shared_parameters())


def test_no_host_reads_with_the_exact_form():
    fusion, inputs = build(intermodal="exact"), features()
    with NoHostReads():
        output = fusion(**inputs)
        (output.fused.sum() + output.encoder_loss).backward()


def test_autocast_keeps_losses_and_the_softmax_in_float32():
    fusion, inputs = build(), features()
    expected = fusion(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = fusion(**inputs)
    assert output.encoder_losses.dtype == torch.float32
    torch.testing.assert_close(output.encoder_losses, expected.encoder_losses, rtol=0.02, atol=0.0)
    torch.testing.assert_close(output.fused.float(), expected.fused, rtol=0.05, atol=0.01)


def test_dimensions():
    assert modality_dimensions(1380) == {"audio": 100, "text": 768, "visual": 512}
    assert modality_dimensions({"text": 2, "audio": 1}) == {"audio": 1, "text": 2}


@pytest.mark.parametrize("bad", [1379, 0, -1380, 883, True])
def test_other_numbers_are_refused(bad):
    with pytest.raises(ValueError, match=rf"expected 1380 .* got {bad}; set input_features="):
        AutoFusion(bad)


@pytest.mark.parametrize("bad", [{}, {"speech": 3}, {"audio": 0}, {"audio": 3, "text": -1}])
def test_bad_widths_are_refused(bad):
    with pytest.raises(ValueError, match="expected positive widths of some of audio, text, visual, got"):
        AutoFusion(bad)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"text: expected \(\.\.\., 7\), got nothing; this fusion was built for audio, text"),
        ({"visual": torch.ones(4, 5)}, r"visual: expected nothing, got shape \(4, 5\)"),
        ({"audio": torch.ones(4, 2)}, r"audio: expected \(3,\) or \(N, 3\), got \(4, 2\); set input_features"),
        ({"audio": torch.ones(2, 4, 3)}, r"audio: expected \(3,\) or \(N, 3\), got \(2, 4, 3\)"),
        ({"audio": torch.ones(5, 3)}, r"same utterances in every modality, got audio \(5, 3\), text \(4, 7\)"),
        ({"audio": torch.ones(3)}, r"same utterances in every modality, got audio \(3,\), text \(4, 7\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, message):
    widths = {"audio": 3, "text": 7}
    with pytest.raises(ValueError, match=message):
        build(widths=widths)(**{**features(widths), **change})


def test_one_b_for_all_modalities():
    # The input of projectB is the constant 1, so b does not depend on the features.
    fusion = build()
    seen = []
    fusion.projectB.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    fusion(**features())
    assert len(seen) == 1
    assert torch.equal(seen[0][0], torch.ones(6))
    assert isinstance(fusion.projectB, nn.Sequential)


@pytest.mark.parametrize("cls", [AutoFusion, AutoFusion_Hierarchical])
@pytest.mark.parametrize("trained", [1, 3, 6, 9])
def test_only_the_last_utterances_have_reconstruction_gradients(cls, trained):
    """Compares values and gradients with a forward pass that has gradients for all utterances."""
    fusion = build(cls).double()
    inputs = {name: x.double().requires_grad_() for name, x in features(n=6).items()}
    leaves = [*(p for p in fusion.parameters() if p.requires_grad), *inputs.values()]

    def run(**options):
        output = fusion(**inputs, **options)
        loss = output.encoder_losses[-trained:].sum() + output.fused.square().mean() + output.gate_reg_loss
        return output, torch.autograd.grad(loss, leaves)

    (partial, gradients), (full, expected) = run(trained=trained), run()
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    for name in ("fused", "encoder_losses", "gate_reg_loss"):
        torch.testing.assert_close(getattr(partial, name), getattr(full, name), rtol=0, atol=1e-12)
    assert partial.errors.keys() == full.errors.keys()
    for name, error in partial.errors.items():
        torch.testing.assert_close(error, full.errors[name], rtol=0, atol=1e-12)
    if trained < 6:
        decoders = [
            p for name, p in fusion.named_parameters() if name.startswith(("fuse_outGlobal", "dialogue_gate.fuse_out"))
        ]
        untrained = torch.autograd.grad(fusion(**inputs, trained=trained).encoder_losses[:-trained].sum(), decoders)
        assert all(not gradient.any() for gradient in untrained)
