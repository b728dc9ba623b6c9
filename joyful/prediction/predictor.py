"""Labels for new dialogues from trained models.

    from joyful.prediction import load

    model = load("outputs/run")          # or a list: the mean of their probabilities
    table = model.predict("chat.csv")    # a pandas DataFrame with a row per utterance

Shape letters: N utterances, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyful.data.dialogue_table import DialogueTable, encode_text
from joyful.prediction import inputs, outputs
from joyful.prediction.encoder import TextEncoder
from joyful.prediction.saved import SavedModel, check_same_kind, find_models, open_model
from joyful.records import InputError
from joyful.results.class_scores import counts, scores

if TYPE_CHECKING:
    import pandas as pd

    from joyful.prediction.network import Network


@dataclass(frozen=True)
class Predictions:
    """The predictions for a table.

    Attributes:
        frame: A row per utterance, in the order of the table (see `Predictor.predict`).
        scores: "accuracy", "f1_weighted" and "f1_macro", fractions, over the utterances that have a label; empty without
            labels.
        labelled: Number of utterances that have a label.
        notes: What the user should know.
    """

    frame: pd.DataFrame
    scores: dict[str, float]
    labelled: int
    notes: tuple[str, ...]


@dataclass
class Predictor:
    """One or several trained models that label new dialogues. `load` makes it.

    Several models predict the mean of their probabilities.

    Attributes:
        models: The models on disk.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads of the networks.
        text_encoder: The encoder of the texts; None if the models need none.
        notes: What the user should know of the models.
    """

    models: Sequence[SavedModel]
    device: str = "auto"
    threads: int = 1
    text_encoder: TextEncoder | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the columns of probabilities."""
        return self.models[0].data.labels

    @property
    def multilabel(self) -> bool:
        """Whether an utterance can have several labels."""
        return self.models[0].data.multilabel

    @property
    def dimensions(self) -> dict[str, int]:
        """Modality -> feature width, of what the models need."""
        return self.models[0].data.dimensions

    @property
    def speakers(self) -> int:
        """The largest number of speakers in a dialogue."""
        recorded = [model.data.speakers for model in self.models]
        known = [number for number in recorded if number is not None]
        return min(known if len(known) == len(recorded) else [network.speakers for network in self.networks])

    @cached_property
    def networks(self) -> list[Network]:
        """The networks with their weights."""
        from joyful.prediction.network import Network
        from joyful.training.building import choose_device

        device = choose_device(self.device)
        return [Network(model, device, self.threads) for model in self.models]

    def predict(
        self, table: str | Path | pd.DataFrame, columns: Mapping[str, str | None] | None = None, **options: Any
    ) -> pd.DataFrame:
        """Return the predictions for all utterances of a table.

        Args:
            table: A file .csv, .tsv, .jsonl or .parquet, or a DataFrame, with a row per utterance as for data=dialogues.
                Labels are not needed.
            columns: Role ("dialogue", "place", "speaker", "text" or "label") -> name of its column, where that is not the one
                of the run; None: there is no such column.
            **options: Other settings of data.table in place of those of the run, such as encoding="cp1252".

        Returns:
            A frame with a row per utterance, in the order of the table, and these columns.

            - `dialogue`, `place`, `speaker`, `text`: what identifies the utterance.
            - `label`: Its label, if the table has labels.
            - `predicted`: Name of the predicted class; for multi-label models the list of names.
            - `probability_NAME` for each class: its probability from 0 to 1.

        Raises:
            InputError: If the table is not valid or does not fit the models.

        Warns:
            UserWarning: For each note, such as that the training has not ended (see `Predictions.notes`).

        Example:
            >>> from joyful.prediction import load
            >>> model = load("outputs/run")  # doctest: +SKIP
            >>> model.predict("chat.csv", columns={"text": "message"})["predicted"]  # doctest: +SKIP
        """
        predictions = self.label(self.read(table, columns, **options))
        for note in predictions.notes:
            warnings.warn(note, stacklevel=2)
        return predictions.frame

    def read(
        self, table: str | Path | pd.DataFrame, columns: Mapping[str, str | None] | None = None, **options: Any
    ) -> DialogueTable:
        """Read a table as `predict` does. Raises the same errors."""
        changes = inputs.changes_of(columns, options)
        settings = inputs.table_settings(self.models[0].config, changes)
        return inputs.read_dialogues(table, settings, inputs.optional_roles(changes))

    def label(self, table: DialogueTable) -> Predictions:
        """Return the predictions for a table, with scores if it has labels.

        Args:
            table: The table, as `read` returns it.

        Raises:
            InputError: If the table does not fit the models.
        """
        notes = inputs.check_fits(table, self.models[0].data, self.speakers)
        encoded = table
        if "text" in self.dimensions and "text" not in table.features:
            assert self.text_encoder is not None  # check_fits refuses text otherwise
            notes += self.text_encoder.check()
            self.networks  # noqa: B018 - damaged weights are refused before texts are encoded
            encoded = encode_text(table, self.text_encoder)
            _check_width(encoded, self.dimensions["text"], self.text_encoder)
        return self._predictions(encoded, table, notes)

    def _predictions(self, encoded: DialogueTable, table: DialogueTable, notes: list[str]) -> Predictions:
        from joyful.prediction.network import mean_probabilities

        dialogues = inputs.unlabelled_dialogues(encoded, self.models[0].data)
        values = mean_probabilities(self.networks, dialogues, self.multilabel)
        labels, other = inputs.labels_of(table, self.models[0].data)
        found, labelled = _scores(labels, values, self.multilabel)
        in_file = np.empty_like(values)
        in_file[np.concatenate(table.order())] = values
        frame = outputs.to_frame(table, in_file, self.labels, self.multilabel)
        return Predictions(frame, found, labelled, (*self.notes, *notes, *([other] if other else [])))


