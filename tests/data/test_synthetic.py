"""The generated data: sizes, determinism, and that context and all three modalities are needed."""

import hashlib

import numpy as np
import pytest
import torch

from joyful.config import check
from joyful.data import synthetic
from joyful.data.loading import load
from joyful.records import InputError
from tests.support.runs import compose_plain, tiny_coach


def settings(*overrides: str):
    return check(compose_plain(list(overrides))[0])


def test_the_sizes_are_those_of_iemocap():
    data = synthetic.read(settings().data)
    assert data.dimensions == {"audio": 100, "text": 768, "visual": 512}
    assert data.labels == ("hap", "sad", "neu", "ang")
    assert data.n_speakers == 2
    assert {name: len(split.lengths) for name, split in data.splits.items()} == {"train": 120, "dev": 12, "test": 31}
    assert 46 < data.splits["train"].lengths.mean() < 50
    for split in data.splits.values():
        assert set(np.unique(split.speakers)) == {0, 1}
        assert split.speakers[0] == 0  # counted by first appearance
        assert np.bincount(split.labels, minlength=4).min() > 0.1 * len(split.labels)


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes_and_another_seed_others():
    def digest(*overrides):
        data = synthetic.read(settings(*overrides).data)
        return hashlib.sha256(b"".join(x.tobytes() for x in data.splits["dev"].features.values())).hexdigest()

    assert digest() == digest() != digest("data.synthetic.seed=1")


def test_emotions_have_inertia_and_contagion():
    train = synthetic.read(settings().data).splits["train"]
    same_as_own, same_as_other, chance = [], [], np.square(np.bincount(train.labels) / len(train.labels)).sum()
    start = 0
    for length in train.lengths:
        last: dict[int, int] = {}
        for t in range(start, start + length):
            label, speaker = train.labels[t], train.speakers[t]
            if speaker in last:
                same_as_own.append(last[speaker] == label)
            if t > start and train.speakers[t - 1] != speaker and speaker in last and last[speaker] != label:
                same_as_other.append(train.labels[t - 1] == label)
            last[speaker] = label
        start += length
    assert np.mean(same_as_own) > chance + 0.3
    assert np.mean(same_as_other) > chance + 0.1


def test_a_missing_split_is_refused():
    bad = settings().data.model_copy(
        update={"synthetic": settings().data.synthetic.model_copy(update={"dialogues": {"train": 3}})}
    )
    with pytest.raises(InputError, match=r"data\.synthetic: expected dialogues for train, dev, test"):
        synthetic.read(bad)


BUDGET = (
    "data.synthetic.dialogues={train: 60, dev: 2, test: 30}",
    "data.synthetic.utterances=24",
    "data.synthetic.dimensions={audio: 20, text: 30, visual: 25}",
    "training.epochs=8",
    "training.train_metrics=running",
    "training.batch_size=8",
    "optimizer.learning_rate=0.003",
    "weights.cl_loss_weight=0.02",
    "training.scheduler.name=none",
)


def _score(*overrides: str) -> float:
    """Return the test weighted F1 in points after a short training.

    Measured: all modalities 71, text 52, audio or visual 37, without context 60.
    """
    torch.set_num_threads(1)
    *_, last = tiny_coach(settings(*BUDGET, *overrides, "seed=1")).train()
    return 100 * next(row for row in last.rows if row["split"] == "test")["f1_weighted"]


@pytest.mark.slow
@pytest.mark.soak("trains for 14 s")
def test_context_and_every_modality_are_needed():
    full = _score()
    assert full > 50  # chance level of four classes: 25
    for modality in "atv":
        assert full - _score(f"modalities={modality}") >= 5, modality
    assert full - _context_free_score() >= 5


def _context_free_score() -> float:
    """Return the score of the same model on the same utterances, each as a separate dialogue."""
    import tests.support.runs as runs

    original = runs.load

    def one_by_one(data_settings, modalities):
        data = original(data_settings, modalities)
        splits = {}
        for name, split in data.splits.items():
            n = len(split.labels)
            splits[name] = type(split)(split.features, split.labels, np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64),
                                       tuple(str(i) for i in range(n)))  # fmt: skip
        return type(data)(data.name, data.dimensions, data.labels, data.n_speakers, data.multilabel, splits)

    runs.load = one_by_one
    try:
        return _score("training.batch_size=192")
    finally:
        runs.load = original


def test_loading_returns_only_the_requested_modalities():
    data = load(settings("modalities=tv").data, ("text", "visual"))
    assert list(data.dimensions) == ["text", "visual"]
