"""Hydra plugin that provides ``+sweeps=NAME`` and the resolvers of output folders.

Hydra finds this plugin by its entry point (group hydra.plugins in pyproject.toml) and imports it in every process, so
workers have the resolvers too. The plugin only registers the scheme ``joyful://``. conf/config.yaml adds
``joyful://sweeps`` to its ``hydra.searchpath``; other programs do not see the sweeps.
"""

from __future__ import annotations

import builtins
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from joyful.records import NAME_PATTERN


class SweepSource(ConfigSource):
    """The package ``joyful.sweeps`` as the config group ``sweeps``.

    The files are merged at the root of the configuration. They do not need the header ``# @package _global_``, so the
    first line of a file can be the command that runs the sweep.
    """

    @staticmethod
    def scheme() -> str:
        return "joyful"

    def available(self) -> bool:
        """Return whether the path is ``sweeps``."""
        return self.path == "sweeps"

    def is_group(self, config_path: str) -> bool:
        """Return whether the path is the root or the group ``sweeps``."""
        return config_path in ("", "sweeps")

    def is_config(self, config_path: str) -> bool:
        """Return whether the path is a file of the group."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """Return the name of the group for the root, and the names of its files for the group."""
        if config_path == "":
            return ["sweeps"] if results_filter in (None, ObjectType.GROUP) else []
        if config_path != "sweeps" or results_filter == ObjectType.GROUP:
            return []
        names = (item.name for item in files("joyful.sweeps").iterdir() if item.name.endswith(".yaml"))
        return sorted(name.removesuffix(".yaml") for name in names if not name.startswith("_"))

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file with the package ``_global_``.

        Raises:
            ConfigLoadError: If there is no such file.
        """
        file = self._file(config_path)
        if not file.is_file():
            raise ConfigLoadError(f"Config not found : {config_path}")
        text = file.read_text(encoding="utf-8")
        header: dict[str, str | None] = {"package": "_global_"}
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", OmegaConf.create(text), header)

    def _file(self, config_path: str) -> Traversable:
        group, _, name = config_path.partition("/")
        name = name if name.endswith(".yaml") else f"{name}.yaml"
        return files("joyful.sweeps") / (name if group == "sweeps" and "/" not in name else "no such file")


def _sweep_folder(sweep_name: str | None, dated: str) -> str:
    """Return the folder of a sweep: one by its name, so that the same command resumes it, or else Hydra's dated folder.

    An invalid name gives the dated folder too; joyful.config refuses it later, before anything is written.
    """
    return f"multirun/{sweep_name}" if sweep_name and re.fullmatch(NAME_PATTERN, sweep_name) else dated


def _run_folder(resume: str | None, dated: str) -> str:
    """Return the output folder of a run. A resumed run gets a subfolder, which keeps its first log and overrides."""
    if not resume or not Path(resume, "run.json").exists():
        return dated
    return f"{resume}/.resumed/{dated.removeprefix('outputs/').replace('/', '_')}"


OmegaConf.register_resolver("joyful_sweep_folder", _sweep_folder, replace=True)
OmegaConf.register_resolver("joyful_run_folder", _run_folder, replace=True)
