"""The schema of the settings: the JSON schema that editors use, and the reference page that is made from it."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from joyful.config import REGISTRIES
from joyful.results.yaml_text import parse_yaml
from joyful.schema import editors, groups, reference
from joyful.schema.command import main
from joyful.schema.texts import DESCRIPTIONS, UNITS
from joyful.sweeper.plugin import DEFAULTS
from tests.support.runs import CONF, compose_plain

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "joyful/schema/settings.json"

#: Files with settings, each with the section at its root; None: all sections.
FILES = [
    *((path, None if "_global_" in path.read_text() else path.parent.name) for path in sorted(CONF.glob("*/*.yaml"))),
    *((path, None) for path in [CONF / "config.yaml", *sorted((ROOT / "sweeps").glob("*.yaml"))]),
    *((path, editors.SWEEPER) for path in sorted((CONF / "hydra/sweeper").glob("*.yaml"))),
]


def faults(text: str, section: str | None = None) -> list[str]:
    """Return what the schema finds wrong in a file with settings."""
    schema = editors.json_schema(section)
    jsonschema.Draft7Validator.check_schema(schema)
    return [error.json_path for error in jsonschema.Draft7Validator(schema).iter_errors(parse_yaml(text.encode()))]


def settings() -> list[tuple[str, ...]]:
    """Return the rows of the reference: those of a run, then those of the sweeper."""
    run = reference.rows(editors.settings_schema()["properties"], "", {})
    return [*run, *reference.rows(editors.sweeper_schema()["properties"], "hydra.sweeper.", {})]


def test_the_shipped_file_is_what_the_command_writes(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new.json")]) == 0
    assert main([]) == 0
    assert capsys.readouterr().out == (tmp_path / "new.json").read_text()
    assert SHIPPED.read_text() == (tmp_path / "new.json").read_text(), (
        "run joyful schema --out joyful/schema/settings.json"
    )


@pytest.mark.parametrize(("path", "section"), FILES, ids=lambda value: str(getattr(value, "stem", value)))
def test_every_file_of_conf_and_sweeps_fits(path, section):
    assert faults(path.read_text(), section) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("training: {epochs: 0}", "$.training.epochs"),
        ("training: {epochs: 2.5}", "$.training.epochs"),
        ("training: {epoch: 3}", "$.training"),
        ("trainings: {epochs: 3}", "$"),
        ("loss: {name: mae}", "$.loss.name"),
        ("loss: mse", "$.loss"),
        ("model: {context: rnn}", "$.model.context"),
        ("modalities: ta", "$.modalities"),
        ("seed: -1", "$.seed"),
        ("seed: true", "$.seed"),
        ("target: 1.5", "$.target"),
        ("data: {synthetic: {speakers: 0}}", "$.data.synthetic"),
        ("loss: {modal_weights: {smell: 1.0}}", "$.loss.modal_weights"),
        ("hydra: {sweeper: {n_trails: 3}}", "$.hydra.sweeper"),
        ("hydra: {sweeper: {pairs: 0}}", "$.hydra.sweeper.pairs"),
        ("defaults: {loss: mse}", "$.defaults"),
    ],
)
def test_a_wrong_key_or_range_does_not_fit(text, where):
    assert faults(text) == [where]


@pytest.mark.parametrize(
    "text",
    [
        "training: {epochs: 1}",
        "defaults: [{override /loss: smoothl1}, _self_]\nloss: {beta: 0.5}",
        "training: {epochs: '${oc.env:EPOCHS}'}",
        "optimizer: {learning_rate: 1e-3}",
        "data: {root: null}",
        "hydra: {job: {name: mine}, sweeper: {pairs: auto, max_pairs: 20}}",
    ],
)
def test_a_partial_file_fits(text):
    assert faults(text) == []


def test_a_file_of_one_section_fits_its_section_only():
    text = "encoder_loss_weight: 0.1"
    assert faults(text, "weights") == []
    assert faults(text) == ["$"]
    assert faults("encoder_loss_weight: -0.1", "weights") == ["$.encoder_loss_weight"]


def test_nothing_is_required_and_no_reference_is_left():
    text = SHIPPED.read_text()
    assert '"required"' not in text
    assert "$ref" not in text


@pytest.mark.parametrize("setting", REGISTRIES)
def test_the_names_are_those_of_the_registries(setting):
    module, variable = REGISTRIES[setting]
    registry = getattr(importlib.import_module(module), variable)
    assert groups.members()[setting] == registry.summaries()


@pytest.mark.slow
def test_members_of_other_packages_are_included_on_request(tmp_path):
    (tmp_path / "cauchy.py").write_text(
        "from joyful.losses.reconstruction import RECONSTRUCTION_LOSSES, MSELoss\n"
        "RECONSTRUCTION_LOSSES.register('cauchy', 'ln(1 + r^2)', scale=(float, 1.0))(MSELoss)\n"
    )
    code = "from joyful.schema.command import main; raise SystemExit(main(['--plugins', '--section', 'loss']))"
    for plugins, names in (
        ("", ["mse", "smoothl1", "weighted_mse"]),
        ("cauchy", ["cauchy", "mse", "smoothl1", "weighted_mse"]),
    ):
        environment = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "JOYFUL_PLUGINS": plugins, "PATH": ""}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        properties = json.loads(done.stdout)["properties"]
        assert properties["name"]["anyOf"][0]["enum"] == names
        assert ("scale" in properties) == (plugins == "cauchy")
        properties = json.loads(SHIPPED.read_text())["properties"]["loss"]["properties"]
        assert "scale" not in properties


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--section", "weigths"], "--section: expected one of track, data, fusion"),
        (["--section", "weigths"], "did you mean weights?"),
        (["--markdown", "--plugins"], "--markdown: expected no --section and no --plugins"),
        (["--out", "no/such/folder/x.json"], "--out no/such/folder/x.json: the file cannot be written (No such file"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("joyful: ")
    assert error.count("\n") == 1


def test_every_setting_has_a_description_and_every_number_a_unit():
    rows = settings()
    assert len(rows) > 100
    assert [name for name, _, _, _, description in rows if not description] == []
    numbers = {name for name, _, values, _, _ in rows if "integer" in values or "number" in values}
    assert numbers == UNITS.keys(), "correct UNITS in joyful/schema/texts.py"


def test_no_description_is_given_twice():
    own = dict(_leaves(json.loads(SHIPPED.read_text())))
    for name, description in DESCRIPTIONS.items():
        assert own[name]["description"] == description, f"{name} has a description in joyful/config.py; remove this one"


def _leaves(schema, prefix=""):
    for name, node in schema["properties"].items():
        yield prefix + name, node
        if "properties" in node:
            yield from _leaves(node, f"{prefix}{name}.")


def test_the_reference_has_every_setting_with_its_default(capsys):
    assert main(["--markdown"]) == 0
    text = capsys.readouterr().out
    values, _ = compose_plain()
    for name, *_ in settings():
        key = name.removeprefix("hydra.sweeper.")
        if not name.startswith("hydra.sweeper.") or (key in DEFAULTS and key != "_target_"):
            assert text.count(f"\n| `{name}` | ") == 1, name
    assert f"| `training.epochs` | `{values['training']['epochs']}` | integer 1 to 100,000 | epochs | " in text
    assert "| `optimizer.learning_rate` | `${model.learning_rate}` | number above 0, at most 10 |  | " in text
    assert "| `hydra.sweeper.lease_seconds` | `30` | number 5 to 86,400 | seconds | " in text
    assert "- `smoothl1`: SmoothL1 (Huber)" in text
    assert "- `basic` (default): " in text
