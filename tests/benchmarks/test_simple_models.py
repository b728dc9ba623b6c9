"""The simple models: they learn what they can see, and their options are chosen on dev alone."""

import json
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from benchmarks import simple_models
from benchmarks.peers import simple
from benchmarks.peers.simple import MODELS, Result, f1_weighted, prepare
from joyful.records import DialogueDataset, Dialogues, InputError
from tests.support.runs import TINY
from tests.support.small_files import write_mosi

#: One entry of the grid of the networks, which learns the toy problems in few steps.
FAST = {"rate": 0.003, "dropout": 0.3, "class weights": "sqrt"}


def toy(shift: int = 0, seed: int = 0, dialogues: int = 24, length: int = 8) -> DialogueDataset:
    """Dialogues in which the features of an utterance show the label `shift` places later in the dialogue.

    Two of three labels are 0, so that a majority exists, and the scales of the columns differ.
    """
    rng, splits = np.random.default_rng(seed), {}
    for name in ("train", "dev", "test"):
        labels = (rng.random((dialogues, length)) < 1 / 3).astype(np.int64)
        shown = np.roll(labels, -shift, axis=1)
        features = rng.normal(size=(dialogues, length, 6)) * 0.3
        features[..., 0] += 2 * shown
        text = (100 * features + 7).reshape(-1, 6).astype(np.float32)
        speakers = np.tile(np.arange(length) % 2, dialogues)
        lengths = np.full(dialogues, length)
        ids = tuple(f"{name}-{i}" for i in range(dialogues))
        splits[name] = Dialogues({"text": text}, labels.reshape(-1), speakers, lengths, ids)
    return DialogueDataset("toy", {"text": 6}, ("a", "b"), 2, False, splits)


def change(data: DialogueDataset, split: str, **changes) -> DialogueDataset:
    """Return the dataset with other values in one split."""
    return replace(data, splits={**data.splits, split: replace(data.splits[split], **changes)})


@pytest.fixture(autouse=True)
def _one_thread():
    """Small products are faster on one thread; the fixture of conftest.py restores the number."""
    torch.set_num_threads(1)


def permuted_test_labels(data: DialogueDataset) -> DialogueDataset:
    return change(data, "test", labels=np.random.default_rng(9).permutation(data.splits["test"].labels))


class Recorded:
    """A model with given dev and test scores by options and seed."""

    name, grid, seeded = "recorded", ({"option": "a"}, {"option": "b"}), True

    def __init__(self, dev, test, seeded=True):
        self.dev, self.test, self.seeded, self.calls = dev, test, seeded, []

    def train(self, task, options, seed):
        option = options["option"]
        self.calls.append((task, option, seed))
        return [
            Result(f"{option}{kind}", 3, self.dev[option + kind] + seed / 1000, self.test[option + kind] + task)
            for kind in ("", "+")
        ]


def test_majority_is_the_most_frequent_class_of_train():
    data = toy()
    data = change(data, "dev", labels=1 - data.splits["dev"].labels)
    (result,) = MODELS["majority"].train(prepare(data), {}, 24)
    for found, name in ((result.dev, "dev"), (result.test, "test")):
        labels = data.splits[name].labels
        assert found == pytest.approx(f1_score(labels, np.zeros_like(labels), average="weighted", zero_division=0))
    assert result.dev < 0.3 < result.test < 0.7


@pytest.mark.parametrize(
    ("name", "options"), [("lr", {"C": 1.0, "class weights": "none"}), ("mlp", FAST), ("gru", FAST)]
)
def test_every_model_learns_what_the_features_show(name, options):
    task = prepare(toy())
    for result in MODELS[name].train(task, options, 24):
        assert result.dev > 0.95, result
        assert result.test > 0.95, result


def test_only_the_gru_sees_other_utterances(monkeypatch):
    monkeypatch.setattr(simple, "EPOCHS", 6)
    task = prepare(toy(shift=1, dialogues=32))
    (alone, _), (context, _) = (MODELS[name].train(task, {**FAST, "rate": 0.01}, 24) for name in ("mlp", "gru"))
    assert alone.test < 0.75
    assert context.test > 0.9


def test_a_dialogue_does_not_see_its_neighbours():
    task = prepare(toy(dialogues=5))
    split, network = task.splits["test"], simple.TwoWayGRU(6, 2, 2, 0.5).eval()
    with torch.no_grad():
        together = network(split)
        apart = torch.cat([network(split.take(np.array([d]))) for d in range(5)])
        order = np.array([3, 1, 4, 0, 2])
        reordered = network(split.take(order))
    torch.testing.assert_close(apart, together)
    torch.testing.assert_close(reordered, together.unflatten(0, (5, 8))[torch.from_numpy(order)].flatten(0, 1))


