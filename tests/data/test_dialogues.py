"""Tables of any dialogues: formats, files of a folder, columns, and the cache."""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd
import pytest

from joyful.data import prepared
from joyful.data.dialogue_table import encode_text, to_dialogues
from joyful.data.dialogues import default_settings, read_table, source_files
from joyful.data.loading import load
from joyful.data.prepare import prepare
from joyful.records import SPLITS, InputError
from tests.support.datasets import assert_same, check_source, data_settings, fake_encode
from tests.support.tables import all_rows, chat, dataset, settings, without, write

# --- formats


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        ("chat.csv", ","),
        ("chat.csv", ";"),
        ("chat.csv", "\t"),
        ("chat.tsv", "\t"),
        ("chat.jsonl", ""),
        ("chat.parquet", ""),
    ],
)
def test_every_format_gives_the_same_dataset(tmp_path, name, separator):
    rows = chat()
    rows[4] |= {"text": 'He said "so; be it", twice', "label": None}
    rows[7] |= {f"audio_{i}": None for i in range(3)}
    expected = dataset(write(tmp_path / "expected.csv", rows))
    data = check_source(settings(write(tmp_path / name, rows, separator)), tmp_path / "out")
    assert_same(data, expected)
    assert data.dimensions == {"audio": 3, "text": 8, "visual": 2}
    assert (data.labels, data.n_speakers, data.multilabel) == (("anger", "joy", "neutral"), 2, False)
    read_back = all_rows(data)
    assert len(read_back) == len(rows)
    assert read_back[4] == ("d1", 'He said "so; be it", twice', None, 0)
    assert read_back[0] == ("d0", "message 0", "joy", 0)
    assert sum(int(mask.sum()) for part in data.splits.values() for mask in part.missing.values()) == 1


@pytest.mark.parametrize("name", ["chat.jsonl", "chat.parquet"])
def test_lists_of_numbers_are_features(tmp_path, name):
    rows = chat()
    listed = []
    for n, row in enumerate(without(rows, *(key for key in rows[0] if "_" in key))):
        audio = None if n == 3 else [row_value for key, row_value in rows[n].items() if key.startswith("audio_")]
        listed.append({**row, "audio": audio, "text_vector": [n / 2, 1.0, -1.0]})
    rows[3] |= {f"audio_{i}": None for i in range(3)}
    data, expected = dataset(write(tmp_path / name, listed)), dataset(write(tmp_path / "expected.csv", rows))
    assert (data.dimensions, data.text_encoder) == ({"audio": 3, "text": 3}, "file")
    for split in SPLITS:
        assert_parts_equal(data.splits[split], expected.splits[split])


def assert_parts_equal(one, other):
    np.testing.assert_array_equal(one.features["audio"], other.features["audio"])
    assert one.missing.keys() == other.missing.keys()
    for name, mask in one.missing.items():
        np.testing.assert_array_equal(mask, other.missing[name])


def test_rows_of_a_table_keep_the_order_of_the_file_and_need_no_labels(tmp_path):
    rows = without(chat(2, 3), "label", "speaker")
    rows[0]["place"], rows[2]["place"] = 9, 1.5
    table = read_table(write(tmp_path / "new.csv", [*rows[3:], *rows[:3]]), default_settings())
    assert table.text[:4] == ("message 3", "message 4", "message 5", "message 0")
    assert (set(table.labels), set(table.split), set(table.speaker)) == ({None}, {None}, {""})
    assert [table.line[rows].tolist() for rows in table.order()] == [[2, 3, 4], [6, 7, 5]]
    part = to_dialogues(encode_text(table, fake_encode), ["joy", "anger"], 2)
    assert part.sentences[3:] == ("message 1", "message 2", "message 0")
    assert part.labels.tolist() == [-1] * 6
    np.testing.assert_array_equal(part.features["text"], fake_encode(part.sentences))
    multi = to_dialogues(table, ["joy", "anger"], 2, multilabel=True)
    assert (multi.labels == -1).all()
    assert multi.labels.shape == (6, 2)


def test_a_label_of_a_new_file_that_the_model_does_not_know_is_refused(tmp_path):
    table = read_table(write(tmp_path / "new.csv", chat(1)), default_settings())
    with pytest.raises(InputError, match=r"new.csv, line 4: label: expected one of joy, anger, got 'neutral'"):
        to_dialogues(table, ["joy", "anger"], 2)
    assert to_dialogues(table.without_labels(), ["joy", "anger"], 2).labels.tolist() == [-1] * 4


# --- files of a folder


