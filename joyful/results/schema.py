"""The definitions of the results format: columns, keys of run.json, statuses, and the error of a failed write.

The columns of the file have the order of `HISTORY_COLUMNS`; the order of a row's keys does not matter.
"""

from __future__ import annotations

import re

from joyful.records import COMPONENTS

RUN, HISTORY, TIMING, PREDICTIONS = "run.json", "history.parquet", "timing.parquet", "predictions.parquet"

#: Version of the format, written in run.json. A reader refuses any other.
SCHEMA = 1

STATUSES = ("running", "completed", "pruned", "failed", "interrupted")

#: The status that `load` gives to a run whose folder has no run.json.
UNKNOWN_STATUS = "unknown"

#: Columns of history.parquet -> meaning and unit. `step` is int64, `split` is text, every other column is float64. Null
#: means not measured. Columns `grad_norm_*` (gradient norm of a module; train rows) follow `share_*`. Undocumented
#: columns follow `lr`.
HISTORY_COLUMNS: dict[str, str] = {
    "step": "optimizer steps so far",
    "epoch": "passes over the training split so far; the first epoch ends at 1; null if not logged",
    "split": "train, dev or test",
    "accuracy": "fraction of utterances classified correctly, 0 to 1",
    "f1_weighted": "F1 weighted by class counts, 0 to 1",
    "f1_macro": "F1 averaged over classes, 0 to 1",
    "nll": "negative log-likelihood per utterance in nats, independent of the trained loss",
    "recon_mse": "mean squared reconstruction error, independent of the trained loss",
    "recon_mae": "mean absolute reconstruction error, independent of the trained loss",
    "loss_total": "weighted sum of the losses, which is minimised",
    **{f"loss_{name}": f"{name} loss before weighting" for name in COMPONENTS},
    **{f"weight_{name}": f"weight of the {name} loss in the sum" for name in COMPONENTS},
    **{f"share_{name}": f"weighted {name} loss / loss_total" for name in COMPONENTS},
    "encoder_gradient_ratio": "norm of the weighted encoder gradient / of the classification gradient, on the fusion",
    "encoder_gradient_cosine": "cosine between these two gradients, -1 to 1; train rows, and dev rows inside an epoch",
    "lr": "learning rate of the optimizer",
}

#: Prefix of the gradient norm columns; the suffix is the name of a module.
GRAD_NORM = "grad_norm_"

#: Columns of timing.parquet -> meaning.
TIMING_COLUMNS: dict[str, str] = {
    "epoch": "passes over the training split so far",
    "phase": "train, evaluate (with the best checkpoint), write (history and timing) or checkpoint (the last one)",
    "seconds": "wall seconds since the previous record",
}

#: Columns of predictions.parquet -> meaning. A column `probability_NAME` for each class follows, in the order of the classes.
PREDICTION_COLUMNS: dict[str, str] = {
    "split": "dev or test",
    "dialogue": "name of the dialogue",
    "place": "position of the utterance in its dialogue, from 0",
    "label": "name of the class, or the list of names for multi-label data; null without a label",
    "predicted": "name of the predicted class, or the list of predicted names",
}

#: Prefix of the columns of probabilities; the suffix is the name of a class (see `joyful.results.predictions.class_names`).
PROBABILITY = "probability_"

#: Columns that `load` adds to those of the history. A history must not have columns with these names.
RESERVED_COLUMNS = ("run", "status", "seed", "role")

#: Keys of run.json, in the order of the file -> meaning.
RUN_KEYS: dict[str, str] = {
    "schema": "version of the format",
    "status": ", ".join(STATUSES),
    "reason": "why the run ended as it did, or null",
    "objective": "objective value for a search; null while unknown or not finite",
    "objective_name": "name of the objective",
    "seed": "training seed",
    "role": "comparison, calibration or search",
    "epochs": "requested passes over the training split; of an imported run the last logged epoch, or null",
    "config_hash": "digest of the settings that determine the results (joyful.config.config_hash)",
    "data": "{name, digest, dimensions, text_encoder, text_encoder_digest, labels, speakers, multilabel} of the dataset, or null",
    "git": "{commit, dirty} of the code; null outside a repository",
    "versions": "versions of Python and of the libraries that determine the results",
    "device": "device of the run",
    "threads": "CPU threads of the run",
    "started": "UTC time of the start in ISO 8601",
    "host": "name of the machine",
    "choices": "Hydra's group choices",
    "config": "the resolved configuration",
    "history_sha256": "SHA-256 of history.parquet; two digests while a new history replaces the old one",
}

#: Keys of run.json that follow when a run of the trainer has ended, all of its best evaluation -> meaning.
OUTCOME_KEYS: dict[str, str] = {
    "per_class": "{dev, test} -> name of a class -> {precision, recall, f1, support}; null where nothing can be divided",
    "confusion": "{labels, dev, test}: confusion matrices, rows are labels and columns predictions; not for multi-label data",
    "predictions_sha256": "SHA-256 of predictions.parquet",
}

_EXTRA_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,199}\Z")


class ResultsError(OSError):
    """A write or a lock failed, for example on a full or read-only disk. The previous files are intact."""

    def __str__(self) -> str:
        return str(self.strerror) if self.strerror is not None else super().__str__()  # omits "[Errno 28]"


class ResultsWarning(UserWarning):
    """`load` left out a damaged run."""


def column_order(names: set[str]) -> list[str]:
    """Return the columns of a history in file order.

    Args:
        names: Column names of a history. Undocumented names are added in alphabetical order, gradient norms first.

    Returns:
        All documented columns and the undocumented ones of `names`.
    """
    extra = names - HISTORY_COLUMNS.keys()
    norms = sorted(name for name in extra if name.startswith(GRAD_NORM))
    before = list(HISTORY_COLUMNS)
    place = before.index("encoder_gradient_ratio")
    return before[:place] + norms + before[place:] + sorted(extra.difference(norms))


def is_column_name(name: object) -> bool:
    """Return whether a history may have a column of this name.

    A name has at most 200 lower-case letters, digits and underscores, starts with a letter, and is not reserved.
    """
    return isinstance(name, str) and _EXTRA_COLUMN.match(name) is not None and name not in RESERVED_COLUMNS
