"""Wrong types and values out of range of every setting are refused first, with the name and the range of the setting.

The settings are read from the schema (joyful.config.Settings), so new settings are tested automatically.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import BaseModel

from joyful.config import Settings, check
from joyful.runtime.hydra_request import InputError
from joyful.sweeper.settings import SweepSettings
from joyful.validation import validate
from tests.support.faults import Tally
from tests.support.fork_server import ForkServer
from tests.support.runs import compose_plain, sweep_defaults

ROOT = Path(__file__).resolve().parents[2]

Field = tuple[str, Any, dict[str, float]]


def bounds_of(metadata: Any) -> dict[str, float]:
    """Return the bounds ge, gt, le and lt of a field."""
    bounds: dict[str, float] = {}
    for item in metadata:
        for part in getattr(item, "metadata", [item]):
            bounds |= {n: getattr(part, n) for n in ("ge", "gt", "le", "lt") if getattr(part, n, None) is not None}
    return bounds


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[Field]:
    """Yield (dotted name, type, bounds) of every setting, recursively."""
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *get_args(field.annotation)) if isinstance(a, type)]
        section = next((a for a in inner if issubclass(a, BaseModel)), None)
        if section is not None:
            yield f"{prefix}{name}", BaseModel, {}
            yield from fields(section, f"{prefix}{name}.")
        else:
            bounds = bounds_of(field.metadata)
            for branch in get_args(field.annotation):
                bounds |= bounds_of(getattr(branch, "__metadata__", ()))
            yield f"{prefix}{name}", field.annotation, bounds


def kinds_of(annotation: Any) -> set[Any]:
    """Return the types that a setting allows.

    They are int, float, bool, str, dict, NoneType, Literal, and both list and (list, element type).
    """
    origin = get_origin(annotation)
    if origin is Literal:
        return {Literal}
    if origin is dict:
        return {dict}
    if origin is list:
        return {list, *((list, kind) for kind in kinds_of(get_args(annotation)[0]))}
    if isinstance(annotation, type):
        return {annotation}
    parts = get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        parts = parts[:1]
    return set().union(*(kinds_of(part) for part in parts))


#: Text of an override -> types for which it is valid, if it is in range.
VALUES: dict[str, set[Any]] = {
    "text": {str}, "''": {str}, "'1'": {str}, "'true'": {str}, "true": {bool}, "1": {int, float}, "0.5": {float}, "1.5": {float},
    "nan": set(), "inf": set(), "-inf": set(), "1e400": set(), "null": {NoneType}, "[]": {list}, "[1,2]": {(list, int)},
    "{}": {dict}, "{smell: 1}": {dict},
}  # fmt: skip


def wrong_values(annotation: Any, bounds: dict[str, float]) -> list[str]:
    """Return texts of values that the setting must refuse."""
    kinds = kinds_of(annotation)
    values = [text for text, valid in VALUES.items() if not kinds & valid]
    if Literal in kinds:
        values += ["text", "''"]
    is_integer = int in kinds
    for name, bound in bounds.items():
        step = 1 if is_integer else max(abs(bound), 1.0) * 1e-6
        beyond = {"ge": bound - step, "gt": bound, "le": bound + step, "lt": bound}[name]
        values += [
            str(int(beyond)) if is_integer else repr(float(beyond)),
            str(int(bound) - 10**9 if name in ("ge", "gt") else int(bound) + 10**9),
        ]
    return list(dict.fromkeys(values))


SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def signs(bounds: dict[str, float]) -> list[str]:
    return [f"{SIGNS[name]} {bound}" for name, bound in bounds.items()]


def parsed(text: str) -> Any:
    """Return the value that Hydra's grammar parses from the text."""
    value = OverridesParser.create().parse_override(f"x={text}").value()
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else getattr(value, "text", value)


