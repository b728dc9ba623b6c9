"""Pickles of COGMEN and JOYFUL (``data=iemocap``, ``iemocap_4``, ``mosei``, ``meld_cogmen``), read without running their code."""

from joyful.data.cogmen.reader import read, source_files

__all__ = ["read", "source_files"]
