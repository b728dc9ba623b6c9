"""The prepared format: the command that writes it, the source that reads it, and damaged files."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joyful.data import prepare, prepared
from joyful.data.loading import load
from joyful.data.validation import validate
from joyful.records import MODALITIES, DialogueDataset, Dialogues, InputError
from tests.support.datasets import assert_same, check_source, data_settings, fake_encode

ALL = tuple(MODALITIES.values())


def small(multilabel=False, sentences=True) -> DialogueDataset:
    rng = np.random.default_rng(0)

    def part(b):
        lengths = np.arange(1, b + 1)
        n = int(lengths.sum())
        return Dialogues(
            features={"audio": rng.normal(size=(n, 3)).astype(np.float32), "visual": np.ones((n, 2), np.float32)},
            labels=np.eye(3, dtype=np.float32)[np.arange(n) % 3] if multilabel else np.arange(n) % 3,
            speakers=np.zeros(n, np.int64),
            lengths=lengths,
            ids=tuple(f"d{i}" for i in range(b)),
            sentences=tuple(f"sentence {i} äöü" for i in range(n)) if sentences else None,
        )

    splits = {"train": part(4), "dev": part(1), "test": part(2)}
    return DialogueDataset("small", {"audio": 3, "visual": 2}, ("x", "y", "z"), 2, multilabel, splits)


@pytest.fixture
def corpus(tmp_path):
    """A MELD-shaped corpus."""
    folder = tmp_path / "meld"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        rows = [f"{name} {i},Ann,joy,{i // 2},{i % 2}" for i in range(6)]
        text = "\n".join(["Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID", *rows])
        (folder / f"{name}_sent_emo.csv").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("sentences", [False, True])
def test_a_written_dataset_is_read_back(tmp_path, multilabel, sentences):
    dataset = small(multilabel, sentences)
    validate(dataset)
    assert prepared.write_folder(dataset, tmp_path / "new" / "out", {"fold": 3})
    copy, origin = prepared.open_folder(tmp_path / "new" / "out", verify=True)
    assert_same(dataset, copy)
    assert origin == {"fold": 3}
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["out"]
    assert not prepared.write_folder(dataset, tmp_path / "new" / "out", {})  # an existing folder is not changed


def test_the_arrays_are_mapped_and_writing_to_them_changes_no_file(tmp_path):
    prepared.write_folder(small(), tmp_path / "out", {})
    audio = prepared.open_folder(tmp_path / "out")[0].splits["train"].features["audio"]
    base = audio
    while isinstance(base, np.ndarray):
        base = base.base
    assert type(base).__name__ in ("mmap", "memoryview")
    audio[:] = 7
    assert_same(prepared.open_folder(tmp_path / "out", verify=True)[0], small())


def test_the_table_is_readable_by_others(tmp_path):
    import pandas as pd

    prepared.write_folder(small(), tmp_path / "out", {})
    table = pd.read_parquet(tmp_path / "out" / prepared.UTTERANCES)
    assert list(table.columns) == ["split", "dialogue", "position", "speaker", "label", "sentence"]
    assert table.iloc[2].tolist() == ["train", "d1", 1, 0, 2, "sentence 2 äöü"]


def test_command(tmp_path, corpus, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "make_encoder", lambda settings: fake_encode)
    out = tmp_path / "prepared" / "meld"
    command = ["data=meld", f"data.root={corpus}", f"out={out}"]
    assert prepare.main(command) == 0
    assert f"python run.py data=prepared data.root={out}" in capsys.readouterr().out
    settings = data_settings("prepared", root=str(out), cache=str(tmp_path / "cache"))
    dataset = load(settings, ALL)
    assert_same(dataset, check_source(data_settings("meld", root=str(corpus)), tmp_path / "check"))
    assert not list((tmp_path / "cache").glob("prepared/*"))  # a prepared copy of it would save no time
    assert prepare.main(command) == 2
    assert capsys.readouterr().err == f"joyful: prepare: out={out} exists; remove it or choose another folder\n"
    assert prepare.main(["data=prepared", f"data.root={out}", f"out={out}2"]) == 2


def test_another_fold_is_refused(tmp_path):
    prepared.write_folder(small(), tmp_path / "out", {"fold": 3, "emotion": None})
    assert load(data_settings("prepared", root=str(tmp_path / "out"), fold=3), ALL).name == "small"
    for changes in ({"fold": 2}, {"emotion": "7class"}):
        with pytest.raises(InputError, match=r"was prepared with data\.\w+=\w+, but data\.\w+=\w+ is set"):
            load(data_settings("prepared", root=str(tmp_path / "out"), **changes), ALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data=meld"], "expected data=NAME and out=FOLDER"),
        (["out=x"], "expected data=NAME and out=FOLDER"),
        (["data=meld", "out=x"], "data=meld needs the folder of train_sent_emo.csv"),
        (["data=nope", "out=x"], "data: expected one of dialogues, emorynlp, iemocap,"),
        (["data=meld", "data.rot=x", "out=x"], "data.rot: there is no such setting; did you mean data.root?"),
        (["data=mosi", "data.fold=9", "out=x"], "data.fold: expected >= 0 and <= 4, got 9"),
        (
            ["data=meld", "seed=1", "out=x"],
            "seed: not a setting of this command; set data=, data.SETTING= and out= only",
        ),
        (["data=meld", "data.root={", "out=x"], "data.root={"),
        (["--fast"], "expected NAME=VALUE, got '--fast'"),
    ],
)
def test_bad_commands(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert prepare.main(arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.startswith("joyful: prepare: ")
    assert output.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help(capsys):
    assert prepare.main(["--help"]) == 0
    assert "joyful prepare data=meld" in capsys.readouterr().out


def test_an_out_that_cannot_be_written(tmp_path, capsys, corpus, monkeypatch):
    monkeypatch.setattr(prepare, "make_encoder", lambda settings: fake_encode)
    assert prepare.main(["data=meld", f"data.root={corpus}", f"out={corpus}/train_sent_emo.csv/out"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "out"
    prepared.write_folder(small(), folder, {})
    return folder


def damage(folder, name, change):
    """Copy the folder, change one file, and set its new size in meta.json."""
    contents = {file: (folder / file).read_bytes() for file in prepared.FILES}
    contents[name] = change(contents[name])
    if name != prepared.META:
        meta = json.loads(contents[prepared.META])
        meta["files"][name]["bytes"] = len(contents[name])
        contents[prepared.META] = json.dumps(meta).encode()
    copy = folder.parent / "damaged"
    copy.mkdir(exist_ok=True)
    for file, content in contents.items():
        (copy / file).write_bytes(content)
    return copy


def byte(place, value):
    return lambda content: content[:place] + bytes([value]) + content[place + 1 :]


def meta(**changes):
    return lambda content: json.dumps({**json.loads(content), **changes}).encode()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (prepared.META, lambda content: b""),
        (prepared.META, lambda content: b"[" * 100_000),
        (prepared.META, lambda content: b"null"),
        (prepared.META, meta(format=99)),
        (prepared.META, meta(files={})),
        (prepared.META, meta(dimensions={"audio": 4, "visual": 2})),
        (prepared.META, meta(labels=["x"])),
        (prepared.META, meta(n_speakers="many")),
        (prepared.META, meta(sentences=None)),
        (prepared.META, meta(origin=None)),
        (prepared.ARRAYS, lambda content: content[:-1]),
        (prepared.ARRAYS, lambda content: b""),
        (prepared.ARRAYS, lambda content: b"\xff" * 8 + content[8:]),
        (prepared.ARRAYS, lambda content: content.replace(b'"dtype":"F32"', b'"dtype":"F16"', 1)),
        (prepared.ARRAYS, lambda content: content.replace(b'"shape":[10,3]', b'"shape":[-1,3]')),
        (prepared.ARRAYS, lambda content: content.replace(b"train/labels", b"train/labelz")),
        (prepared.UTTERANCES, lambda content: content[: len(content) // 2]),
        (prepared.UTTERANCES, lambda content: b"PAR1" * 50),
        (prepared.UTTERANCES, lambda content: b""),
    ],
)
def test_damage_is_an_input_error(folder, name, change):
    damaged = damage(folder, name, change)
    with pytest.raises(InputError):
        validate(prepared.open_folder(damaged)[0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(data=st.data())
def test_any_changed_byte_gives_a_dataset_or_an_input_error(folder, data):
    name = data.draw(st.sampled_from(prepared.FILES))
    size = len((folder / name).read_bytes())
    place, value = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 255))
    damaged = damage(folder, name, byte(place, value))
    with contextlib.suppress(InputError):
        validate(prepared.open_folder(damaged)[0])


@pytest.mark.slow
@pytest.mark.parametrize("value", [3, pytest.param(255, marks=pytest.mark.soak("takes 9 s; the other value"))])
def test_texts_with_any_byte_changed_give_a_dataset_or_an_input_error(folder, value):
    """Change each byte in turn. An index can then be outside the dictionary of texts."""
    refused = 0
    for place in range(len((folder / prepared.UTTERANCES).read_bytes())):
        damaged = damage(folder, prepared.UTTERANCES, byte(place, value))
        try:
            validate(prepared.open_folder(damaged)[0])
        except InputError:
            refused += 1
    assert refused


def test_verify_finds_a_changed_byte_that_opening_does_not(folder):
    damaged = damage(folder, prepared.ARRAYS, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    prepared.open_folder(damaged)
    with pytest.raises(InputError, match=r"features.safetensors does not have the size or digest in meta.json"):
        prepared.open_folder(damaged, verify=True)
