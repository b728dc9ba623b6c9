"""Estimate the disk space of a run and of a sweep from the settings and the widths of the data, without torch.

`tests/faults/test_disk_full.py` compares the number of parameters with the models, and the estimate with runs. The
estimate is never below the size of a run's files and at most 1.5 times as large; for tiny runs, whose files have mostly
fixed parts, at most twice as large.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from joyful.config import Settings
from joyful.records import InputError

#: Bytes of a run's text files (run.json, .hydra/, logs), of the headers of its tensor files, and of partly filled
#: blocks.
FIXED = 96 * 2**10

#: Bytes of a row of history.parquet and of its part of timing.parquet.
ROW = 420

#: Bytes of an empty Optuna study with its write-ahead log, of a trial, and of an epoch of a trial.
STUDY, TRIAL, EPOCH = 5 * 2**20, 8 * 2**10, 160


class DiskSpaceError(InputError):
    """There is not enough free disk space."""


@dataclass(frozen=True)
class DiskNeed:
    """The disk space of a run in bytes.

    Attributes:
        permanent: Size of the files that the run leaves.
        temporary: Additional space while a new file is written before it replaces the old one.
    """

    permanent: int
    temporary: int


def run_need(settings: Settings, dimensions: Mapping[str, int], classes: int, n_speakers: int) -> DiskNeed:
    """Estimate the disk space of one run.

    Args:
        settings: The settings of the run.
        dimensions: Modality -> feature width, for the modalities that are used.
        classes: Number of classes.
        n_speakers: Number of speakers.
    """
    trained = parameter_count(settings, dimensions, classes, n_speakers)
    m, t = settings.model, settings.training
    unused = _linear(width := sum(dimensions.values()), width // 2) + _linear(width // 2, len(dimensions))
    unused = unused if m.modal_attention and settings.fusion.name == "hierarchical" else 0
    model = trained + unused + 2 * width + 2 * m.hidden_size * m.graph_heads
    o = settings.optimizer
    states = {"adam": 2, "adamw": 2, "sgd": int(o.momentum > 0), "rmsprop": 1 + int(o.momentum > 0)}[o.name]
    last = 4 * (model + (states + int(t.moving_average > 0)) * trained)
    history = ROW * t.epochs * (2 * t.evaluations_per_epoch + 1)
    return DiskNeed(permanent=last + 4 * model + history + FIXED, temporary=last + history)


def parameter_count(settings: Settings, dimensions: Mapping[str, int], classes: int, n_speakers: int) -> int:
    """Return the number of trained parameters of the model that joyful.model.graph_model builds (see `run_need`)."""
    m, fusion = settings.model, settings.fusion
    features, modalities = sum(dimensions.values()), len(dimensions)
    inter, hidden, latent = m.inter_size, m.fusion_hidden_size, m.fusion_latent_size

    def half(width: int) -> int:  # of an autoencoder
        return _linear(width, hidden) + _linear(hidden, latent)

    def autoencoder(width: int) -> int:
        return half(width) + _linear(latent, hidden) + _linear(hidden, width)

    count = autoencoder(features) + autoencoder(inter * modalities)
    count += sum(_linear(width, inter) for width in dimensions.values()) + _linear(inter, inter)
    if fusion.name == "hierarchical":
        count += _linear(features, latent) + 3 * _linear(2 * latent, latent) + latent
    width = 2 * latent + m.speaker_embedding
    if m.skip:
        width += latent if m.skip_projection else features
        count += _linear(features, latent) if m.skip_projection else 0
    h, wide = m.hidden_size, m.hidden_size * m.graph_heads
    count += n_speakers * m.speaker_embedding
    count += _context(settings, width)
    count += (2 * n_speakers**2 + 1) * h * h + h + 4 * _linear(h, wide) + 2 * wide
    joined = wide + (h if m.concat_gin_gout else 0) + (features if m.classifier_skip else 0)
    count += 2 * _linear(joined, joined) if m.use_highway else 0
    count += _linear(joined, h) + _linear(h, classes)
    if fusion.use_ulgm:
        units = fusion.ulgm_hidden_size
        count += sum(_linear(d, units) + _linear(units, classes) for d in dimensions.values())
    return count


def _context(settings: Settings, width: int) -> int:
    m = settings.model
    h, layers = m.hidden_size, m.context_layers
    if m.context == "transformer":
        forward = m.context_feedforward_size
        layer = _linear(width, 3 * width) + _linear(width, width) + 4 * width
        return layers * (layer + _linear(width, forward) + _linear(forward, width)) + _linear(width, h)
    gates = {"lstm": 4, "gru": 3}[m.context]
    sizes = [width, *[2 * h] * (layers - 1)]
    return sum(2 * gates * h * (size + h + 2) for size in sizes) + _linear(2 * h, h)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def study_need(trials: int, epochs: int) -> int:
    """Return the bytes of an Optuna study in SQLite with so many trials, each with so many epochs."""
    return STUDY + trials * (TRIAL + EPOCH * epochs)


def check_disk_space(folder: Path, need: int, user: str, setting: str) -> str:
    """Check that a folder has enough free disk space.

    Args:
        folder: The folder to write to. It need not exist yet.
        need: Required bytes.
        user: What needs the space, as the subject of the message.
        setting: The setting that chooses another folder, for the error message.

    Returns:
        One line with the required and the free space.

    Raises:
        DiskSpaceError: If less than `need` is free.
    """
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    line = f"{user} needs about {_format_size(need)} of disk in {folder}, {_format_size(free)} are free"
    if free < need:
        raise DiskSpaceError(f"{line}; free some space, or choose another folder with {setting}")
    return line


def folder_size(folder: Path) -> int:
    """Return the disk space of the files in a folder in bytes; 0 if the folder does not exist."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue  # removed in the meantime
    return total


def _format_size(size: int) -> str:
    if size < 10**6:
        return f"{max(1, round(size / 10**3))} kB"
    return f"{size / 10**6:.0f} MB" if size < 10**10 else f"{size / 10**9:.0f} GB"
