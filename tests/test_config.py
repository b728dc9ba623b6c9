"""The schema checks every setting, and its messages state what was expected, what was given and what to set."""

import hashlib
import json

import pytest

from joyful.config import Settings, check, config_hash
from joyful.records import InputError
from joyful.validation import differences
from tests.support.runs import compose_plain


def changed(name: str, value: object) -> dict:
    config, _ = compose_plain()
    node = config
    *path, last = name.split(".")
    for part in path:
        node = node[part]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("training.epochs", 0, ["training.epochs", ">= 1", "got 0", "set training.epochs="]),
        ("training.epochs", 2.5, ["training.epochs", "an integer", "2.5"]),
        ("training.epochs", True, ["training.epochs", "True"]),
        ("training.threads", "many", ["training.threads", "many"]),
        ("training.threads", 0, ["training.threads", ">= 1", "0"]),
        ("weights.encoder_loss_weight", -0.1, ["weights.encoder_loss_weight", ">= 0", "-0.1"]),
        ("weights.encoder_loss_weight", float("nan"), ["weights.encoder_loss_weight", "nan"]),
        ("weights.cl_loss_weight", "x", ["weights.cl_loss_weight", "a number", "'x'"]),
        ("model.dropout", 1.0, ["model.dropout", "< 1", "1.0"]),
        ("model.contrastive.temperature", 0, ["model.contrastive.temperature", "> 0", "0"]),
        ("modalities", "va", ["modalities", "'atv'", "'va'"]),
        ("device", "gpu", ["device", "'cuda'", "'gpu'"]),
        ("data.source", "../meld", ["data.source", "expected one of cogmen", "did you mean meld?"]),
        ("sweep_name", "../../etc", ["sweep_name", "name of letters"]),
        ("seed", -1, ["seed", ">= 0", "-1"]),
        ("loss.modal_weights", {"smell": 1.0}, ["loss.modal_weights", "smell"]),
        ("training.epoch", 3, ["training.epoch", "no such setting"]),
    ],
)
def test_a_bad_setting_is_named_with_its_range(name, value, parts):
    with pytest.raises(InputError) as caught:
        check(changed(name, value))
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_errors_are_reported_at_once():
    config = changed("training.epochs", 0)
    config["seed"] = "x"
    with pytest.raises(InputError, match=r"seed.*training\.epochs"):
        check(config)


def test_a_missing_section_is_named():
    config, _ = compose_plain()
    del config["loss"]
    with pytest.raises(InputError, match="loss: expected a value, got nothing"):
        check(config)


def test_every_setting_has_a_description():
    def walk(model, prefix=""):
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                yield from walk(inner, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    # these need none beyond their names
    assert sorted(walk(Settings)) == [
        "device", "modalities", "optimizer.weight_decay", "role", "sweep_name", "training.scheduler.name",
        "weights.cl_loss_weight", "weights.encoder_loss_weight", "weights.gate_reg_weight",
    ]  # fmt: skip


def test_the_hash_depends_only_on_what_is_trained():
    base = config_hash(check(compose_plain()[0]))
    assert base == config_hash(check(changed("data.cache", "elsewhere")))
    assert base == config_hash(check(changed("role", "search")))
    assert base == config_hash(check(changed("sweep_name", "a")))
    assert base != config_hash(check(changed("seed", 7)))
    assert base != config_hash(check(changed("weights.encoder_loss_weight", 0.05)))


def test_the_hash_does_not_cover_what_is_not_used():
    """The runs of versions without data.table, data.fine_tuning and model.modal_dropout keep their digest."""
    settings = check(compose_plain()[0])
    relevant = settings.model_dump()
    for name in ("resume", "fork", "sweep_name", "role", "objectives", "target", "track"):
        del relevant[name]
    for name in ("cache", "root", "table", "fine_tuning"):
        del relevant["data"][name]
    del relevant["model"]["modal_dropout"]
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:16]
    assert config_hash(settings) == digest
    old = compose_plain()[0]
    del old["data"]["fine_tuning"], old["model"]["modal_dropout"]
    assert config_hash(check(old)) == digest


@pytest.mark.parametrize("setting", ["data.table.seed=1", "data.fine_tuning.epochs=1", "model.modal_dropout.audio=0.0"])
def test_the_hash_covers_what_is_used(setting):
    plain, other = (compose_plain(["data=dialogues", *more])[0] for more in ((), (setting,)))
    assert config_hash(check(plain)) != config_hash(check(other))


def test_differences_name_leaves():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == ["a.c: 2 -> 3", "d: None -> 4"]
