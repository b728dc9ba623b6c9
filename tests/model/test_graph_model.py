import itertools

import numpy as np
import pytest
import torch
from torch import nn

from joyful.losses.contrastive import info_nce
from joyful.model.joyful import GraphModel, Highway, Standardise, initialise, parameter_groups, standardise
from joyful.randomness import Draws
from joyful.records import MODALITIES
from tests.support.host_reads import NoHostReads
from tests.support.models import DIMENSIONS, random_split, tiny_model

torch.set_num_threads(1)
LENGTHS = (4, 1, 7, 2, 9)
DRAWS = Draws(seed=1, epoch=1, step=5)
CONTEXTS = ("transformer", "gru", "lstm")
FUSIONS = ("auto", "hierarchical")
SUBSETS = [names for k in (1, 2, 3) for names in itertools.combinations(DIMENSIONS, k)]
EVERYTHING = {
    "speaker_embedding": 4, "use_highway": True, "concat_gin_gout": True, "skip": True, "standardise": True,
    "classifier_skip": True,
}  # fmt: skip
NOTHING = {"concat_gin_gout": False, "skip": False, "standardise": False}

#: Every context with every fusion, every subset of the modalities, windows, and all switches on and off.
CONFIGURATIONS = [
    *({"context": context, "fusion": fusion} for context in CONTEXTS for fusion in FUSIONS),
    *({"fusion": fusion, "names": names} for fusion in FUSIONS for names in SUBSETS[:-1]),
    *({"context": context, **flags} for context in CONTEXTS for flags in (EVERYTHING, NOTHING)),
    {"wp": -1, "wf": -1, "context": "transformer"},
    {"wp": 0, "wf": 0},
    {"wp": -1, "wf": 0, "fusion": "auto"},
    {"skip_projection": False},
    {"classifier_skip": True},
    {"n_unimodal": 4},
    {"modal_attention": True},
    {"n_speakers": 9, "speaker_embedding": 2},
    {"multilabel": True, "classes": 5},
]


def ids(configuration):
    return "-".join(f"{name}={'+'.join(v) if isinstance(v, tuple) else v}" for name, v in configuration.items())


configurations = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=ids)


def build(configuration=None, lengths=LENGTHS, seed=1):
    """Return a model with running statistics as after some training, and its dialogues."""
    options = dict(configuration or {})
    names = options.pop("names", tuple(DIMENSIONS))
    data = {name: options.pop(name) for name in ("n_speakers", "multilabel") if name in options}
    classes = options.pop("classes", 3)
    split = random_split(lengths, classes=classes, dimensions={name: DIMENSIONS[name] for name in names}, **data)
    model = tiny_model(split, classes=classes, seed=seed, **options)
    generator = torch.Generator().manual_seed(9)
    model.norm.running_mean.normal_(generator=generator)
    model.norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return model, split


def everything_trained(output, labels):
    """Return a scalar that depends on every part of the model."""
    total = output.contrastive + output.fusion.encoder_loss + output.fusion.gate_reg_loss
    for logits in (output.logits, *output.unimodal.values()):
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))
        total = total + (logits * weights).sum()
    return total


