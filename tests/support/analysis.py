"""Simulated sweeps in the results format, without any training: for tests, benchmarks and examples.

A run's dev weighted F1 rises as ceiling · (1 - exp(-epoch / τ)) with independent jitter; its train losses fall by the
same clock. The runs of a pair share part of their luck (in τ and ceiling) through the seed.
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

from joyful.results import HISTORY, RUN, SCHEMA, TIMING
from joyful.results.tables import history_bytes_of_columns, timing_bytes

#: Group choice -> the settings that it sets, as conf/ has them.
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
    """What is true of an arm.

    overrides: group choices and settings by dotted name ({"loss": "mse", "weights.encoder_loss_weight": 0.05}).
    tau: epochs in which the curves cover 63 % of their way. ceiling: of dev weighted F1, 0 to 1. jitter: standard
    deviation of one evaluation's F1 (and of its NLL). loss: factor of all final train losses. ratio: encoder gradient
    ratio. luck: standard deviation over seeds of ln(tau), half of its variance shared in a pair.
    """

    overrides: Mapping[str, Any] = field(default_factory=dict)
    tau: float = 4.0
    ceiling: float = 0.62
    jitter: float = 0.005
    loss: float = 1.0
    ratio: float = 0.01
    luck: float = 0.1


#: The note's two arms; the second as much better as the note says.
NOTE_ARMS = (
    Truth({"loss": "mse", "weights": "baseline"}),
    Truth({"loss": "smoothl1", "weights": "basic"}, tau=3.33, ceiling=0.635, jitter=0.0033, loss=0.85, ratio=0.002),
)


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
    """Write a paired sweep: a run per arm and seed (and fold), calibration runs of the first arm. `seed`: of the luck."""
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
    """Columns of a history: train rows at whole epochs, dev and test rows at every evaluation."""
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
        left = np.exp(-epoch / tau)
        offset = {"train": 0.05, "dev": 0.0, "test": -0.01}[split]
        f1 = np.clip((ceiling + offset) * (1 - left) + truth.jitter * own.normal(size=len(epoch)), 0, 1)
        nll = truth.loss * (0.9 + left) * np.exp(truth.jitter * own.normal(size=len(epoch)))
        recon = truth.loss * (0.4 + 0.6 * left) * np.exp(0.01 * own.normal(size=len(epoch)))
        smooth = "smoothl1" in truth.overrides.values()
        encoder = recon / 2 if smooth else recon
        weight = float(truth.overrides.get("weights.encoder_loss_weight", 0.03 if smooth else 0.05))
        contrast, gate = 4 * (0.5 + left), 0.1 * (1 + left)
        total = nll + weight * encoder + 0.2 * contrast + 0.01 * gate
        ratio = truth.ratio * np.exp(0.1 * own.normal(size=len(epoch)))
        at = np.full(len(epoch), np.nan) if split == "test" else ratio
        columns = {
            "f1_weighted": f1, "f1_macro": 0.9 * f1, "accuracy": np.minimum(1, f1 + 0.01), "nll": nll,
            "recon_mse": recon, "recon_mae": 0.8 * np.sqrt(recon), "loss_total": total, "loss_classification": nll,
            "loss_contrastive": contrast, "loss_encoder": encoder, "loss_gate_reg": gate,
            "weight_classification": np.ones(len(epoch)), "weight_contrastive": np.full(len(epoch), 0.2),
            "weight_encoder": np.full(len(epoch), weight), "weight_gate_reg": np.full(len(epoch), 0.01),
            "share_classification": nll / total, "share_contrastive": 0.2 * contrast / total,
            "share_encoder": weight * encoder / total, "share_gate_reg": 0.01 * gate / total,
            "encoder_gradient_ratio": at, "encoder_gradient_cosine": 0.05 * np.where(np.isnan(at), np.nan, left),
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
) -> None:
    """One run folder: run.json, history.parquet, timing.parquet (None: no such file). Not fsynced: it is a test's."""
    config, choices = configuration({**(overrides or {}), "seed": seed})
    data = history_bytes_of_columns(columns)
    info = {
        "schema": SCHEMA, "status": status, "reason": reason, "objective": None, "objective_name": "best dev f1_weighted",
        "seed": seed, "role": config["role"], "epochs": config["training"]["epochs"], "config_hash": "0" * 16,
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
    """(config, choices) as a run of conf/ under these overrides has them, with fewer settings."""
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
