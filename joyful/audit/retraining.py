"""Train a run of joyful's own trainer again, from the configuration that its run.json records."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from joyful.config import check, config_hash
from joyful.records import InputError, Request

#: Packages that training needs.
PACKAGES = ("torch", "safetensors")


def is_own(info: Mapping[str, Any]) -> bool:
    """Return whether joyful's trainer wrote a run.

    Args:
        info: Content of its run.json.
    """
    config = info.get("config") or {}
    return isinstance(info.get("threads"), int) and all(name in config for name in ("data", "model", "training"))


def missing_packages() -> list[str]:
    """Return the packages of PACKAGES that are not installed."""
    return [package for package in PACKAGES if find_spec(package) is None]


def train(info: Mapping[str, Any], folder: Path, data_root: Path | None = None) -> None:
    """Train a run again, on the recorded kind of device and with the recorded threads.

    Args:
        info: Content of its run.json.
        folder: Folder to write to.
        data_root: Folder of the dataset in place of the recorded one, or None.

    Raises:
        InputError: If the configuration is not valid here, or not the one of its hash, or the data are not those of the run.
        Exception: The errors of `joyful.training.experiment.train_run`.
    """
    from joyful.data.description import data_digest
    from joyful.data.loading import load
    from joyful.training import experiment

    recorded = check(info["config"])
    if config_hash(recorded) != info.get("config_hash"):
        raise InputError("its config_hash is not that of its configuration; one of them was changed")
    settings = check(config := _config(info, data_root))
    digest = (info.get("data") or {}).get("digest")
    if digest is not None:  # runs of 0.1.0 do not record it
        found = data_digest(load(settings.data, settings.modality_names))
        if found != digest:
            raise InputError(
                f"expected the data with the digest {digest}, got {found}; set --data-root to the same data"
            )
    request = Request(config, dict(info.get("choices") or {}), tuple(config), folder, multirun=False)
    experiment.train_run(request, _Silent())


class _Silent:
    """An observer that lets the run continue. With an observer, a run prints no table at its end."""

    def evaluated(self, record: Any, best: Mapping[str, float]) -> bool:
        return True


def _config(info: Mapping[str, Any], data_root: Path | None) -> dict[str, Any]:
    """Return the recorded configuration with its threads, its kind of device if there is one, and the places of here."""
    import torch

    config = dict(info["config"])
    cuda = info.get("device") != "cpu" and torch.cuda.is_available()
    config |= {"resume": None, "device": "cuda" if cuda else "cpu"}
    config["training"] = {**config["training"], "threads": info["threads"]}
    places = {"cache": None} | ({} if data_root is None else {"root": str(data_root)})
    return config | {"data": {**config["data"], **places}}