@configurations
def test_a_prediction_does_not_depend_on_the_rest_of_the_batch(configuration):
    model, split = build(configuration)
    model.eval()
    order = np.arange(len(LENGTHS))
    with torch.no_grad():
        alone = [model(split.batch(np.array([dialogue]))) for dialogue in order]
        for batch in (order, order[::-1], np.array([2, 0, 3]), np.array([4, 1]), np.array([1, 1, 4])):
            together = model(split.batch(batch))
            for name, *values in (
                ("logits", together.logits, [a.logits for a in alone]),
                ("encoder losses", together.fusion.encoder_losses, [a.fusion.encoder_losses for a in alone]),
                *(
                    (error, together.fusion.errors[error], [a.fusion.errors[error] for a in alone])
                    for error in together.fusion.errors
                ),
                *((m, together.unimodal[m], [a.unimodal[m] for a in alone]) for m in together.unimodal),
            ):
                one, parts = values
                rows = torch.cat([parts[dialogue] for dialogue in batch])
                torch.testing.assert_close(one, rows, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("context", CONTEXTS)
def test_long_dialogues_do_not_change_short_ones(context):
    # 150 utterances exceed a block of the windowed attention: they are split, and the others are padded
    model, split = build({"context": context, "wp": 8, "wf": 8}, lengths=(150, 3, 40))
    model.eval()
    with torch.no_grad():
        together = model(split.batch(np.arange(3))).logits
        for dialogue, rows in enumerate(together.split([150, 3, 40])):
            alone = model(split.batch(np.array([dialogue]))).logits
            torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("context", CONTEXTS)
def test_nan_in_a_dialogue_does_not_affect_others(context):
    model, split = build({"context": context, "standardise": False})
    model.eval()
    with torch.no_grad():
        expected = model(split.batch(np.array([0, 4]))).logits
        split.features["text"][4 + 1 : 4 + 1 + 7] = torch.nan  # dialogue 2
        logits = model(split.batch(np.array([0, 2, 4]))).logits
    assert logits[4 : 4 + 7].isnan().all()
    torch.testing.assert_close(torch.cat([logits[:4], logits[4 + 7 :]]), expected, rtol=0, atol=1e-5)


@configurations
def test_every_trained_parameter_has_a_finite_gradient(configuration):
    model, split = build(configuration)
    model.train()
    batch = split.batch(np.arange(len(LENGTHS)))
    everything_trained(model(batch, DRAWS, DRAWS), batch.labels).backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if "modal_attention" in name}
    assert bool(frozen) == configuration.get("modal_attention", False)


@configurations
def test_shapes(configuration):
    model, split = build(configuration)
    batch = split.batch(np.arange(len(LENGTHS)))
    output = model(batch, DRAWS, DRAWS)
    n, classes = sum(LENGTHS), configuration.get("classes", 3)
    assert output.logits.shape == (n, classes)
    assert output.contrastive.shape == ()
    assert output.fusion.encoder_losses.shape == (n,)
    names = configuration.get("names", tuple(DIMENSIONS))
    expected = dict.fromkeys(names, (n, classes)) if configuration.get("n_unimodal") else {}
    assert {name: logits.shape for name, logits in output.unimodal.items()} == expected


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("lengths", [(1,), (1, 1), (2,)])
def test_batches_of_one_or_two_utterances_train(context, lengths):
    model, split = build({"context": context, **EVERYTHING}, lengths=lengths)
    model.train()
    batch = split.batch(np.arange(len(lengths)))
    total = everything_trained(model(batch, DRAWS, DRAWS), batch.labels)
    assert total.isfinite()
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_training_pass_is_a_function_of_the_draws():
    model, split = build({"context": "transformer", **EVERYTHING, "n_unimodal": 3, "input_dropout": 0.2})
    model.train()
    batch = split.batch(np.arange(len(LENGTHS)))
    state = torch.get_rng_state()

    def run(draws):
        output = model(batch, draws, draws)
        return torch.cat(
            [output.logits.flatten(), *(u.flatten() for u in output.unimodal.values())]
        ), output.contrastive

    for one, other in zip(run(DRAWS), run(DRAWS), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(run(DRAWS), run(Draws(1, 1, 6)), strict=True):
        assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["dropout", "input_dropout", "node_dropout"])
@pytest.mark.parametrize("context", CONTEXTS)
def test_each_kind_of_dropout_acts_only_in_training(context, name):
    off = {"dropout": 0.0, "input_dropout": 0.0, "node_dropout": 0.0}
    batch = random_split(LENGTHS).batch(np.arange(len(LENGTHS)))
    plain, dropping = (build({"context": context, **off, **change})[0].eval() for change in ({}, {name: 0.5}))
    assert torch.equal(plain(batch, DRAWS).logits, plain(batch).logits)
    assert torch.equal(dropping(batch).logits, plain(batch).logits)
    assert not torch.allclose(dropping(batch, DRAWS).logits, plain(batch).logits)


