"""Records shared by all packages, helpers for messages, and the shape letters.

Shape letters in names and docstrings of the whole package:

    B dialogues      T utterances of the longest dialogue      N utterances without padding
    D features       H hidden units        C classes           S speakers       R relations      E edges

This module imports neither torch nor pandas, which keeps the readers of results and the command-line help fast.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Letter of each modality on the command line -> its name in data files. Features are concatenated in this order.
MODALITIES: dict[str, str] = {"a": "audio", "t": "text", "v": "visual"}

#: Feature widths of the reference (IEMOCAP). They apply where the input width is given as the single number 1380.
REFERENCE_DIMENSIONS: dict[str, int] = {"audio": 100, "text": 768, "visual": 512}

#: The components of the training loss, in the order in which reports show them.
COMPONENTS: tuple[str, ...] = ("classification", "contrastive", "encoder", "gate_reg")

SPLITS: tuple[str, ...] = ("train", "dev", "test")

#: Names that become folders or files. The pattern excludes path separators and a leading dot.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class InputError(ValueError):
    """Invalid settings or data that the user can correct.

    The program ends with exit code 2 and prints only this message. The message states what was expected, what was given
    and what to set. Given values may be hostile, so control characters in the message are escaped.
    """

    def __init__(self, message: object) -> None:
        super().__init__("\n".join(visible(line) for line in str(message).split("\n")))


class SharedInputError(InputError):
    """Invalid input that all runs of a sweep share, such as a full disk. It is not the fault of one trial."""


def visible(text: str) -> str:
    """Return the text with every unprintable character (control characters, lone surrogates) escaped.

    Example:
        >>> print(visible("a\\tb"))
        a\\tb
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: object, limit: int = 200) -> str:
    """Return the text of a library's error on one line, for use in a message.

    Args:
        text: Converted to a string. Every run of whitespace becomes one space, and unprintable characters are escaped.
        limit: Largest number of characters before escaping; the rest is cut.
    """
    return visible(" ".join(str(text).split())[:limit])


