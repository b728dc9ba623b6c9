"""The front of the data room: from settings to a checked dataset, quickly the second time.

A source is a module of this folder with `source_files(settings) -> list[Path]` and `read(settings, encode) ->
DialogueDataset`; `data.source` names it. Optional constants of a source: SOURCE_MODALITIES, those that its files can
have (so that a wrong choice is refused before anything is read), and CACHED = False, if keeping a prepared copy
would gain nothing.

What was read is kept in `<cache>/prepared/<name>-<digest>/` (joyful.data.prepared). The digest is taken of the
contents of the source files, the settings and the code of this folder, so nothing is ever served stale. To make that
quick, the digest of a file is remembered under its path, size, inode and times of change; ctime cannot be set back,
and a file that changed within two seconds before it was digested is digested again. A copy with the same origin and
another digest is superseded and removed; a process that has it mapped keeps it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
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
from types import ModuleType

from joyful.config import DataSettings
from joyful.data import prepared
from joyful.data.text_encoder import SentenceEncoder
from joyful.data.validation import validate
from joyful.records import MODALITIES, DialogueDataset, InputError

#: Raise it when the meaning of prepared datasets changes in a way that neither the readers nor the format show.
PREPARED_VERSION = 1

_FOLDER = Path(__file__).resolve().parent
_KEPT_IN_MEMORY = 2
_RACY_NANOSECONDS = 2_000_000_000

_log = logging.getLogger(__name__)
_memory: OrderedDict[str, DialogueDataset] = OrderedDict()
_memory_lock = threading.Lock()


def load(settings: DataSettings, modalities: tuple[str, ...]) -> DialogueDataset:
    """Return the dataset with those of the modalities ("audio", "text", "visual") that its source has.

    Raises InputError for an unknown source, files that are missing or at fault, or if none of the modalities is there.
    """
    source = find_source(settings)
    can_have = getattr(source, "SOURCE_MODALITIES", None)
    if can_have is not None:
        _require_any(settings, modalities, can_have)
    encoder = make_encoder(settings) if "text" in modalities else None
    digest = _digest(settings, source, encoder)
    with _memory_lock:
        dataset = _memory.get(digest)
        if dataset is None:
            if getattr(source, "CACHED", True) and source.source_files(settings):
                dataset = _load_prepared(settings, source, encoder, digest)
            else:
                dataset = source.read(settings, encoder)
                validate(dataset)
        _memory[digest] = dataset
        _memory.move_to_end(digest)
        while len(_memory) > _KEPT_IN_MEMORY:
            _memory.popitem(last=False)
    return choose(dataset, settings, modalities)


def choose(dataset: DialogueDataset, settings: DataSettings, modalities: tuple[str, ...]) -> DialogueDataset:
    """The dataset with only those of the modalities that it has, at least one (InputError)."""
    _require_any(settings, modalities, tuple(dataset.dimensions))
    dimensions = {name: d for name, d in dataset.dimensions.items() if name in modalities}
    splits = {
        split: replace(part, features={name: part.features[name] for name in dimensions})
        for split, part in dataset.splits.items()
    }
    return replace(dataset, dimensions=dimensions, splits=splits)


def find_source(settings: DataSettings) -> ModuleType:
    """Import joyful.data.<source>. InputError, with the list of sources, if this folder has no such reader."""
    readers = {"cogmen": _FOLDER / "cogmen/reader.py"} | {path.stem: path for path in _FOLDER.glob("*.py")}
    names = sorted(name for name, path in readers.items() if re.search(r"^def read\(", path.read_text("utf-8"), re.M))
    if settings.source not in names:
        raise InputError(f"data.source must be one of {', '.join(names)}, got {settings.source!r}; set data=NAME")
    return importlib.import_module(f"joyful.data.{settings.source}")


def make_encoder(settings: DataSettings) -> SentenceEncoder | None:
    """The sentence encoder that the settings name, with its cache; it loads nothing until it is needed."""
    if settings.text_encoder is None:
        return None
    return SentenceEncoder(settings.text_encoder, cache_folder(settings) / "text")


def cache_folder(settings: DataSettings) -> Path:
    """data.cache, else $JOYFUL_CACHE, else ~/.cache/joyful."""
    chosen = settings.cache or os.environ.get("JOYFUL_CACHE") or Path.home() / ".cache" / "joyful"
    return Path(chosen).expanduser().absolute()


def _require_any(settings: DataSettings, modalities: tuple[str, ...], present: tuple[str, ...]) -> None:
    if not set(modalities) & set(present):
        letters = "".join(letter for letter, name in MODALITIES.items() if name in present)
        raise InputError(
            f"data={settings.name} has {' and '.join(present) or 'no modality'}, but modalities chooses"
            f" {' and '.join(modalities) or 'none'}; set modalities={letters or '...'}"
        )


def _digest(settings: DataSettings, source: ModuleType, encoder: SentenceEncoder | None) -> str:
    """What the dataset is a function of, as 16 hex digits."""
    stamps = cache_folder(settings) / "prepared" / ".digests"
    parts = {
        "version": [PREPARED_VERSION, prepared.FORMAT_VERSION],
        "settings": settings.model_dump(exclude={"root", "cache", "text_encoder"}),
        # no encoder because text is not asked for, and none because none is set, are different requests
        "encoder": encoder.identity if encoder else settings.text_encoder is None,
        "code": [prepared.sha256(path) for path in sorted(_FOLDER.rglob("*.py"))],
        "files": [[path.name, _file_digest(path, stamps)] for path in source.source_files(settings)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _file_digest(path: Path, stamps: Path) -> str:
    """SHA-256 of a file, remembered in `stamps` as long as the file's stamp stays the same."""
    try:
        before = path.stat()
        stamp = [str(path.absolute()), before.st_size, before.st_ino, before.st_mtime_ns, before.st_ctime_ns]
        record = stamps / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:24]}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(record.read_text("utf-8"))
            if known["stamp"] == stamp and re.fullmatch(r"[0-9a-f]{64}", known["sha256"]):
                return known["sha256"]
        began = time.time_ns()
        digest = prepared.sha256(path)
        if began - max(before.st_mtime_ns, before.st_ctime_ns) > _RACY_NANOSECONDS:
            with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
                stamps.mkdir(parents=True, exist_ok=True)
                temporary = record.with_name(f"{record.name}.{os.getpid()}.{threading.get_ident()}")
                temporary.write_text(json.dumps({"stamp": stamp, "sha256": digest}), "utf-8")
                os.replace(temporary, record)
        return digest
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); check data.root") from None


