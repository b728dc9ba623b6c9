"""Runs without run.json take their settings from Hydra's YAML, which is read as OmegaConf reads it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from joyful.records import InputError
from joyful.results import arm_columns, load, tables
from joyful.results.yaml_text import parse_yaml


def hydra_run(path: Path, choices: dict, config: dict) -> None:
    (path / ".hydra").mkdir(parents=True)
    hydra = {"hydra": {"runtime": {"choices": choices, "cwd": "${oc.env:HOME}"}, "verbose": False}}
    (path / ".hydra" / "hydra.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(hydra)))
    (path / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    (path / "history.parquet").write_bytes(
        tables.history_bytes([{"step": 1, "epoch": 1.0, "split": "dev", "f1_weighted": 0.5}])
    )


def test_hydra_folders_are_runs(tmp_path: Path) -> None:
    for seed, loss, weight in ((1, "mse", 1e-05), (2, "smoothl1", 0.03)):
        config = {"seed": seed, "role": "search", "loss": {"name": loss}, "weights": {"encoder_loss_weight": weight}}
        config["data"] = {"root": "${oc.env:NOWHERE}"}
        hydra_run(tmp_path / str(seed), {"loss": loss, "weights": None, "hydra/output": "default"}, config)
    frame = load(tmp_path)
    assert set(frame["status"]) == {"unknown"}
    assert list(frame["seed"].unique()) == [1, 2]
    assert set(frame["role"]) == {"search"}
    assert arm_columns(frame) == ["loss", "weights.encoder_loss_weight"]
    assert list(frame["weights.encoder_loss_weight"].unique()) == [1e-05, 0.03]
    assert not frame.attrs["damaged"]


def test_choices_come_from_hydra_where_run_json_has_none(tmp_path: Path) -> None:
    for loss in ("mse", "smoothl1"):
        hydra_run(tmp_path / loss, {"loss": loss}, {"loss": {"name": loss}})
        info = {"schema": 1, "status": "completed", "seed": 3}
        (tmp_path / loss / "run.json").write_text(json.dumps(info))
    frame = load(tmp_path)
    assert arm_columns(frame) == ["loss"]
    assert set(frame["seed"]) == {3}


def test_histories_of_other_writers(tmp_path: Path) -> None:
    import pandas as pd

    hydra_run(tmp_path / "a", {}, {})
    frame = pd.DataFrame({"step": [1, 2], "epoch": [1, 2], "split": ["train", "dev"], "nll": np.float32([0.5, 0.25])})
    frame["seed"] = 4  # an extra column with the name of a reserved one
    frame.to_parquet(tmp_path / "a" / "history.parquet")
    loaded = load(tmp_path)
    assert loaded["nll"].tolist() == [0.5, 0.25]
    assert loaded["epoch"].dtype == np.float64
    assert loaded["history.seed"].tolist() == [4.0, 4.0]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])).filter(lambda text: "${" not in text)
    | st.text("0123456789_.:+-eExXbnNoOyYuUlLfFaA\u0663", max_size=6)
    | st.sampled_from(["1e-4", "yes", "null", "0x1f", "2020-01-01", "~", "*a", "!!python/name:os.system", "{a: 1}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["loss", "model", "x"]), PLAIN, max_size=3))
def test_yaml_is_read_as_omegaconf_reads_it(config: dict) -> None:
    text = OmegaConf.to_yaml(OmegaConf.create(config))
    assert parse_yaml(text.encode()) == OmegaConf.to_container(OmegaConf.create(text), resolve=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("a: 1e-4", {"a": 1e-4}),
        ("a: ${oc.env:HOME}", {"a": "${oc.env:HOME}"}),
        ("a: !!python/object/apply:os.system ['exit 1']", {"a": ["exit 1"]}),
        ("a: .inf\nb: 0.5\nc: -3\nd: on", {"a": math.inf, "b": 0.5, "c": -3, "d": True}),
        ("1: a\nnull: b", {"1": "a", "null": "b"}),
        (
            "[nO, oN, nULL, No, ON, NULL, ~, '']",
            ["nO", "oN", "nULL", False, True, None, None, ""],
        ),  # only some spellings are null or booleans
        ("[1\u0663, \u0663.5, 1\u0663e2]", ["1\u0663", "\u0663.5", "1\u0663e2"]),  # digits of other scripts are text
        ("[0x1f, 010, 0b11, 1_000, 1:30, 1_0e2, 1__0e2, .5e3]", [31, 8, 3, 1000, 90, 1000.0, "1__0e2", ".5e3"]),
        ("[2020-01-01, 1.5e3, -.inf, .iNf]", ["2020-01-01", 1500.0, -math.inf, ".iNf"]),
    ],
)
def test_yaml_values(text: str, expected: object) -> None:
    assert parse_yaml(text.encode()) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: &x [1]\nb: *x", "alias"),
        (b"[" * 10_000, "nested deeper than 100|not valid YAML"),
        (b"a: [1", "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        (b"--- 1\n--- 2", "more than one document"),
        (b"[1]: 2", "a key is not text"),
    ],
)
def test_yaml_that_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_yaml(data)
