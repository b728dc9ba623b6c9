"""The command `joyful predict`: its files, its messages and its exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from joyful.model.joyful import GraphModel
from joyful.prediction import load
from joyful.prediction.command import main
from joyful.prediction.network import Network
from joyful.training.batching import DeviceSplit


@pytest.fixture
def chat(corpus, tmp_path):
    """The test split as a CSV file."""
    corpus.split("test").to_csv(tmp_path / "chat.csv", index=False)
    return tmp_path / "chat.csv"


def test_csv_on_standard_output_and_scores_on_standard_error(run, chat, capsys):
    assert main([str(run), str(chat)]) == 0
    told = capsys.readouterr()
    found = pd.read_csv(io.StringIO(told.out))
    expected = load(run).predict(chat)
    assert found["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(found["probability_joy"], expected["probability_joy"], rtol=1e-6)
    n, labelled = len(expected), expected["label"].notna().sum()
    assert f"joyful: {n} utterances labelled by {run}\n" in told.err
    assert f"joyful: of {labelled} with a label: accuracy " in told.err


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_several_labels_in_each_format(several, several_run, tmp_path, ending):
    test = several.split("test")
    test.to_parquet(tmp_path / "in.parquet")
    out = tmp_path / f"out.{ending}"
    assert main([str(several_run), str(tmp_path / "in.parquet"), "--out", str(out)]) == 0
    expected = load(several_run).predict(test)
    if ending == "parquet":
        found = pd.read_parquet(out)
        assert [list(names) for names in found["predicted"]] == expected["predicted"].tolist()
        assert found["probability_joy"].equals(expected["probability_joy"])
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["predicted"] for row in rows] == expected["predicted"].tolist()
        assert [row["label"] for row in rows] == expected["label"].tolist()
    else:
        found = pd.read_csv(out, keep_default_na=False)
        assert found["predicted"].tolist() == ["|".join(names) for names in expected["predicted"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.parquet", out.name])


def test_several_runs_a_pattern_and_options_between_them(run, second, chat, tmp_path, capsys):
    arguments = [
        [str(run), str(second), str(chat)],
        [f"{run.parent}/*", str(chat)],
        [str(run), "--device", "cpu", str(second), str(chat)],
    ]
    outputs = []
    for words in arguments:
        assert main(words) == 0
        told = capsys.readouterr()
        assert "labelled by the mean of 2 models" in told.err
        outputs.append(told.out)
    assert outputs == [outputs[0]] * 3
    assert main([str(run.parent), "--best", str(chat), "--out", str(tmp_path / "best.csv")]) == 0
    assert f"labelled by {run.parent}" in capsys.readouterr().err


def test_columns_with_other_names(run, corpus, tmp_path, capsys):
    test = corpus.split("test").rename(columns={"text": "message", "speaker": "who"}).drop(columns="label")
    test.to_csv(tmp_path / "chat.csv", index=False)
    assert main([str(run), str(tmp_path / "chat.csv"), "--columns", "text=message,speaker=who,label=null"]) == 0
    assert capsys.readouterr().out.startswith("dialogue,place,speaker,text,predicted,probability_anger")


def test_settings_of_training_say_how_the_file_is_read(run, corpus, chat, tmp_path, capsys):
    assert main([str(run), str(chat)]) == 0
    expected = capsys.readouterr().out
    test = corpus.split("test").rename(columns={"text": "Wörter"})
    test.to_csv(tmp_path / "other.csv", index=False, sep=";", encoding="cp1252")
    words = ["data.table.columns.text=Wörter", "data.table.encoding=cp1252", "data.table.separator=semicolon",
             f"data.cache={corpus.folder / 'cache'}", f"data.text_encoder={corpus.encoder}"]  # fmt: skip
    assert main([str(run), *words[:2], str(tmp_path / "other.csv"), *words[2:]]) == 0
    assert capsys.readouterr().out == expected
    found = load(run).predict(tmp_path / "other.csv", {"text": "Wörter"}, encoding="cp1252")
    assert found["predicted"].tolist() == pd.read_csv(io.StringIO(expected))["predicted"].tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "CHAT", "--out", "x.txt"], "expected a file .csv, .jsonl, .parquet, got '.txt'"),
        (["RUN", "CHAT", "--out", "no/x.csv"], "expected an existing folder, found no no; create it"),
        (["RUN", "CHAT", "--out", "CHAT"], "expected a new file, got the table itself"),
        (["RUN", "CHAT", "--out", "RUN/predictions.parquet"], "expected a new file, got one of the run in"),
        (["RUN", "CHAT", "--out", "RUN/History.parquet"], "expected a new file, got one of the run in"),
        (["RUN", "nothing.csv"], "nothing.csv does not exist; give a table of dialogues"),
        (["RUN", "CHAT", "data.table.encodin=cp1252"], "data.table: expected one of columns, columns.dialogue, "),
        (["RUN", "CHAT", "data.table.speakers=9"], "got 'speakers'"),
        (
            ["RUN", "CHAT", "data.table.separator=dot"],
            "data.table.separator: expected one of 'comma', 'semicolon' or 'tab'",
        ),
        (["RUN", "CHAT", "data.text_encoder=nothing"], "data.text_encoder=nothing cannot be loaded"),
        (["RUN", "CHAT", "--device", "cuda"], "--device cuda: expected a CUDA device"),
        (["RUN", "CHAT", "--columns", "text=words"], "expected a column 'words' for the text"),
        (["nothing", "CHAT"], "nothing: expected the folder of a run or of an exported model"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, chat, capsys, monkeypatch, words, message):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    monkeypatch.chdir(chat.parent)
    assert main([{"CHAT": str(chat)}.get(word, word.replace("RUN", str(run))) for word in words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert message in told.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "the following arguments are required: FILE"),
        (["x", "y", "--columns", "words"], "expected ROLE=NAME such as text=message, got words"),
        (["x", "y", "--columns", "txt=words"], "expected one of dialogue, place, speaker, text, label, got txt"),
        (["x", "y", "--devise", "cpu"], "--devise: there is no such option; did you mean --device"),
    ],
)
def test_wrong_arguments(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("failure", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried")])
def test_lack_of_memory_is_one_line_with_the_longest_dialogue(run, corpus, chat, capsys, monkeypatch, failure):
    def fail(*_):
        raise failure

    monkeypatch.setattr(DeviceSplit, "batches_in_order", fail)
    assert main([str(run), str(chat), "--device", "cpu"]) == 2
    longest = corpus.split("test").groupby("dialogue").size().max()
    line = f"joyful: predict: out of memory; the longest dialogue has {longest} utterances; split it\n"
    assert capsys.readouterr().err == line
    if isinstance(failure, RuntimeError):
        with monkeypatch.context() as patch:
            patch.setattr(GraphModel, "to", fail)
            assert main([str(run), str(chat), "--device", "cpu"]) == 2
            assert capsys.readouterr().err.endswith(f"{run}: out of memory for its weights; use --device cpu\n")
    monkeypatch.setattr(Network, "__init__", lambda self, *_: setattr(self, "device", torch.device("cuda")))
    monkeypatch.setattr(Network, "_logits", fail)
    assert main([str(run), str(chat), "--device", "cpu"]) == 2
    assert capsys.readouterr().err == f"{line[:-1]}, or use --device cpu\n"


@pytest.mark.slow
def test_standard_output_is_utf_8_whatever_its_encoding(run, corpus, chat, tmp_path):
    corpus.split("test").assign(speaker="Zoë").to_csv(chat, index=False)
    words = [sys.executable, "-m", "joyful.prediction.command", str(run), str(chat)]
    done = subprocess.run(words, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert main([*words[3:], "--out", str(tmp_path / "out.csv")]) == 0
    assert done.stdout == (tmp_path / "out.csv").read_bytes()
    assert "Zoë" in done.stdout.decode()


@pytest.mark.slow
def test_what_is_cheap_to_check_is_refused_without_torch(run, corpus, tmp_path):
    test = corpus.split("test")
    test.drop(columns="audio_4").to_csv(tmp_path / "narrow.csv", index=False)
    test.assign(speaker=[f"s{n}" for n in range(len(test))]).to_csv(tmp_path / "crowd.csv", index=False)
    code = (
        "import sys; from joyful.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert not {'torch', 'sentence_transformers', 'hydra'} & set(sys.modules), 'heavy'\n"
        "sys.exit(code)"
    )
    for name in ("narrow.csv", "crowd.csv", "nothing.csv"):
        words = ["predict", str(run), str(tmp_path / name)]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_compiler_of_torch_is_not_imported(run, chat):
    """It takes a second, a third of the whole command."""
    code = (
        "import sys; from joyful.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert 'torch' in sys.modules\n"
        "assert not {'torch._dynamo', 'torch._inductor'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    words = [sys.executable, "-c", code, "predict", str(run), str(chat)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
