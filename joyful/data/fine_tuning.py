"""Fine-tune a text encoder on the labels of a training split, once for all runs that use them.

The encoder and a linear classifier on its vectors are trained on single utterances with cross-entropy (several labels:
binary cross-entropy). Classes are weighted by 1 / sqrt(frequency). AdamW, a warm-up over the first tenth of the steps,
then a linear decay to 0. The classifier is dropped. The result is a sentence-transformers folder in the cache, named by
a digest of the encoder, the training texts, their labels and the settings. So each training split has its own encoder,
and an encoder never saw the labels of another split of the same fold. It is trained on the CPU with all its cores; another
processor or number of threads may give slightly other weights, whose digest run.json records.

Shape letters: N utterances, D features, C classes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from joyful.data.text_encoder import identity, load_model, token_lengths
from joyful.data_settings import FineTuningSettings
from joyful.randomness import host_generator, key
from joyful.records import InputError, clock, first_line_of
from joyful.results.files import new_folder
from joyful.results.provenance import encoder_name, encoder_names
from joyful.runtime.disk import check_disk_space

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 32
WEIGHT_DECAY = 0.01
CLASSIFIER_LEARNING_RATE = 0.001
DROPOUT = 0.1
WARMUP = 0.1
#: Tokens of a text that are read. Longer texts are rare in dialogues and cost much time.
MAX_TOKENS = 128

#: Batches whose texts are sorted by length together.
_SORTED_BATCHES = 16
#: Increase this number if the same inputs give other encoders.
_VERSION = 1
_SECONDS_BETWEEN_MESSAGES = 30.0

_log = logging.getLogger(__name__)


def fine_tuned_encoder(
    encoder: str, texts: Sequence[str], labels: np.ndarray, settings: FineTuningSettings, cache: Path
) -> str:
    """Return the setting data.text_encoder with its first encoder fine-tuned. The result is kept in the cache.

    Args:
        encoder: The setting data.text_encoder. If it joins several encoders, only the first is fine-tuned.
        texts: N texts of the training split.
        labels: (N,) class indices, or (N, C) zeros and ones. No utterance is unlabelled.
        settings: The settings data.fine_tuning, with at least one epoch.
        cache: Folder of the cached encoders.

    Raises:
        InputError: If there are fewer than two texts or classes, the encoder cannot be loaded or has no transformer, the
            training diverges, or the cache cannot be written.
    """
    first, *others = encoder_names(encoder)
    n_classes = labels.shape[1] if labels.ndim == 2 else len(np.unique(labels))
    if len(texts) < 2 or n_classes < 2:
        raise InputError(
            f"data.fine_tuning.epochs={settings.epochs}: expected labelled texts of two classes or more in train, got"
            f" {len(texts)} labelled texts of {n_classes}; set data.fine_tuning.epochs=0"
        )
    slug = Path(encoder_name(first)).name.replace("+", "-")
    folder = cache / f"{slug}-fine-tuned-{_digest(first, texts, labels, settings)}"
    if not folder.is_dir():
        from safetensors import SafetensorError

        model = load_model(first)
        try:
            with new_folder(folder) as temporary:
                size = sum(parameter.nbytes for parameter in model.parameters())
                check_disk_space(cache, size, "the fine-tuned encoder", "data.cache=FOLDER")
                _train_or_refuse(model, first, list(texts), labels, settings)
                model.save(str(temporary), create_model_card=False)
        except (OSError, SafetensorError) as error:  # the latter where the disk is full
            if not folder.is_dir():  # otherwise another process was faster
                raise InputError(
                    f"{cache} cannot be used ({first_line_of(error)}); set data.cache=FOLDER to a writable folder"
                ) from None
    return "+".join([str(folder), *others])


def _train_or_refuse(model: Any, name: str, texts: list[str], labels: np.ndarray, settings: FineTuningSettings) -> None:
    try:
        _train(model, name, texts, labels, settings)
    except InputError:
        raise
    except Exception as error:  # a local model folder can cause any exception in the libraries
        raise InputError(
            f"data.fine_tuning.epochs={settings.epochs}: the encoder {name} cannot be fine-tuned"
            f" ({type(error).__name__}: {first_line_of(error)[:200]}); set data.fine_tuning.epochs=0 or another encoder"
        ) from None


def _digest(encoder: str, texts: Sequence[str], labels: np.ndarray, settings: FineTuningSettings) -> str:
    """Return 16 hexadecimal digits that identify the result."""
    values = [_VERSION, identity(encoder), list(texts), labels.tolist(), settings.model_dump()]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def _train(model: Any, name: str, texts: list[str], labels: np.ndarray, settings: FineTuningSettings) -> None:
    """Fine-tune a sentence-transformers model in place."""
    import torch
    from torch import nn

    lengths = token_lengths(model, texts)
    if lengths is None:
        raise InputError(
            f"data.fine_tuning.epochs: expected an encoder with a transformer, got {name}; set data.fine_tuning.epochs=0"
        )
    several = labels.ndim == 2
    n_classes = labels.shape[1] if several else int(labels.max()) + 1
    targets = torch.from_numpy(labels.astype(np.float32 if several else np.int64))
    criterion = _criterion(labels, n_classes)
    steps = settings.epochs * -(-len(texts) // BATCH)
    _log.info("fine-tuning %s on %d texts, %d steps; the result is cached", name, len(texts), steps)
    with torch.random.fork_rng(devices=[]):  # dropout of the encoder draws from torch's generator
        torch.manual_seed(key(settings.seed, "fine-tuning") >> 1)
        head = nn.Linear(_width(model), n_classes)
        nn.init.zeros_(head.weight)
        optimizer = torch.optim.AdamW(
            [
                {"params": list(model.parameters()), "lr": settings.learning_rate},
                {"params": list(head.parameters()), "lr": CLASSIFIER_LEARNING_RATE},
            ],
            weight_decay=WEIGHT_DECAY,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / max(1.0, WARMUP * steps), (steps - step) / ((1 - WARMUP) * steps))
        )
        start = told = time.monotonic()
        for step, rows in enumerate(_batches(np.array(lengths), settings)):
            model.train()
            vectors_ND = _vectors(model, [texts[row] for row in rows])
            logits_NC = head(nn.functional.dropout(vectors_ND, DROPOUT))
            loss = criterion(logits_NC, targets[torch.from_numpy(rows)])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if time.monotonic() - told > _SECONDS_BETWEEN_MESSAGES:
                told = time.monotonic()
                left = (told - start) / (step + 1) * (steps - step - 1)
                _log.info("fine-tuning: step %d of %d, about %s left", step + 1, steps, clock(left))
    model.eval()
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise InputError(
            f"data.fine_tuning.learning_rate={settings.learning_rate:g}: the encoder {name} diverged; set a lower rate"
        )


def _criterion(labels: np.ndarray, n_classes: int) -> nn.Module:
    """Return the loss. Classes are weighted by 1 / sqrt(frequency), with mean 1 over the utterances."""
    import torch
    from torch import nn

    if labels.ndim == 2:
        return nn.BCEWithLogitsLoss()
    counts = np.bincount(labels, minlength=n_classes)
    weights = np.divide(1.0, np.sqrt(counts), out=np.zeros(n_classes), where=counts > 0)
    weights *= len(labels) / (weights * counts).sum()
    return nn.CrossEntropyLoss(weight=torch.from_numpy(weights.astype(np.float32)))


def _batches(lengths: np.ndarray, settings: FineTuningSettings) -> Iterator[np.ndarray]:
    """Yield the rows of each batch of all epochs. A batch has texts of similar length, which saves padding."""
    for epoch in range(1, settings.epochs + 1):
        draws = host_generator(settings.seed, "fine-tuning", epoch=epoch)
        order = draws.permutation(len(lengths))
        size = BATCH * _SORTED_BATCHES
        groups = [order[start : start + size] for start in range(0, len(order), size)]
        ordered = [group[np.argsort(lengths[group], kind="stable")] for group in groups]
        batches = [group[start : start + BATCH] for group in ordered for start in range(0, len(group), BATCH)]
        yield from (batches[index] for index in draws.permutation(len(batches)))


def _vectors(model: Any, texts: list[str]) -> Tensor:
    """Return (N, D) vectors with gradients, scaled to a mean square of 1 per feature if they have unit length."""
    limit = min(MAX_TOKENS, model.max_seq_length or MAX_TOKENS)
    inputs = model.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    vectors_ND: Tensor = model(dict(inputs))["sentence_embedding"]
    return vectors_ND * math.sqrt(vectors_ND.shape[1])


def _width(model: Any) -> int:
    import torch

    with torch.no_grad():
        return int(_vectors(model.eval(), ["a"]).shape[1])
