"""The settings in which runs differ, and those that define arms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joyful.results.arms import differences, flatten


def weights(encoder: float, contrast: float) -> dict:
    return {"weights": {"encoder_loss_weight": encoder, "cl_loss_weight": contrast}}


ARM_CASES = {
    "the choice of a group explains its settings": (
        [({"loss": "mse"}, {"loss": {"name": "mse", "beta": 1.0}}),
         ({"loss": "l1"}, {"loss": {"name": "l1", "beta": 0.5}})],
        {"loss": ["mse", "l1"]},
        ["loss"],
    ),
    "an override within one choice": (
        [({"weights": "basic"}, weights(0.03, 0.2)), ({"weights": "basic"}, weights(0.1, 0.2))],
        {"weights.encoder_loss_weight": [0.03, 0.1]},
        ["weights.encoder_loss_weight"],
    ),
    "a choice and an override": (
        [
            ({"weights": "basic"}, weights(0.03, 0.2)),
            ({"weights": "basic"}, weights(0.1, 0.2)),
            ({"weights": "baseline"}, weights(1.0, 0.5)),
        ],
        {"weights": ["basic", "basic", "baseline"], "weights.encoder_loss_weight": [0.03, 0.1, 1.0]},
        ["weights", "weights.encoder_loss_weight"],
    ),
    "a setting without a group": (
        [({}, {"modalities": "atv"}), ({}, {"modalities": "at"})],
        {"modalities": ["atv", "at"]},
        ["modalities"],
    ),
    "a group of one setting": (
        [({"modalities": "atv"}, {"modalities": "atv"}), ({"modalities": "at"}, {"modalities": "at"})],
        {"modalities": ["atv", "at"]},
        ["modalities"],
    ),
    "the inner of nested groups": (
        [({"model": "m", "model/context": "gru"}, {"model": {"context": {"n": 1}}}),
         ({"model": "m", "model/context": "lstm"}, {"model": {"context": {"n": 2}}})],
        {"model/context": ["gru", "lstm"]},
        ["model/context"],
    ),
    "another group's choice does not explain": (
        [({"loss": "a", "model": "m"}, {"model": {"n": 1}}), ({"loss": "b", "model": "m"}, {"model": {"n": 2}})],
        {"loss": ["a", "b"], "model.n": [1, 2]},
        ["loss", "model.n"],
    ),
    "paths, names, seeds and threads": (
        [({"hydra/launcher": str(i), "data": "d"},
          {"seed": i, "role": str(i), "resume": str(i), "fork": str(i), "sweep_name": str(i), "device": str(i),
           "data": {"root": str(i), "cache": str(i)}, "training": {"threads": i}}) for i in range(2)],
        {},
        [],
    ),
    "a fold is a column but no arm": (
        [({"data": "mosi"}, {"data": {"fold": i}}) for i in range(2)],
        {"data.fold": [0, 1]},
        [],
    ),
    "the settings of an experiment define the arms": (
        [({"experiment": "meld", "data": "meld"}, {"data": {"n": 1}, "training": {"epochs": 10}}),
         ({"experiment": "mosi", "data": "mosi"}, {"data": {"n": 2}, "training": {"epochs": 20}})],
        {"data": ["meld", "mosi"], "experiment": ["meld", "mosi"], "training.epochs": [10, 20]},
        ["data", "training.epochs"],
    ),
    "equal numbers are equal, a missing setting is null": (
        [({"loss": "a"}, {"x": {"n": 1, "m": None, "l": [1, 2]}}), ({"loss": "a"}, {"x": {"n": 1.0, "l": [1, 2]}})],
        {},
        [],
    ),
    "1 is not true": ([({}, {"n": 1}), ({}, {"n": True})], {"n": [1, True]}, ["n"]),
    "NaN equals NaN": ([({}, {"n": math.nan}), ({}, {"n": float("nan")})], {}, []),
    "a setting that some runs do not have": ([({}, {}), ({}, {"n": 1}), ({}, {})], {"n": [None, 1, None]}, ["n"]),
    "no runs": ([], {}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", ARM_CASES)
def test_which_settings_make_arms(case: str) -> None:
    runs, columns, arms = ARM_CASES[case]
    result = differences([choices for choices, _ in runs], [flatten(config) for _, config in runs])
    assert result.columns == columns
    assert list(result.arms) == arms


LEAVES = st.none() | st.booleans() | st.sampled_from([0, 1, 2, 0.5, "a", "b"])


@given(st.lists(st.tuples(st.sampled_from("xy"), st.fixed_dictionaries({"p": LEAVES, "q": LEAVES})), max_size=6))
def test_runs_of_one_arm_have_equal_settings(runs: list) -> None:
    """Runs with equal arm columns have equal settings, and the order of the runs does not matter."""
    choices = [{"g": choice} for choice, _ in runs]
    settings = [flatten({"g": section}) for _, section in runs]
    result = differences(choices, settings)
    arms = [repr([result.columns[name][i] for name in result.arms]) for i in range(len(runs))]
    for i in range(len(runs)):
        for j in range(i):
            if arms[i] == arms[j]:
                assert repr(sorted(settings[i].items())) == repr(sorted(settings[j].items()))
    reverse = differences(choices[::-1], settings[::-1])
    assert {name: values[::-1] for name, values in reverse.columns.items()} == result.columns
    assert reverse.arms == result.arms