def load(
    models: str | Path | Sequence[str | Path],
    *,
    best: bool = False,
    device: str = "auto",
    threads: int = 1,
    text_encoder: str | None = None,
    cache: str | Path | None = None,
) -> Predictor:
    """Load a trained model, or several whose probabilities are averaged.

    Args:
        models: Folder of a run, or of a model that `joyful export` wrote; a list of such folders; or a pattern of them
            (multirun/mine/*). The weights are those of the best evaluation on dev.
        best: Whether the folder of a sweep means its completed run with the best dev weighted F1. Without it, a folder with
            several runs is refused.
        device: "auto", "cpu" or "cuda". "auto" prefers CUDA.
        threads: CPU threads of the networks. With one thread, the probabilities do not depend on the cores of the machine.
        text_encoder: Where the text encoder of the runs is on this machine, if it is a folder; None: where it was.
        cache: Cache folder for the vectors of texts; None: that of the run.

    Returns:
        The models, ready to predict.

    Raises:
        InputError: If a folder holds no model, it is damaged, the models differ in labels, dimensions or text encoder, or the
            text encoder is another one than in training.

    Example:
        >>> model = load("outputs/run")  # doctest: +SKIP
        >>> model.predict("chat.csv").to_csv("labelled.csv")  # doctest: +SKIP
    """
    predictor = open_predictor(
        models, best=best, device=device, threads=threads, text_encoder=text_encoder, cache=cache
    )
    if predictor.text_encoder is not None:
        predictor.text_encoder.check()
    predictor.networks  # noqa: B018 - loads them
    return predictor


def open_predictor(
    models: str | Path | Sequence[str | Path],
    *,
    best: bool = False,
    device: str = "auto",
    threads: int = 1,
    text_encoder: str | None = None,
    cache: str | Path | None = None,
) -> Predictor:
    """Return the predictor of `load` before its weights are read and its encoder is checked, without importing torch."""
    names = [models] if isinstance(models, (str, Path)) else list(models)
    if threads < 1:
        raise InputError(f"threads: expected 1 or more, got {threads}")
    if not names:
        raise InputError("expected at least one model, got none; give the folder of a run")
    saved = [open_model(folder) for folder in find_models(names, best)]
    check_same_kind(saved)
    encoder = TextEncoder.of(saved, text_encoder, cache) if saved[0].data.encodes_text else None
    notes = [note for model in saved for note in model.notes]
    return Predictor(saved, device, threads, encoder, tuple(notes))


def _check_width(table: DialogueTable, width: int, encoder: TextEncoder) -> None:
    found = table.features["text"].shape[1]
    if found != width:
        raise InputError(
            f"data.text_encoder={encoder.name}: expected vectors of {width} numbers, as in training, got {found}; set the text"
            " encoder of the run"
        )


def _scores(labels: np.ndarray | None, values: np.ndarray, multilabel: bool) -> tuple[dict[str, float], int]:
    """Return the scores over the utterances that have a label, and their number."""
    if labels is None:
        return {}, 0
    rows = np.flatnonzero((labels if labels.ndim == 1 else labels[:, 0]) >= 0)
    own, classes = labels[rows], np.arange(values.shape[1])
    true = own > 0.5 if multilabel else own[:, None] == classes
    return _fractions(counts(true, outputs.chosen_classes(values[rows], multilabel)), len(rows))


def _fractions(total: np.ndarray, labelled: int) -> tuple[dict[str, Any], int]:
    return dict(scores(total, labelled)), labelled
