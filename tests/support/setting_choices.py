"""All choices of the settings that decide what a training step computes, and combinations that cover every pair of them."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from joyful.config import Settings, check
from joyful.data.loading import load
from joyful.losses.classification import CLASSIFICATION_LOSSES
from joyful.losses.reconstruction import RECONSTRUCTION_LOSSES
from joyful.losses.weighting import WEIGHTINGS
from joyful.model.joyful import CONTEXTS, FUSIONS
from joyful.records import DialogueDataset, Dialogues
from joyful.registry import Registry
from joyful.training.optimizers import OPTIMIZERS
from tests.support.runs import TINY, compose_plain

#: Of every run: two steps, each setting at work from the first.
BASE = (
    *TINY,
    "data.synthetic.dialogues={train: 3, dev: 1, test: 1}",
    "data.synthetic.utterances=3",
    "data.synthetic.dimensions={audio: 4, text: 8, visual: 6}",  # even, for two heads
    "training.epochs=1",
    "training.train_metrics=running",
    "training.probe_dialogues=1",
    "fusion.ulgm_delay_epochs=0",
    "weighting.every=1",
    "model.context_layers=1",
)

Choices = dict[str, tuple[str, ...]]


def _members(setting: str, registry: Registry[Any]) -> Choices:
    return {name: (f"{setting}={name}",) for name in registry}


def _values(setting: str, *values: object) -> Choices:
    return {str(value): (f"{setting}={value}",) for value in values}


#: Setting -> choice -> overrides. The choices of the registries, the ranges that select another branch, and kinds of data.
CHOICES: dict[str, Choices] = {
    "model": _values("model", "small", "reference"),
    "context": _members("model.context", CONTEXTS),
    "context layers": _values("model.context_layers", 1, 2),
    "fusion": _members("fusion", FUSIONS),
    "loss": _members("loss", RECONSTRUCTION_LOSSES),
    "encoder reduction": _values("loss.encoder_reduction", "mean", "legacy_sum", "legacy_mean"),
    "classification": _members("classification", CLASSIFICATION_LOSSES),
    "class weights": _values("classification.class_weight", "none", "inverse", "sqrt"),
    "weighting": _members("weighting", WEIGHTINGS),
    "normalisation": _values("weighting.normalisation", "log", "minmax"),
    "contrastive weight": _values("weights.cl_loss_weight", 0.2, 0),
    "encoder weight": _values("weights.encoder_loss_weight", 0.03, 0),
    "optimizer": _members("optimizer", OPTIMIZERS),
    "momentum": _values("optimizer.momentum", 0.0, 0.9),
    "warm-up": _values("optimizer.warmup_steps", 0, 4),
    "precision": _values("training.precision", "fp32", "bf16"),
    "moving average": _values("training.moving_average", 0.0, 0.9),
    "train metrics": _values("training.train_metrics", "running", "full"),
    "evaluations": _values("training.evaluations_per_epoch", 1, 2),
    "clipping": _values("training.max_grad_norm", 1.0, 0.0),
    "unimodal heads": _values("fusion.use_ulgm", "false", "true"),
    "intermodal": _values("fusion.intermodal", "auto", "exact"),
    "modalities": _values("modalities", "atv", "at", "v"),
    "skip": {
        "projected": ("model.skip=true", "model.skip_projection=true"),
        "unchanged": ("model.skip=true", "model.skip_projection=false"),
        "none": ("model.skip=false",),
    },
    "classifier skip": _values("model.classifier_skip", "false", "true"),
    "standardise": _values("model.standardise", "true", "false"),
    "speaker embedding": _values("model.speaker_embedding", 0, 4),
    "graph input": _values("model.concat_gin_gout", "true", "false"),
    "highway": _values("model.use_highway", "false", "true"),
    "dropout": {
        "0.3": (),
        "0": ("model.dropout=0",),
        "everywhere": ("model.input_dropout=0.1", "model.node_dropout=0.1"),
    },
    "window": {"8": (), "all": ("model.wp=-1", "model.wf=-1"), "none": ("model.wp=0", "model.wf=0")},
    "views": {
        "default": (),
        "plain": (
            "model.contrastive.feature_mask=0", "model.contrastive.edge_perturbation=0", "model.contrastive.neighbours=0",
        ),
    },
    "temperature": _values("model.contrastive.temperature", 0.2, 0.04),
    "labels": dict.fromkeys(("single", "partial", "multiple", "multiple, partial"), ()),
    "dialogues": dict.fromkeys(("complete", "without a modality", "of one utterance"), ()),
}  # fmt: skip

Combination = Mapping[str, str]


def default() -> dict[str, str]:
    """Return the first choice of each setting."""
    return {setting: next(iter(choices)) for setting, choices in CHOICES.items()}


def one_at_a_time(setting: str) -> list[dict[str, str]]:
    """Return the other choices of a setting, each with the first choice of all others."""
    return [{**default(), setting: choice} for choice in list(CHOICES[setting])[1:]]


def pairwise(seed: int = 0, candidates: int = 40) -> list[dict[str, str]]:
    """Return combinations in which each choice of a setting occurs with each choice of each other setting.

    Each combination is the best of some random ones, which cover pairs greedily.
    """
    rng = random.Random(seed)
    left = {frozenset(pair) for pair in _all_pairs()}
    found = []
    while left:
        best: dict[str, str] = {}
        gain = 0
        for _ in range(candidates):
            candidate = _greedy(left, rng)
            new = len(left & pairs_of(candidate))
            if new > gain:
                best, gain = candidate, new
        left -= pairs_of(best)
        found.append(best)
    return found


def pairs_of(combination: Combination) -> set[frozenset[tuple[str, str]]]:
    """Return the pairs of choices in a combination."""
    return {frozenset(pair) for pair in itertools.combinations(combination.items(), 2)}


def at_random(count: int, seed: int) -> list[dict[str, str]]:
    """Return random combinations."""
    rng = random.Random(seed)
    return [{setting: rng.choice(list(choices)) for setting, choices in CHOICES.items()} for _ in range(count)]


def _all_pairs() -> Sequence[tuple[tuple[str, str], tuple[str, str]]]:
    return [
        ((a, x), (b, y)) for a, b in itertools.combinations(CHOICES, 2) for x in CHOICES[a] for y in CHOICES[b]
    ]  # fmt: skip


def _greedy(left: set[frozenset[tuple[str, str]]], rng: random.Random) -> dict[str, str]:
    """Return a combination that begins with a pair that is left; each further setting gets the choice of most such pairs."""
    chosen = dict(sorted(rng.choice(sorted(map(sorted, left)))))
    for setting in rng.sample(list(CHOICES), len(CHOICES)):
        if setting not in chosen:
            options = rng.sample(list(CHOICES[setting]), len(CHOICES[setting]))
            chosen[setting] = max(
                options, key=lambda x: sum(frozenset([(setting, x), item]) in left for item in chosen.items())
            )
    return chosen


def settings_of(combination: Combination) -> Settings:
    """Return the settings of a combination."""
    changes: dict[str, Any] = {}
    for setting in CHOICES:  # in this order, so that a preset does not replace a single setting
        changes |= _changes(CHOICES[setting][combination[setting]])
    config = _flat(BASE) | changes
    if combination["dialogues"] == "of one utterance":
        config["training.batch_size"] = 1
    nested: dict[str, Any] = {}
    for name, value in config.items():
        *sections, last = name.split(".")
        functools.reduce(lambda node, section: node.setdefault(section, {}), sections, nested)[last] = value
    return check(nested)


def dataset_of(combination: Combination, settings: Settings) -> DialogueDataset:
    """Return the data of a combination."""
    data = load(settings.data, settings.modality_names)
    labels, classes = combination["labels"], len(data.labels)
    splits = {}
    for split, part in data.splits.items():
        values: np.ndarray = part.labels
        if labels.startswith("multiple"):
            values = np.eye(classes, dtype=np.float32)[values]
        if labels.endswith("partial"):  # the first dialogue of train has no label, so a batch may have none
            values = values.copy()
            values[: part.lengths[0] if split == "train" else 1] = -1
        changed = replace(part, labels=values)
        if combination["dialogues"] == "without a modality":
            changed = _without_modality(changed, settings.modality_names[-1])
        splits[split] = _of_one_utterance(changed) if combination["dialogues"] == "of one utterance" else changed
    return replace(data, splits=splits, multilabel=labels.startswith("multiple"))


def _without_modality(part: Dialogues, modality: str) -> Dialogues:
    missing = np.arange(len(part.speakers)) == 1
    features = {name: np.where(missing[:, None] & (name == modality), 0, x) for name, x in part.features.items()}
    return replace(part, features=features, missing={modality: missing})


def _of_one_utterance(part: Dialogues) -> Dialogues:
    """Split the first dialogue, if it is longer, after its first utterance."""
    first, *rest = map(int, part.lengths)
    lengths = [1, *([first - 1] if first > 1 else []), *rest]
    return replace(part, lengths=np.array(lengths), ids=tuple(map(str, range(len(lengths)))))


@functools.cache
def _flat(overrides: tuple[str, ...]) -> dict[str, Any]:
    def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for name, value in values.items():
            flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
        return flat

    return flatten(compose_plain(overrides)[0])


@functools.cache
def _changes(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Return what these overrides change, so that a combination need not be composed by Hydra."""
    changes: dict[str, Any] = {}
    for override in overrides:
        name, text = override.split("=")
        if "." in name:
            changes[name] = yaml.safe_load(text)
        else:  # a group
            composed = _flat((*BASE, override))
            changes |= {key: value for key, value in composed.items() if _flat(BASE).get(key) != value}
    return changes
