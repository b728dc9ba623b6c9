"""Load a dataset from its settings: read, validate and cache it.

Sources. `joyful.data.sources` is the registry of readers. The setting `data.source` selects one.

Cache. A dataset is kept in `<cache>/prepared/<name>-<digest>/` (see joyful.data.prepared). The digest covers the
contents of the source files, the settings and the code of the readers, so the cache never returns stale data. Digests
of source files are cached too, together with the file's path, size, inode, mtime and ctime. ctime cannot be set back.
The digest of a file that changed in the last two seconds is not cached, because a second change could leave the times
equal. A copy with the same origin and another digest is removed. Processes that have mapped it can still use it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from joyful import randomness
from joyful.config import DataSettings
from joyful.data import prepared
from joyful.data.cache import cache_folder, text_cache
from joyful.data.sources import SOURCES, Source
from joyful.data.text_encoder import JoinedEncoder, SentenceEncoder, sentence_encoder
from joyful.data.validation import validate
from joyful.records import MODALITIES, DialogueDataset, InputError
from joyful.results import csv_text
from joyful.results.provenance import encoder_names

#: Increase this number if the meaning of prepared datasets changes, but neither the code of this folder nor the format.
PREPARED_VERSION = 1

_FOLDER = Path(__file__).resolve().parent
_KEPT_IN_MEMORY = 2  # datasets
_RACY_NANOSECONDS = 2_000_000_000

_log = logging.getLogger(__name__)
_memory: OrderedDict[str, DialogueDataset] = OrderedDict()
_memory_lock = threading.Lock()


def load(settings: DataSettings, modalities: tuple[str, ...]) -> DialogueDataset:
    """Load a dataset.

    The two most recently used datasets are kept in memory. This function is thread-safe.

    Args:
        settings: The data settings.
        modalities: Some of "audio", "text" and "visual". Text is encoded only if it is requested.

    Returns:
        The validated dataset, with the requested modalities that its source provides.

    Raises:
        InputError: If the source is unknown, a file is missing or invalid, the cache cannot be used, or the source
            provides none of the modalities.
    """
    source = SOURCES[settings.source]
    if source.modalities is not None:  # before the files are looked for and read
        _require_any(settings, modalities, source.modalities)
    if settings.fine_tuning.epochs and not (source.cached and source.source_files(settings)):
        what = "no texts on which an encoder could be trained"
        if settings.source == "prepared":
            what = "vectors of text already; an encoder is fine-tuned by `joyful prepare`, with the same setting"
        raise InputError(
            f"data.fine_tuning.epochs={settings.fine_tuning.epochs}: data={settings.source} has {what};"
            " set data.fine_tuning.epochs=0"
        )
    encoder = make_encoder(settings) if "text" in modalities else None
    digest = _digest(settings, source, encoder)
    with _memory_lock:
        dataset = _memory.get(digest)
        if dataset is None:
            if source.cached and source.source_files(settings):
                dataset = _load_prepared(settings, source, encoder, digest)
            else:
                dataset = source.read(settings, encoder)
                validate(dataset)
        _memory[digest] = dataset
        _memory.move_to_end(digest)
        while len(_memory) > _KEPT_IN_MEMORY:
            _memory.popitem(last=False)
    if source.complete:
        _require_all(settings, modalities, tuple(dataset.dimensions))
    return select_modalities(dataset, settings, modalities)


def check_files(settings: DataSettings, modalities: tuple[str, ...]) -> None:
    """Check that the files of a dataset exist and have one of the modalities, without reading them.

    Raises:
        InputError: If the source is unknown, a file is missing, or the source provides none of the modalities.
    """
    source = SOURCES[settings.source]
    if source.modalities is not None:
        _require_any(settings, modalities, source.modalities)
    source.source_files(settings)


def select_modalities(dataset: DialogueDataset, settings: DataSettings, modalities: tuple[str, ...]) -> DialogueDataset:
    """Return the dataset with only the requested modalities that it has.

    Args:
        dataset: The dataset.
        settings: The data settings, for messages.
        modalities: Some of "audio", "text" and "visual".

    Raises:
        InputError: If the dataset has none of the modalities.
    """
    _require_any(settings, modalities, tuple(dataset.dimensions))
    dimensions = {name: d for name, d in dataset.dimensions.items() if name in modalities}
    splits = {
        split: replace(
            part,
            features={name: part.features[name] for name in dimensions},
            missing={name: mask for name, mask in part.missing.items() if name in dimensions},
        )
        for split, part in dataset.splits.items()
    }
    return replace(dataset, dimensions=dimensions, splits=splits)


def make_encoder(settings: DataSettings) -> SentenceEncoder | JoinedEncoder | None:
    """Return the sentence encoder of data.text_encoder, or None if it is null. The model is loaded on first use.

    Raises:
        InputError: If the setting is not valid, or an encoder is a local folder that cannot be read.
    """
    if settings.text_encoder is None:
        return None
    return sentence_encoder(settings.text_encoder, text_cache(settings))


def _require_any(settings: DataSettings, modalities: tuple[str, ...], present: tuple[str, ...]) -> None:
    if not set(modalities) & set(present):
        letters = "".join(letter for letter, name in MODALITIES.items() if name in present)
        raise InputError(
            f"data={settings.name} has {' and '.join(present) or 'no modality'}, but modalities selects"
            f" {' and '.join(modalities) or 'none'}; set modalities={letters or '...'}"
        )


def _require_all(settings: DataSettings, modalities: tuple[str, ...], present: tuple[str, ...]) -> None:
    _require_any(settings, modalities, present)
    if missing := [name for name in modalities if name not in present]:
        letters = "".join(letter for letter, name in MODALITIES.items() if name in modalities and name in present)
        asked = "".join(letter for letter, name in MODALITIES.items() if name in modalities)
        raise InputError(
            f"data={settings.name}: its files have {' and '.join(present)}, but no {' and no '.join(missing)}, which"
            f" modalities={asked} includes; set modalities={letters}"
        )


def _code() -> list[Path]:
    """Return the files whose code determines the dataset of given files and settings."""
    return [*sorted(_FOLDER.rglob("*.py")), Path(csv_text.__file__), Path(randomness.__file__)]


def _digest(settings: DataSettings, source: Source, encoder: SentenceEncoder | JoinedEncoder | None) -> str:
    """Return the digest of everything that determines the dataset, 16 hexadecimal digits."""
    stamps = cache_folder(settings) / "prepared" / ".digests"
    parts = {
        "version": [PREPARED_VERSION, prepared.FORMAT_VERSION],
        "settings": settings.model_dump(exclude={"root", "cache", "text_encoder"}),
        # Distinguish two cases without an encoder: text is not requested, or data.text_encoder is null.
        "encoder": encoder.identity if encoder else settings.text_encoder is None,
        "code": [prepared.sha256(path) for path in _code()],
        "files": [[path.name, file_digest(path, stamps)] for path in source.source_files(settings)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path, stamps: Path) -> str:
    """Return the SHA-256 digest of a file, which is cached in the folder `stamps` (see the module docstring)."""
    try:
        before = path.stat()
        stamp = [str(path.absolute()), before.st_size, before.st_ino, before.st_mtime_ns, before.st_ctime_ns]
        record = stamps / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            cached = json.loads(record.read_text("utf-8"))
            if cached["stamp"] == stamp and re.fullmatch(r"[0-9a-f]{64}", cached["sha256"]):
                return str(cached["sha256"])
        start = time.time_ns()
        digest = prepared.sha256(path)
        if start - max(before.st_mtime_ns, before.st_ctime_ns) > _RACY_NANOSECONDS:
            with contextlib.suppress(OSError):  # without this cache the program is only slower
                stamps.mkdir(parents=True, exist_ok=True)
                temporary = record.with_name(f"{record.name}.{os.getpid()}.{threading.get_ident()}")
                temporary.write_text(json.dumps({"stamp": stamp, "sha256": digest}), "utf-8")
                os.replace(temporary, record)
        return digest
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); check data.root and the permissions") from None


def _load_prepared(
    settings: DataSettings, source: Source, encoder: SentenceEncoder | JoinedEncoder | None, digest: str
) -> DialogueDataset:
    """Open the prepared copy. Create it first if it is missing or damaged."""
    folder = cache_folder(settings) / "prepared" / f"{settings.name}-{digest}"
    if folder.exists():
        with contextlib.suppress(InputError):  # damage is handled below, under the lock
            return _open(folder, settings)
    try:
        with _locked(folder.parent / f".{settings.name}.lock"):
            if folder.exists():  # another process was faster, or the copy is damaged
                try:
                    return _open(folder, settings)
                except InputError as error:
                    _log.warning("the prepared copy cannot be used and is created again: %s", error)
                    shutil.rmtree(folder)
            for leftover in folder.parent.glob(f".{folder.name}.*"):  # of killed processes
                shutil.rmtree(leftover, ignore_errors=True)
            dataset = source.read(settings, encoder)
            validate(dataset)
            changes = {"root": os.path.abspath(settings.root or "")} | ({} if encoder else {"text_encoder": None})
            origin = settings.model_copy(update=changes)
            prepared.write_folder(dataset, folder, origin.model_dump(mode="json", exclude={"cache"}))
            _remove_superseded(folder, settings.name)
            return _open(folder, settings)
    except OSError as error:
        raise InputError(
            f"the cache {cache_folder(settings)} cannot be used ({error}); set data.cache=FOLDER to a writable folder"
        ) from None


def _open(folder: Path, settings: DataSettings) -> DialogueDataset:
    dataset, _ = prepared.open_folder(folder)
    validate(dataset)
    # The first name is the fine-tuned encoder. Without its folder, the models of new runs could label no new text.
    tuned = encoder_names(dataset.text_encoder)[0]
    if settings.fine_tuning.epochs and dataset.text_encoder != "file" and not os.path.isdir(tuned):
        raise InputError(f"{tuned} was removed")
    return dataset


def _remove_superseded(folder: Path, name: str) -> None:
    """Remove the copies with the same origin and another digest."""
    origin = prepared.read_meta(folder)["origin"]
    for other in folder.parent.glob(f"{name}-" + "[0-9a-f]" * 16):
        with contextlib.suppress(InputError):
            if other != folder and prepared.read_meta(other)["origin"] == origin:
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock, so that one process at a time prepares a dataset. The lock ends with its process.

    Without such locks (not POSIX, some network file systems) several processes may prepare the same dataset. The copy
    of the first to finish is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("another process is preparing this dataset; waiting for it (lock %s)", path)
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield
