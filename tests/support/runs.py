"""Runs with a tiny dataset and model, on the same code paths as any other run."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from joyful.config import Settings, check
from joyful.data.loading import load
from joyful.records import Request
from joyful.training.coach import Coach
from joyful.training.experiment import build_coach

CONF = Path(__file__).resolve().parents[2] / "conf"

#: Overrides of a run that takes a fraction of a second.
TINY = (
    "data.synthetic.dialogues={train: 7, dev: 3, test: 3}",
    "data.synthetic.utterances=6",
    "data.synthetic.dimensions={audio: 5, text: 9, visual: 7}",
    "model.inter_size=8",
    "model.fusion_hidden_size=12",
    "model.fusion_latent_size=6",
    "model.hidden_size=8",
    "model.context_feedforward_size=16",
    "model.context_heads=2",
    "training.batch_size=2",
    "training.epochs=3",
    "training.threads=1",
)


def compose_plain(overrides: Sequence[str] = ()) -> tuple[dict[str, object], dict[str, str]]:
    """Return the resolved configuration of conf/ with overrides, and Hydra's group choices.

    A composition takes 0.15 s. Tests of a process that ask for the same one share it, each with a copy of its own.
    """
    GlobalHydra.instance().clear()
    surroundings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("JOYFUL_")))
    return copy.deepcopy(_composed(tuple(overrides), surroundings))


@functools.lru_cache(maxsize=500)
def _composed(
    overrides: tuple[str, ...], surroundings: tuple[tuple[str, str], ...]
) -> tuple[dict[str, object], dict[str, str]]:
    with initialize_config_module("joyful.conf"):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
        choices = {
            k: str(v) for k, v in config.hydra.runtime.choices.items() if not k.startswith("hydra/") and v is not None
        }
        plain = OmegaConf.to_container(
            OmegaConf.masked_copy(config, [str(k) for k in config if k != "hydra"]), resolve=True
        )
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}, choices


def sweep_defaults() -> dict[str, Any]:
    """Return the settings in the file of hydra/sweeper=optuna_pruned."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / "hydra/sweeper/optuna_pruned.yaml"))
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items() if k not in ("defaults", "_target_")}


def tiny_settings(*overrides: str) -> Settings:
    """Return the validated settings of a tiny run."""
    return check(compose_plain([*TINY, *overrides])[0])


def tiny_request(folder: Path, *overrides: str) -> Request:
    """Return the request of a tiny run that writes to `folder`."""
    config, choices = compose_plain([*TINY, *overrides])
    names = tuple(item.lstrip("+").split("=", 1)[0] for item in (*TINY, *overrides))
    return Request(config, choices, names, folder, multirun=True)


def tiny_coach(settings: Settings, device: str = "cpu") -> Coach:
    """Return a coach with its model and data, built as in `joyful.training.experiment`."""
    data = load(settings.data, settings.modality_names)
    return build_coach(settings, data, torch.device(device))