def test_features_are_scaled_by_train_and_missing_ones_are_the_mean():
    data = toy()
    missing = np.arange(len(data.splits["train"].labels)) % 3 == 0
    text = data.splits["train"].features["text"].copy()
    text[missing] = 0
    text[:, 5] = 4
    data = change(data, "train", features={"text": text}, missing={"text": missing})
    task = prepare(data)
    scaled = task.splits["train"].features
    assert scaled[missing].abs().max() == 0
    torch.testing.assert_close(scaled[~missing].mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    deviation = scaled[~missing].std(dim=0, correction=0)
    torch.testing.assert_close(deviation, torch.tensor([1.0, 1, 1, 1, 1, 0]), atol=1e-4, rtol=0)
    mean, scale = text[~missing, 0].mean(), text[~missing, 0].std()
    expected = torch.from_numpy((data.splits["test"].features["text"][:, 0] - mean) / scale)
    torch.testing.assert_close(task.splits["test"].features[:, 0], expected, atol=1e-4, rtol=1e-4)


def test_unlabelled_utterances_are_context_only():
    data = toy()
    rng = np.random.default_rng(3)
    for name in ("train", "dev", "test"):  # the features of these utterances show the wrong label
        part = data.splits[name]
        hidden = rng.random(len(part.labels)) < 0.5
        text = part.features["text"].copy()
        text[hidden, 0] = 214 - text[hidden, 0]
        data = change(data, name, labels=np.where(hidden, -1, part.labels), features={"text": text})
    task = prepare(data)
    for name, options in (("lr", {"C": 1.0, "class weights": "none"}), ("mlp", FAST)):
        for result in MODELS[name].train(task, options, 24):
            assert result.test > 0.95, result
    split = task.splits["test"]
    logits = torch.randn(len(split.labels), 2, generator=torch.Generator().manual_seed(0))
    chosen = split.labels >= 0
    expected = f1_score(split.labels[chosen], logits.argmax(dim=1)[chosen], average="weighted")
    assert f1_weighted(logits, split.labels) == pytest.approx(expected)


def test_a_batch_without_labels_changes_nothing():
    batch, network = prepare(toy()).splits["train"], simple.Perceptron(6, 2, 2, 0.3)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    simple._step(network, optimizer, batch, None)  # Adam moves on without gradients from its second step on
    before = [p.detach().clone() for p in network.parameters()]
    simple._step(network, optimizer, replace(batch, labels=torch.full_like(batch.labels, -1)), None)
    assert all(map(torch.equal, before, network.parameters()))


def test_a_training_is_a_function_of_its_seed(monkeypatch):
    monkeypatch.setattr(simple, "EPOCHS", 2)
    task = prepare(toy(shift=1))
    first, again, other = (MODELS["gru"].train(task, FAST, seed) for seed in (24, 24, 25))
    assert first == again
    assert first != other


@pytest.mark.parametrize(("name", "shift"), [("lr", 0), ("mlp", 1)])
def test_test_labels_have_no_part_in_the_choice(name, shift, monkeypatch):
    monkeypatch.setattr(simple, "EPOCHS", 3)
    data = toy(shift, dialogues=12)
    given, permuted = (
        simple_models.measure(MODELS[name], [prepare(each)], [24, 25], 1) for each in (data, permuted_test_labels(data))
    )
    assert (permuted.options, permuted.dev, permuted.tried) == (given.options, given.dev, given.tried)
    assert permuted.test != given.test


def test_the_options_with_the_best_mean_dev_score_are_trained_with_all_seeds():
    model = Recorded({"a": 0.5, "a+": 0.6, "b": 0.4, "b+": 0.55}, {"a": 0.9, "a+": 0.1, "b": 0.8, "b+": 0.7})
    row = simple_models.measure(model, [0.0, 0.2], [24, 25, 26, 27], 2)
    assert row.options == "a+"
    assert row.tried == pytest.approx({"a": 0.5245, "a+": 0.6245, "b": 0.4245, "b+": 0.5745})
    assert row.test_folds == {seed: [pytest.approx(0.1), pytest.approx(0.3)] for seed in (24, 25, 26, 27)}
    assert row.test == pytest.approx(dict.fromkeys((24, 25, 26, 27), 0.2))  # the mean of the folds
    assert row.dev == pytest.approx({seed: 0.6 + seed / 1000 for seed in (24, 25, 26, 27)})
    chosen = [(option, seed) for task, option, seed in model.calls if task == 0]
    assert chosen == [("a", 24), ("a", 25), ("b", 24), ("b", 25), ("a", 26), ("a", 27)]


def test_a_model_without_chance_is_trained_once():
    model = Recorded({"a": 0.5, "a+": 0.6, "b": 0.7, "b+": 0.4}, {"a": 0.9, "a+": 0.1, "b": 0.8, "b+": 0.7}, False)
    row = simple_models.measure(model, [0.0], [24, 25, 26, 27], 2)
    assert [(option, seed) for _, option, seed in model.calls] == [("a", 24), ("b", 24)]
    assert row.test == dict.fromkeys((24, 25, 26, 27), 0.8)


def test_several_labels_per_utterance_are_refused():
    with pytest.raises(InputError, match=r"data=toy: expected one label per utterance, got several; set data\.emotion"):
        prepare(replace(toy(), multilabel=True))


def test_the_line_by_hand():
    row = simple_models.Row("m", 1234, "C 1", {1: 0.5, 2: 0.7}, {1: 0.3, 2: 0.4}, {}, {}, 2.0)
    assert row.line().split() == ["m", "1,234", "60.00", "35.00", f"{stdev((30, 40)):.2f}", "2.0", "C", "1"]


def check_document(file, printed: str, seeds: list[int], folds: int) -> dict:
    """Compare the JSON file with the table, and return it."""
    document = json.loads(file.read_text())
    lines = printed.splitlines()[2:]
    assert len(lines) == len(document["models"])
    for line, model in zip(lines, document["models"], strict=True):
        test = [100 * value for value in model["test"].values()]
        assert [int(seed) for seed in model["test"]] == seeds == document["seeds"]
        assert f"{fmean(test):.2f}" in line
        assert line.startswith(model["model"])
        assert max(model["tried"], key=model["tried"].get) == model["options"]
        for seed, values in model["test_folds"].items():
            assert len(values) == folds
            assert model["test"][seed] == pytest.approx(fmean(values))
    assert "root" not in document["data"]
    return document


def test_the_command_takes_the_settings_of_a_run(tmp_path, capsys):
    file = tmp_path / "simple.json"
    arguments = [*TINY[:3], "modalities=at", "seed=7", "--seeds", "2", "--choose", "2", "--models", "majority,lr"]
    simple_models.main([*arguments, "--json", str(file)])
    document = check_document(file, capsys.readouterr().out, [7, 8], 1)
    assert document["dimensions"] == {"audio": 5, "text": 9}
    majority, regression = (fmean(model["test"].values()) for model in document["models"])
    assert regression > majority


@pytest.mark.slow
def test_the_command_trains_every_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simple, "EPOCHS", 3)
    file = tmp_path / "simple.json"
    simple_models.main([*TINY[:3], "--seeds", "24,30", "--choose", "1", "--json", str(file)])
    document = check_document(file, capsys.readouterr().out, [24, 30], 1)
    assert [model["model"] for model in document["models"]] == [model.name for model in MODELS.values()]
    assert len(document["models"][-1]["tried"]) == 2 * len(MODELS["gru"].grid)


