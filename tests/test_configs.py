"""Every file of conf/ composes and passes the schema, alone and as an overlay, and the help lists every option."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from joyful.config import REGISTRIES, check
from tests.support import choices
from tests.support.runs import CONF, compose_plain

ROOT = Path(__file__).resolve().parents[1]
CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if not path.name.startswith("_") and path.parent.name != "hydra"
)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_is_valid(group, choice):
    config, choices = compose_plain([f"{group}={choice}"])
    settings = check(config)
    assert choices[group] == choice
    if group in ("fusion", "loss", "classification", "weighting", "optimizer"):
        assert getattr(settings, group).name == choice


@pytest.mark.parametrize("experiment", [choice for group, choice in CHOICES if group == "experiment"])
def test_the_command_line_overrides_an_experiment(experiment):
    config, choices = compose_plain(
        [f"experiment={experiment}", "loss=smoothl1", "model=reference", "training.epochs=77"]
    )
    settings = check(config)
    assert (settings.loss.name, settings.training.epochs) == ("smoothl1", 77)
    assert choices["model"] == "reference"


def test_the_defaults():
    settings = check(compose_plain()[0])
    assert (settings.data.name, settings.model.name, settings.loss.name) == ("synthetic", "small", "mse")
    assert settings.weights.model_dump() == {
        "encoder_loss_weight": 0.03, "cl_loss_weight": 0.2, "gate_reg_weight": 0.01,
    }  # fmt: skip
    assert (settings.fusion.name, settings.loss.encoder_reduction) == ("hierarchical", "mean")
    assert (settings.training.train_metrics, settings.training.evaluations_per_epoch) == ("running", 1)


def test_the_help_lists_every_option_and_no_internal_file(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    groups = dict(re.findall(r"^(\w+): (.+)$", done.stdout, re.M))
    for group, choice in CHOICES:
        assert choice in groups[group].split(", "), f"{group}={choice} is not in the help"
    sweeps = {file.stem for file in (ROOT / "sweeps").glob("[!_]*.yaml")}
    assert set(groups["sweeps"].split(", ")) == sweeps
    assert not re.search(r"(^|\s)_\w+", done.stdout), "a file that begins with _ is offered"


def names_in_conf(setting: str) -> set[str]:
    """Return the values of a setting in the files of its group, or of the whole of conf/ for model.context."""
    section, _, key = setting.partition(".")
    files = (CONF / section).glob("[!_]*.yaml")
    return {value for file in files if (value := yaml.safe_load(file.read_text()).get(key))}


@pytest.mark.parametrize("setting", REGISTRIES)
def test_every_member_of_a_registry_has_its_file_in_conf(setting):
    module, variable = REGISTRIES[setting]
    registry = getattr(importlib.import_module(module), variable)
    assert registry.setting == setting
    in_conf = names_in_conf(setting)
    assert in_conf <= set(registry), f"conf/{setting.split('.')[0]} names members that do not exist"
    if setting != "model.context":  # a choice within the model
        assert set(registry) == in_conf


def test_the_guide_lists_what_the_registries_hold():
    text = choices.GUIDE.read_text()
    assert choices.with_table(text) == text, "run python -m tests.support.choices"
    assert all(f"`{name}` (" in text for registry in choices.registries() for name in registry)


def test_reference_model_options_beyond_the_reference_are_off():
    settings = check(compose_plain(["model=reference"])[0])
    assert not settings.model.skip
    assert not settings.model.classifier_skip
    assert not settings.model.standardise
    assert settings.training.moving_average == 0.0
    assert Path(CONF, "model", "reference.yaml").is_file()