def _load_prepared(
    settings: DataSettings, source: ModuleType, encoder: SentenceEncoder | None, digest: str
) -> DialogueDataset:
    """Open the prepared copy; make it first if there is none or it is damaged."""
    folder = cache_folder(settings) / "prepared" / f"{settings.name}-{digest}"
    if folder.exists():
        with contextlib.suppress(InputError):  # damage is told of below, where no other process can be at it
            return _open(folder)
    try:
        with _locked(folder.parent / f".{settings.name}.lock"):
            if folder.exists():  # another process was quicker, or it is damaged
                try:
                    return _open(folder)
                except InputError as error:
                    _log.warning("the prepared copy is made again: %s", error)
                    shutil.rmtree(folder)
            for left_over in folder.parent.glob(f".{folder.name}.*"):
                shutil.rmtree(left_over, ignore_errors=True)
            dataset = source.read(settings, encoder)
            validate(dataset)
            changes = {"root": os.path.abspath(settings.root or "")} | ({} if encoder else {"text_encoder": None})
            origin = settings.model_copy(update=changes)
            prepared.write_folder(dataset, folder, origin.model_dump(mode="json", exclude={"cache"}))
            _remove_superseded(folder, settings.name)
            return _open(folder)
    except OSError as error:
        raise InputError(
            f"the cache {cache_folder(settings)} cannot be used ({error}); set data.cache=FOLDER to a writable folder"
        ) from None


def _open(folder: Path) -> DialogueDataset:
    dataset, _ = prepared.open_folder(folder)
    validate(dataset)
    return dataset


def _remove_superseded(folder: Path, name: str) -> None:
    origin = prepared.read_meta(folder)["origin"]
    for other in folder.parent.glob(f"{name}-" + "[0-9a-f]" * 16):
        with contextlib.suppress(InputError):
            if other != folder and prepared.read_meta(other)["origin"] == origin:
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time prepares a dataset; the lock ends with its process.

    Where there are no such locks (not POSIX, some network disks) two may do the same work; the first to end is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("waiting for another process that prepares this dataset (%s)", path)
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield
