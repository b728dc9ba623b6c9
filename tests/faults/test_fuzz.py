"""Mutated files in every public reader raise at most the documented InputError on one line, or mark a run as damaged.

Hypothesis draws the cases from the seed of the fault tests. A case is a valid file in which bytes are flipped,
replaced, inserted, deleted, cut off, or copied from elsewhere in it or from another valid file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck

from joyful.analysis.claims_file import BASIC_OPTIMIZATION, read_claims
from joyful.data import emorynlp, meld, mosi, prepared
from joyful.data.cogmen import restricted_pickle
from joyful.data.sources import SOURCES
from joyful.data.validation import validate
from joyful.records import InputError
from joyful.results import RunFolder, read_runs, tables
from joyful.training import checkpoints
from joyful.training.experiment import train_run
from tests.support import small_files
from tests.support.cogmen_pickles import dump
from tests.support.datasets import data_settings, fake_encode
from tests.support.faults import Tally, count, seed
from tests.support.importing import read_runs_of
from tests.support.runs import tiny_coach, tiny_request, tiny_settings

#: Reader -> number of cases, at least 1,000 in total. A soak runs twenty times as many.
CASES = {
    "pickle": 250, "random bytes as a pickle": 100, "COGMEN's pickle": 50, "MELD": 100, "EmoryNLP": 100, "MOSI": 50,
    "curves": 75, "checkpoint": 75, "foreign history": 75, "vouched history": 75, "times": 25, "run.json": 75,
    "Hydra's YAML": 75, "prepared": 75, "claims": 50,
}  # fmt: skip

ATOMS = (b"\0", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b'"', b"'", b",", b"\n", b"\r", b"\r\n", b"[", b"{", b"}", b"]", b":",
         b"nan", b"inf", b"1e999", b"-1", b"null", b"true", b"9" * 30, b"0.5", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"&a ", b"*a",
         b"!!python/name:os.system", b"${oc.env:HOME}", b"<<: ", b"\\ud800", b"\x80\x04", b"PAR1", b".", b" ", b"%")  # fmt: skip

PLACES = st.integers(0, 2**20)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
        st.tuples(
            st.sampled_from(["set", "insert"]), PLACES, st.binary(min_size=1, max_size=8) | st.sampled_from(ATOMS)
        ),
        st.tuples(st.just("delete"), PLACES, st.integers(1, 40)),
        st.tuples(st.just("cut"), PLACES, st.just(0)),
        st.tuples(st.just("copy"), PLACES, PLACES),
        st.tuples(st.just("splice"), PLACES, PLACES),
    ),
    min_size=1,
    max_size=6,
)


def mutated(data: bytes, changes: list[tuple[str, int, Any]], other: bytes) -> bytes:
    """Return `data` with these changes, applied in order. `other` is the source of "splice"."""
    for kind, place, argument in changes:
        at = place % (len(data) + 1)
        if kind == "flip" and data:
            at = place % len(data)
            data = data[:at] + bytes([data[at] ^ (1 << argument)]) + data[at + 1 :]
        elif kind in ("set", "insert"):
            data = data[:at] + argument + data[at + (len(argument) if kind == "set" else 0) :]
        elif kind == "delete":
            data = data[:at] + data[at + argument :]
        elif kind == "cut":
            data = data[:at]
        elif kind in ("copy", "splice"):
            source = data if kind == "copy" else other
            start = argument % (len(source) + 1)
            data = data[:at] + source[start : start + 20] + data[at:]
    return data


class Reader:
    """A reader of files.

    Attributes:
        files: Valid files, from which the mutated ones are derived.
        read: Writes a mutated file to its place, and reads it through the public API.
    """

    def __init__(self, files: list[bytes], read: Callable[[bytes], object]) -> None:
        self.files, self.read = files, read


def source(name: str, folder: Path, file: str, write: Callable[[Path], None]) -> Reader:
    write(folder)
    settings = data_settings(name, root=str(folder))

    def read(data: bytes) -> None:
        (folder / file).write_bytes(data)
        validate(SOURCES[settings.source].read(settings, fake_encode))

    return Reader([(folder / file).read_bytes()], read)


def pickles() -> list[bytes]:
    samples = {"train": [{"vid": "a", "label": [1, 2], "audio": [np.arange(3, dtype="f4")] * 2, "speaker": ["M", "F"]}]}
    import pickle

    plain = [np.arange(6).reshape(2, 3).T, np.array(["ab", None], object), np.float32(1), 2**40, b"x"]
    return [dump(samples, p) for p in range(6)] + [pickle.dumps(plain, p) for p in range(6)]


def iemocap(folder: Path) -> None:
    (folder / "iemocap").mkdir(parents=True)
    (folder / "iemocap" / "data_iemocap.pkl").write_bytes(small_files.iemocap_pickle())


def curves(folder: Path) -> Reader:
    folder.mkdir()

    def read(data: bytes) -> None:
        (folder / "curves.csv").write_bytes(data)
        for run in read_runs_of("csv", folder / "curves.csv"):
            tables.decode(tables.columns_bytes(run.history()))

    return Reader([small_files.curves_table()], read)


def saved(folder: Path) -> Reader:
    """Return a reader of the JSON and the tensors of a checkpoint, which also restores a coach."""
    train_run(tiny_request(folder, "training.epochs=1"))
    place, coach = folder / "checkpoint", tiny_coach(tiny_settings("training.epochs=1"))
    document = (place / "last.json").read_bytes()
    name = json.loads(document)["tensors"]
    tensors = (place / name).read_bytes()

    def read(data: bytes) -> None:
        is_json = data[:1] in (b"{", b"[", b"") or b"sha256" in data
        (place / name).write_bytes(tensors if is_json else data)
        changed = json.loads(document) | {"sha256": hashlib.sha256(data).hexdigest()}
        (place / "last.json").write_bytes(data if is_json else json.dumps(changed).encode())
        checkpoint = checkpoints.read(place, "last")
        if checkpoint is not None:
            coach.load_state_dict(checkpoint)

    return Reader([document, tensors], read)


def rows() -> list[dict[str, Any]]:
    return [
        {"step": step, "epoch": float(step), "split": split, "nll": 1 / step, "own": step / 7}
        for step in range(1, 4)
        for split in ("train", "dev", "test")
    ]


HEADER = {
    "objective_name": "dev f1_weighted", "seed": 1, "role": "comparison", "epochs": 3, "config_hash": "0123456789abcdef",
    "git": {"commit": None, "dirty": None}, "device": "cpu", "threads": 1, "choices": {"loss": "mse"},
    "config": {"seed": 1, "weights": {"encoder_loss_weight": 0.03}, "list": [1, "a"]},
}  # fmt: skip


def of_runs(folder: Path, file: str) -> Reader:
    """Return a reader of a folder with two runs. One is mutated, and the other must be read completely."""
    good = RunFolder.create(folder / "good", HEADER)
    good.write_history(rows())
    good.set_status("completed")
    shutil.copytree(folder / "good", folder / "bad")
    if file != "run.json":
        (folder / "bad" / "run.json").unlink()
        (folder / "bad" / ".hydra").mkdir()
    place = folder / "bad" / file
    honest = {"run.json": (folder / "good" / "run.json").read_bytes(), "history.parquet": tables.history_bytes(rows())}
    yaml = b"hydra:\n  runtime:\n    choices:\n      loss: mse\n      x: null\nseed: 1\nlist: [1, 2.5, 'a']\ntext: >\n  a\n  b\n"
    files = [honest.get(file, yaml)]
    if file == "history.parquet":
        import io

        import pandas as pd

        sink = io.BytesIO()
        pd.DataFrame(rows()).to_parquet(sink, compression="zstd")
        files.append(sink.getvalue())

    def read(data: bytes) -> None:
        place.write_bytes(data)
        runs = read_runs(folder)
        assert "good" in [header.name for header in runs.headers]
        assert {header.name for header in (*runs.headers, *runs.damaged)} <= {"good", "bad"}
        for header in runs.damaged:
            raise InputError(header.damage)

    return Reader(files, read)


def vouched(folder: Path, file: str) -> Reader:
    """Return a reader of a run that can be resumed, whose run.json has the digest of the mutated history."""
    run = RunFolder.create(folder, HEADER)
    run.write_history(rows())
    run.write_timing([{"epoch": 1.0, "phase": "train", "seconds": 1.5}])
    run.set_status("interrupted")

    def read(data: bytes) -> None:
        (folder / file).write_bytes(data)
        history = (folder / "history.parquet").read_bytes()
        info = json.loads((folder / "run.json").read_bytes())
        info["history_sha256"] = [hashlib.sha256(history).hexdigest()]
        (folder / "run.json").write_text(json.dumps(info))
        opened = RunFolder.open(folder)
        tables.history_bytes(opened.history_rows())
        tables.timing_bytes(opened.timing_rows())

    return Reader([(folder / file).read_bytes()], read)


def prepared_folder(folder: Path) -> Reader:
    small_files.write_prepared(folder)
    honest = {name: (folder / name).read_bytes() for name in prepared.FILES}

    def read(data: bytes) -> None:
        name = prepared.META if data[:1] == b"{" else prepared.UTTERANCES if b"PAR1" in data[:20] else prepared.ARRAYS
        for other, content in honest.items():
            (folder / other).write_bytes(content)
        if name == prepared.META:
            (folder / name).write_bytes(data)
        else:
            small_files.rewrite_prepared(folder, name, data)
        validate(prepared.open_folder(folder)[0])

    return Reader(list(honest.values()), read)


def claims(folder: Path) -> Reader:
    folder.mkdir()

    def read(data: bytes) -> None:
        (folder / "claims.yaml").write_bytes(data)
        read_claims(folder / "claims.yaml")

    return Reader([BASIC_OPTIMIZATION.read_bytes()], read)


READERS: dict[str, Callable[[Path], Reader]] = {
    "pickle": lambda _: Reader(pickles(), lambda data: restricted_pickle.loads(data, "data.pkl")),
    "random bytes as a pickle": lambda _: Reader([b""], lambda data: restricted_pickle.loads(data, "data.pkl")),
    "COGMEN's pickle": lambda folder: source("iemocap", folder, "iemocap/data_iemocap.pkl", iemocap),
    "MELD": lambda folder: source("meld", folder, meld.FILES[1], small_files.write_meld),
    "EmoryNLP": lambda folder: source("emorynlp", folder, emorynlp.FILES[0], small_files.write_emorynlp),
    "MOSI": lambda folder: source("mosi", folder, mosi.FILES[2], small_files.write_mosi),
    "curves": curves,
    "checkpoint": saved,
    "foreign history": lambda folder: of_runs(folder, "history.parquet"),
    "vouched history": lambda folder: vouched(folder, "history.parquet"),
    "times": lambda folder: vouched(folder, "timing.parquet"),
    "run.json": lambda folder: of_runs(folder, "run.json"),
    "Hydra's YAML": lambda folder: of_runs(folder, ".hydra/config.yaml"),
    "prepared": prepared_folder,
    "claims": claims,
}


def test_number_of_cases() -> None:
    assert set(CASES) == set(READERS)
    assert sum(CASES.values()) >= 1000


@pytest.mark.parametrize("name", READERS)
def test_fuzzed_files_are_read_or_refused_as_documented(name: str, tmp_path: Path, tally: Tally) -> None:
    reader = READERS[name](tmp_path / "place")
    files = st.sampled_from(reader.files)
    ran = refused = 0

    @hypothesis.seed(seed())
    @hypothesis.settings(
        max_examples=count(CASES[name], 20 * CASES[name]), deadline=None, database=None, derandomize=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @hypothesis.given(data=files, other=files, changes=CHANGES, noise=st.binary(max_size=200))
    def fuzz(data: bytes, other: bytes, changes: list[tuple[str, int, Any]], noise: bytes) -> None:
        nonlocal ran, refused
        ran += 1
        case = mutated(data, changes, other) if data else noise
        try:
            reader.read(case)
        except InputError as error:
            refused += 1
            assert " ".join(str(error).split()).isprintable(), error  # noqa: PT017
            assert len(str(error)) < 2000, error  # noqa: PT017

    fuzz()
    tally(f"fuzzed file: {name}", ran)
    assert ran >= CASES[name]
    assert refused > ran / 5  # otherwise the mutations do not damage the files
