"""Messages on one line for the errors of Hydra and OmegaConf, which say what to set instead.

Hydra finds a wrong name in several places: in the structure of the configuration, in its list of defaults, in a config
group, or in an option of the sweeper. The messages here are those of `joyful.messages` for all of them. The names come
from the configuration in the error, from Hydra's ConfigStore, and from the program, if it calls `describe_program`.
"""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.compat import config_of_error, hydra_parser
from joyful.messages import KnownNames, did_you_mean, expected_one_of, nearest, one_of, this_command
from joyful.records import InputError, one_line

#: Lines of the messages of Hydra and OmegaConf that do not describe the error.
_NOISE = re.compile(r"\s*(object_type=|reference_type=|See https://|_\w+$|$)")

#: Config groups with a choice of plugins. Each plugin has settings of its own.
_PLUGINS = ("hydra/sweeper", "hydra/launcher")

_PARAMS = "hydra.sweeper.params."

_names_of_program: list[Callable[[], KnownNames]] = []


def describe_program(names: Callable[[], KnownNames]) -> None:
    """Let the messages of this process offer the names of the program, and its aliases.

    Args:
        names: Returns the names. It is called when a message needs them.
    """
    _names_of_program[:] = [names]


def config_error_message(error: Exception) -> str:
    """Return the message of an error of Hydra, OmegaConf or a YAML parser on one line."""
    if (message := _explained(error)) is not None:
        return one_line(message, limit=600)
    text = str(error)
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"\n{error.__cause__}"
    lines = [line for line in text.split("Config search path:")[0].splitlines() if not _NOISE.match(line)]
    # items of a list, such as the options of a group, start with a tab
    message = re.sub(r"\n\s*full_key: (\S+)", r" (\1)", re.sub(r"(\n\t\S+)(?=\n\t)", r"\1,", "\n".join(lines)))
    kind = "" if isinstance(error, (HydraException, OmegaConfBaseException)) else f"{type(error).__name__}: "
    return one_line(f"configuration: {kind}{message}", limit=600)


def is_explained(error: Exception) -> bool:
    """Return whether the message of an error says what to set, so that its traceback is of no use."""
    return _explained(error) is not None


