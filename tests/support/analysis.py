"""Simulated sweeps in the results format, without training, for tests, benchmarks and examples.

The dev weighted F1 of a run rises as ceiling · (1 - exp(-epoch / τ)) with independent jitter. Its train losses fall
with the same time constant. The τ and the ceiling are random, and the two runs of a pair share part of this variation.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from joyful.analysis.page.parts import Page
from joyful.results import HISTORY, RUN, SCHEMA, TIMING
from joyful.results.schema import column_order
from joyful.results.tables import columns_bytes, timing_bytes

#: Group -> choice -> settings, as in conf/.
_GROUPS: dict[str, dict[str, dict[str, Any]]] = {
    "loss": {name: {"name": name, "beta": 1.0} for name in ("mse", "smoothl1", "weighted_mse")},
    "weights": {
        name: {"encoder_loss_weight": weight, "cl_loss_weight": 0.2, "gate_reg_weight": 0.01}
        for name, weight in (("baseline", 0.05), ("basic", 0.03))
    },
}

_CONFIG: dict[str, Any] = {
    "data": {"source": "synthetic", "name": "synthetic", "root": None, "fold": None},
    "modalities": "atv",
    "fusion": {"name": "hierarchical", "intermodal": "auto", "use_ulgm": False},
    "model": {"name": "small", "hidden_size": 64, "dropout": 0.3, "learning_rate": 0.001, "standardise": True},
    "classification": {"name": "nll", "gamma": 2.0, "alpha": 1.0},
    "weighting": {"name": "fixed", "momentum": 0.9, "every": 10},
    "optimizer": {"name": "adam", "learning_rate": 0.001, "weight_decay": 1e-08},
    "training": {"epochs": 20, "batch_size": 32, "evaluations_per_epoch": 1, "early_stopping": 0, "threads": 1},
    "device": "cpu",
}


@dataclass(frozen=True)
class Truth:
    """True parameters of a simulated arm.

    Attributes:
        overrides: Group choices and settings, such as {"loss": "mse", "weights.encoder_loss_weight": 0.05}.
        tau: Time constant of the curves in epochs.
        ceiling: Limit of the dev weighted F1, from 0 to 1.
        jitter: Standard deviation of the F1 of one evaluation, and of ln NLL.
        loss: Factor of the train losses.
        ratio: Encoder gradient ratio.
        luck: Standard deviation of ln(tau) over seeds. The runs of a pair share half of its variance.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    tau: float = 4.0
    ceiling: float = 0.62
    jitter: float = 0.005
    loss: float = 1.0
    ratio: float = 0.01
    luck: float = 0.1


#: The two arms of the basic optimisation, with differences as large as its claims state.
NOTE_ARMS = (
    Truth({"loss": "mse", "weights": "baseline"}),
    Truth({"loss": "smoothl1", "weights": "basic"}, tau=3.33, ceiling=0.635, jitter=0.0033, loss=0.85, ratio=0.002),
)


def remarks(page: Page) -> str:
    """Return what a page says of the comparison: its arms, its design and the notes on its runs."""
    return " ".join(text for section in page.sections if section.key == "compared" for text in section.text)


def simulate_sweep(
    folder: Path,
    arms: Sequence[Truth] = NOTE_ARMS,
    seeds: Sequence[int] = range(1, 11),
    *,
    calibration: Sequence[int] = (9000, 9001, 9002),
    epochs: int = 20,
    evaluations_per_epoch: int = 4,
    folds: Sequence[int] = (),
    seed: int = 0,
) -> None:
    """Write a paired sweep with one run per arm, seed and fold, and calibration runs of the first arm.

    `seed` is the seed of the simulation.
    """
    number = 0
    for role, arm, run_seed in [
        *(("calibration", 0, s) for s in calibration),
        *(("comparison", a, s) for s in seeds for a in range(len(arms))),
    ]:
        for fold in folds or (None,):
            overrides = {**arms[arm].overrides, "training.epochs": epochs, "role": role}
            overrides |= {"training.evaluations_per_epoch": evaluations_per_epoch, "data.fold": fold}
            shared = np.random.default_rng([seed, run_seed, 0 if fold is None else fold + 1])
            own = np.random.default_rng([seed, run_seed, arm, 0 if fold is None else fold + 1, 7])
            columns = history(arms[arm], epochs, evaluations_per_epoch, shared, own)
            write_run(folder / str(number), columns, overrides, seed=run_seed)
            number += 1


