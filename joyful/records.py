"""The records that rooms pass to one another, and the shape letters.

Shape letters, used in names and docstrings everywhere:

    B dialogues      T utterances of the longest dialogue      N utterances without padding
    D features       H hidden units        C classes           S speakers       R relations      E edges

This module imports neither torch nor pandas, so that readers of results and command-line help stay quick.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Letter of a modality on the command line -> its name in data files, in the order in which features are concatenated.
MODALITIES: dict[str, str] = {"a": "audio", "t": "text", "v": "visual"}

#: Widths of the reference's features (IEMOCAP): what an input of 1380 numbers means where nothing else is said.
REFERENCE_DIMENSIONS: dict[str, int] = {"audio": 100, "text": 768, "visual": 512}

#: The parts of the training loss, in the order of reports.
COMPONENTS: tuple[str, ...] = ("classification", "contrastive", "encoder", "gate_reg")

SPLITS: tuple[str, ...] = ("train", "dev", "test")

#: Names that become folders or files: nothing that leads elsewhere.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class InputError(ValueError):
    """Bad settings or bad data: the reader can mend it. Ends the program with exit code 2 and this one message.

    The message says what was expected, what came, and what to set. What came may be hostile: no character of the message is one
    that a terminal would obey.
    """

    def __init__(self, message: object) -> None:
        super().__init__("\n".join(visible(line) for line in str(message).split("\n")))


def visible(text: str) -> str:
    """The text with every character that cannot be printed (control characters, lone surrogates) written as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def one_line(text: object, limit: int = 200) -> str:
    """What a library says of a file, for a message: on one line, cut, and without a character that a terminal would obey."""
    return visible(" ".join(str(text).split())[:limit])


def first_line_of(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing, as `one_line`."""
    return one_line((str(error).splitlines() or [type(error).__name__])[0])


def print_error(message: object) -> None:
    """Say to a person at the shell, in one line on standard error, what went wrong."""
    # the line's end with it, in one write: processes that share the terminal speak at once
    sys.stderr.write(f"joyful: {visible(' '.join(str(message).split()))}\n")


@dataclass(frozen=True)
class Request:
    """What is asked for: the composed configuration (resolved, plain), Hydra's group choices, the names that were overridden on
    the command line, the folder to write to, and whether this run is one of many."""

    config: dict[str, Any]
    choices: dict[str, str]
    overridden: tuple[str, ...]
    folder: Path
    multirun: bool
    #: Seconds to wait for another writer of the folder to end; after them its lock is taken from it.
    take_over_after: float | None = None


@dataclass(frozen=True)
class Dialogues:
    """One split of a dataset, on the host, dialogues one after another without padding.

    features: modality name ("audio", "text", "visual") -> (N, D) float32.
    labels:   (N,) int64 class indices, or (N, C) float32 zeros and ones for multi-label data.
    speakers: (N,) int64, 0 to S-1, counted inside each dialogue by first appearance.
    lengths:  (B,) int64 utterances of each dialogue, all positive, sum N.
    ids:      B dialogue names, for messages.
    sentences: N transcripts, or None where the source has none.
    """

    features: dict[str, np.ndarray]
    labels: np.ndarray
    speakers: np.ndarray
    lengths: np.ndarray
    ids: tuple[str, ...]
    sentences: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DialogueDataset:
    """A dataset: what differs between datasets is in these values and nowhere in the code that trains.

    dimensions: modality name -> D, only the modalities that the source has, in the order of MODALITIES.
    labels:     C class names, in the order of the class indices.
    n_speakers: S, the most speakers that a dialogue of this dataset can have (relations: 2 * S * S).
    splits:     "train", "dev" and "test".
    """

    name: str
    dimensions: dict[str, int]
    labels: tuple[str, ...]
    n_speakers: int
    multilabel: bool
    splits: dict[str, Dialogues]


@dataclass(frozen=True)
class Batch:
    """Some dialogues, packed without padding, on one device; what decides shapes stays on the host, so no step waits.

    features: modality name -> (N, D) float32.        labels: (N,) int64 or (N, C) float32.
    speakers: (N,) int64.                             lengths: B host integers, sum N.
    speaker_order: (N,) places sorted by speaker.     speaker_rank: (N,) the inverse permutation.
    speaker_sizes: S host integers, utterances of each speaker slot, sum N.
    structures: what joyful.model.dialogue_graph derived from the lengths, kept for batches that come again.
    """

    features: dict[str, Tensor]
    labels: Tensor
    speakers: Tensor
    lengths: tuple[int, ...]
    speaker_order: Tensor
    speaker_rank: Tensor
    speaker_sizes: tuple[int, ...]
    structures: dict[tuple[int, int], Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def n_utterances(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True)
class EpochRecord:
    """What the Coach yields after each evaluation.

    step: optimizer steps so far. epoch: passes over the training split so far, whole at the ends of epochs.
    rows: one row of history.parquet for each split evaluated (see joyful.results.HISTORY_COLUMNS).
    seconds: wall seconds by phase ("train", "evaluate") since the previous record.
    """

    step: int
    epoch: float
    rows: tuple[dict[str, float | int | str], ...]
    seconds: dict[str, float]
