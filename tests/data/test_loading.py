"""Loading: selected modalities, invalid datasets, and a cache that is never stale."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from joyful import randomness
from joyful.data import cache, loading, mosi, prepared
from joyful.data.loading import load
from joyful.data.sources import SOURCES
from joyful.data.validation import validate
from joyful.records import MODALITIES, InputError
from tests.support.datasets import assert_same, data_settings, fake_encode

ALL = tuple(MODALITIES.values())
AV = ("audio", "visual")


class FakeEncoder:
    identity = "fake"

    def __call__(self, sentences):
        return fake_encode(sentences)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    loading._memory.clear()
    monkeypatch.setattr(loading, "sentence_encoder", lambda setting, cache: FakeEncoder())


@pytest.fixture
def root(tmp_path):
    """A MOSI-shaped corpus of five videos with one utterance each."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "transcripts.csv").write_text("".join(f"v{i}_1,TEXT {i},3,{i % 2}\n" for i in range(5)))
    (folder / "rows_test.csv").write_text("".join(f"{i}\n" for i in range(5)))
    for name, width in (("audio", 73), ("video", 100)):
        (folder / f"{name}_test.csv").write_text("".join("1," * width + f"{i % 2}\n" for i in range(5)))
    return folder


@pytest.fixture
def settings(root, tmp_path):
    return data_settings("mosi", root=str(root), cache=str(tmp_path / "cache"))


def copies(settings):
    return sorted(Path(settings.cache or "").glob("prepared/mosi-*"))


def count_reads(monkeypatch):
    reads, source = [], SOURCES["mosi"]
    counting = replace(source, read=lambda settings, encode: reads.append(1) or source.read(settings, encode))
    monkeypatch.setitem(SOURCES._members, "mosi", counting)
    return reads


def test_only_the_requested_modalities_that_exist(settings):
    assert load(settings, ALL).dimensions == {"audio": 73, "text": 8, "visual": 100}
    assert load(settings, AV).dimensions == {"audio": 73, "visual": 100}
    dataset = load(settings, ("text",))
    assert list(dataset.splits["dev"].features) == ["text"]
    validate(dataset)
    meld = data_settings("meld", root="/nowhere")
    with pytest.raises(
        InputError, match=r"data=meld has text, but modalities selects audio and visual; set modalities=t"
    ):
        load(meld, AV)
    with pytest.raises(
        InputError, match="data=mosi has audio and visual, but modalities selects text; set modalities=av"
    ):
        load(settings.model_copy(update={"text_encoder": None}), ("text",))


def test_unknown_sources(settings):
    for source in ("nope", "tables", "loading", "os"):
        with pytest.raises(
            InputError,
            match=r"data.source: expected one of cogmen, dialogues, emorynlp, meld, mosi, prepared, synthetic, got",
        ):
            load(settings.model_copy(update={"source": source}), ALL)


def test_the_second_start_reads_the_copy(settings, monkeypatch):
    reads = count_reads(monkeypatch)
    first = load(settings, ALL)
    loading._memory.clear()
    assert_same(first, load(settings, ALL))
    assert len(reads) == len(copies(settings)) == 1
    assert_same(first, read_all_modalities(settings))


def read_all_modalities(settings):
    return loading.select_modalities(mosi.read(settings, fake_encode), settings, ALL)


def test_the_last_two_datasets_stay_in_memory(settings, monkeypatch):
    opened = []
    open_folder = prepared.open_folder
    monkeypatch.setattr(prepared, "open_folder", lambda folder: opened.append(folder.name) or open_folder(folder))
    for fold in (0, 1, 0, 1, 2, 2, 0):
        load(settings.model_copy(update={"fold": fold}), AV)
    assert len(opened) == 4  # 0, 1, 2 and 0 again: 0 and 1 were the last two, then 1 and 2
    a, b = load(settings, AV), load(settings, ("audio",))
    assert a.splits["train"].features["audio"] is b.splits["train"].features["audio"]


