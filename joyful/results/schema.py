"""The words of the results format: columns, keys of run.json, statuses, bounds, and the error of a failed write.

The order of `HISTORY_COLUMNS` is the order of the columns in the file, whatever the order of a row's keys.
"""

from __future__ import annotations

import re

from joyful.records import COMPONENTS

RUN, HISTORY, TIMING = "run.json", "history.parquet", "timing.parquet"

#: Version of the format, written in run.json. A reader refuses any other.
SCHEMA = 1

STATUSES = ("running", "completed", "pruned", "failed", "interrupted")

#: The status that `load` gives to a run whose folder has no run.json.
UNKNOWN_STATUS = "unknown"

#: Columns of history.parquet -> meaning and unit. `step` is int64, `split` text, every other float64; null where not
#: measured. After `share_*` come `grad_norm_*` of any suffix (gradient norm per module; train rows); after `lr` others.
HISTORY_COLUMNS: dict[str, str] = {
    "step": "optimizer steps so far",
    "epoch": "passes over the training split so far; whole at the ends of epochs, the first at 1",
    "split": "train, dev or test",
    "accuracy": "share of utterances labelled right, 0 to 1",
    "f1_weighted": "F1 weighted by class counts, 0 to 1",
    "f1_macro": "F1 averaged over classes, 0 to 1",
    "nll": "plain negative log-likelihood per utterance, nats, whatever loss is trained",
    "recon_mse": "mean squared reconstruction error, whatever loss is trained",
    "recon_mae": "mean absolute reconstruction error, whatever loss is trained",
    "loss_total": "the weighted sum that is trained",
    **{f"loss_{name}": f"raw {name} loss, before its weight" for name in COMPONENTS},
    **{f"weight_{name}": f"weight of the {name} loss in the sum" for name in COMPONENTS},
    **{f"share_{name}": f"weighted {name} loss / loss_total" for name in COMPONENTS},
    "encoder_gradient_ratio": "norm of the weighted encoder gradient / of the classification one, on the fusion",
    "encoder_gradient_cosine": "cosine between these two, -1 to 1; train rows, and dev rows inside an epoch",
    "lr": "learning rate of the optimizer",
}

#: Prefix of the columns whose suffixes the model chooses.
GRAD_NORM = "grad_norm_"

#: Columns of timing.parquet -> meaning.
TIMING_COLUMNS: dict[str, str] = {
    "epoch": "passes over the training split so far",
    "phase": "train, evaluate (with the best checkpoint), write (history and timing) or checkpoint (the last one)",
    "seconds": "wall seconds since the previous record",
}

#: Columns that `load` puts beside the history's own; a history may not have columns of these names.
RESERVED_COLUMNS = ("run", "status", "seed", "role")

#: Keys of run.json, in the order of the file -> meaning.
RUN_KEYS: dict[str, str] = {
    "schema": "version of the format",
    "status": ", ".join(STATUSES),
    "reason": "why the run ended as it did; null where there is nothing to say",
    "objective": "the value that a search sees; null while unknown or not finite",
    "objective_name": "what the objective is",
    "seed": "training seed",
    "role": "comparison, calibration or search",
    "epochs": "passes over the training split that were asked for",
    "config_hash": "digest of the settings that determine the numbers (joyful.config.config_hash)",
    "git": "{commit, dirty} of the code; nulls outside a repository",
    "versions": "versions of the interpreter and of the libraries that make the numbers",
    "device": "what the run was computed on",
    "threads": "processor threads of the run",
    "started": "UTC time of the start, ISO 8601",
    "host": "name of the machine",
    "choices": "Hydra's group choices",
    "config": "the resolved configuration",
    "history_sha256": "digests of the history.parquet it vouches for; two while a new one is being put in place",
}

_EXTRA_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,199}\Z")


class ResultsError(OSError):
    """The disk refused a write or a lock (full, read-only, gone). What was there before stands whole."""

    def __str__(self) -> str:
        return str(self.strerror) if self.strerror is not None else super().__str__()  # without Python's "[Errno 28]"


class ResultsWarning(UserWarning):
    """A damaged run was left out of what `load` returned."""


def column_order(names: set[str]) -> list[str]:
    """The history's columns in file order: all documented ones, those of `names` with any suffix or unknown, sorted."""
    extra = names - HISTORY_COLUMNS.keys()
    norms = sorted(name for name in extra if name.startswith(GRAD_NORM))
    before = list(HISTORY_COLUMNS)
    place = before.index("encoder_gradient_ratio")
    return before[:place] + norms + before[place:] + sorted(extra.difference(norms))


def is_column_name(name: object) -> bool:
    """Whether a history may have a column of this name: a documented one, or lower-case letters, digits and _."""
    return isinstance(name, str) and _EXTRA_COLUMN.match(name) is not None and name not in RESERVED_COLUMNS
