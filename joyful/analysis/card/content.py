"""The content of a model card: what its sections say, as text and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from joyful.analysis.card.bootstrap import SplitScores, split_scores
from joyful.analysis.card.model import Model, Run, n_parameters
from joyful.analysis.card.sentences import intervals, summary, worst
from joyful.analysis.card.sources import Source, encoder_licence, source
from joyful.analysis.classes import EVALUATED, classes
from joyful.analysis.commands import made_by
from joyful.analysis.formatting import listing, number, percent, ranges
from joyful.analysis.statistics import Estimate, mean_t
from joyful.results import InputError, read_predictions, read_timing
from joyful.results.arms import flatten
from joyful.results.class_scores import SCORES
from joyful.results.provenance import encoder_name, encoder_names

#: Seed of the bootstrap, so that a card is reproducible.
SEED = 0

#: Rows of the table of settings: name -> settings, whose values are joined by commas.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "modalities": ("modalities",),
    "fusion": ("fusion.name",),
    "context": ("model.context",),
    "model size": ("model.name", "model.hidden_size"),
    "classification loss": ("classification.name",),
    "class weights": ("classification.class_weight",),
    "reconstruction loss": ("loss.name",),
    "weight of reconstruction": ("weights.encoder_loss_weight",),
    "weight of contrast": ("weights.cl_loss_weight",),
    "weight of gate regularisation": ("weights.gate_reg_weight",),
    "optimizer": ("optimizer.name",),
    "learning rate": ("optimizer.learning_rate",),
    "batch size (dialogues)": ("training.batch_size",),
    "epochs": ("training.epochs",),
    "early stopping (epochs)": ("training.early_stopping",),
    "moving average of the parameters": ("training.moving_average",),
    "precision": ("training.precision",),
}

_LETTERS = {"a": "audio", "t": "text", "v": "visual"}

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Card:
    """A model card. All text is plain; the template escapes it.

    Attributes:
        title: Title.
        summary: One sentence: what the model does, and how well.
        n_runs: Number of runs.
        run: Folder of the run to predict with, without the folders above it.
        details: (name, value) of the model, of its data, and of its training.
        data: See `details`.
        training: See `details`.
        settings: See `details`.
        sizes: Split, dialogues, utterances and labelled utterances of the evaluated splits; empty if not known.
        scores: Split, weighted F1, macro F1 and accuracy.
        classes: Split -> class, utterances, precision, recall and F1; empty if not recorded.
        intervals: What the intervals are.
        worst: The class with the lowest test F1, in words; "" if not known.
        holds: What the training data are.
        acted: Whether their emotions are acted.
        annotated: Whether annotators have chosen their labels.
        licences: (what, licence).
        command: The command that trained the runs, "" if not known.
        files: (name, what) of the files of the run.
        multilabel: Whether an utterance can have several labels.
        predicts: Whether the run has a checkpoint to predict with.
    """

    title: str
    summary: str
    n_runs: int
    run: str
    details: Rows
    data: Rows
    training: Rows
    settings: Rows
    sizes: Rows
    scores: Rows
    classes: Mapping[str, Rows]
    intervals: str
    worst: str
    holds: str
    acted: bool
    annotated: bool
    licences: Rows
    command: str
    files: Rows
    multilabel: bool
    predicts: bool


def make_card(model: Model) -> Card:
    """Return the card of a model."""
    best, several = model.best, len(model.seeds) > 1
    described = _mapping(best.info, "data")
    name = str(described.get("name") or _mapping(_mapping(best.info, "config"), "data").get("name") or "unknown data")
    known, labels = source(name), [str(label) for label in described.get("labels") or ()]
    digests = sorted({str(_mapping(run.info, "data").get("digest") or "") for run in model.runs} - {""})
    predictions = _predictions(best)
    single = _bootstrap(predictions) if len(model.runs) == 1 else {}
    f1 = _f1(model, single)
    scores = {split: _scores(model, single, split) for split in EVALUATED}
    seeds = f"seeds {ranges(model.seeds)}" if several else f"seed {best.seed}"
    arm = f", {model.arm}" if model.arm else ""
    tables = {split: _class_rows(model.runs, f1.get(split, {}), split) for split in EVALUATED}
    return Card(
        title=f"emotion recognition in dialogues ({name}{arm}, {seeds})",
        summary=summary(model, name, labels, scores["test"]),
        n_runs=len(model.runs),
        run="/".join([model.folder.resolve().name, *([] if best.name == "." else [best.name])]),
        details=_details(model),
        data=_data(described, name, labels, digests),
        training=_training(model),
        settings=_settings(best),
        sizes=_sizes(predictions) if len(digests) < 2 else (),
        scores=tuple((split, *(_with_interval(scores[split][score]) for score in _ORDER)) for split in EVALUATED),
        classes={split: rows for split, rows in tables.items() if rows},
        intervals=intervals(model, single),
        worst=worst(model.runs, single, f1.get("test", {})),
        holds=known.holds,
        acted=known.acted,
        annotated=known.annotated,
        licences=_licences(name, known, described),
        command=made_by(model.folder, [run.name for run in model.runs]).command,
        files=_files(best),
        multilabel=best.multilabel,
        predicts=(best.folder / "checkpoint/best.json").is_file(),
    )


#: Order of the scores in the table.
_ORDER = ("f1_weighted", "f1_macro", "accuracy")


def _predictions(run: Run) -> dict[str, pd.DataFrame]:
    """Return the predictions of a run by split, empty if it has none."""
    try:
        found = read_predictions(run.folder)
    except OSError as error:
        raise InputError(
            f"{run.folder}: its predictions cannot be read ({error.strerror}); check its permissions"
        ) from None
    return {} if found is None else {split: found[found["split"] == split] for split in EVALUATED}


def _bootstrap(predictions: Mapping[str, pd.DataFrame]) -> dict[str, SplitScores]:
    rng = np.random.default_rng(SEED)
    return {split: split_scores(rows, rng) for split, rows in predictions.items()}


def _sizes(predictions: Mapping[str, pd.DataFrame]) -> Rows:
    return tuple(
        (split, str(int((rows["place"] == 0).sum())), str(len(rows)), str(int(rows["label"].notna().sum())))
        for split, rows in predictions.items()
    )


def _by_seed(runs: Sequence[Run], values: Sequence[float]) -> list[float]:
    """Return the mean of the values of each seed, whose runs differ by fold."""
    of_seed: dict[Any, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        if math.isfinite(value):
            of_seed.setdefault(run.seed, []).append(value)
    return [float(np.mean(found)) for found in of_seed.values()]


def _scores(model: Model, single: Mapping[str, SplitScores], split: str) -> dict[str, Estimate]:
    """Return the scores of a split: those of the history, with the interval of the bootstrap or over seeds."""
    found = {}
    for name in SCORES:
        values = [run.scores[split][name] for run in model.runs]
        found[name] = single[split].scores[name] if single else mean_t(_by_seed(model.runs, values))
    return found


def _f1(model: Model, single: Mapping[str, SplitScores]) -> dict[str, dict[str, Estimate]]:
    """Return split -> class -> F1."""
    if single:
        return {split: part.f1 for split, part in single.items()}
    of_runs = [classes(run.info) for run in model.runs]
    found: dict[str, dict[str, Estimate]] = {}
    for split in EVALUATED:
        names = list(of_runs[0].get(split, {}))
        if all(list(scores.get(split, {})) == names for scores in of_runs):
            found[split] = {
                name: mean_t(_by_seed(model.runs, [scores[split][name].f1 for scores in of_runs])) for name in names
            }
    return found


def _class_rows(runs: Sequence[Run], f1: Mapping[str, Estimate], split: str) -> Rows:
    found = [classes(run.info).get(split, {}) for run in runs]
    if not all(list(scores) == list(f1) for scores in found):
        return ()
    return tuple(
        (
            name,
            _range([scores[name].support for scores in found]),
            percent(_mean([scores[name].precision for scores in found])),
            percent(_mean([scores[name].recall for scores in found])),
            _with_interval(f1[name]),
        )
        for name in f1
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _range(values: Sequence[int]) -> str:
    return " to ".join(dict.fromkeys(map(str, (min(values), max(values)))))


def _with_interval(value: Estimate) -> str:
    """Return a fraction in per cent, with its interval if there is one."""
    if not (math.isfinite(value.low) and math.isfinite(value.high)):
        return percent(value.estimate)
    return f"{number(100 * value.estimate, 1)} % ({number(100 * max(0.0, value.low))} to {number(100 * min(1.0, value.high))})"


def _details(model: Model) -> Rows:
    info, parameters = model.best.info, n_parameters(model.best.folder)
    versions = _mapping(info, "versions")
    git = _mapping(info, "git")
    commit = str(git["commit"])[:12] + (" with changes" if git.get("dirty") else "") if git.get("commit") else ""
    rows = {
        "kind": "JOYFUL: fusion of the modalities, context over the dialogue, a graph of the dialogue, a classifier",
        "described in": "Li et al. (2023), Joyful, EMNLP, doi 10.18653/v1/2023.emnlp-main.996",
        "trained parameters": f"{parameters:,}".replace(",", " ") if parameters else "",
        "digest of the configuration": str(info.get("config_hash") or "") if len(model.runs) == 1 else "",
        "made with": f"joyful {versions['joyful']}" + (f", commit {commit}" if commit else "")
        if versions.get("joyful")
        else commit,
        "date": _dates(model.runs),
        "developed by": "state it yourself",
    }
    return tuple((name, text) for name, text in rows.items() if text)


def _data(described: Mapping[str, Any], name: str, labels: Sequence[str], digests: Sequence[str]) -> Rows:
    widths = _mapping(described, "dimensions")
    encoder = _encoder(described)
    encoders = {"file": "none: the vectors of the texts are those of the source"}
    rows = {
        "dataset": name,
        "digest": listing(list(digests)) + (" (one of each fold)" if len(digests) > 1 else ""),
        "features": ", ".join(f"{modality} {width}" for modality, width in widths.items()),
        "text encoder": encoders.get(encoder, encoder),
        "classes": listing(list(labels), 50),
    }
    return tuple((key, text) for key, text in rows.items() if text)


def _training(model: Model) -> Rows:
    infos = [run.info for run in model.runs]
    epochs = [run.best["epoch"] for run in model.runs]
    seconds = [sum(_times(run)) for run in model.runs]
    versions = _mapping(infos[0], "versions")
    rows = {
        "seeds" if len(model.seeds) > 1 else "seed": ranges(model.seeds),
        "runs": str(len(model.runs)) + (f" ({model.left_out} more are not complete)" if model.left_out else ""),
        "device": _distinct(info.get("device") for info in infos),
        "threads": _distinct(info.get("threads") for info in infos),
        "libraries": ", ".join(
            f"{name} {versions[name]}" for name in ("python", "torch", "numpy") if versions.get(name)
        ),
        "best epoch": " to ".join(dict.fromkeys(f"{epoch:g}" for epoch in (min(epochs), max(epochs)))),
        "time of a run": f"{sum(seconds) / len(seconds) / 60:.1f} minutes" if min(seconds) > 0 else "",
    }
    return tuple((name, text) for name, text in rows.items() if text)


def _times(run: Run) -> list[float]:
    try:
        return [float(row["seconds"]) for row in read_timing(run.folder)]
    except (InputError, OSError):
        return []


def _settings(run: Run) -> Rows:
    found = flatten(_mapping(run.info, "config"))
    rows = []
    for name, settings in _SETTINGS.items():
        values = [found[setting] for setting in settings if found.get(setting) is not None]
        if name == "modalities" and values:
            values = [_LETTERS.get(letter, letter) for letter in str(values[0])]
        if values and values not in (["none"], [0]):  # what is off
            rows.append((name, ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)))
    return tuple(rows)


def _encoder(described: Mapping[str, Any]) -> str:
    """Return the name of the text encoder, of a local folder without the folders above it; "" without text."""
    return encoder_name(str(described.get("text_encoder") or ""))


def _licences(name: str, known: Source, described: Mapping[str, Any]) -> Rows:
    encoder = _encoder(described)
    rows = [("weights of this model", "state it yourself; the licence of the data may limit the choice")]
    rows.append((f"dataset {name}", known.licence))
    if encoder and encoder != "file":
        names = encoder_names(str(described["text_encoder"]))
        rows += [(f"text encoder {encoder_name(each)}", encoder_licence(each)) for each in names]
    rows.append(("program joyful", "MIT"))
    return tuple(rows)


#: File of a run -> what it holds.
_FILES = {
    "run.json": "settings, versions, digests and scores",
    "history.parquet": "scores and losses of every evaluation",
    "predictions.parquet": "label, prediction and probabilities of each utterance of dev and test",
    "timing.parquet": "seconds of each epoch",
    "checkpoint/best.json": "the weights of the best evaluation, in a safetensors file beside it",
    "run.log": "a line for each epoch",
}


def _files(run: Run) -> Rows:
    return tuple((name, what) for name, what in _FILES.items() if (run.folder / name).is_file())


def _mapping(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return dict(value) if isinstance(value, Mapping) else {}


def _distinct(values: Any) -> str:
    return listing(list(dict.fromkeys(str(value) for value in values if value is not None)), 3)


def _dates(runs: Sequence[Run]) -> str:
    days = sorted({str(run.info.get("started"))[:10] for run in runs if run.info.get("started")})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""