def _explained(error: Exception) -> str | None:
    """Return a message that says what to set; None for errors that are not among these."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _not_an_override(error.override)
    if primary := re.match(r"Cannot find primary config '(.*?)'", text):
        return f"--config-name: expected the name of a configuration, got {primary[1]!r}; leave --config-name out"
    if folder := re.match(r"Additional config directory '(.*)' not found", text):
        return f"--config-dir: expected a folder, found none at {folder[1]}; set --config-dir=FOLDER"
    if isinstance(error, MissingConfigException):
        return _missing_option(error, text)
    if refused := re.search(r"[Tt]arget '([^']*)' is not in the Hydra execution whitelist", text):
        place = re.search(r"full_key: (\S+)", text)
        return (
            f"{f'{place[1]}.' if place else ''}_target_: expected a class that this program allows, got {refused[1]}; to "
            f"allow it, set the environment variable JOYFUL_TARGETS={refused[1]}"
        )
    if refused := re.search(r"Target '([^']*)' cannot be authorized", text):
        place = re.search(r"full_key: (\S+)", text)
        name = f"{place[1]}._target_" if place else "_target_"
        return f"{name}: expected a class that this program allows, got {refused[1]}, which is never allowed; remove it"
    if several := re.match(r"Ambiguous value for argument '(.*)'\n|Sweep parameters '(.*)' requires --multirun", text):
        override = several[1] or several[2]
        name, _, values = override.partition("=")
        a_list = f"; a list is {shlex.quote(f'{name}=[{values}]')}" if several[1] else ""
        return f"{override}: expected one value, got several; to train a run for each, add -m: {this_command('-m')}{a_list}"
    if swept := re.match(r"Sweeping over Hydra's configuration is not supported : '(.*)'", text):
        return _swept_setting_of_hydra(swept[1].lstrip("+"))
    if twice := re.match(r"Could not append to config. An item is already at '(.*)'.\n.*prefix: '(.*)'", text):
        return f"{twice[1]}: the setting exists, so the sign + is wrong; set {twice[2]}"
    unknown = re.match(r"(?:In '(.*?)': )?Could not (?:override|delete)(?: from config\.)? '([^'=]*)", text)
    if unknown and not text.startswith("Could not delete from config. The value"):
        return _unknown(unknown[2], error)
    return None


# --- options and overrides


def refuse_unknown_options(arguments: Sequence[str]) -> None:
    """Raise InputError if a command line has an option that Hydra does not have, or a wrong value of one."""
    parser = hydra_parser()
    parser.exit_on_error = False
    try:
        _, unknown = parser.parse_known_intermixed_args(list(arguments))
    except ArgumentError as error:
        raise InputError(f"{one_line(error)} (--hydra-help lists the options)") from None
    for option in unknown:
        name, sign, value = option.lstrip("-").partition("=")
        near = nearest(f"--{name}", re.findall(r"--[a-z-]+", parser.format_usage()))
        if not near:  # a setting is not an option
            known = _known()
            names = [name] if name in known.settings else known.near(name)
            near = [f"{meant}={value}" if sign and "=" not in meant else meant for meant in names]
        raise InputError(f"{option}: there is no such option{did_you_mean(near)} (--hydra-help lists the options)")


def _not_an_override(override: str) -> str:
    name, sign, value = override.partition("=")
    if not sign:
        name, _, value = override.partition(":")
        return f"expected NAME=VALUE without spaces around =, got {override!r}; set {name.strip()}={value.strip() or 'VALUE'}"
    if value.startswith("[") and "=" in value:  # such as arms=[loss=mse,loss=smoothl1]
        items = ",".join(f'"{item.strip()}"' for item in value.strip("[]").split(","))
        example = f"{name}=[{items}]"
    else:
        example = f'{name}="TEXT"'
    return (
        f"{override}: expected a number, a word, or text in quotes after {name}=; close all brackets, and write text with "
        f"special characters as {shlex.quote(example)}"
    )


def _swept_setting_of_hydra(override: str) -> str:
    name, _, value = override.partition("=")
    if not name.startswith(_PARAMS):
        return f"{name}: expected one value for all trials, got {value}; settings of Hydra cannot be swept"
    parameter = name.removeprefix(_PARAMS)
    known = _known()
    if known.settings and parameter not in known.settings and parameter not in known.choices:
        return known.unknown(parameter)
    return f"{override}: expected a parameter by its own name on the command line; set {shlex.quote(f'{parameter}={value}')}"


# --- names


def _known(error: Exception | None = None) -> KnownNames:
    """Return the names of the program, of the configuration in an error, and of the plugins of Hydra."""
    known = _names_of_program[0]() if _names_of_program else KnownNames()
    known = known.with_settings(f"{group.replace('/', '.')}.{name}" for group in _PLUGINS for name in _owners(group))
    config = config_of_error(error.__cause__) if error is not None and error.__cause__ is not None else None
    return known if config is None else known.with_settings(_names_in(config))


def _names_in(config: DictConfig) -> Iterator[str]:
    """Yield the dotted names of all settings and sections of a configuration."""

    def walk(section: Any, prefix: str) -> Iterator[str]:
        for key, value in section.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")

    return walk(OmegaConf.to_container(config, resolve=False), "")


def _owners(group: str) -> dict[str, list[str]]:
    """Return the settings and the groups of the options of a config group, each with the options that have it."""
    store, owners = ConfigStore.instance(), dict[str, list[str]]()
    try:
        files = store.list(group)
    except OSError:  # Hydra has not found its plugins yet
        files = []
    for file in files:
        if not file.endswith(".yaml"):
            continue
        node: Any = OmegaConf.to_container(store.load(f"{group}/{file}").node, resolve=False)
        subgroups = [key for item in node.pop("defaults", []) if isinstance(item, dict) for key in item]
        for name in [*node, *subgroups]:
            if not str(name).startswith("_"):
                owners.setdefault(str(name), []).append(file.removesuffix(".yaml"))
    return owners


def _unknown(name: str, error: Exception) -> str:
    """Return the message about a setting or a config group that the configuration does not have."""
    known = _known(error)
    name = name.removeprefix(_PARAMS)
    group, _, last = re.sub(r"[./]", "/", name).rpartition("/")
    if f"+{name}" in known.choices:
        override = re.search(r"list use \+(\S+)", str(error))
        return f"{name}: expected -m and the sign + before {name}, got neither; set -m +{override[1] if override else name}"
    if group in _PLUGINS and last in _owners(group):
        return f"{name}: expected a setting of the chosen {group}, got one of another; add {_plugins_with(group, last)}"
    config = config_of_error(error.__cause__) if error.__cause__ is not None else None
    for near in known.near(name)[:1]:
        group, _, setting = near.replace(".", "/").rpartition("/")
        if (
            group in _PLUGINS
            and config is not None
            and setting not in OmegaConf.select(config, group.replace("/", "."))
        ):
            return known.unknown(name, f" It needs {_plugins_with(group, setting)}")
    return known.unknown(name)


def _plugins_with(group: str, setting: str) -> str:
    """Return the overrides that choose a plugin with a setting, those of this package first."""
    return one_of([f"{group}={option}" for option in sorted(_owners(group)[setting], reverse=True)])


def _missing_option(error: MissingConfigException, text: str) -> str | None:
    """Return the message about an option that a config group does not have."""
    missing = error.missing_cfg_file or ""
    group = re.search(r"Available options in '([^']*)'", text)
    if group is None:
        return None
    options = [option for option in error.options or [] if not option.startswith("_")]
    given = missing.removeprefix(f"{group[1]}/")
    place = re.match(r"In '([^']*)'", text)
    file = f"{place[1]}.yaml: " if place and place[1] != "config" and not place[1].startswith("hydra/") else ""
    message = f"{file}{group[1]}: {expected_one_of(given, options)}"
    if not nearest(given, options):
        choices = _known().choices
        others = [f"{other}={given}" for other, names in choices.items() if given in names]
        message += did_you_mean(others) or f"; set {'+' * (f'+{group[1]}' in choices)}{group[1]}=NAME"
    return message