def put(config: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    head, _, rest = name.partition(".")
    return {**config, head: put(config[head], rest, value) if rest else value}


def all_sections() -> dict[str, Any]:
    """Return a configuration with the sections of all datasets."""
    config, table = compose_plain()[0], compose_plain(["data=dialogues"])[0]["data"]["table"]  # type: ignore[index]
    return put(config, "data.table", table)


def refused(model: type[BaseModel], config: dict[str, Any], name: str, bounds: dict[str, float], text: str) -> str:
    """Return what is wrong with the refusal of a value, or "" if it is as documented."""
    prefix = "" if model is Settings else "hydra.sweeper."
    try:
        validate(model, config, prefix)
    except InputError as error:
        message = str(error)
        if not (message.isprintable() and f"{prefix}{name}" in message and "expected" in message):
            return f"{name}={text}: {message}"
        number = text.lstrip("-").replace(".", "").isdigit() or text in ("nan", "inf", "-inf")
        if bounds and number and not all(sign in message for sign in signs(bounds)):
            return f"{name}={text}: no range in: {message}"
        return ""
    return f"{name}={text}: was accepted"


@pytest.mark.parametrize("model", [Settings, SweepSettings])
def test_wrong_types_and_values_are_refused_with_the_range(model: type[BaseModel], tally: Tally) -> None:
    base = all_sections() if model is Settings else sweep_defaults()
    wrong, cases = [], 0
    for name, annotation, bounds in fields(model):
        values = ["text", "1", "true", "[]"] if annotation is BaseModel else wrong_values(annotation, bounds)
        assert len(values) >= 4, name
        for text in values:
            cases += 1
            wrong.append(refused(model, put(base, name, parsed(text)), name, bounds, text))
    wrong = [line for line in wrong if line]
    tally("wrong type or value out of range", cases, wrong=len(wrong))
    print(*wrong, sep="\n")
    assert cases > 100
    assert not wrong


def test_mappings_are_checked_inside(tally: Tally) -> None:
    config, _ = compose_plain()
    cases = 0
    for name, good in (("loss.modal_weights", 1.0), ("data.synthetic.dialogues", 3), ("data.synthetic.dimensions", 3)):
        keys = ("train", "dev", "test") if "dialogues" in name else ("audio", "text", "visual")
        for value in ("x", True, None, -1, math.nan, math.inf, 10**9, [1], {}):
            cases += 1
            line = refused(
                Settings, put(config, name, {**dict.fromkeys(keys, good), keys[1]: value}), name, {}, str(value)
            )
            assert not line, line
    tally("wrong type or value out of range", cases)


#: Settings with a single value. For modalities, which is also a group, Hydra itself refuses a list.
LEAVES = [
    n for n, annotation, _ in fields(Settings) if n != "modalities" and not kinds_of(annotation) & {BaseModel, dict}
]


#: Datasets that have a setting between them, and the settings to try with each.
DATA = {
    "synthetic": [name for name in LEAVES if not name.startswith("data.table.")],
    "dialogues": [name for name in LEAVES if name.startswith("data.table.")],
}


@pytest.fixture(scope="module", params=DATA)
def composed(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A dataset, its default settings, and those of a command with a wrong value for each setting to try."""
    dataset: str = request.param
    wrong, _ = compose_plain([f"data={dataset}", *(f"{name}=[1,[2]]" for name in DATA[dataset])])
    return dataset, compose_plain([f"data={dataset}"])[0], wrong


def test_by_override_through_hydra(composed: tuple[str, dict[str, Any], dict[str, Any]], tally: Tally) -> None:
    """One wrong value of each setting, as Hydra composes it, beside right values."""
    dataset, right, all_wrong = composed
    for name in DATA[dataset]:
        config, wrong = copy.deepcopy(right), all_wrong
        *sections, leaf = name.split(".")
        section = config
        for part in sections:
            section, wrong = section[part], wrong[part]
        section[leaf] = wrong[leaf]
        assert section[leaf] == [1, [2]]
        with pytest.raises(InputError) as caught:
            check(config)
        assert name in str(caught.value)
        tally("wrong type or value out of range", 1)


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("run.py", ("training.epochs=0",), "training.epochs: expected >= 1 and <= 100000, got 0"),
        ("run.py", ("training.batch_size=many",), "training.batch_size: expected an integer"),
        ("run.py", ("weights.cl_loss_weight=nan",), "weights.cl_loss_weight: expected a finite number >= 0.0 and <= 1000000.0"),
        ("run.py", ("-m", "model.dropout=1.0", "seed=1,2"), "model.dropout: expected >= 0.0 and < 1.0"),
        ("run.py", ("-m", "hydra/sweeper=optuna_pruned", "hydra.sweeper.n_jobs=0", "seed=range(1,3)"), "hydra.sweeper.n_jobs: exp"),
        ("train.py", ("--dataset=synthetic", "--epochs=0"), "training.epochs: expected >= 1"),
        ("train.py", ("--dataset=synthetic", "--drop_rate=nan"), "model.dropout: expected a finite number"),
        ("train.py", ("--dataset=synthetic", "seed=-1"), "seed: expected >= 0"),
    ],
)  # fmt: skip
def test_the_commands_write_nothing(
    script: str, arguments: tuple[str, ...], words: str, fork_server: ForkServer, tmp_path: Path, tally: Tally
) -> None:
    done = fork_server.run([str(ROOT / script), *arguments], tmp_path, os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
    tally("wrong type or value out of range", 1)
