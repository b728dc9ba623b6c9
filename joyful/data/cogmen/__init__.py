"""Reader of COGMEN and JOYFUL pickles (data=iemocap, iemocap_4, mosei, meld_cogmen) that does not run their code."""

from joyful.data.cogmen.reader import read, source_files

__all__ = ["read", "source_files"]
