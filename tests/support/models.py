"""Random dialogues and models of a few thousand parameters, built without a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from joyful.config import ModelSettings
from joyful.model.joyful import FUSIONS, FusionSizes, GraphModel, initialise, standardise
from joyful.records import Batch, Dialogues
from joyful.training.batching import DeviceSplit

_SMALL = Path(__file__).resolve().parents[2] / "conf" / "model" / "small.yaml"
DIMENSIONS = {"audio": 5, "text": 7, "visual": 3}
#: Changes to conf/model/small.yaml that make the model smaller.
TINY = {
    "inter_size": 6,
    "fusion_hidden_size": 8,
    "fusion_latent_size": 4,
    "context_layers": 2,
    "context_heads": 2,
    "context_feedforward_size": 10,
    "hidden_size": 6,
    "wp": 2,
    "wf": 1,
}


def random_split(
    lengths: Sequence[int],
    n_speakers: int = 2,
    classes: int = 3,
    multilabel: bool = False,
    dimensions: dict[str, int] | None = None,
    seed: int = 0,
) -> DeviceSplit:
    """Return dialogues of these lengths with normally distributed features, random speakers and random labels."""
    rng = np.random.default_rng(seed)
    dimensions, n = dimensions or DIMENSIONS, sum(lengths)
    labels = rng.integers(2, size=(n, classes)).astype(np.float32) if multilabel else rng.integers(classes, size=n)
    dialogues = Dialogues(
        features={name: rng.normal(size=(n, width)).astype(np.float32) for name, width in dimensions.items()},
        labels=labels,
        speakers=rng.integers(n_speakers, size=n),
        lengths=np.array(lengths),
        ids=tuple(map(str, range(len(lengths)))),
    )
    return DeviceSplit(dialogues, tuple(dimensions), n_speakers, torch.device("cpu"))


def random_batch(lengths: Sequence[int], n_speakers: int = 2, **options: Any) -> Batch:
    """Return all dialogues of a `random_split` as one batch."""
    return random_split(lengths, n_speakers, **options).batch(np.arange(len(lengths)))


def tiny_model(
    split: DeviceSplit,
    fusion: str = "hierarchical",
    classes: int = 3,
    n_unimodal: int = 0,
    seed: int = 1,
    **changes: Any,
) -> GraphModel:
    """Return an initialised model for these dialogues. `changes` override TINY and conf/model/small.yaml."""
    settings = ModelSettings.model_validate({**yaml.safe_load(_SMALL.read_text("utf-8")), **TINY, **changes})
    gates: dict[str, Any] = {"modal_attention": settings.modal_attention} if fusion == "hierarchical" else {}
    fused = FUSIONS[fusion](
        {name: values.shape[1] for name, values in split.features.items()},
        sizes=FusionSizes(settings.inter_size, settings.fusion_hidden_size, settings.fusion_latent_size),
        **gates,
    )
    model = GraphModel(settings, fused, classes, split.batch(np.arange(len(split))).n_speakers, n_unimodal)
    initialise(model, seed)
    standardise(model, split.features)
    return model
