"""Tiny runs that the tests of prediction share. No test changes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.predicting import Corpus, write_corpus

EMOTIONS = ("joy", "anger", "fear")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Corpus:
    """Dialogues with text and audio, one label for an utterance."""
    return write_corpus(tmp_path_factory.mktemp("single") / "corpus", EMOTIONS)


@pytest.fixture(scope="session")
def run(corpus) -> Path:
    """A run on audio and text."""
    return corpus.train(corpus.folder / "runs" / "0", "modalities=at")


@pytest.fixture(scope="session")
def second(corpus, run) -> Path:
    """The same with another seed."""
    return corpus.train(corpus.folder / "runs" / "1", "modalities=at", "seed=2")


@pytest.fixture(scope="session")
def several(tmp_path_factory) -> Corpus:
    """Dialogues with several labels at once."""
    folder = tmp_path_factory.mktemp("several") / "corpus"
    return write_corpus(folder, (["joy"], ["joy", "fear"], [], ["anger", "fear"]), missing=0.3)


@pytest.fixture(scope="session")
def several_run(several) -> Path:
    """A multi-label run on text and on audio, which some utterances lack."""
    return several.train(several.folder / "run", "modalities=at", "model.standardise=true")