def test_modal_dropout_replaces_that_of_its_modality_alone():
    batch = random_split(LENGTHS).batch(np.arange(len(LENGTHS)))

    def logits(**settings):
        return build({"dropout": 0.0, "node_dropout": 0.0, **settings})[0].eval()(batch, DRAWS).logits

    each = {"modal_dropout": dict.fromkeys(DIMENSIONS, 0.5)}
    assert torch.equal(logits(input_dropout=0.5), logits(input_dropout=0.1, **each))
    only_text = logits(input_dropout=0.0, modal_dropout={"text": 0.5})
    assert not torch.equal(only_text, logits(input_dropout=0.0))
    assert torch.equal(only_text, logits(input_dropout=0.5, modal_dropout={"audio": 0.0, "visual": 0.0}))


def test_views_change_only_the_contrastive_loss():
    model, split = build()
    model.train()
    batch = split.batch(np.arange(len(LENGTHS)))
    with_views, without = model(batch, DRAWS, DRAWS), model(batch, DRAWS)
    torch.testing.assert_close(with_views.logits, without.logits)
    assert torch.equal(with_views.fusion.encoder_losses, without.fusion.encoder_losses)
    assert float(without.contrastive) == 0.0
    assert not without.contrastive.requires_grad
    assert float(with_views.contrastive.detach()) > 0.0
    untrained = model(batch, DRAWS, DRAWS, train_contrast=False)
    torch.testing.assert_close(untrained.contrastive, with_views.contrastive.detach())
    assert not untrained.contrastive.requires_grad
    assert untrained.logits.requires_grad


def test_contrastive_loss_without_augmentation():
    # both views equal the anchor, so the loss is twice the InfoNCE of the anchor with itself
    plain = {"temperature": 0.5, "feature_mask": 0.0, "edge_perturbation": 0.0, "neighbours": 0}
    model, split = build({"contrastive": plain})
    model.eval()
    seen = []
    model.graph_conv.register_forward_hook(lambda module, inputs, output: seen.extend(output))
    output = model(split.batch(np.arange(len(LENGTHS))), None, DRAWS)
    assert len(seen) == 3  # the anchor and two views
    torch.testing.assert_close(output.contrastive, 2 * info_nce(seen[0], seen[0], 0.5))


def test_each_view_is_augmented_in_its_own_way():
    model, split = build(
        {"contrastive": {"temperature": 0.2, "feature_mask": 0.5, "edge_perturbation": 0.5, "neighbours": 2}}
    )
    inputs = []
    model.graph_conv.register_forward_hook(lambda module, args, output: inputs.append(args))
    model(split.batch(np.arange(len(LENGTHS))), DRAWS, DRAWS)
    [((anchor, first, second), _, (edges, rewired, extended))] = inputs
    assert not torch.equal((first == 0).all(0), (second == 0).all(0))
    assert not torch.equal(edges.source, rewired.source)
    assert torch.equal(edges.target, rewired.target)
    assert len(extended.source) == len(edges.source) + 2 * len(anchor)
    dialogue = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    for each in (rewired, extended):
        assert torch.equal(dialogue[each.source], dialogue[each.target])


def test_no_host_reads():
    # The transformer only: PyTorch's recurrent layers read the lengths of packed sequences, which are on the host anyway.
    model, split = build({"context": "transformer", **EVERYTHING})
    model.fusion.intermodal = "exact"  # the interpolated form reads values on the host, and is only for the CPU
    batch = split.batch(np.arange(len(LENGTHS)))
    model(batch)  # structures are cached
    with NoHostReads():
        output = model(batch, DRAWS, DRAWS)
        everything_trained(output, batch.labels).backward()


@pytest.mark.parametrize("context", CONTEXTS)
def test_bfloat16_autocast_stays_close(context):
    model, split = build({"context": context, **EVERYTHING})
    batch = split.batch(np.arange(len(LENGTHS)))
    expected = model(batch, DRAWS, DRAWS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(batch, DRAWS, DRAWS)
    assert output.logits.dtype == output.contrastive.dtype == output.fusion.encoder_losses.dtype == torch.float32
    torch.testing.assert_close(output.logits, expected.logits, rtol=0.05, atol=0.05)
    torch.testing.assert_close(output.contrastive, expected.contrastive, rtol=0.02, atol=0.02)
    everything_trained(output, batch.labels).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


# --- initialisation


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@configurations
def test_initialise_is_a_function_of_seed_and_name(configuration):
    model, _ = build(configuration)
    expected = weights(model)
    for parameter in model.parameters():  # the initial values must not matter
        nn.init.normal_(parameter)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    initialise(model, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, expected[name]) for name, value in weights(model).items())
    initialise(model, 2)
    same = [name for name, value in weights(model).items() if torch.equal(value, expected[name])]
    assert all(not expected[name].any() or (expected[name] == 1).all() for name in same), "weights without a seed"


