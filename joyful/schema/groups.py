"""The groups of conf/ and the members of the registries, read from files: importing the registries would import torch."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from joyful.config import REGISTRIES
from joyful.registry import Registry


def members() -> dict[str, dict[str, str]]:
    """Return setting -> name -> summary of joyful's own members, from the lines that register them.

    Example:
        >>> members()["classification.name"]
        {'focal': 'focal loss, with classification.gamma and .alpha', 'nll': 'cross-entropy'}
    """
    found: dict[str, dict[str, str]] = {}
    for setting, (module, variable) in REGISTRIES.items():
        folder = files("joyful").joinpath(module.split(".")[1])
        lines = [
            line for text in _sources(folder) if f"{variable}.register(" in text for line in _lines(text, variable)
        ]
        found[setting] = dict(sorted(lines))
    return found


def all_members() -> dict[str, tuple[dict[str, str], dict[str, tuple[Any, Any]]]]:
    """Return setting -> (name -> summary, own settings of all members), with the members of other packages.

    This imports torch.

    Raises:
        InputError: If a module of another package cannot be imported.
    """
    found = {}
    for setting, (module, variable) in REGISTRIES.items():
        registry: Registry[Any] = getattr(importlib.import_module(module), variable)
        own = {key: value for name in registry for key, value in registry.settings_of(name).items()}
        found[setting] = (registry.summaries(), own)
    return found


def choices() -> dict[str, dict[str, str]]:
    """Return group -> choice -> first sentence of its file's comment, "" without one.

    Example:
        >>> choices()["loss"]["mse"]
        'Mean squared error'
    """
    found: dict[str, dict[str, str]] = {}
    for folder in sorted(files("joyful.conf").iterdir(), key=lambda item: item.name):
        if folder.is_dir() and folder.name != "hydra":
            names = sorted(
                file.name for file in folder.iterdir() if file.name.endswith(".yaml") and file.name[0] != "_"
            )
            texts = {name.removesuffix(".yaml"): folder.joinpath(name).read_text(encoding="utf-8") for name in names}
            if texts:
                found[folder.name] = {name: _first_sentence(text) for name, text in texts.items()}
    return found


def _sources(folder: Traversable) -> Iterator[str]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            yield from _sources(item)
        elif item.name.endswith(".py"):
            yield item.read_text(encoding="utf-8")


def _lines(text: str, variable: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the summary of each call VARIABLE.register(NAME, SUMMARY, ...)."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{variable}.register":
            name, summary = (str(argument.value) for argument in node.args[:2] if isinstance(argument, ast.Constant))
            yield name, summary


def _first_sentence(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").strip())
    return re.split(r"(?<!al)\. ", " ".join(lines))[0].removesuffix(".")