def test_the_names_of_files_are_the_split(tmp_path):
    for name, label in (("chat_train.csv", "joy"), ("chat-val.csv", "anger"), ("test.csv", "fear")):
        write(tmp_path / name, [{"dialogue": 1, "text": f"{label} {n}", "label": label} for n in range(3)])
    (tmp_path / "README.md").write_text("not a table")
    data = check_source(settings(tmp_path), tmp_path.parent / "out-names")
    assert {split: part.sentences[0] for split, part in data.splits.items()} == {
        "train": "joy 0", "dev": "anger 0", "test": "fear 0",
    }  # fmt: skip
    assert all(part.ids == ("1",) for part in data.splits.values())  # names may start again in each file


def test_other_files_are_joined_and_the_split_is_made(tmp_path):
    rows = chat()
    write(tmp_path / "january.csv", rows[:8])
    write(tmp_path / "may.jsonl", rows[8:])
    joined = dataset(tmp_path)
    assert_same(joined, dataset(write(tmp_path.parent / "one.csv", rows)))


def test_the_names_of_files_can_be_ignored(tmp_path):
    rows = chat()
    for name, part in (("train.csv", rows[:8]), ("test.csv", rows[8:])):
        write(tmp_path / name, part)
    with pytest.raises(
        InputError, match=r"expected labelled utterances in train, dev and test, but dev has no rows; .*null"
    ):
        dataset(tmp_path)
    assert all_rows(dataset(tmp_path, columns={"split": None})) == all_rows(
        dataset(write(tmp_path.parent / "two.csv", rows))
    )


def test_each_file_can_be_one_dialogue(tmp_path):
    for n in range(4):
        write(tmp_path / f"chat{n}.csv", without(chat(1, 3), "dialogue"))
    with pytest.raises(
        InputError, match=r"expected a column 'dialogue' .* got 'place', .*columns.dialogue=NAME \(null: each"
    ):
        dataset(tmp_path)
    data = dataset(tmp_path, columns={"dialogue": None})
    assert sorted(name for part in data.splits.values() for name in part.ids) == [f"chat{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no table; expected files .csv, .tsv, .jsonl, .ndjson, .json, .parquet; set data.root"),
        ({"train.csv": chat(), "more.csv": chat()}, r"train.csv names a split, and more.csv does not; rename or move"),
        ({"a.csv": chat(), "b.csv": chat()}, r"b.csv, line 2: dialogue 'd0' is also in .*a.csv, line 2; keep a dialogue in one"),
        (
            {"train_1.csv": chat(1), "train_2.csv": chat(1), "dev.csv": chat(1), "test.csv": chat(1)},
            r"train_2.csv, line 2: dialogue 'd0' is also in .*train_1.csv, line 2; keep a dialogue in one",
        ),
        ({"a.csv": chat(), "b.csv": without(chat(), "speaker")}, r"expected the same columns, but speaker is in one of them only"),
        ({"a.csv": chat(), "b.csv": without(chat(), "audio_2")}, r"b.csv: expected 3 numbers of audio, as in .*a.csv, got 2"),
        (
            {"a.csv": chat(), "b.csv": without(chat(), *(f"audio_{i}" for i in range(3)))},
            r"expected the same features, but audio is in one of them only",
        ),
        (
            {"a.csv": chat(1), "b.jsonl": [{**row, "dialogue": "z", "label": ["joy"]} for row in chat(1)]},
            r"expected lists of labels in all files, or in none",
        ),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_together_are_refused(tmp_path, files, message):
    for name, rows in files.items():
        write(tmp_path / name, rows)
    with pytest.raises(InputError, match=message):
        dataset(tmp_path)


