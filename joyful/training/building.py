"""The model and the device of a run."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from joyful.config import Settings
from joyful.model.joyful import FUSIONS, GraphModel, initialise
from joyful.records import DialogueDataset, InputError
from joyful.training.objective import reconstruction_criterion


def build_model(settings: Settings, data: DialogueDataset) -> GraphModel:
    """Return the model for a dataset. Its initial weights are a function of the seed.

    Raises:
        InputError: If sizes in the settings do not fit together.
    """
    model = empty_model(settings, data.dimensions, len(data.labels), data.n_speakers)
    initialise(model, settings.seed)
    return model


def empty_model(settings: Settings, dimensions: Mapping[str, int], n_classes: int, n_speakers: int) -> GraphModel:
    """Return the model for the sizes of the data, with weights to be set.

    Args:
        settings: The settings of the run.
        dimensions: Modality -> feature width, for the modalities that are used.
        n_classes: Number of classes.
        n_speakers: Number of speaker slots.

    Raises:
        InputError: If sizes in the settings do not fit together.
    """
    n_unimodal = settings.fusion.ulgm_hidden_size if settings.fusion.use_ulgm else 0
    try:
        criterion = reconstruction_criterion(settings.loss, tuple(dimensions))
        fusion = FUSIONS[settings.fusion.name].from_settings(settings, dimensions, criterion)
        return GraphModel(settings.model, fusion, n_classes, n_speakers, n_unimodal)
    except ValueError as error:
        raise InputError(str(error)) from None


def choose_device(name: str) -> torch.device:
    """Return the device for the setting `device`: "auto", "cpu" or "cuda". "auto" prefers CUDA.

    Raises:
        InputError: If `name` is "cuda" and no CUDA device is available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device=cuda: expected a CUDA device, found none; set device=auto or device=cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
