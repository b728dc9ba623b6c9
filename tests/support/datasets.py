"""Checks that every data source must pass. The test of a dataset calls `check_source` and adds its own cases.

Shape letters: N utterances, D features.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from joyful.config import DataSettings
from joyful.data import prepared
from joyful.data.loading import select_modalities
from joyful.data.sources import SOURCES
from joyful.data.validation import validate
from joyful.records import SPLITS, DialogueDataset, Dialogues

_CONF = Path(__file__).resolve().parents[2] / "conf" / "data"
_FAKE_WIDTH = 8


def fake_encode(sentences: Sequence[str]) -> np.ndarray:
    """Return (N, 8) float32 vectors from 0 to 1, computed from digests. Equal sentences have equal vectors."""
    digests = b"".join(hashlib.sha256(sentence.encode()).digest()[:_FAKE_WIDTH] for sentence in sentences)
    return np.frombuffer(digests, np.uint8).reshape(-1, _FAKE_WIDTH).astype(np.float32) / 255


def data_settings(name: str, **changes: Any) -> DataSettings:
    """Return the settings of conf/data/NAME.yaml with changes."""
    values = yaml.safe_load((_CONF / f"{name}.yaml").read_text("utf-8"))
    return DataSettings.model_validate({**values, **changes})


def real_data(name: str) -> str:
    """Return the folder of a real corpus. Skips the test if it is not available."""
    root = os.environ.get("JOYFUL_DATA")
    if not root:
        pytest.skip("needs the real corpora: set JOYFUL_DATA to the folder that holds meld, emorynlp and mosi")
    folder = Path(root) / name
    if not folder.is_dir():
        pytest.skip(f"needs the real corpus: {folder} is not there")
    return str(folder)


def check_source(settings: DataSettings, folder: Path) -> DialogueDataset:
    """Check a source, and return its dataset, whose text features come from `fake_encode`.

    Args:
        settings: Settings of the dataset.
        folder: An empty folder for a prepared copy of the dataset, which is read again and compared.
    """
    source = SOURCES[settings.source]
    for path in source.source_files(settings):
        assert path.is_file(), f"source_files names {path}, which is not a file"
    dataset = source.read(settings, fake_encode)
    validate(dataset)
    assert dataset.name == settings.name
    if source.modalities is not None:
        assert set(dataset.dimensions) <= set(source.modalities)
    assert_same(dataset, source.read(settings, fake_encode))
    for split in SPLITS:
        _check_speakers(dataset.splits[split])
        _check_text(dataset.splits[split])
    prepared.write_folder(dataset, folder / "copy", {})
    copy, _ = prepared.open_folder(folder / "copy", verify=True)
    assert_same(dataset, copy)
    for name, width in dataset.dimensions.items():
        alone = select_modalities(dataset, settings, (name,))
        assert alone.dimensions == {name: width}
        validate(alone)
    return dataset


def assert_same(one: DialogueDataset, other: DialogueDataset) -> None:
    """Assert that two datasets are equal, bit for bit."""
    for name in ("name", "dimensions", "labels", "n_speakers", "multilabel"):
        assert getattr(one, name) == getattr(other, name), name
    for split in SPLITS:
        a, b = one.splits[split], other.splits[split]
        assert a.ids == b.ids, split
        assert a.sentences == b.sentences, split
        for name in ("labels", "speakers", "lengths"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=f"{split} {name}", strict=True)
        assert a.missing.keys() == b.missing.keys(), split
        for name in a.missing:
            np.testing.assert_array_equal(
                a.missing[name], b.missing[name], err_msg=f"{split} missing {name}", strict=True
            )
        for name in one.dimensions:
            np.testing.assert_array_equal(a.features[name], b.features[name], err_msg=f"{split} {name}", strict=True)


def _check_speakers(part: Dialogues) -> None:
    """Check that speakers are numbered by first appearance within each dialogue."""
    for row, speakers in enumerate(np.split(part.speakers, np.cumsum(part.lengths)[:-1])):
        highest = np.maximum.accumulate(np.concatenate([[-1], speakers[:-1]]))
        assert (speakers <= highest + 1).all(), f"dialogue {part.ids[row]}: {speakers}"


def _check_text(part: Dialogues) -> None:
    """Check that each row of text features belongs to the sentence of that row, if `fake_encode` computed them."""
    text = part.features.get("text")
    if text is not None and part.sentences is not None and text.shape[1] == _FAKE_WIDTH:
        expected = fake_encode(part.sentences)
        expected = np.where(part.missing.get("text", np.zeros(len(text), bool))[:, None], np.float32(0), expected)
        np.testing.assert_array_equal(text, expected)
