"""Batches have the utterances of their dialogues, in any order, and their speakers."""

import numpy as np
import pytest
import torch

from joyful.records import Dialogues
from joyful.training.batching import DeviceSplit, batch_size, epoch_order
from tests.support.runs import tiny_coach, tiny_settings


@pytest.fixture
def dialogues() -> Dialogues:
    rng = np.random.default_rng(0)
    lengths = np.array([3, 1, 4, 2])
    n = int(lengths.sum())
    return Dialogues(
        features={
            "text": rng.normal(size=(n, 5)).astype(np.float32),
            "audio": rng.normal(size=(n, 2)).astype(np.float32),
        },
        labels=np.arange(n) % 3,
        speakers=np.array([0, 1, 0, 0, 0, 1, 2, 1, 0, 1]),
        lengths=lengths,
        ids=("a", "b", "c", "d"),
    )


def test_a_batch_gathers_its_dialogues_in_the_order_given(dialogues):
    split = DeviceSplit(dialogues, ("text",), 3, torch.device("cpu"))
    batch = split.batch(np.array([2, 0]))
    places = [4, 5, 6, 7, 0, 1, 2]
    assert batch.lengths == (4, 3)
    assert batch.n_utterances == 7
    assert list(batch.features) == ["text"]
    assert np.array_equal(batch.features["text"].numpy(), dialogues.features["text"][places])
    assert batch.labels.tolist() == [dialogues.labels[i] for i in places]
    assert batch.speakers.tolist() == [0, 1, 2, 1, 0, 1, 0]


def test_a_batch_has_a_slot_for_each_speaker_of_an_utterances_dialogue(dialogues):
    batch = DeviceSplit(dialogues, ("text",), 3, torch.device("cpu")).batch(np.array([2, 0]))
    who, first = batch.speakers.tolist(), [0] * 4 + [4] * 3
    in_dialogue = {0: {0, 1, 2}, 4: {0, 1}}  # first utterance of a dialogue -> its speakers
    pairs = sorted((s, who[i], i) for i in range(7) for s in in_dialogue[first[i]])
    assert batch.slots.target.tolist() == [i for _, _, i in pairs]
    place = batch.slots.place.view(7, 3)
    assert all(place[i, s] == number for number, (s, _, i) in enumerate(pairs))
    assert place[4:, 2].tolist() == [0, 0, 0]  # speaker 2 is not in that dialogue
    assert batch.slots.sizes == tuple(sum((s, t) == (a, b) for a, b, _ in pairs) for s in range(3) for t in range(3))


def test_batches_in_order_cover_the_split_once_without_copies(dialogues):
    split = DeviceSplit(dialogues, ("audio", "text"), 3, torch.device("cpu"))
    batches = split.batches_in_order(3)
    assert [batch.lengths for batch in batches] == [(3, 1, 4), (2,)]
    assert np.array_equal(np.concatenate([b.features["audio"].numpy() for b in batches]), dialogues.features["audio"])
    assert batches[1].features["text"].data_ptr() == split.features["text"][8:].data_ptr()


def test_read_only_features_are_shared_without_a_warning(dialogues, recwarn):
    dialogues.features["text"].flags.writeable = False
    split = DeviceSplit(dialogues, ("text",), 3, torch.device("cpu"))
    assert split.features["text"].numpy().ctypes.data == dialogues.features["text"].ctypes.data
    assert not recwarn.list


def test_several_labels_become_floats(dialogues):
    labels = np.eye(3, dtype=np.float32)[dialogues.labels]
    many = Dialogues(dialogues.features, labels, dialogues.speakers, dialogues.lengths, dialogues.ids)
    batch = DeviceSplit(many, ("text",), 3, torch.device("cpu")).batch(np.array([1]))
    assert batch.labels.dtype == torch.float32
    assert batch.labels.shape == (1, 3)


def test_the_order_of_an_epoch_depends_only_on_seed_and_epoch():
    once, again = epoch_order(50, 8, seed=3, epoch=2), epoch_order(50, 8, seed=3, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(np.concatenate(once), np.concatenate(epoch_order(50, 8, seed=4, epoch=2)))


@pytest.mark.parametrize("n", [1, 15, 16, 31, 32, 511, 512, 10_000])
def test_an_automatic_batch_gives_an_epoch_16_steps_where_the_data_allow(n):
    size = batch_size("auto", n)
    assert 1 <= size <= 32
    assert -(-n // size) >= min(n, 16)
    assert batch_size("auto", n + 1) >= size


def test_the_coach_uses_the_automatic_batch_size():
    coach = tiny_coach(tiny_settings("training.batch_size=auto", "data.synthetic.dialogues.train=40"))
    assert coach.batch_size == 2
    assert coach.steps_per_epoch == 20
    coach.train_epoch(1)
    assert coach.step == 20