def test_folds_are_averaged(tmp_path, capsys):
    folder, file = tmp_path / "mosi", tmp_path / "simple.json"
    write_mosi(folder)
    data = ["data=mosi", f"data.root={folder}", f"data.cache={tmp_path / 'cache'}", "modalities=av"]
    simple_models.main([*data, "--folds", "0,2", "--seeds", "3", "--models", "majority", "--json", str(file)])
    document = check_document(file, capsys.readouterr().out, [24, 25, 26], 2)
    assert document["folds"] == [0, 2]
    of_folds = document["models"][0]["test_folds"]["24"]
    for fold, value in zip((0, 2), of_folds, strict=True):
        simple_models.main([*data, f"data.fold={fold}", "--models", "majority", "--json", str(file)])
        assert json.loads(file.read_text())["models"][0]["test"]["24"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "lr,svm"], "--models: expected some of majority, lr, mlp, gru, got svm"),
        (["--seeds", "ten"], "argument --seeds: invalid _numbers value: 'ten'"),
        (["data=mosi", "modalities=av", "data.root=absent"], "absent"),
        ([*TINY[:3], "--seeds", "2", "--choose", "3"], "--choose: expected 1 to 2, the number of seeds, got 3"),
    ],
)
def test_unknown_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        simple_models.main(arguments)
    assert message in capsys.readouterr().err
