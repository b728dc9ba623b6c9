"""Pickles that execute code, forge arrays or exhaust the memory are refused with one line, and no code runs."""

from __future__ import annotations

import pickle
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from joyful.data.cogmen.restricted_pickle import MEMORY_BASE, MEMORY_PER_BYTE, loads
from joyful.records import SPLITS, InputError
from tests.support.bounded import BOUND_MIB, read_each
from tests.support.cogmen_pickles import dump, sample_class
from tests.support.faults import Tally
from tests.support.hostile_pickles import HostilePickle, hostile_pickles

NAMES = list(hostile_pickles(Path("canary")))

#: These raise TypeError after their code has run, because they call a class with wrong arguments.
RAISING = ("run_partial", "run_argument_of_a_sample")


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / "was_here"


@pytest.fixture(scope="module")
def corpus(canary: Path) -> dict[str, HostilePickle]:
    return hostile_pickles(canary)


def imported() -> set[str]:
    """Return the imported modules, without Python's codecs, which decoding text may import."""
    return {name for name in sys.modules if not name.startswith("encodings")}


def test_the_corpus_is_large_and_of_every_kind() -> None:
    assert len(NAMES) >= 170
    for kind in ("run_stack_global", "run_nested", "run_memo_in_text", "run_state_of_a_sample", "opcode_persistent_tuple",
                 "opcode_extension_0", "bomb_frame_of_all", "foreign_gzip", "foreign_zlib_6"):  # fmt: skip
        assert kind in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_pickle_is_refused_and_nothing_runs(
    name: str, corpus: dict[str, HostilePickle], canary: Path, tally: Tally
) -> None:
    modules = imported()
    with pytest.raises(InputError) as caught:
        loads(corpus[name].data, "data.pkl")
    assert type(caught.value) is InputError
    message = str(caught.value)
    assert message.startswith("data.pkl: ")
    assert corpus[name].expected in message
    assert message.isprintable()  # one line without control characters
    assert len(message) < 500
    assert not canary.exists()
    assert imported() == modules
    tally("hostile pickle", 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("run_")])
def test_the_canary_is_real(name: str, corpus: dict[str, HostilePickle], canary: Path) -> None:
    """Python's own unpickler executes these pickles, which shows that the corpus is effective."""
    assert corpus[name].runs
    with sample_class():
        try:
            pickle.loads(corpus[name].data)
        except TypeError as error:
            assert name in RAISING, error  # noqa: PT017
    assert canary.exists()
    canary.unlink()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("bomb_")])
def test_memory_is_bounded_by_the_size_of_the_file(name: str, corpus: dict[str, HostilePickle]) -> None:
    data = corpus[name].data
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            loads(data, "data.pkl")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * MEMORY_BASE + (MEMORY_PER_BYTE + 4) * len(data)


def test_the_corpus_on_disk_in_separate_processes(
    corpus: dict[str, HostilePickle], canary: Path, tmp_path: Path
) -> None:
    """The resident memory is bounded, and no process hangs or crashes."""
    paths = [tmp_path / f"{name}.pkl" for name in corpus]
    for path, hostile in zip(paths, corpus.values(), strict=True):
        path.write_bytes(hostile.data)
    outcomes = read_each("pickle", paths)
    assert {outcome.kind for outcome in outcomes} == {"InputError"}
    assert max(outcome.mebibytes for outcome in outcomes) < BOUND_MIB / 4
    assert not canary.exists()
    assert sorted(tmp_path.iterdir()) == sorted(paths)


@pytest.mark.soak("takes 4 s; the tests above have the same bound")
def test_the_rows_that_a_file_may_repeat_take_bounded_memory(tmp_path: Path) -> None:
    """One row of zeros for a missing modality is common. As many of them as the reader accepts, in bytes per number."""
    kinds: dict[str, type] = {"u1": np.uint8, "f8": np.float64, "list": float}
    for kind, dtype in kinds.items():
        for name, n in (("largest", 10_000), ("too_large", 40_000)):
            row = [0.0] * 250 if kind == "list" else np.zeros(1_000 if kind == "u1" else 500, dtype)
            dialogue = {"label": [0] * n, "audio": [row] * n, "speaker": ["M"] * n}
            path = tmp_path / f"{kind}_{name}" / "iemocap" / "data_iemocap.pkl"
            path.parent.mkdir(parents=True)
            path.write_bytes(dump({split: [dialogue] for split in SPLITS}))
    folders = sorted(tmp_path.iterdir())
    outcomes = dict(zip([folder.name for folder in folders], read_each("iemocap", folders), strict=True))
    assert {name: outcome.kind for name, outcome in outcomes.items()} == {
        f"{kind}_{name}": "read" if name == "largest" else "InputError"
        for kind in kinds
        for name in ("largest", "too_large")
    }
    assert max(outcome.mebibytes for outcome in outcomes.values()) < BOUND_MIB
