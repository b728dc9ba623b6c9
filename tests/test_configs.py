"""Every file of conf/ composes and passes the schema, alone and as an overlay, and the help lists every option."""

from pathlib import Path

import pytest
import yaml

from joyful.config import check
from tests.support.runs import CONF, compose_plain

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
    assert (settings.training.train_metrics, settings.training.evaluations_per_epoch) == ("full", 1)


def test_the_help_lists_every_option_of_every_group():
    template = yaml.safe_load((CONF / "config.yaml").read_text())["hydra"]["help"]["template"]
    lines = template.splitlines()
    for group, choice in CHOICES:
        start = (
            next(i for i, line in enumerate(lines) if line.startswith(f"{group} ") or line == group)
            if group != "training"
            else None
        )
        if start is None:
            continue
        end = next(i for i in range(start + 1, len(lines)) if lines[i] and not lines[i].startswith(" "))
        assert choice in " ".join(lines[start:end]), f"{group}={choice} is not in the help"


def test_reference_model_options_beyond_the_reference_are_off():
    settings = check(compose_plain(["model=reference"])[0])
    assert not settings.model.skip
    assert not settings.model.classifier_skip
    assert not settings.model.standardise
    assert settings.training.moving_average == 0.0
    assert Path(CONF, "model", "reference.yaml").is_file()
