"""A JSON schema (draft 7) of files with settings, for completion and checks in editors.

Files with settings are partial, so nothing is required. Any setting may be an interpolation, ``${...}``. References are
replaced by what they refer to, because editors differ in what they do with the keys beside one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, create_model

from joyful.config import REGISTRIES, Settings
from joyful.messages import expected_one_of
from joyful.records import InputError
from joyful.schema import groups
from joyful.schema.texts import DESCRIPTIONS
from joyful.sweeper.settings import SweepSettings

DRAFT = "http://json-schema.org/draft-07/schema#"

#: The section of the sweeper's settings.
SWEEPER = "hydra.sweeper"

#: Keys of schemas that a partial file must not be held to, or that say nothing.
_DROPPED = ("title", "required", "$defs", "default")

_INTERPOLATION = {"type": "string", "pattern": r"\$\{"}

#: A list of defaults, which selects choices of groups.
_DEFAULTS = {
    "description": "choices of groups, such as `- override /loss: smoothl1`",
    "type": "array",
    "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
}

#: Keys of `hydra.sweeper` besides those of `SweepSettings`: parts of optuna_pruned, and settings of other sweepers.
_SWEEPER_PARTS = {
    "_target_": "class of the sweeper",
    "sampler": "settings of the Optuna sampler; hydra/sweeper/sampler selects it",
    "pruner": "settings of the Optuna pruner; hydra/sweeper/pruner selects it",
    "check": "function that checks the configuration of a trial before the sweep starts: `_target_: NAME`; null: none",
    "max_batch_size": "basic: runs that start at a time; null: all",
    "max_failure_rate": "optuna: share of runs that may fail",
    "custom_search_space": "optuna: function that extends the search space",
}


def json_schema(section: str | None = None, plugins: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a file with settings.

    Args:
        section: Section at the root of the file, such as "weights" for a file of conf/weights/, or "hydra.sweeper". None
            for a file with all sections, as in conf/experiment/.
        plugins: Whether to include names and settings that other packages register. This imports torch.

    Raises:
        InputError: If there is no such section, or a module of another package cannot be imported.

    Example:
        >>> json_schema("weights")["properties"]["cl_loss_weight"]["anyOf"][0]
        {'maximum': 1000000.0, 'minimum': 0.0, 'type': 'number'}
    """
    whole = settings_schema(plugins)
    sweeper = sweeper_schema()
    hydra = {"description": "settings of Hydra", "type": "object", "properties": {"sweeper": sweeper}}
    nodes = {
        name: node for name, node in whole["properties"].items() if node.keys() & {"properties", "additionalProperties"}
    }
    sections = nodes | {SWEEPER: sweeper}
    if section is None:
        root = {**whole, "properties": {**whole["properties"], "hydra": hydra}}
    elif section in sections:
        root = sections[section]
    else:
        raise InputError(f"--section: {expected_one_of(section, list(sections))}")
    root = _with_interpolations(root)
    root["properties"] = {"defaults": _DEFAULTS, **root.get("properties", {})}
    return {"$schema": DRAFT, "title": f"Settings of joyful{f': {section}' if section else ''}", **root}


def settings_schema(plugins: bool = False) -> dict[str, Any]:
    """Return the schema of the settings of a run, without references and without what a partial file may leave out."""
    schema = _simplified(Settings)
    if plugins:
        for setting, (names, own) in groups.all_members().items():
            _allow_names(schema, setting, names)
            fields = _simplified(create_model("Own", **own))["properties"] if own else {}  # type: ignore[call-overload]
            schema["properties"][setting.split(".")[0]]["properties"].update(fields)
    else:
        for setting, names in groups.members().items():
            _allow_names(schema, setting, names)
    for setting, description in DESCRIPTIONS.items():
        _at(schema, setting).setdefault("description", description)
    return schema


def sweeper_schema() -> dict[str, Any]:
    """Return the schema of `hydra.sweeper`, in the form of `settings_schema`."""
    schema = _simplified(SweepSettings)
    schema["properties"].update({name: {"description": what} for name, what in _SWEEPER_PARTS.items()})
    schema["properties"]["params"]["type"] = ["object", "null"]  # null is the default of Hydra's own sweepers
    return schema


def _allow_names(schema: dict[str, Any], setting: str, names: Mapping[str, str]) -> None:
    assert setting in REGISTRIES
    node = _at(schema, setting)
    node["enum"] = sorted(names)
    node["description"] += ": " + ", ".join(f"{name} ({what})" for name, what in sorted(names.items()))


def _at(schema: dict[str, Any], setting: str) -> dict[str, Any]:
    """Return the part of a schema that describes a setting."""
    for key in setting.split("."):
        schema = schema["properties"][key]
    return schema


def _simplified(model: type[BaseModel]) -> dict[str, Any]:
    raw = model.model_json_schema()

    def simplify(node: Any) -> Any:
        if isinstance(node, list):
            return [simplify(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            node = {**raw["$defs"][node["$ref"].rpartition("/")[2]], **{k: v for k, v in node.items() if k != "$ref"}}
        if "properties" in node:
            node = {**node, "properties": {name: simplify(part) for name, part in node["properties"].items()}}
            return {key: value for key, value in node.items() if key not in _DROPPED}
        return {key: simplify(value) for key, value in node.items() if key not in _DROPPED}

    simplified = simplify(raw)
    assert isinstance(simplified, dict)
    return simplified


def _with_interpolations(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which every setting may be an interpolation."""
    node = copy.deepcopy(dict(schema))
    if "properties" in node:
        node["properties"] = {name: _with_interpolations(part) for name, part in node["properties"].items()}
    elif "anyOf" in node:
        branches = [_with_interpolations(branch) if "properties" in branch else branch for branch in node["anyOf"]]
        node["anyOf"] = [*branches, _INTERPOLATION]
    elif (node.keys() - {"description"} and node.get("type") != "string") or node.keys() & {"enum", "const", "pattern"}:
        kept = {"description": node.pop("description")} if "description" in node else {}
        node = {**kept, "anyOf": [node, _INTERPOLATION]}
    return node
