"""Tables of dialogues, and tiny runs that were trained on them, for the tests of prediction.

The text encoder is a folder with the files of a sentence-transformers model but without weights; the vectors of all texts
are put into the cache, so that it is never loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from joyful.data.text_encoder import SentenceEncoder
from joyful.data.vector_store import VectorStore
from joyful.records import DialogueDataset, Request
from joyful.training.experiment import train_run
from tests.support.datasets import fake_encode
from tests.support.runs import TINY, compose_plain

#: Overrides of a tiny model, without those of the synthetic data.
MODEL = tuple(item for item in TINY if not item.startswith("data."))
WIDTH = 5  # of audio


@dataclass(frozen=True)
class Corpus:
    """A folder with a table of dialogues, the text encoder and the cache.

    Attributes:
        folder: The folder.
        table: The table with the splits and labels.
    """

    folder: Path
    table: pd.DataFrame

    @property
    def file(self) -> Path:
        """The file of the table."""
        return self.folder / "corpus.parquet"

    @property
    def encoder(self) -> Path:
        """The folder of the text encoder."""
        return self.folder / "encoder"

    def split(self, name: str) -> pd.DataFrame:
        """Return the rows of a split, without the column split."""
        return self.table[self.table["split"] == name].drop(columns="split").reset_index(drop=True)

    def train(self, run: Path, *overrides: str) -> Path:
        """Train a tiny run on the corpus, and return its folder."""
        own = ("data=dialogues", f"data.root={self.file}", f"data.cache={self.folder / 'cache'}",
               f"data.text_encoder={self.encoder}", *MODEL, *overrides)  # fmt: skip
        train(run, *own)
        return run


def train(run: Path, *overrides: str) -> None:
    """Train a run with the overrides of a command line."""
    config, choices = compose_plain(overrides)
    names = tuple(item.lstrip("+").split("=", 1)[0] for item in overrides)
    train_run(Request(config, choices, names, run, multirun=True))


def write_corpus(folder: Path, labels: Sequence[Any], missing: float = 0.0, seed: int = 0) -> Corpus:
    """Write a corpus of 14 dialogues with text and audio.

    Args:
        folder: A new folder.
        labels: The classes, or lists of classes for several labels at once. Every seventh utterance has none.
        missing: Share of the utterances that lack audio.
        seed: Seed of the corpus.
    """
    random = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for dialogue in range(14):
        for place in range(int(random.integers(2, 7))):
            n = len(rows)
            rows.append(
                {
                    "dialogue": f"d{dialogue}",
                    "place": place,
                    "speaker": f"s{random.integers(2)}",
                    "text": f"sentence {n % 30}",
                    "label": None if n % 7 == 6 else labels[n % len(labels)],
                    "split": "train" if dialogue < 8 else "dev" if dialogue < 11 else "test",
                }
            )
    table = pd.DataFrame(rows)
    audio = random.normal(size=(len(table), WIDTH)).astype(np.float32)
    audio[random.random(len(table)) < missing] = np.nan
    for column in range(WIDTH):
        table[f"audio_{column}"] = audio[:, column]
    folder.mkdir(parents=True)
    corpus = Corpus(folder, table)
    table.to_parquet(corpus.file, index=False)
    write_encoder(corpus.encoder, "weights of the encoder")
    cache_vectors(corpus, [f"sentence {n}" for n in range(30)])
    return corpus


def write_encoder(folder: Path, weights: str) -> None:
    """Write the files of a text encoder whose digest depends on `weights`."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "modules.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_text(weights)


def cache_vectors(corpus: Corpus, sentences: Sequence[str], encoder: Path | None = None) -> None:
    """Put the vectors of sentences into the cache of the corpus."""
    path = SentenceEncoder(str(encoder or corpus.encoder), corpus.folder / "cache" / "text").path
    with VectorStore(path) as store:
        store.put(dict(zip(sentences, fake_encode(sentences), strict=True)))


def table_of(data: DialogueDataset, split: str) -> pd.DataFrame:
    """Return a split of a dataset as a table with features, as for data=dialogues."""
    part = data.splits[split]
    starts = np.cumsum(part.lengths) - part.lengths
    columns: dict[str, Any] = {
        "dialogue": np.repeat(part.ids, part.lengths),
        "place": np.arange(len(part.speakers)) - np.repeat(starts, part.lengths),
        "speaker": [f"s{speaker}" for speaker in part.speakers],
        "label": [data.labels[label] for label in part.labels],
    }
    for name, values in part.features.items():
        columns |= {f"{name}_{column}": values[:, column] for column in range(values.shape[1])}
    return pd.DataFrame(columns)
