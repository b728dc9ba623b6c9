"""Data and models of the benchmarks: synthetic dialogues of IEMOCAP's shape, and the model of `model=reference`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from benchmarks.peers.per_utterance import PerUtteranceModel, PerUtteranceTrainer
from joyful.config import Settings, check
from joyful.data.loading import load
from joyful.model.joyful import GraphModel, standardise
from joyful.records import DialogueDataset, Dialogues
from joyful.training.batching import DeviceSplit
from joyful.training.building import build_model
from joyful.training.coach import Coach
from joyful.training.experiment import prepare_torch
from tests.support.runs import compose_plain

#: Losses to train. "own": joyful trains its default, the reconstruction of all utterances, and the per-utterance
#: trainer trains the reconstruction of the last dialogue of a batch, as the reference does, which is less work.
#: "reference" and "joyful": both train the same loss.
LOSSES = ("own", "reference", "joyful")

#: "reference": full widths, 120 + 12 + 31 dialogues of about 48 utterances. "small": the same code in about a second,
#: for tests and to try a benchmark; its ratios do not carry over to full size.
SIZES: dict[str, tuple[str, ...]] = {
    "reference": (),
    "small": (
        "data.synthetic.dialogues={train: 8, dev: 4, test: 4}",
        "data.synthetic.utterances=6",
        "data.synthetic.dimensions={audio: 12, text: 20, visual: 16}",
        "model.inter_size=16",
        "model.fusion_hidden_size=24",
        "model.fusion_latent_size=16",
        "model.context_layers=2",
        "model.context_heads=4",
        "model.context_feedforward_size=32",
        "model.hidden_size=12",
        "training.probe_dialogues=2",
    ),
}


def settings_of(size: str, *overrides: str) -> Settings:
    """Return the settings of a run of this size with further overrides; train rows are means over training batches."""
    arguments = ("model=reference", "device=cpu", "training.train_metrics=running", *SIZES[size], *overrides)
    return check(compose_plain(arguments)[0])


def loss_overrides(loss: str) -> tuple[str, ...]:
    """Return the overrides of joyful's run for one of LOSSES."""
    return ("loss.encoder_reduction=legacy_sum",) if loss == "reference" else ()


def dataset(settings: Settings) -> DialogueDataset:
    """Load or generate the dialogues of the settings."""
    return load(settings.data, settings.modality_names)


def first_dialogues(split: Dialogues, count: int) -> Dialogues:
    """Return the first `count` dialogues of a split.

    Raises:
        ValueError: If the split has fewer dialogues.
    """
    if count > len(split.lengths):
        raise ValueError(
            f"count: expected at most {len(split.lengths)} dialogues, got {count}; generate more dialogues"
        )
    n = int(split.lengths[:count].sum())
    return Dialogues(
        {name: values[:n] for name, values in split.features.items()},
        split.labels[:n], split.speakers[:n], split.lengths[:count], split.ids[:count],
    )  # fmt: skip


def take_dialogues(data: DialogueDataset, counts: Mapping[str, int]) -> DialogueDataset:
    """Return the dataset with the first dialogues of each split. counts: number of dialogues by split."""
    return replace(data, splits={name: first_dialogues(data.splits[name], n) for name, n in counts.items()})


def utterances(data: DialogueDataset, split: str = "train") -> int:
    """Return the number of utterances in a split."""
    return int(np.sum(data.splits[split].lengths))


def configure_torch_for_run(threads: int) -> None:
    """Set threads and torch's settings as run.py does."""
    prepare_torch(torch.device("cpu"), threads)


def configure_torch_for_reference(threads: int) -> None:
    """Set threads, and torch's default settings, without deterministic algorithms."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def build_coach(
    settings: Settings, data: DialogueDataset, change: Callable[[GraphModel], GraphModel] | None = None
) -> Coach:
    """Build joyful's trainer without checkpoints. change: function that replaces the model."""
    device = torch.device("cpu")
    splits = {name: DeviceSplit(d, tuple(data.dimensions), data.n_speakers, device) for name, d in data.splits.items()}
    model = build_model(settings, data)
    standardise(model, splits["train"].features)
    return Coach(settings, model if change is None else change(model), splits, len(data.labels), device)


def build_per_utterance(settings: Settings, data: DialogueDataset, loss: str = "own") -> PerUtteranceTrainer:
    """Build the per-utterance trainer with the initial weights of joyful's model. loss: one of LOSSES."""
    model = PerUtteranceModel(settings, data.dimensions, len(data.labels), data.n_speakers)
    model.load_joyful(build_model(settings, data).state_dict())
    return PerUtteranceTrainer(settings, model, data.splits, *(("mean", "apart") if loss == "joyful" else ()))


def training_seconds(coach: Coach) -> float:
    """Train the next epoch, and return the wall seconds of its training steps, as in timing.parquet."""
    return sum(record.seconds["train"] for record in coach.train_epoch(coach.epoch + 1))


def one_batch_overrides(size: str, train: int | None) -> list[str]:
    """Return overrides for an epoch of one step, with one dialogue each in dev and test.

    Args:
        size: One of SIZES.
        train: Dialogues of the batch; None: the default of the size.
    """
    if train is None:
        train = 32 if size == "reference" else 8
    return [f"data.synthetic.dialogues={{train: {train}, dev: 1, test: 1}}", f"training.batch_size={train}"]