def test_a_changed_file_is_never_served_stale(settings, root, monkeypatch):
    """Even with the same size and modification time, and with cached digests."""
    monkeypatch.setattr(loading, "_RACY_NANOSECONDS", -(10**18))  # cache the digests of fresh files too
    load(settings, AV)
    path = root / "audio_test.csv"
    before = path.stat()
    path.write_text(path.read_text().replace("1,", "2,"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert load(settings, AV).splits["train"].features["audio"].max() == 2
    assert len(copies(settings)) == 1  # the superseded copy is removed


def test_digests_are_cached_unless_the_file_is_too_new(settings, root, monkeypatch):
    digested = []
    sha256 = prepared.sha256
    monkeypatch.setattr(prepared, "sha256", lambda path: digested.append(path.name) or sha256(path))
    for racy, expected in ((10**18, 4), (-(10**18), 4), (-(10**18), 0)):
        monkeypatch.setattr(loading, "_RACY_NANOSECONDS", racy)
        digested.clear()
        load(settings, AV)
        assert len([name for name in digested if name.endswith(".csv")]) == expected


def test_a_moved_corpus_is_recognised_by_its_contents(settings, root, tmp_path, monkeypatch):
    first = load(settings, AV)
    loading._memory.clear()
    reads = count_reads(monkeypatch)
    shutil.move(root, tmp_path / "elsewhere")
    assert_same(first, load(settings.model_copy(update={"root": str(tmp_path / "elsewhere")}), AV))
    assert not reads


def test_another_generator_of_splits_has_its_own_copy(settings, tmp_path, monkeypatch):
    load(settings, AV)
    (before,) = copies(settings)
    (tmp_path / "randomness.py").write_text("# other code")
    monkeypatch.setattr(randomness, "__file__", str(tmp_path / "randomness.py"))
    load(settings, AV)
    (after,) = copies(settings)  # the other is superseded
    assert after.name != before.name


def test_settings_and_encoders_have_separate_copies(settings, monkeypatch):
    load(settings, AV)
    load(settings, ALL)
    load(settings.model_copy(update={"fold": 1}), AV)
    monkeypatch.setattr(FakeEncoder, "identity", "another")
    load(settings, ALL)
    assert len(copies(settings)) == 3  # the same settings with a changed encoder: superseded


def truncate(folder):
    path = folder / prepared.ARRAYS
    path.write_bytes(path.read_bytes()[:-4])


def spoil_a_number(folder):
    path = folder / prepared.ARRAYS
    content = bytearray(path.read_bytes())
    content[-4:] = b"\xff" * 4  # NaN in the last array of floats
    path.write_bytes(content)


def spoil_the_table(folder):
    path = folder / prepared.UTTERANCES
    path.write_bytes(b"\0" * path.stat().st_size)


def other_format(folder):
    meta = json.loads((folder / prepared.META).read_text())
    (folder / prepared.META).write_text(json.dumps({**meta, "format": 0}))


@pytest.mark.parametrize(
    "damage",
    [truncate, spoil_a_number, spoil_the_table, other_format, lambda folder: (folder / prepared.META).unlink()],
)
def test_a_damaged_copy_is_created_again_with_one_warning(settings, damage, caplog):
    first = load(settings, AV)
    arrays = {split: part.features["audio"].copy() for split, part in first.splits.items()}
    loading._memory.clear()
    (folder,) = copies(settings)
    shutil.copytree(folder, folder.with_name("kept"))  # the arrays of `first` are mapped, so damage another file
    shutil.rmtree(folder)
    os.rename(folder.with_name("kept"), folder)
    damage(folder)
    with caplog.at_level(logging.WARNING, "joyful"):
        again = load(settings, AV)
    assert len(caplog.records) == 1
    assert "the prepared copy cannot be used and is created again" in caplog.records[0].message
    for split, audio in arrays.items():
        np.testing.assert_array_equal(again.splits[split].features["audio"], audio)
    assert copies(settings) == [folder]


def test_leftovers_of_a_killed_process_are_removed(settings):
    load(settings, AV)
    loading._memory.clear()
    (folder,) = copies(settings)
    shutil.rmtree(folder)
    left_over = folder.with_name(f".{folder.name}.abc")
    left_over.mkdir()
    load(settings, AV)
    assert copies(settings) == [folder]
    assert not left_over.exists()


def test_several_processes_at_once(settings):
    """Three processes start with an empty cache. They create one copy, get the same numbers, and do not import torch."""
    code = (
        "import sys; from joyful.config import DataSettings; from joyful.data.loading import load\n"
        "dataset = load(DataSettings.model_validate_json(sys.argv[1]), ('audio', 'visual'))\n"
        "assert not {'torch', 'sentence_transformers'} & set(sys.modules)\n"
        "print(dataset.splits['train'].features['audio'].sum())\n"
    )
    command = [sys.executable, "-c", code, settings.model_dump_json()]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    outputs = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert len({out for out, _ in outputs}) == len(copies(settings)) == 1
    assert [path.name for path in copies(settings)[0].parent.iterdir() if path.name.startswith(".mosi-")] == []


def test_a_cache_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"set data.cache=FOLDER"):
        load(settings.model_copy(update={"cache": str(tmp_path / "file")}), AV)


def test_the_cache_folder(settings, monkeypatch, tmp_path):
    bare = settings.model_copy(update={"cache": None})
    monkeypatch.setenv("JOYFUL_CACHE", str(tmp_path / "other"))
    assert cache.cache_folder(settings) == tmp_path / "cache"
    assert cache.cache_folder(bare) == tmp_path / "other"
    monkeypatch.delenv("JOYFUL_CACHE")
    assert cache.cache_folder(bare) == Path.home() / ".cache" / "joyful"


def test_the_generator_is_not_kept_on_disk(tmp_path):
    sizes = {"dialogues": {"train": 2, "dev": 1, "test": 1}, "utterances": 4}
    synthetic = data_settings("synthetic").synthetic
    assert synthetic is not None
    small = data_settings("synthetic", cache=str(tmp_path / "cache"), synthetic=synthetic.model_dump() | sizes)
    assert load(small, ALL).name == "synthetic"
    assert not (tmp_path / "cache").exists()


def broken_splits():
    """Message -> a change to a split of one utterance."""
    audio, visual = np.ones((1, 73), np.float32), np.ones((1, 100), np.float32)
    return {
        r"audio float32 of shape \(1, 73\) expected, got float64": {
            "features": {"audio": audio.astype(np.float64), "visual": visual}
        },
        r"dev: audio: utterance 1 of dialogue v1 has a value that is not finite": {
            "features": {"audio": audio * np.float32(np.nan), "visual": visual}
        },
        r"\['audio', 'visual'\] expected": {"features": {}},
        "labels from -1 to 1 expected, got 2 to 2": {"labels": np.array([2])},
        r"labels int64 of shape \(1,\) expected, got float64": {"labels": np.array([1.0])},
        r"labels int64 of shape \(1,\) expected, got int64 of shape \(0,\)": {"labels": np.array([], np.int64)},
        "speakers from 0 to 0 expected": {"speakers": np.array([1])},
        r"speakers int64 of shape \(1,\) expected": {"speakers": np.array([0], np.int32)},
        "dialogues of at least one utterance": {"lengths": np.array([0])},
        "lengths that add up to 1": {"lengths": np.array([2])},
        "at least one dialogue": {"lengths": np.array([], np.int64), "ids": ()},
        "1 dialogue names": {"ids": ()},
        "1 sentences": {"sentences": ()},
    }


@pytest.mark.parametrize(("message", "changes"), broken_splits().items())
def test_validation_of_a_split(settings, message, changes):
    dataset = load(settings, AV)
    splits = {**dataset.splits, "dev": replace(dataset.splits["dev"], **changes)}
    with pytest.raises(InputError, match=message):
        validate(replace(dataset, splits=splits))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("splits train, dev, test", {"splits": {}}),
        ("two or more class names", {"labels": ("a", "a")}),
        ("n_speakers >= 1", {"n_speakers": 0}),
        ("at least one modality", {"dimensions": {}}),
        ("modalities in the order", {"dimensions": {"visual": 100, "audio": 73}}),
        (r"labels float32 of shape \(3, 2\) expected", {"multilabel": True}),
    ],
)
def test_validation_of_the_dataset(settings, message, changes):
    with pytest.raises(InputError, match=message):
        validate(replace(load(settings, AV), **changes))
