"""The network of a saved model, with the weights of its best evaluation.

It computes with one thread by default. The numbers then do not depend on the cores of the machine, and another busy process
costs little: 10,000 utterances take 0.4 s of model=small on one thread.

Shape letters: B dialogues, N utterances, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from joyful.config import Settings, check
from joyful.model.joyful import standardisation_means
from joyful.prediction.saved import CONFIG, WEIGHTS, SavedModel
from joyful.records import Dialogues, InputError, first_line_of, one_line
from joyful.training import checkpoints
from joyful.training.batching import DeviceSplit, batch_size
from joyful.training.building import model_without_memory
from joyful.training.memory import is_out_of_memory

#: How often a checkpoint is read that a running training replaces meanwhile.
_ATTEMPTS = 5

#: The weights of the relational graph convolution, whose first dimension is 2 S^2 for S speakers.
_RELATIONS = "graph_conv.weight"


class Network:
    """A model that predicts.

    Args:
        saved: The model on disk.
        device: Where it computes.
        threads: Number of CPU threads.

    Raises:
        InputError: If its weights are damaged or do not fit its configuration, its configuration is not valid here, or the
            device has no memory for the weights.

    Attributes:
        speakers: S, the largest number of speakers in a dialogue.
    """

    def __init__(self, saved: SavedModel, device: torch.device, threads: int = 1) -> None:
        self.device, self.threads = device, threads
        try:
            self._settings: Settings = check(saved.config)
        except InputError as error:
            raise InputError(f"{saved.folder}: its configuration is not valid for this version ({error})") from None
        weights = read_weights(saved)
        try:
            self.speakers = saved.data.speakers or isqrt(weights[_RELATIONS].shape[0] // 2)
            # sizes are compared with the weights before memory is taken
            sizes = saved.data.dimensions, len(saved.data.labels), self.speakers
            self._model = model_without_memory(self._settings, *sizes)
            _check_types(self._model, weights)
            self._model.load_state_dict(weights, assign=True)
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{saved.folder}: expected weights that fit its configuration, got others ({first_line_of(error)}); restore"
                " its files from a copy"
            ) from None
        try:
            self._model.to(device).eval()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(f"{saved.folder}: out of memory for its weights; set device=cpu") from None

    def logits(self, dialogues: Dialogues) -> Tensor:
        """Return the logits of all utterances, (N, C) float32.

        The dialogues are computed in batches of training.batch_size, as in the evaluations of the run.

        Args:
            dialogues: The dialogues, with at least the modalities of the model.

        Raises:
            InputError: If memory runs out. The message has the length of the longest dialogue.
        """
        elsewhere = ", or set device=cpu" if self.device.type == "cuda" else ""
        try:
            return self._logits(dialogues)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            longest = max(dialogues.lengths)
            raise InputError(
                f"out of memory; the longest dialogue has {longest} utterances; split it{elsewhere}"
            ) from None

    def _logits(self, dialogues: Dialogues) -> Tensor:
        modalities = tuple(self._model.fusion.dimensions)
        data = DeviceSplit(dialogues, modalities, self.speakers, self.device)
        data.fill_missing(standardisation_means(self._model))
        with torch.inference_mode(), _as_in_training(self.threads):
            parts = []
            for batch in data.batches_in_order(batch_size(self._settings.training.batch_size, len(data))):
                with self._autocast():
                    parts.append(self._model(batch).logits)
            return torch.cat(parts)

    def _autocast(self) -> Any:
        if self._settings.training.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _check_types(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError if a weight has another type than the model."""
    for name, value in model.state_dict().items():
        if name in weights and weights[name].dtype != value.dtype:
            raise RuntimeError(f"{name} has the type {weights[name].dtype}, not {value.dtype}")


def read_weights(saved: SavedModel) -> dict[str, Tensor]:
    """Return the weights of the best evaluation of a model, on the host.

    Raises:
        InputError: If they are damaged or missing.
    """
    return _exported_weights(saved) if saved.exported else _best_checkpoint(saved)


def _exported_weights(saved: SavedModel) -> dict[str, Tensor]:
    path = saved.folder / WEIGHTS
    try:
        return checkpoints.read_tensors(path, saved.tensors)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"{path}: expected the weights that {CONFIG} names, got others ({one_line(error)}); export the model again"
        ) from None


def _best_checkpoint(saved: SavedModel) -> dict[str, Tensor]:
    folder = saved.folder / "checkpoint"
    names = folder / f"{checkpoints.BEST}.json"
    for attempt in range(_ATTEMPTS):
        try:
            before = names.read_bytes()
            checkpoint = checkpoints.read(folder, checkpoints.BEST)
            break
        except InputError:
            # a running training may have replaced the files between the two reads
            if attempt == _ATTEMPTS - 1 or names.read_bytes() == before:
                raise
        except OSError as error:
            raise InputError(f"{folder} cannot be read ({error.strerror}); check its permissions") from None
    if checkpoint is None:
        raise InputError(f"{names}: it is missing; expected the weights of the best evaluation")
    return checkpoint.part("model.")


def probabilities(logits: Tensor, multilabel: bool) -> np.ndarray:
    """Return the probabilities of the classes, (N, C) float64 on the host.

    Args:
        logits: (N, C).
        multilabel: Whether each class has its own probability. Otherwise those of an utterance sum to 1.
    """
    values = logits.detach().cpu().double()
    result: np.ndarray = (values.sigmoid() if multilabel else values.softmax(dim=1)).numpy()
    return result


def mean_probabilities(networks: list[Network], dialogues: Dialogues, multilabel: bool) -> np.ndarray:
    """Return the mean of the probabilities of several networks, (N, C) float64."""
    total = sum(probabilities(network.logits(dialogues), multilabel) for network in networks)
    return np.asarray(total) / len(networks)


def without_labels(dialogues: Dialogues, n_classes: int, multilabel: bool) -> Dialogues:
    """Return the dialogues with all utterances unlabelled."""
    n = len(dialogues.speakers)
    labels = np.full((n, n_classes), -1, np.float32) if multilabel else np.full(n, -1, np.int64)
    return replace(dialogues, labels=labels)


@contextmanager
def _as_in_training(threads: int) -> Iterator[None]:
    """Use a number of threads and the deterministic algorithms of training for the block."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with such a workspace
    deterministic, before = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True) imports the compiler, for a second
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
