"""Pickles as people have them: which are read, with which modalities and widths, and which are refused by name.

The files have small widths. A run is trained on three of them, and its run.json describes the data.
"""

from __future__ import annotations

import logging
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joyful import results
from joyful.config import DataSettings
from joyful.data import cogmen
from joyful.data.loading import load
from joyful.records import DialogueDataset, InputError, Request
from joyful.training.experiment import train_run
from tests.support.cogmen_pickles import dump
from tests.support.datasets import data_settings
from tests.support.runs import TINY, compose_plain

WIDTHS = {"audio": 5, "visual": 4, "sbert_sentence_embeddings": 6}
ALL = ("audio", "text", "visual")
Dialogue = dict[str, Any]


def dialogue(name: str, n: int = 4, **widths: int) -> Dialogue:
    """Return a dialogue with random features of these widths."""
    draw = np.random.default_rng(len(name) + n)
    return {
        "vid": name,
        "speaker": ["M", "F"] * (n // 2),
        "label": [k % 6 for k in range(n)],
        "sentence": [f"{name} says {k}" for k in range(n)],
        **{key: draw.normal(size=(n, width)) for key, width in {**WIDTHS, **widths}.items() if width},
    }


def content(**widths: int) -> dict[str, list[Dialogue]]:
    return {
        split: [dialogue(f"{split}{k}", **widths) for k in range(n)]
        for split, n in (("train", 3), ("dev", 1), ("test", 1))
    }


def as_lists(rows: np.ndarray) -> list[Any]:
    return [list(row) for row in rows]


def changed(data: dict[str, list[Dialogue]], change: Any, *keys: str) -> dict[str, list[Dialogue]]:
    return {
        split: [{**each, **{key: change(each[key]) for key in keys}} for each in dialogues]
        for split, dialogues in data.items()
    }


def write(root: Path, data: bytes, name: str = "iemocap/data_iemocap.pkl") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def settings_of(root: Path, name: str = "iemocap", **changes: Any) -> DataSettings:
    return data_settings(name, root=str(root), cache=str(root / "cache"), **changes)


def values_of(dataset: DialogueDataset) -> dict[str, list[Any]]:
    return {key: value.tolist() for key, value in dataset.splits["train"].features.items()}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["array", "list", "main", "script", "dict"])
def test_harmless_forms_give_the_same_dataset(tmp_path: Path, kind: str, protocol: int) -> None:
    data = content()
    expected = {
        name: np.concatenate([each[key] for each in data["train"]]).astype(np.float32).tolist()
        for name, key in (("audio", "audio"), ("text", "sbert_sentence_embeddings"), ("visual", "visual"))
    }
    if kind == "list":
        data = changed(data, as_lists, *WIDTHS)
    module = {"main": "__main__", "script": "make_features"}.get(kind, "Sample")
    write(tmp_path, pickle.dumps(data, protocol) if kind == "dict" else dump(data, protocol, module))
    assert values_of(load(settings_of(tmp_path), ALL)) == expected


def test_one_row_may_be_shared_by_all_utterances(tmp_path: Path) -> None:
    """The rows of a modality take 20 times the bytes of the file, more than its values may otherwise take."""
    data = content()
    row, wide = np.zeros(4_000), np.zeros(400_000)
    for each in (each for dialogues in data.values() for each in dialogues):
        each["audio"], each["visual"] = [row] * 4, [wide] * 4
    write(tmp_path, dump(data))
    dataset = load(settings_of(tmp_path), ALL)
    assert dataset.dimensions == {"audio": 4_000, "text": 6, "visual": 400_000}
    assert not dataset.splits["train"].features["visual"].any()


def test_an_endlessly_shared_row_is_refused(tmp_path: Path) -> None:
    data = content()
    n = 40_000
    data["train"][0] = {**dialogue("d", 2), "label": [0] * n, "audio": [np.zeros(1_000)] * n}
    write(tmp_path, dump(data))
    with pytest.raises(InputError, match="repeats its content"):
        load(settings_of(tmp_path), ALL)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lists_of_scalars_are_read_fast(tmp_path: Path, dtype: type) -> None:
    """77,000 scalars, eight opcodes each: 0.1 s of the processor; read one by one, 1 s."""
    rows = np.random.default_rng(0).normal(size=(100, 768)).astype(dtype)
    data = content(audio=0, visual=0)
    data["train"] = [dialogue("d", 100, audio=0, visual=0)]
    data["train"][0]["sbert_sentence_embeddings"] = as_lists(rows)
    for split in ("dev", "test"):
        data[split][0]["sbert_sentence_embeddings"] = np.zeros((4, 768))
    write(tmp_path, dump(data))
    started = time.process_time()
    dataset = load(settings_of(tmp_path), ("text",))
    assert time.process_time() - started < 0.7
    np.testing.assert_array_equal(dataset.splits["train"].features["text"], rows.astype(np.float32))


LACKING = {  # widths -> modalities, and what the default asks for in vain
    "text": ({"audio": 0, "visual": 0}, "t", "text, but no audio and no visual"),
    "audio": ({"visual": 0, "sbert_sentence_embeddings": 0}, "a", "audio, but no text and no visual"),
    "visual": ({"audio": 0, "sbert_sentence_embeddings": 0}, "v", "visual, but no audio and no text"),
    "audio and text": ({"visual": 0}, "at", "audio and text, but no visual"),
}


