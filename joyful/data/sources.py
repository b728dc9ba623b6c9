"""The registry of data sources: the readers that the setting `data.source` selects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joyful.config import DataSettings
from joyful.records import DialogueDataset
from joyful.registry import Registry


@dataclass(frozen=True)
class Source:
    """A reader of datasets.

    Attributes:
        read: Reads a dataset, given the data settings and the sentence encoder, which is None if text is not requested
            or data.text_encoder is null. Raises InputError for bad settings or files.
        source_files: Returns the paths of the files that `read` reads; empty if it reads none.
        modalities: Modalities that its files can have. A wrong choice is then refused before files are read. None if
            only the files tell.
        cached: Whether a prepared copy saves time.
        complete: Whether a requested modality that the files lack is an error. Otherwise it is left out.
    """

    read: Callable[[DataSettings, Any], DialogueDataset]
    source_files: Callable[[DataSettings], list[Path]]
    modalities: tuple[str, ...] | None = None
    cached: bool = True
    complete: bool = False


#: Setting `data.source` -> reader. Every module of joyful.data may register one.
SOURCES = Registry[Source]("data.source", package="joyful.data")
