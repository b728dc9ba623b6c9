"""Hydra plugins: the configuration of joyful, the sweeps ``+sweeps=NAME``, and the resolvers of output folders.

Hydra finds these plugins by their entry points (group hydra.plugins in pyproject.toml) and imports them in every
process, so workers have the resolvers too. They change no other program: `PackageSource` only provides the scheme
``joyful://``, and `OwnSearchPath` changes only search paths with ``pkg://joyful.conf``.
"""

from __future__ import annotations

import builtins
import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from joyful.records import NAME_PATTERN


class PackageSource(ConfigSource):
    """The configurations in joyful's packages. Files whose names begin with ``_`` can be loaded but are not listed.

    - ``joyful://conf`` is the package ``joyful.conf``.
    - ``joyful://sweeps`` has one group, ``sweeps``, the package ``joyful.sweeps``. Its files are merged at the root of
      the configuration. They do not need the header ``# @package _global_``, so the first line of a file can be the
      command that runs the sweep.
    """

    @staticmethod
    def scheme() -> str:
        return "joyful"

    def available(self) -> bool:
        """Return whether the path is one of the two."""
        return self.path in ("conf", "sweeps")

    def is_group(self, config_path: str) -> bool:
        """Return whether the path is a folder."""
        return (self.path == "sweeps" and config_path == "") or self._find(config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Return whether the path is a YAML file; its extension may be left out."""
        return self._find(self._normalize_file_name(config_path)).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """Return the names of the groups and files in a folder, sorted."""
        if self.path == "sweeps" and config_path == "":
            return ["sweeps"] if results_filter in (None, ObjectType.GROUP) else []
        names: builtins.list[str] = []
        for item in self._find(config_path).iterdir():
            if item.name.startswith("_"):
                continue
            if item.is_dir() and results_filter in (None, ObjectType.GROUP):
                names.append(item.name)
            elif item.name.endswith(".yaml") and results_filter in (None, ObjectType.CONFIG):
                names.append(item.name.removesuffix(".yaml"))
        return sorted(names)

    def load_config(self, config_path: str) -> ConfigResult:
        """Load a file.

        Raises:
            ConfigLoadError: If there is no such file.
        """
        file = self._find(self._normalize_file_name(config_path))
        if not file.is_file():
            raise ConfigLoadError(f"Config not found : {config_path}")
        text = file.read_text(encoding="utf-8")
        header: dict[str, str | None] = (
            {"package": "_global_"} if self.path == "sweeps" else self._get_header_dict(text)
        )
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(text), header)

    def _find(self, config_path: str) -> Traversable:
        parts = [part for part in config_path.split("/") if part]
        if ".." in parts or (self.path == "sweeps" and parts[:1] != ["sweeps"]):
            parts = ["no such file"]
        elif self.path == "sweeps":
            parts = parts[1:]
        return files(f"joyful.{self.path}").joinpath(*parts)


class OwnSearchPath(SearchPathPlugin):
    """Makes joyful's own program read its configuration and the sweeps through `PackageSource`."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Replace ``pkg://joyful.conf`` by ``joyful://conf``, and append ``joyful://sweeps``."""
        own = [element for element in search_path.get_path() if element.path == "pkg://joyful.conf"]
        for element in own:
            element.path = "joyful://conf"
            search_path.append("joyful", "joyful://sweeps")


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


def _objectives(names: Any) -> list[str]:
    """Return the objectives of JOYFUL's trainer for the setting `objectives`."""
    return list(names or ["dev_f1"])


def _directions(names: Any) -> list[str]:
    """Return the directions of these objectives."""
    return ["minimize" if name == "epochs_to_target" else "maximize" for name in _objectives(names)]


def _hydra_folder(*, _root_: DictConfig) -> str | None:
    """Return the subfolder for Hydra's description of a job, or None if the output folder has a run already.

    Hydra writes it before the settings are checked, so a refused command would replace the description of a finished
    run.
    """
    folder = OmegaConf.select(_root_, "hydra.runtime.output_dir", throw_on_missing=False)  # missing before a job starts
    return None if folder and Path(folder, "run.json").exists() else ".hydra"


OmegaConf.register_resolver("joyful_objectives", _objectives, replace=True)
OmegaConf.register_resolver("joyful_directions", _directions, replace=True)
OmegaConf.register_resolver("joyful_sweep_folder", _sweep_folder, replace=True)
OmegaConf.register_resolver("joyful_run_folder", _run_folder, replace=True)
OmegaConf.register_resolver("joyful_hydra_folder", _hydra_folder, replace=True)