def test_a_root_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "chat.txt").write_text("dialogue,text\n")
    for root, message in (
        (tmp_path / "none.csv", r"none.csv does not exist; set data.root=FILE_OR_FOLDER to a table of dialogues$"),
        (tmp_path / "chat.txt", r"expected a file .csv, .*, got '.txt'; convert it"),
        (tmp_path / "a\0b", r"cannot be read|does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            source_files(settings(root))
    with pytest.raises(InputError, match=r"data=dialogues needs a table of dialogues; set data.root=FILE_OR_FOLDER"):
        source_files(data_settings("dialogues"))


# --- columns


def test_columns_have_any_names(tmp_path):
    names = {"dialogue": "Conversation ID", "place": "Sent", "speaker": "Who", "text": "message", "label": "Mood"}
    rows = [{own: row[role] for role, own in names.items()} for row in chat()]
    data = dataset(write(tmp_path / "own.csv", rows), columns=names)
    assert all_rows(data) == all_rows(dataset(write(tmp_path / "plain.csv", chat())))


def test_names_of_columns_are_found_in_other_letters(tmp_path):
    rows = [{key.title(): value for key, value in row.items()} for row in chat()]
    data = dataset(write(tmp_path / "title.csv", rows))
    assert all_rows(data) == all_rows(dataset(write(tmp_path / "plain.csv", chat())))
    assert data.dimensions["audio"] == 3


def test_a_column_that_is_named_must_be_there(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    with pytest.raises(
        InputError, match=r"expected a column 'speakr' for the speaker, got 'dialogue', .*mean .*speaker=speaker\?"
    ):
        dataset(path, columns={"speaker": "speakr"})


def test_without_a_place_the_order_of_rows_counts(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    rows = [{**row, "place": 99 - row["place"]} for row in chat()]
    path = write(tmp_path / "chat.csv", rows)
    backwards = dataset(path)
    assert [text for name, text, *_ in all_rows(backwards) if name == "d0"] == [f"message {n}" for n in (3, 2, 1, 0)]
    forwards = dataset(path, columns={"place": None})
    assert [text for name, text, *_ in all_rows(forwards) if name == "d0"] == [f"message {n}" for n in range(4)]
    assert all_rows(dataset(write(tmp_path / "none.csv", without(rows, "place")))) == all_rows(forwards)
    assert "no column place: the order of rows" in caplog.text


def test_large_places_are_exact(tmp_path):
    rows = [{**row, "place": 10**18 + row["place"]} for row in chat()]  # they would be equal as floating-point numbers
    assert all_rows(dataset(write(tmp_path / "chat.csv", rows))) == all_rows(
        dataset(write(tmp_path / "plain.csv", chat()))
    )


def test_without_a_speaker_there_is_one(tmp_path):
    assert dataset(write(tmp_path / "chat.csv", without(chat(), "speaker"))).n_speakers == 1
    assert dataset(write(tmp_path / "two.csv", chat()), columns={"speaker": None}).n_speakers == 1


def test_the_number_of_speakers_can_be_larger_than_that_of_the_files(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    assert dataset(path, speakers=5).n_speakers == 5
    with pytest.raises(
        InputError, match=r"line 2: expected at most 1 speakers in a dialogue, got 2 in 'd0'; set .*speakers=2"
    ):
        dataset(path, speakers=1)
    crowd = [{**row, "speaker": n} for n, row in enumerate(chat(1, 70))]
    with pytest.raises(
        InputError, match=r"at most 64 speakers in a dialogue, got 70 in 'd0'; give rare speakers one name"
    ):
        dataset(write(tmp_path / "crowd.csv", [*crowd, *chat(6)[4:]]), columns={"place": None})


# --- through the loader


def test_the_cache_follows_the_files_and_the_settings(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    own = settings(path, seed=3).model_copy(update={"cache": str(tmp_path / "cache")})
    first = load(own, ("audio",))
    assert first.dimensions == {"audio": 3}
    assert_same(first, load(own, ("audio",)))
    write(path, [{**row, "audio_0": -1} for row in chat()])
    assert (load(own, ("audio",)).splits["train"].features["audio"][:, 0] == -1).all()
    with pytest.raises(
        InputError, match="data=dialogues has audio and visual, but modalities selects text; set modalities=av"
    ):
        load(own.model_copy(update={"text_encoder": None}), ("text",))


def test_a_source_without_rules_is_refused(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    with pytest.raises(InputError, match=r"data.table: expected the settings of a table, got null; set data=dialogues"):
        load(data_settings("dialogues", root=str(path), table=None, cache=str(tmp_path)), ("audio",))


def test_a_prepared_copy_keeps_missing_modalities_and_unlabelled_utterances(tmp_path):
    rows = chat()
    rows[1] |= {f"audio_{i}": None for i in range(3)} | {"label": None}
    own = settings(write(tmp_path / "chat.csv", rows)).model_copy(update={"text_encoder": None})
    prepare(own, tmp_path / "out")
    data, origin = prepared.open_folder(tmp_path / "out", verify=True)
    assert_same(data, dataset(tmp_path / "chat.csv", encode=None))
    assert origin["table"]["seed"] == 0
    table = pd.read_parquet(tmp_path / "out" / prepared.UTTERANCES)
    assert (table["label"].isna().sum(), table["label"].min()) == (1, 0)
    split = next(name for name, part in data.splits.items() if part.missing)
    assert data.splits[split].missing["audio"].sum() == 1


def test_a_damaged_mask_of_a_prepared_copy_is_refused(tmp_path):
    rows = chat(3)
    for row in rows[1::4]:
        row |= {f"audio_{i}": None for i in range(3)}
    data = dataset(write(tmp_path / "chat.csv", rows))
    prepared.write_folder(data, tmp_path / "out", {})
    content = (tmp_path / "out" / prepared.ARRAYS).read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    place = header + json.loads(content[8:header])["dev/missing.audio"]["data_offsets"][0]
    (tmp_path / "out" / prepared.ARRAYS).write_bytes(content[:place] + b"\x02" + content[place + 1 :])
    with pytest.raises(InputError, match=r"dev/missing.audio has values that are neither true nor false"):
        prepared.open_folder(tmp_path / "out")