def shared(one, other):
    """Return the names of the parameters in modules that both models have with equal shapes."""
    unlike = {
        name.rpartition(".")[0]
        for name in {*one, *other}
        if name not in one or name not in other or one[name].shape != other[name].shape
    }
    return [name for name in one if name.rpartition(".")[0] not in unlike]


@pytest.mark.parametrize(
    ("one", "other", "least"),
    [
        # only the global branch changes
        (
            {"fusion": "auto"},
            {"fusion": "hierarchical"},
            {"fusion.projectA", "fusion.fuse_inInter.0", "context.layers.0"},
        ),
        # a part is added before, after or next to the others
        ({"n_unimodal": 0}, {"n_unimodal": 5}, {"classifier", "fusion.projectB.0"}),
        ({"use_highway": False}, {"use_highway": True}, {"classifier", "linear", "graph_conv"}),
        ({"skip": False}, {"skip": True}, {"fusion.projectT", "graph_conv", "classifier"}),
        (
            {"modal_attention": False},
            {"modal_attention": True},
            {"fusion.utterance_gate.gate_net.0", "context.project"},
        ),
        ({"names": ("audio", "text")}, {}, {"fusion.projectA", "fusion.projectT", "context.layers.1"}),
        ({"classes": 3}, {"classes": 7}, {"linear", "graph_transformer.lin_query"}),
    ],
    ids=["fusion", "unimodal", "highway", "skip", "modal_attention", "modalities", "classes"],
)
def test_models_share_the_weights_of_shared_modules(one, other, least):
    first, second = weights(build(one)[0]), weights(build(other)[0])
    names = shared(first, second)
    for prefix in least:
        assert any(name.startswith(f"{prefix}.") for name in names), prefix
    assert [name for name in names if not torch.equal(first[name], second[name])] == []


def test_modules_of_one_shape_differ():
    model, _ = build({"context": "transformer"})
    first, second = model.context.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(model.graph_transformer.lin_key.weight, model.graph_transformer.lin_query.weight)


# --- parameter groups


@configurations
def test_groups_hold_every_trained_parameter_once(configuration):
    model, _ = build(configuration)
    groups = parameter_groups(model)
    parameters = [id(p) for group in groups.values() for p in group]
    assert len(parameters) == len(set(parameters))
    assert set(parameters) == {id(p) for p in model.parameters() if p.requires_grad}
    assert set(groups) == {"fusion", "context", "graph", "classifier"}
    assert {id(p) for p in groups["context"]} == {id(p) for p in model.context.parameters()}
    assert {id(p) for p in groups["fusion"]} == {id(p) for p in model.fusion.parameters() if p.requires_grad}


# --- standardisation


def test_standardise_by_hand():
    layer = Standardise(4)
    x = torch.tensor([[1.0, 5.0, 1e4, 0.0], [3.0, 5.0, 1e4 + 2, 0.0], [5.0, 5.0, 1e4 + 4, 0.0]])
    assert torch.equal(layer(x), x)  # identity before it is fitted
    layer.fit(x)
    scale = (3 / 8) ** 0.5  # deviations (-2, 0, 2): variance 8 / 3
    expected = torch.tensor([[-2.0, 0, -2, 0], [0, 0, 0, 0], [2, 0, 2, 0]]) * scale
    torch.testing.assert_close(layer(x), expected)
    assert set(layer.state_dict()) == {"mean", "scale"}
    # a column that is constant in training is 0 for any later value
    assert float(layer(torch.tensor([[3.0, 9.0, 1e4, 0.0]]))[0, 1]) == 0.0


