"""The text encoder of a model, checked against the one that it was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from joyful.data.cache import cache_folder
from joyful.data.description import text_encoder_digest
from joyful.data.text_encoder import sentence_encoder
from joyful.data_settings import DataSettings
from joyful.prediction.saved import SavedModel
from joyful.records import InputError


class TextEncoder:
    """Encodes texts as the training did, N texts -> (N, D) float32. Vectors are cached where training caches them.

    Args:
        name: Name or folder of the encoder on this machine.
        cache: The cache folder of the program.
        recorded: Name of the encoder in training.
        digest: Its digest; None if the run did not record it.

    Raises:
        InputError: If the encoder is a folder that cannot be read.

    Attributes:
        name: The argument.
    """

    def __init__(self, name: str, cache: Path, recorded: str, digest: str | None) -> None:
        self.name, self._cache, self._recorded, self._digest = name, cache, recorded, digest
        self._encoder = sentence_encoder(name, cache / "text")
        self._checked = False

    @classmethod
    def of(cls, models: Sequence[SavedModel], name: str | None, cache: str | Path | None) -> Self:
        """Return the encoder of models that share it.

        Args:
            models: The models.
            name: Where the encoder is on this machine; None: where it was in training.
            cache: Cache folder; None: that of the run.
        """
        recorded = str(models[0].data.text_encoder)
        digests = [model.data.text_encoder_digest for model in models if model.data.text_encoder_digest]
        folder = cache if cache is not None else models[0].config["data"].get("cache")
        settings = DataSettings.model_construct(cache=None if folder is None else str(folder))
        return cls(name or recorded, cache_folder(settings), recorded, digests[0] if digests else None)

    def check(self) -> list[str]:
        """Compare the encoder with that of the training.

        Returns:
            What the user should know: a line if the two could not be compared.

        Raises:
            InputError: If they differ.
        """
        if self._digest is None:
            return [f"the text encoder {self.name} could not be checked: the run did not record its digest"]
        found = text_encoder_digest(self.name, self._cache)
        if found is None:
            return [f"the text encoder {self.name} could not be checked: it is not on this machine"]
        if found != self._digest:
            raise InputError(
                f"data.text_encoder={self.name}: expected the encoder of the training ({self._recorded}, digest {self._digest}),"
                f" got one with the digest {found}; install that encoder, or set data.text_encoder to its folder"
            )
        self._checked = True
        return []

    def __call__(self, sentences: Sequence[str]) -> np.ndarray:
        vectors = self._encoder(sentences)
        if not self._checked:  # the encoder may have been downloaded just now
            self.check()
        return vectors
