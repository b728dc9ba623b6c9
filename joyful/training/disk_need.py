"""Estimate of the disk space of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joyful.config import Settings
from joyful.model.joyful import GraphModel
from joyful.records import DialogueDataset
from joyful.runtime.disk import DiskNeed
from joyful.training.optimizers import state_shapes
from joyful.training.run_log import LINE

#: Bytes of a run's text files (run.json, .hydra/, logs), of the headers of its tensor files, and of partly filled
#: blocks.
FIXED = 96 * 2**10

#: Bytes of a row of history.parquet and of its part of timing.parquet.
ROW = 420

#: Bytes of a row of predictions.parquet without what there is for each class.
PREDICTION = 12

#: Bytes of a class in predictions.parquet: of its probability and its share in label and predicted, and of its column.
CLASS, COLUMN = 6, 160


@dataclass(frozen=True)
class DataSizes:
    """The sizes of a dataset that determine those of a run.

    Attributes:
        dimensions: Modality -> feature width, for the modalities that are used.
        n_classes: Number of classes.
        n_speakers: Number of speakers.
        evaluated: Number of utterances of dev and test.
        names: Bytes of the names of their dialogues.
    """

    dimensions: Mapping[str, int]
    n_classes: int
    n_speakers: int
    evaluated: int
    names: int

    @classmethod
    def of(cls, data: DialogueDataset) -> DataSizes:
        """Return the sizes of a dataset."""
        parts = [data.splits[split] for split in ("dev", "test")]
        return cls(
            data.dimensions,
            len(data.labels),
            data.n_speakers,
            sum(len(part.labels) for part in parts),
            sum(len(name.encode("utf-8", "backslashreplace")) + 4 for part in parts for name in part.ids),
        )


def disk_need(settings: Settings, model: GraphModel, sizes: DataSizes) -> DiskNeed:
    """Return the estimate for a model, which may have no memory for its parameters (the device "meta").

    The estimate is not below the size of the run's files and at most 1.5 times as large; for tiny runs, whose files
    have mostly fixed parts, at most twice as large.

    Args:
        settings: The settings of the run.
        model: The model.
        sizes: The sizes of the dataset.
    """
    size = sum(value.nbytes for value in model.state_dict().values())
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    t, n, c = settings.training, sizes.evaluated, sizes.n_classes
    copies = sum(state_shapes(settings.optimizer).values()) + int(t.moving_average > 0)
    last = size + copies * trained + 4 * n * c  # with the logits of the best evaluation
    history = ROW * t.epochs * (2 * t.evaluations_per_epoch + 1) + LINE * t.epochs
    predictions = n * (PREDICTION + CLASS * c) + COLUMN * c + sizes.names
    return DiskNeed(permanent=last + size + history + predictions + FIXED, temporary=last + history)