def test_standardise_of_one_utterance_is_finite():
    layer = Standardise(2)
    layer.fit(torch.tensor([[3.0, -1.0]]))
    assert torch.equal(layer(torch.tensor([[3.0, 7.0]])), torch.zeros(1, 2))


def test_standardised_models_do_not_depend_on_units():
    model, split = build({"standardise": True})
    raw, _ = build({"standardise": False})
    batch = split.batch(np.arange(len(LENGTHS)))
    models = (model.eval(), raw.eval())
    expected = [m(batch).logits for m in models]
    for name in split.features:
        split.features[name] = split.features[name] * 40 - 7
    batch = split.batch(np.arange(len(LENGTHS)))
    for m in models:
        standardise(m, split.features)
    torch.testing.assert_close(models[0](batch).logits, expected[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(models[1](batch).logits, expected[1], rtol=1e-3, atol=1e-4)


# --- small parts


def test_highway_by_hand():
    layer = Highway(2)
    x = torch.tensor([[1.0, -2.0]])
    with torch.no_grad():
        layer.transform.weight.copy_(3 * torch.eye(2))
        layer.transform.bias.zero_()
        layer.gate.weight.zero_()
        layer.gate.bias.copy_(torch.tensor([0.0, -100.0]))
    # half of relu(3) and half of 1; the closed gate passes the input
    torch.testing.assert_close(layer(x), torch.tensor([[2.0, -2.0]]))


def test_speaker_embedding_distinguishes_speakers():
    model, split = build({"speaker_embedding": 4, "context": "gru", "wp": 0, "wf": 0}, lengths=(1, 1))
    model.eval()
    for name in split.features:
        split.features[name][1] = split.features[name][0]
    batch = split.batch(np.array([0, 1]))
    assert set(batch.speakers.tolist()) == {0, 1}, "the seed gives both dialogues one speaker"
    logits = model(batch).logits
    assert not torch.allclose(logits[0], logits[1])


@pytest.mark.parametrize("options", [{"skip_projection": False}, {"classifier_skip": True}])
def test_skips_add_the_raw_features_to_the_width(options):
    (plain, _), (model, _) = build(), build(options)
    more = {name: p.numel() for name, p in model.named_parameters() if name in dict(plain.named_parameters())}
    less = {name: p.numel() for name, p in plain.named_parameters()}
    raw = sum(DIMENSIONS.values())
    if "classifier_skip" in options:
        assert model.linear.in_features == plain.linear.in_features + raw
        assert {name for name in more if more[name] != less[name]} == {"linear.weight"}
    else:
        first = model.context.layers[0].input_size
        assert first == plain.context.layers[0].input_size - model.settings.fusion_latent_size + raw
        assert less.keys() - more.keys() == {"skip.weight", "skip.bias"}


def test_classifier_skip_passes_the_standardised_features():
    model, split = build({"classifier_skip": True})
    model.eval()
    raw = sum(DIMENSIONS.values())
    with torch.no_grad():
        model.linear.weight[:, :-raw] = 0.0  # only the raw features have an effect
        batch = split.batch(np.arange(len(LENGTHS)))
        features = torch.cat([model.standardise[m](split.features[m]) for m in DIMENSIONS], dim=1)
        expected = model.classifier((features @ model.linear.weight[:, -raw:].T + model.linear.bias).relu())
        torch.testing.assert_close(model(batch).logits, expected, rtol=1e-5, atol=1e-5)


def test_features_are_selected_by_name():
    model, _ = build({"names": ("text",)})
    assert list(model.fusion.dimensions) == ["text"]
    assert set(DIMENSIONS) == set(MODALITIES.values())
    full = random_split(LENGTHS)
    assert model.eval()(full.batch(np.arange(len(LENGTHS)))).logits.shape == (sum(LENGTHS), 3)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="context_heads: expected a divisor of the context's width"):
        build({"context": "transformer", "context_heads": 5})


def test_sizes_follow_the_data():
    model, _ = build()
    assert isinstance(model, GraphModel)
    assert model.n_speakers == 2
    assert model.graph_conv.weight.shape[0] == 2 * 2**2  # relations
