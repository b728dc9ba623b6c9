"""Tables of any dialogues: labels, splits, and the message of every fault in a cell."""

from __future__ import annotations

import pytest

from joyful.data.validation import validate
from joyful.records import SPLITS, InputError
from tests.support.datasets import check_source
from tests.support.tables import all_rows, chat, dataset, settings, without, write

# --- labels


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["joy", "Anger", "7"], ("7", "Anger", "joy")),
        ([1, 0, None], ("0", "1")),  # pandas writes 1.0 and 0.0
        (["a|b", "c", "c"], ("a|b", "c")),
        ([" joy ", "joy", "fear"], ("fear", "joy")),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_classes_are_the_sorted_labels(tmp_path, labels, expected, ending):
    rows = [{"dialogue": n // 3, "text": f"t{n}", "label": labels[n % 3]} for n in range(12)]
    data = dataset(write(tmp_path / f"chat.{ending}", rows))
    assert data.labels == expected
    validate(data)


def test_classes_can_be_very_long_numbers(tmp_path):
    long = "1" * 5000
    rows = [{**row, "label": (long, "2", "-3")[n % 3]} for n, row in enumerate(chat())]
    assert dataset(write(tmp_path / "chat.csv", rows)).labels == ("-3", long, "2")


def test_classes_can_be_given(tmp_path):
    path = write(tmp_path / "chat.csv", chat())
    data = dataset(path, labels=["neutral", "anger", "fear", "joy"])
    assert data.labels == ("neutral", "anger", "fear", "joy")
    assert all_rows(data) == all_rows(dataset(path))
    with pytest.raises(InputError, match=r"chat.csv, line \d+: label: expected one of joy, anger, got 'neutral'"):
        dataset(path, labels=["joy", "anger"])
    with pytest.raises(InputError, match=r"data.table.labels: expected different names, got '1' twice"):
        dataset(path, labels=[1, "1"])
    numbers = [{**row, "label": n % 3} for n, row in enumerate(chat())]
    assert dataset(write(tmp_path / "numbers.csv", numbers), labels=[2, 1, 0]).labels == ("2", "1", "0")
    floats = write(tmp_path / "floats.csv", [{**row, "label": n % 2 + 1.0} for n, row in enumerate(chat())])
    assert dataset(floats, labels=["2.0", "1.0"]).labels == ("2", "1")


def test_unlabelled_utterances_are_context(tmp_path):
    rows = [{**row, "label": row["label"] if n % 2 else ("", "  ")[n % 4 // 2]} for n, row in enumerate(chat())]
    data = check_source(settings(write(tmp_path / "chat.csv", rows)), tmp_path / "out")
    assert sum(int(part.labelled.sum()) for part in data.splits.values()) == len(rows) / 2
    assert [label for _, _, label, _ in all_rows(data)[:4]] == [None, "anger", None, "joy"]


def multilabel_rows(kind):
    """Return rows with the labels (joy), (anger, joy), none of them, and unlabelled, in turn."""
    rows = without(chat(8), "label")
    for n, row in enumerate(rows):
        names = (["joy"], ["joy", "anger"], [], None)[n % 4]
        if kind == "columns":
            row |= {f"label_{c}": None if names is None else int(c in names) for c in ("joy", "anger")}
        else:
            row["label"] = names
    return rows


@pytest.mark.parametrize("kind", ["columns.csv", "columns.jsonl", "columns.parquet", "list.jsonl", "list.parquet"])
def test_several_labels(tmp_path, kind):
    data = check_source(settings(write(tmp_path / kind, multilabel_rows(kind.split(".")[0]))), tmp_path / "out")
    assert (data.multilabel, data.labels) == (True, ("anger", "joy"))
    assert [label for _, _, label, _ in all_rows(data)[:4]] == [("joy",), ("anger", "joy"), (), None]


def test_several_labels_in_a_cell_need_a_separator(tmp_path):
    rows = [{**row, "label": ("joy", "joy|anger", " anger | joy ")[n % 3]} for n, row in enumerate(chat())]
    path = write(tmp_path / "chat.csv", rows)
    assert dataset(path).labels == ("anger | joy", "joy", "joy|anger")
    data = check_source(settings(path, label_separator="|"), tmp_path / "out")
    assert (data.multilabel, data.labels) == (True, ("anger", "joy"))
    assert [label for _, _, label, _ in all_rows(data)[:3]] == [("joy",), ("anger", "joy"), ("anger", "joy")]


def test_a_column_label_is_taken_before_columns_that_begin_with_it(tmp_path):
    rows = [{**row, "label_confidence": 0.5} for row in chat()]
    assert not dataset(write(tmp_path / "chat.csv", rows)).multilabel


# --- splits


def test_a_split_is_made_by_dialogue_from_the_seed(tmp_path):
    rows = chat(40, 2)
    path = write(tmp_path / "chat.csv", rows)
    data = check_source(settings(path), tmp_path / "out")
    ids = {split: set(part.ids) for split, part in data.splits.items()}
    assert {split: len(names) for split, names in ids.items()} == {"train": 32, "dev": 4, "test": 4}
    assert len(set.union(*ids.values())) == 40
    assert (ids["dev"], ids["test"]) == (
        {"d14", "d2", "d23", "d33"},
        {"d0", "d18", "d37", "d5"},
    )  # in every process
    other = dataset(path, seed=1)
    assert {split: set(part.ids) for split, part in other.splits.items()} != ids
    backwards = dataset(write(tmp_path / "backwards.csv", rows[::-1]))  # only names and seed count
    assert {split: set(part.ids) for split, part in backwards.splits.items()} == ids
    halves = dataset(path, dev_fraction=0.25, test_fraction=0.25)
    assert [len(part.ids) for part in halves.splits.values()] == [20, 10, 10]


def test_each_split_that_is_made_has_labels(tmp_path):
    rows = [{**row, "label": row["label"] if n // 4 in (2, 11, 17) else None} for n, row in enumerate(chat(20))]
    data = dataset(write(tmp_path / "chat.csv", rows))
    assert [int(part.labelled.sum()) for part in data.splits.values()] == [4, 4, 4]
    assert [len(part.ids) for part in data.splits.values()] == [
        18,
        1,
        1,
    ]  # dialogues without labels are context of train
    three = dataset(write(tmp_path / "three.csv", chat(3)), dev_fraction=0.1, test_fraction=0.8)
    assert [len(part.ids) for part in three.splits.values()] == [1, 1, 1]


def test_the_split_of_a_column(tmp_path):
    names = ("train", "Validation", "TEST")
    rows = [{**row, "split": names[n // 4 % 3]} for n, row in enumerate(chat())]
    path = write(tmp_path / "chat.csv", rows)
    data = check_source(settings(path), tmp_path / "out")
    assert {split: part.ids for split, part in data.splits.items()} == {
        "train": ("d0", "d3"), "dev": ("d1", "d4"), "test": ("d2", "d5"),
    }  # fmt: skip
    assert len(dataset(path, columns={"split": None}).splits["train"].ids) == 4


@pytest.mark.parametrize(
    ("change", "table", "message"),
    [
        (lambda n, row: {"dialogue": f"d{n % 2}"}, {"columns": {"place": None}}, r"at least 3 dialogues .* got 2; label more"),
        (lambda n, row: {}, {"dev_fraction": 0.5, "test_fraction": 0.5}, r"dev_fraction: expected less than 1 .*, got 1; lower"),
        (lambda n, row: {"split": "trian"}, {}, r"line 2: split must be one of train, dev, test, got 'trian'; .*split=null makes"),
        (lambda n, row: {"split": ("train", "dev")[n == 3]}, {}, r"line 5: dialogue 'd0' is in dev, but in train in line 2"),
        (lambda n, row: {"split": SPLITS[n // 8], "label": row["label"] if n < 8 else ""}, {}, r"but dev has no label; add them"),
        (lambda n, row: {"label": ""}, {}, r"expected a column of labels, got no label in 'dialogue', .*columns.label=NAME"),
        (lambda n, row: {"label": "joy"}, {}, r"expected 2 to 200 different labels, got 1 \('joy'\); set data.table.columns.label"),
        (lambda n, row: {"label": n / 7, "dialogue": n}, {}, r"expected 2 to 200 different labels, got 240"),
        (lambda n, row: {"place": "first"}, {}, r"line 2: place must be a number, got 'first'; .*columns.place=null takes"),
        (lambda n, row: {"place": ""}, {}, r"line 2: place must be a number, got ''"),
        (lambda n, row: {"place": 0}, {}, r"line 3: utterance 0 of 'd0' is already in line 2; remove one of the two"),
        (lambda n, row: {"speaker": "" if n == 4 else "A"}, {}, r"line 6: speaker is empty; fill it in, or set .*speaker=null"),
        (lambda n, row: {"dialogue": " " if n == 4 else "A"}, {}, r"line 6: dialogue is empty; fill it in"),
        (lambda n, row: {"label": ("joy", "joy|")[n == 4]}, {"label_separator": "|"}, r"line 6: label 'joy\|' has an empty name"),
    ],
)  # fmt: skip
def test_faults_are_named_with_file_line_and_remedy(tmp_path, change, table, message):
    rows = [row | change(n, row) for n, row in enumerate(chat(60 if "240" in message else 6))]
    with pytest.raises(InputError, match=message) as caught:
        dataset(write(tmp_path / "chat.csv", rows), **table)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "joy"}, r"row 2: label must be a list or null, as in row 1, got 'joy'; write all labels as lists"),
        ({"label": ["joy", None]}, r"row 2: label has an empty name in its list"),
        ({"label": [{"a": 1}]}, r"row 2: label must be text, a number or empty, got"),
        ({"text": {"a": 1}}, r"row 2: text must be text, a number or empty, got"),
    ],
)
def test_faults_of_json_lines_are_named(tmp_path, change, message):
    rows = [{**row, "label": ["joy"]} for row in chat()]
    rows[1] |= change
    with pytest.raises(InputError, match=message.replace("row", "line")):
        dataset(write(tmp_path / "chat.jsonl", rows))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"label_joy": 2},
            r"line 3: label_joy must be 0, 1 or empty, got '2'; correct it, or set data.table.label_prefix",
        ),
        (
            {"label_joy": None},
            r"line 3: label_joy is empty, but other columns of labels are not; write 0 or 1, or leave all 2",
        ),
    ],
)
def test_faults_of_columns_of_labels_are_named(tmp_path, change, message):
    rows = [{**row, "label_joy": 1, "label_fear": n % 2} for n, row in enumerate(without(chat(), "label"))]
    rows[1] |= change
    with pytest.raises(InputError, match=message):
        dataset(write(tmp_path / "chat.csv", rows))


def test_a_table_of_nothing_but_labels_is_refused(tmp_path):
    path = write(tmp_path / "chat.csv", [{"dialogue": row["dialogue"], "label": row["label"]} for row in chat()])
    with pytest.raises(
        InputError, match=r"expected text or features, got 'dialogue', 'label'; set data.table.columns.text=NAME"
    ):
        dataset(path)
    only_text = write(
        tmp_path / "text.csv", [{key: row[key] for key in ("dialogue", "text", "label")} for row in chat()]
    )
    with pytest.raises(InputError, match=r"data=dialogues has only text, and text needs an encoder; set modalities=t"):
        dataset(only_text, encode=None)