@pytest.mark.parametrize("having", LACKING)
@pytest.mark.parametrize("absent", ["missing", "none", "empty"])
def test_a_modality_that_the_file_lacks_is_named(tmp_path: Path, having: str, absent: str) -> None:
    widths, letters, message = LACKING[having]
    data = content(**widths)
    for each in (each for dialogues in data.values() for each in dialogues):
        if "text" not in having:
            del each["sentence"]
        if absent != "missing":
            each.update(dict.fromkeys(widths, None if absent == "none" else []))
    write(tmp_path, dump(data))
    with pytest.raises(InputError) as caught:
        load(settings_of(tmp_path), ALL)
    assert str(caught.value) == (
        f"data=iemocap: its files have {message}, which modalities=atv includes; set modalities={letters}"
    )
    present = tuple(having.split(" and "))
    assert list(load(settings_of(tmp_path), present).dimensions) == list(present)


def test_all_dialogues_need_the_same_widths(tmp_path: Path) -> None:
    data = content()
    data["train"][1]["audio"] = np.zeros((4, 7))
    path = write(tmp_path, dump(data))
    with pytest.raises(InputError) as caught:
        load(settings_of(tmp_path), ALL)
    assert str(caught.value) == (
        f"{path}: train dialogue train1: audio: expected 5 numbers per utterance, as 4 of 5 dialogues have, got 7; create "
        "the file again with one width"
    )


def test_a_file_of_sentences_alone_says_that_it_has_text(tmp_path: Path) -> None:
    write(tmp_path, dump(content(audio=0, visual=0, sbert_sentence_embeddings=0)))
    with pytest.raises(InputError, match="the file has only text, which modalities leaves out; set modalities=t"):
        load(settings_of(tmp_path), ("audio",))


def test_a_file_of_nothing_is_refused(tmp_path: Path) -> None:
    data = content(audio=0, visual=0, sbert_sentence_embeddings=0)
    for each in (each for dialogues in data.values() for each in dialogues):
        del each["sentence"]
    write(tmp_path, dump(data))
    with pytest.raises(InputError, match=r"expected audio, visual, sbert_sentence_embeddings or sentence, got none of"):
        load(settings_of(tmp_path), ALL)


@pytest.mark.parametrize(
    ("files", "emotion", "expected"),
    [
        (("happiness",), "happiness", [0, 1, 1, 0]),  # as COGMEN writes it
        (("happiness", ""), "happiness", [0, 1, 1, 0]),  # its own file comes first
        (("",), "anger", [1, 0, 0, 1]),  # the usual name
        (("2class",), None, [0, 1, 1, 0]),
    ],
)
def test_mosei_files_of_one_emotion(
    tmp_path: Path, files: tuple[str, ...], emotion: str | None, expected: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    for kind in files:
        labels = [0, 1, 1, 0] if kind else [1, 0, 0, 1]
        data = changed(content(), lambda _, labels=labels: labels, "label")
        write(tmp_path, dump(data), f"mosei/data_mosei{kind and '_'}{kind}.pkl")
    with caplog.at_level(logging.INFO, "joyful.data.cogmen"):
        dataset = cogmen.read(settings_of(tmp_path, "mosei", emotion=emotion), None)
    assert dataset.splits["test"].labels.tolist() == expected
    assert dataset.labels == ((f"no {emotion}", emotion) if emotion else ("negative", "positive"))
    assert any("labels of one number are read as no" in line for line in caplog.messages) == bool(emotion)


def test_the_files_that_are_there_are_named(tmp_path: Path) -> None:
    for kind in ("7class", "fear"):
        write(tmp_path, dump(content()), f"mosei/data_mosei_{kind}.pkl")
    with pytest.raises(InputError, match=r"for the files that are there, set data.emotion=7class or fear; "):
        load(settings_of(tmp_path, "mosei"), ALL)


def test_labels_of_two_kinds_are_refused(tmp_path: Path) -> None:
    data = changed(content(), lambda _: [0, 1, 1, 0], "label")
    data["dev"][0]["label"] = np.zeros((4, 6))
    write(tmp_path, dump(data), "mosei/data_mosei.pkl")
    with pytest.raises(
        InputError, match=r"dev dialogue dev0: label: expected 1 numbers .* as in dialogue train0, got 6"
    ):
        load(settings_of(tmp_path, "mosei", emotion="fear"), ALL)


def test_control_characters_of_sentences_are_mapped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = content()
    data["dev"][0]["sentence"] = ["It\x92s", "\x93so\x94", "plain", "\x81"]
    path = write(tmp_path, dump(data))
    with caplog.at_level(logging.INFO):
        dataset = load(settings_of(tmp_path), ALL)
    assert dataset.splits["dev"].sentences == ("It\u2019s", "\u201cso\u201d", "plain", "\x81")
    assert [line for line in caplog.messages if line.startswith(f"{path}: mapped 3 control characters")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("widths", "modalities", "encoder"),
    [
        ({"sbert_sentence_embeddings": 3}, "atv", "file"),
        ({"audio": 0, "visual": 0}, "t", "file"),
        ({"sbert_sentence_embeddings": 0}, "av", None),
    ],
)
def test_a_run_says_its_widths_and_where_its_vectors_come_from(
    tmp_path: Path, widths: dict[str, int], modalities: str, encoder: str | None
) -> None:
    write(tmp_path, dump(content(**widths)))
    overrides = (f"data.root={tmp_path}", f"data.cache={tmp_path}/cache", f"modalities={modalities}")
    tiny = [item for item in TINY if not item.startswith("data.synthetic")]
    overridden = [*tiny, "data=iemocap", *overrides, "training.epochs=1"]
    config, choices = compose_plain(overridden)
    train_run(Request(config, choices, (), tmp_path / "run", multirun=True))
    data = results.read_run(tmp_path / "run")["data"]
    names = {"a": ("audio", "audio"), "t": ("text", "sbert_sentence_embeddings"), "v": ("visual", "visual")}
    expected = {names[x][0]: {**WIDTHS, **widths}[names[x][1]] for x in modalities}
    assert (data["dimensions"], data["text_encoder"]) == (expected, encoder)
