"""How much disk a run and a sweep will need, from the settings and the widths of the data alone, without torch.

`tests/faults/test_disk_full.py` holds the count of parameters against the models, and the estimate against runs: it is never
below what a run leaves, and at most half as much again (for a tiny run, whose files are mostly fixed parts: twice).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from joyful.config import Settings
from joyful.records import InputError

#: Bytes of a run's texts (run.json, .hydra/, logs), of the heads of its tensor files and of the ends of its files' last blocks.
FIXED = 96 * 2**10

#: Bytes of a row of history.parquet and of its share of timing.parquet.
ROW = 420

#: Bytes of an empty study with its write-ahead log, of a trial in it, and of one of its epochs.
STUDY, TRIAL, EPOCH = 5 * 2**20, 8 * 2**10, 160


class NoRoomError(InputError):
    """The disk has less room than will be needed."""


@dataclass(frozen=True)
class Need:
    """kept: bytes that a run leaves. passing: bytes that it needs beside them while it writes: the new file next to the old."""

    kept: int
    passing: int


def run_need(settings: Settings, dimensions: Mapping[str, int], classes: int, n_speakers: int) -> Need:
    """What one run needs. dimensions: modality -> width, of the modalities that it is trained on."""
    trained = parameters(settings, dimensions, classes, n_speakers)
    m, t = settings.model, settings.training
    unused = _linear(width := sum(dimensions.values()), width // 2) + _linear(width // 2, len(dimensions))
    unused = unused if m.modal_attention and settings.fusion.name == "hierarchical" else 0
    model = trained + unused + 2 * width + 2 * m.hidden_size * m.graph_heads
    o = settings.optimizer
    states = {"adam": 2, "adamw": 2, "sgd": int(o.momentum > 0), "rmsprop": 1 + int(o.momentum > 0)}[o.name]
    last = 4 * (model + (states + int(t.moving_average > 0)) * trained)
    history = ROW * t.epochs * (2 * t.evaluations_per_epoch + 1)
    return Need(kept=last + 4 * model + history + FIXED, passing=last + history)


def parameters(settings: Settings, dimensions: Mapping[str, int], classes: int, n_speakers: int) -> int:
    """Trained parameters of the model, counted as joyful.model.graph_model builds it."""
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
    """Bytes of a study in SQLite."""
    return STUDY + trials * (TRIAL + EPOCH * epochs)


def check_room(folder: Path, need: int, what: str, way: str) -> str:
    """What is needed and free, in a line. need: bytes; what: for whom; way: how to choose another folder.

    Raises NoRoomError where less is free.
    """
    place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    line = f"{what} needs about {_shown(need)} of disk in {folder}, {_shown(free)} are free"
    if free < need:
        raise NoRoomError(f"{line}; free some space, or choose another folder by {way}")
    return line


def size(folder: Path) -> int:
    """Bytes that a folder's files take."""
    total = 0
    for path in folder.rglob("*") if folder.is_dir() else ():
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue  # it went away just now
    return total


def _shown(size: int) -> str:
    if size < 10**6:
        return f"{max(1, round(size / 10**3))} kB"
    return f"{size / 10**6:.0f} MB" if size < 10**10 else f"{size / 10**9:.0f} GB"