def first_line_of(error: BaseException) -> str:
    """Return the first line of an error's text, formatted by `one_line`; the name of its class if the text is empty."""
    return one_line((str(error).splitlines() or [type(error).__name__])[0])


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, or hours, minutes and seconds.

    Example:
        >>> clock(35.4), clock(3725)
        ('0:35', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def print_error(message: object) -> None:
    """Write a message to standard error, on one line, after the prefix ``joyful:``."""
    # One write including the newline: several processes may share the terminal.
    sys.stderr.write(f"joyful: {visible(' '.join(str(message).split()))}\n")


@dataclass(frozen=True)
class Request:
    """A request to train one run.

    Attributes:
        config: Composed configuration, resolved, as plain containers.
        choices: Hydra's group choices, group -> option.
        overridden: Names of the settings that were overridden on the command line.
        folder: Folder to write to.
        multirun: Whether this run is part of a multirun.
        take_over_after: Seconds to wait for another writer to release the folder's lock before taking the lock over;
            None fails at once if the folder is locked.
        sweep: Folder of the multirun; None if it is not known, or for a single run.
        overrides: The overrides of the command line, for the log of the run.
    """

    config: dict[str, Any]
    choices: dict[str, str]
    overridden: tuple[str, ...]
    folder: Path
    multirun: bool
    take_over_after: float | None = None
    sweep: Path | None = None
    overrides: tuple[str, ...] = ()


class FailedRun(float):
    """The objective of a failed run of a multirun: NaN, which ends neither a launcher nor a sweeper.

    Args:
        reason: Why the run failed, on one line.

    Attributes:
        reason: The argument.
    """

    reason: str

    def __new__(cls, reason: str) -> Self:
        self = super().__new__(cls, math.nan)
        self.reason = reason
        return self


@dataclass(frozen=True)
class Dialogues:
    """One split of a dataset, on the host. Dialogues are concatenated without padding.

    Attributes:
        features: Modality name ("audio", "text", "visual") -> (N, D) float32.
        labels: (N,) int64 class indices, or (N, C) float32 zeros and ones for multi-label data. An utterance without a
            label has -1, or a row of -1. It is context for the others: it is never trained on, and never scored.
        speakers: (N,) int64, 0 to S-1, numbered within each dialogue by first appearance.
        lengths: (B,) int64, the number of utterances of each dialogue; all positive, sum N.
        ids: B dialogue names, used in messages.
        sentences: N transcripts, or None if the source has none.
        missing: Modality name -> (N,) bool, the utterances that lack this modality; their features are 0. A modality that
            no utterance lacks has no entry.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    speakers: np.ndarray
    lengths: np.ndarray
    ids: tuple[str, ...]
    sentences: tuple[str, ...] | None = None
    missing: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def labelled(self) -> np.ndarray:
        """Which utterances have a label, (N,) bool."""
        result: np.ndarray = (self.labels if self.labels.ndim == 1 else self.labels[:, 0]) >= 0
        return result


@dataclass(frozen=True)
class DialogueDataset:
    """A dataset. The training code reads every difference between datasets from these values.

    Attributes:
        name: Name of the dataset in messages and files.
        dimensions: Modality name -> D, in the order of MODALITIES; only the modalities that the source provides.
        labels: C class names, in the order of the class indices.
        n_speakers: S, the largest number of speakers in a dialogue of this dataset (relations: 2 S^2).
        multilabel: Whether an utterance can have several labels.
        splits: "train", "dev" and "test" -> dialogues.
        text_encoder: Name of the encoder of the text vectors; "file" if they come from the source.
    """

    name: str
    dimensions: dict[str, int]
    labels: tuple[str, ...]
    n_speakers: int
    multilabel: bool
    splits: dict[str, Dialogues]
    text_encoder: str = "file"


@dataclass(frozen=True)
class Slots:
    """Every pair of an utterance i and a speaker s of its dialogue, sorted by (s, speaker of i), then by i.

    Attributes:
        target: (M,) the utterance i of each slot.
        place: (N S,) the slot of each pair i S + s; 0 if s does not speak in the dialogue of i.
        sizes: S^2 host integers, the number of slots of each pair of speakers s S + (speaker of i), sum M.
    """

    target: Tensor
    place: Tensor
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Some dialogues on one device, concatenated without padding.

    Values that determine shapes stay on the host, so a training step never waits for the device.

    Attributes:
        features: Modality name -> (N, D) float32.
        labels: (N,) int64, or (N, C) float32 for multi-label data; -1 without a label.
        speakers: (N,) int64.
        lengths: B host integers, sum N.
        n_speakers: S.
        slots: Pairs of an utterance and a speaker of its dialogue.
        labelled: (M,) positions of the utterances that have a label, or None if all have one.
        structures: Cache of `joyful.model.joyful.structure`, for batches that are used again.
    """

    features: dict[str, Tensor]
    labels: Tensor
    speakers: Tensor
    lengths: tuple[int, ...]
    n_speakers: int
    slots: Slots
    labelled: Tensor | None = None
    structures: dict[tuple[int, int], Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def n_utterances(self) -> int:
        """The number of utterances N."""
        return sum(self.lengths)

    @property
    def n_labelled(self) -> int:
        """The number of utterances M that have a label."""
        return self.n_utterances if self.labelled is None else self.labelled.shape[0]

    def with_labels(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the utterances that have a label, and these labels.

        Args:
            values: (N, ...), for example logits.

        Returns:
            (M, ...), and the labels (M,) or (M, C).
        """
        if self.labelled is None:
            return values, self.labels
        return values.index_select(0, self.labelled), self.labels.index_select(0, self.labelled)


@dataclass(frozen=True)
class EpochRecord:
    """The record that the Coach yields after each evaluation.

    Attributes:
        step: Optimizer steps so far.
        epoch: Passes over the training split so far; an integer at the end of each epoch.
        rows: One row of history.parquet for each evaluated split (see `joyful.results.HISTORY_COLUMNS`).
        seconds: Wall-clock seconds by phase ("train", "evaluate") since the previous record.
        improved: Whether the dev weighted F1 is higher than at all evaluations before.
    """

    step: int
    epoch: float
    rows: tuple[dict[str, float | int | str], ...]
    seconds: dict[str, float]
    improved: bool
