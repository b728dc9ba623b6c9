"""An exported model predicts what its run predicts, needs nothing else of it, and is checked when it is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from joyful.prediction import export, load
from joyful.prediction.export_command import main
from joyful.records import InputError


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export(run, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    """A copy of the exported model, to be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def change(folder: Path, name: str = "config.json", **values: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_it_predicts_the_same_where_nothing_else_is(corpus, run, exported, tmp_path, monkeypatch):
    expected = load(run).predict(corpus.split("test"))
    shutil.move(shutil.copytree(exported, tmp_path / "copy"), tmp_path / "empty" / "model")
    monkeypatch.chdir(tmp_path / "empty")
    model = load("model", text_encoder=str(corpus.encoder), cache=corpus.folder / "cache")
    assert model.predict(corpus.split("test")).equals(expected)


def test_it_has_only_what_prediction_needs(corpus, exported):
    assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.safetensors"]
    text = (exported / "config.json").read_text()
    assert str(corpus.folder) not in text, "it has paths of this machine"
    assert json.loads(text)["data"]["text_encoder"] == "encoder"
    assert {oct(path.stat().st_mode & 0o777) for path in exported.iterdir()} == {"0o644"}


@pytest.mark.slow
def test_without_its_encoder_it_says_where_to_give_it(corpus, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOYFUL_CACHE", str(tmp_path / "cache"))
    model = load(exported)
    told = model.read(corpus.split("test"))
    with pytest.raises(InputError, match="text_encoder"):
        model.label(told)


def test_it_is_averaged_with_its_run_and_exported_again(corpus, run, exported, tmp_path):
    place = {"text_encoder": str(corpus.encoder), "cache": corpus.folder / "cache"}
    expected = load(run).predict(corpus.split("test"))
    both = load([run, exported], **place)
    assert len(both.models) == 2
    assert both.predict(corpus.split("test")).equals(expected)
    again = export(exported, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (again / name).read_bytes() == (exported / name).read_bytes()


def test_a_multilabel_model_with_missing_audio(several, several_run, tmp_path):
    folder = export(several_run, tmp_path / "model")
    model = load(folder, text_encoder=str(several.encoder), cache=several.folder / "cache")
    assert model.predict(several.split("test")).equals(load(several_run).predict(several.split("test")))


def test_damaged_weights(copy):
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"expected the weights that config\.json names, got others"):
        load(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"status": ["failed"]}, "its status is not one of a run"),
        ({"version": 2}, "expected joyful model 1, got joyful model 2"),
        ({"kind": "bert"}, "expected joyful model 1, got bert"),
        ({"data": {}}, "got a damaged one"),
        ({"config": []}, "config or sha256 is not what joyful writes"),
        ({"config": {}}, "config or sha256 is not what joyful writes"),
    ],
)
def test_a_config_that_is_not_usable(copy, values, message):
    change(copy, **values)
    with pytest.raises(InputError, match=message):
        load(copy)


def test_a_config_that_is_not_json(copy):
    (copy / "config.json").write_text("{")
    with pytest.raises(InputError, match="expected a model that joyful exported, got a damaged one"):
        load(copy)


def test_the_folder_must_be_new_and_the_run_one(run, second, tmp_path):
    with pytest.raises(InputError, match="exists; remove it, or choose another folder with --out FOLDER"):
        export(run, tmp_path)
    with pytest.raises(InputError, match="expected one run to export, got 2"):
        export(f"{run.parent}/*", tmp_path / "new")
    with pytest.raises(InputError, match=r"found no run\.json"):
        export(tmp_path, tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        export(run, tmp_path / "file" / "new")
    assert not (tmp_path / "new").exists()


def test_an_export_that_fails_leaves_nothing(run, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(InputError, match="cannot be written"):
        export(run, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_no_folders(run, tmp_path):
    damaged = Path(shutil.copytree(run, tmp_path / "run"))
    next((damaged / "checkpoint").glob("best-*.safetensors")).write_bytes(b"damaged")
    with pytest.raises(InputError, match="got a damaged one"):
        export(damaged, tmp_path / "some" / "new" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_status_of_a_run_that_is_not_complete_is_told_and_kept(corpus, run, tmp_path, capsys):
    failed = Path(shutil.copytree(run, tmp_path / "run"))
    change(failed, name="run.json", status="failed")
    assert main([str(failed), "--out", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().err == f"joyful: {failed} has the status failed; its best evaluation is used\n"
    with pytest.warns(UserWarning, match="has the status failed") as told:
        export(failed, tmp_path / "second")
    assert told[0].filename == __file__
    model = load(tmp_path / "model", text_encoder=str(corpus.encoder), cache=corpus.folder / "cache")
    assert model.notes == (f"{tmp_path / 'model'} was exported from a run with the status failed",)
    with pytest.warns(UserWarning, match="was exported from a run with the status failed"):
        export(tmp_path / "model", tmp_path / "third")
    assert (tmp_path / "third" / "config.json").read_bytes() == (tmp_path / "model" / "config.json").read_bytes()
    change(tmp_path / "third", status="good")
    with pytest.raises(InputError, match="its status is not one of a run"):
        load(tmp_path / "third")


@pytest.mark.parametrize(
    "encoder", ["~/private/enc", "../private/enc", "very/private/enc", r"C:\private\enc", "org/enc"]
)
def test_an_encoder_in_a_folder_has_no_path(run, tmp_path, encoder):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    info = json.loads((copy / "run.json").read_text())
    info["data"]["text_encoder"] = info["config"]["data"]["text_encoder"] = encoder
    change(copy, name="run.json", **info)
    document = json.loads((export(copy, tmp_path / "model") / "config.json").read_text())
    expected = encoder if encoder == "org/enc" else "enc"
    assert document["data"]["text_encoder"] == document["config"]["data"]["text_encoder"] == expected


def test_the_command(run, tmp_path, capsys):
    assert main([str(run), "--out", str(tmp_path / "model")]) == 0
    assert "predict with it: joyful predict" in capsys.readouterr().out
    assert main([str(run), "--out", str(tmp_path / "model")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(SystemExit) as end:
        main([str(run), "--out", str(tmp_path / "x"), "--format", "onnx"])
    assert end.value.code == 2
    assert "expected one of safetensors, got 'onnx'" in capsys.readouterr().err
