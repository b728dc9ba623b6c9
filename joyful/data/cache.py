"""The cache folder: prepared datasets, vectors of texts and fine-tuned encoders."""

from __future__ import annotations

import os
from pathlib import Path

from joyful.data_settings import DataSettings


def cache_folder(settings: DataSettings) -> Path:
    """Return the cache folder: data.cache, else $JOYFUL_CACHE, else ~/.cache/joyful. It need not exist."""
    folder = settings.cache or os.environ.get("JOYFUL_CACHE") or Path.home() / ".cache" / "joyful"
    return Path(folder).expanduser().absolute()


def text_cache(settings: DataSettings) -> Path:
    """Return the folder of the vectors of texts and of fine-tuned encoders, inside the cache folder."""
    return cache_folder(settings) / "text"