def history(
    truth: Truth, epochs: int, evaluations_per_epoch: int, shared: np.random.Generator, own: np.random.Generator
) -> dict[str, Any]:
    """Return the columns of a history, with train rows at whole epochs and dev and test rows at every evaluation."""
    luck = truth.luck * (shared.normal() + own.normal()) / np.sqrt(2)
    ceiling = truth.ceiling + 0.005 * shared.normal() + 0.003 * own.normal()
    tau = truth.tau * np.exp(luck)
    count = epochs * evaluations_per_epoch
    step = np.arange(1, count + 1)
    rows: dict[str, list[Any]] = {"step": [], "epoch": [], "split": []}
    parts: dict[str, list[np.ndarray]] = {}
    for split in ("train", "dev", "test"):
        chosen = step[step % evaluations_per_epoch == 0] if split == "train" else step
        epoch = chosen / evaluations_per_epoch
        decay = np.exp(-epoch / tau)
        offset = {"train": 0.05, "dev": 0.0, "test": -0.01}[split]
        f1 = np.clip((ceiling + offset) * (1 - decay) + truth.jitter * own.normal(size=len(epoch)), 0, 1)
        nll = truth.loss * (0.9 + decay) * np.exp(truth.jitter * own.normal(size=len(epoch)))
        recon = truth.loss * (0.4 + 0.6 * decay) * np.exp(0.01 * own.normal(size=len(epoch)))
        is_smooth = "smoothl1" in truth.overrides.values()
        encoder = recon / 2 if is_smooth else recon
        weight = float(truth.overrides.get("weights.encoder_loss_weight", 0.03 if is_smooth else 0.05))
        contrast, gate = 4 * (0.5 + decay), 0.1 * (1 + decay)
        total = nll + weight * encoder + 0.2 * contrast + 0.01 * gate
        ratio = truth.ratio * np.exp(0.1 * own.normal(size=len(epoch)))
        ratios = np.full(len(epoch), np.nan) if split == "test" else ratio
        columns = {
            "f1_weighted": f1, "f1_macro": 0.9 * f1, "accuracy": np.minimum(1, f1 + 0.01), "nll": nll,
            "recon_mse": recon, "recon_mae": 0.8 * np.sqrt(recon), "loss_total": total, "loss_classification": nll,
            "loss_contrastive": contrast, "loss_encoder": encoder, "loss_gate_reg": gate,
            "weight_classification": np.ones(len(epoch)), "weight_contrastive": np.full(len(epoch), 0.2),
            "weight_encoder": np.full(len(epoch), weight), "weight_gate_reg": np.full(len(epoch), 0.01),
            "share_classification": nll / total, "share_contrastive": 0.2 * contrast / total,
            "share_encoder": weight * encoder / total, "share_gate_reg": 0.01 * gate / total,
            "encoder_gradient_ratio": ratios,
            "encoder_gradient_cosine": 0.05 * np.where(np.isnan(ratios), np.nan, decay),
            "lr": np.full(len(epoch), 0.001),
        }  # fmt: skip
        rows["step"] += chosen.tolist()
        rows["epoch"] += epoch.tolist()
        rows["split"] += [split] * len(epoch)
        for name, values in columns.items():
            parts.setdefault(name, []).append(values)
    return rows | {name: np.concatenate(values) for name, values in parts.items()}


def write_run(
    folder: Path,
    columns: Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
    *,
    seed: int = 1,
    status: str = "completed",
    reason: str | None = None,
    seconds_per_epoch: float | None = 2.0,
    data_digest: str = "d" * 16,
) -> None:
    """Write a run folder: run.json, history.parquet and, unless `seconds_per_epoch` is None, timing.parquet."""
    config, choices = configuration({**(overrides or {}), "seed": seed})
    missing = [None] * len(columns["step"])
    data = columns_bytes({name: columns.get(name, missing) for name in column_order(set(columns))})
    info = {
        "schema": SCHEMA, "status": status, "reason": reason, "objective": None, "objective_name": "best dev f1_weighted",
        "seed": seed, "role": config["role"], "epochs": config["training"]["epochs"], "config_hash": "0" * 16,
        "data": {"name": "simulated", "digest": data_digest, "dimensions": {}, "text_encoder": None, "labels": []},
        "git": {"commit": None, "dirty": None}, "versions": {}, "device": "cpu", "threads": 1,
        "started": "2026-01-31T12:00:00+00:00", "host": "simulated", "choices": choices, "config": config,
        "history_sha256": [hashlib.sha256(data).hexdigest()],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HISTORY).write_bytes(data)
    (folder / RUN).write_text(json.dumps(info, indent=2))
    if seconds_per_epoch is not None:
        epochs = sorted(set(columns["epoch"]))
        spans = np.diff([0.0, *epochs]) * seconds_per_epoch
        rows = [
            {"epoch": epoch, "phase": phase, "seconds": share * span}
            for epoch, span in zip(epochs, spans, strict=True)
            for phase, share in (("train", 0.8), ("evaluate", 0.2))
        ]
        (folder / TIMING).write_bytes(timing_bytes(rows))


def configuration(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the configuration and the group choices of a run with these overrides, with fewer settings than conf/."""
    choices = {"data": "synthetic", "model": "small", "loss": "mse", "weights": "basic", "weighting": "fixed"}
    choices |= {name: str(value) for name, value in overrides.items() if name in choices}
    config = copy.deepcopy(_CONFIG) | {"role": "comparison", "seed": 1}
    for group, settings in _GROUPS.items():
        config[group] = dict(settings[choices[group]])
    for name, value in overrides.items():
        if name not in choices:
            *path, last = name.split(".")
            section = config
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
    return config, choices
