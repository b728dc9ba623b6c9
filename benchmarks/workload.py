"""What the benchmarks train: IEMOCAP-shaped synthetic dialogues and the model of `model=reference`, as experiment builds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from benchmarks.peers.per_utterance import PerUtteranceModel, PerUtteranceTrainer
from joyful.config import Settings, check
from joyful.data.batching import DeviceSplit
from joyful.data.loading import load
from joyful.model.graph_model import GraphModel, standardise
from joyful.records import DialogueDataset, Dialogues
from joyful.training.coach import Coach
from joyful.training.experiment import build_model, prepare_torch
from tests.support.runs import compose_plain

#: Whose loss is trained. "own": the per-utterance trainer the reference's, with the reconstruction of a batch's last dialogue
#: alone, joyful its default, with that of all utterances, which is more work. "reference", "joyful": that one on both sides.
LOSSES = ("own", "reference", "joyful")

#: "reference": full widths, 120 + 12 + 31 dialogues of about 48 utterances. "small": the same model and code in a
#: second, for a look at a benchmark and for its tests; its ratios say nothing about the full size.
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
    """The settings of a run of this size under further overrides; train rows from the running batches."""
    given = ("model=reference", "device=cpu", "training.train_metrics=running", *SIZES[size], *overrides)
    return check(compose_plain(given)[0])


def of_loss(loss: str) -> tuple[str, ...]:
    """Overrides of joyful's run for one of LOSSES."""
    return ("loss.encoder_reduction=legacy_sum",) if loss == "reference" else ()


def dataset(settings: Settings) -> DialogueDataset:
    """The dialogues that the settings name, made once in a process."""
    return load(settings.data, settings.modality_names)


def some_dialogues(split: Dialogues, count: int) -> Dialogues:
    """The first `count` dialogues of a split."""
    if count > len(split.lengths):
        raise ValueError(f"expected at most {len(split.lengths)} dialogues, got {count}; generate more of them")
    n = int(split.lengths[:count].sum())
    return Dialogues(
        {name: values[:n] for name, values in split.features.items()},
        split.labels[:n], split.speakers[:n], split.lengths[:count], split.ids[:count],
    )  # fmt: skip


def with_dialogues(data: DialogueDataset, counts: Mapping[str, int]) -> DialogueDataset:
    """The dataset with the first so many dialogues of each split."""
    return replace(data, splits={name: some_dialogues(data.splits[name], n) for name, n in counts.items()})


def utterances(data: DialogueDataset, split: str = "train") -> int:
    """How many there are in a split."""
    return int(np.sum(data.splits[split].lengths))


def as_in_a_run(threads: int) -> None:
    """Threads and torch's settings of a run of run.py."""
    prepare_torch(torch.device("cpu"), threads)


def as_in_the_reference(threads: int) -> None:
    """Threads, and torch as it is by default, without the algorithms that repeat their bits."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def build_coach(
    settings: Settings, data: DialogueDataset, change: Callable[[GraphModel], GraphModel] | None = None
) -> Coach:
    """joyful's trainer of this data, without checkpoints. change: makes another model of the one that was built."""
    device = torch.device("cpu")
    splits = {name: DeviceSplit(d, tuple(data.dimensions), data.n_speakers, device) for name, d in data.splits.items()}
    model = build_model(settings, data)
    standardise(model, splits["train"].features)
    return Coach(settings, model if change is None else change(model), splits, len(data.labels), device)


def build_per_utterance(settings: Settings, data: DialogueDataset, loss: str = "own") -> PerUtteranceTrainer:
    """The per-utterance trainer of this data; initial weights as joyful's. loss: of LOSSES."""
    model = PerUtteranceModel(settings, data.dimensions, len(data.labels), data.n_speakers)
    model.load_joyful(build_model(settings, data).state_dict())
    return PerUtteranceTrainer(settings, model, data.splits, *(("mean", "apart") if loss == "joyful" else ()))


def training_seconds(coach: Coach) -> float:
    """Train the next epoch; wall seconds of its training steps alone, as timing.parquet has them."""
    return sum(record.seconds["train"] for record in coach.train_epoch(coach.epoch + 1))


def one_batch(size: str, train: int | None) -> list[str]:
    """Overrides for an epoch of one step on `train` dialogues (None: as the size has it); dev and test are as small as can be."""
    if train is None:
        train = 32 if size == "reference" else 8
    return [f"data.synthetic.dialogues={{train: {train}, dev: 1, test: 1}}", f"training.batch_size={train}"]
