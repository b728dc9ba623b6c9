"""The reference of all settings in Markdown: type, range, unit, default and description of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from joyful.schema import editors, groups
from joyful.schema.texts import UNITS
from joyful.sweeper.plugin import DEFAULTS, PRUNERS

#: Headings of settings at the root.
_ROOT = "The run"

_HEADER = "| setting | default | values | unit | what |\n|---|---|---|---|---|\n"


def reference() -> str:
    """Return the page, without its title and introduction."""
    schema = editors.settings_schema()
    defaults, chosen = _defaults()
    sections = {name: node for name, node in schema["properties"].items() if "properties" in node}
    root = {name: node for name, node in schema["properties"].items() if name not in sections}
    parts = [f"## {_ROOT}\n\n", _table(rows(root, "", defaults))]
    all_choices = groups.choices()
    for name, section in sections.items():
        parts.append(f"\n## `{name}`\n\n")
        parts.append(_choices(name, all_choices.get(name, {}), chosen.get(name, "")))
        parts.append(_table(rows(section["properties"], f"{name}.", defaults[name])))
    parts.append("\n## Presets of several sections\n\n")
    parts.append("Its files may set any section. It comes after the other groups.\n\n")
    parts.append(_choices("experiment", all_choices["experiment"], ""))
    parts.append("\n## `hydra.sweeper`\n\n")
    parts.append("The settings of `hydra/sweeper=optuna_pruned`, with their defaults for any program.\n\n")
    own = {name: node for name, node in editors.sweeper_schema()["properties"].items() if name in DEFAULTS}
    parts.append(_table(rows({k: v for k, v in own.items() if k != "_target_"}, f"{editors.SWEEPER}.", DEFAULTS)))
    parts.append(
        "\n### Pruners\n\n`hydra/sweeper/pruner=NAME` selects one. Its settings are those of Optuna's class of this name; "
        "`PromotionPruner` is joyful's ([paused trials](../SWEEPS.md#paused-trials)).\n\n"
    )
    parts.append("| name | class | settings |\n|---|---|---|\n")
    for name, node in PRUNERS.items():
        settings = ", ".join(f"`{key}={value}`" for key, value in node.items() if key != "_target_")
        parts.append(f"| `{name}` | `{node['_target_'].rpartition('.')[2]}` | {settings} |\n")
    return "".join(parts)


def rows(properties: Mapping[str, Any], prefix: str, defaults: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each setting: name, default, values, unit, description.

    Args:
        properties: The part of `editors.settings_schema` that describes the settings of a section.
        prefix: The section with a dot, "" for the root.
        defaults: The default of each setting by its name.
    """
    for name, node in properties.items():
        setting, default = f"{prefix}{name}", defaults.get(name)
        section = next((branch for branch in (node, *node.get("anyOf", [])) if "properties" in branch), None)
        if section is not None:
            yield from rows(section["properties"], f"{setting}.", default if isinstance(default, Mapping) else {})
        else:
            yield setting, _code(default), values_of(node), UNITS.get(setting, ""), node["description"]


def values_of(node: Mapping[str, Any]) -> str:
    """Return the values that a schema allows, in words.

    Example:
        >>> values_of({"type": "number", "exclusiveMinimum": 0.0, "maximum": 10.0})
        'number above 0, at most 10'
        >>> values_of({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})
        'integer, at least 0; or `null`'
    """
    if "anyOf" in node:
        return "; or ".join(map(values_of, node["anyOf"]))
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    kind = node.get("type")
    if kind in ("integer", "number"):
        return f"{kind}{_range(node)}"
    if kind == "array":
        return f"list of: {values_of(node['items'])}"
    if kind == "object" and isinstance(node.get("additionalProperties"), Mapping):
        keys = node.get("propertyNames", {}).get("enum", [])
        names = ", ".join(f"`{key}`" for key in keys) or "names"
        return f"mapping of {names} to: {values_of(node['additionalProperties'])}"
    words = {"boolean": "`true`, `false`", "null": "`null`", "string": "text", "object": "mapping"}
    return "a name of letters, digits and `_ . -`" if "pattern" in node else words.get(str(kind), "mapping")


def _range(node: Mapping[str, Any]) -> str:
    lower, upper = node.get("minimum"), node.get("maximum")
    if lower is not None and upper is not None:
        return f" {lower:,.10g} to {upper:,.10g}" if isinstance(upper, float) else f" {lower:,} to {upper:,}"
    limits = {
        "at least": lower, "above": node.get("exclusiveMinimum"),
        "at most": upper, "below": node.get("exclusiveMaximum"),
    }  # fmt: skip
    text = ", ".join(f"{word} {value:,.10g}" for word, value in limits.items() if value is not None)
    return f" {text}" if text.startswith("above") else f", {text}" if text else ""


def _choices(group: str, choices: Mapping[str, str], default: str) -> str:
    if not choices:
        return ""
    lines = [f"`{group}=NAME` selects one of these files of values, and `{group}.SETTING=VALUE` one setting:\n\n"]
    for name, what in choices.items():
        mark = " (default)" if name == default else ""
        lines.append(f"- `{name}`{mark}{f': {what}' if what else ''}\n")
    return "".join(lines) + "\n"


def _table(cells: Iterator[tuple[str, ...]]) -> str:
    lines = (
        f"| `{name}` | {' | '.join(text.replace('|', chr(92) + '|') for text in rest)} |\n" for name, *rest in cells
    )
    return _HEADER + "".join(lines)


def _code(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"`{{{', '.join(f'{key}: {part}' for key, part in value.items())}}}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _defaults() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of the default configuration, with interpolations as text, and the default choice of each group."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_module("joyful.conf"):
        config = compose("config", return_hydra_config=True)
    choices = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items() if name != "hydra"}, choices
