"""What Hydra must know of joyful in every process: where ``+sweeps=NAME`` is found, and where runs and sweeps write.

Hydra finds this plugin by its entry point (group hydra.plugins, see pyproject.toml) and imports it in workers too, so the
resolvers are known there. The plugin only makes a scheme known: conf/config.yaml names ``joyful://sweeps`` in its
``hydra.searchpath``, and no other program sees the sweeps.
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

    Its files' settings are those of the whole configuration, without Hydra's line ``# @package _global_`` at their head: the
    first line of a sweep's file is the command that runs it.
    """

    @staticmethod
    def scheme() -> str:
        return "joyful"

    def available(self) -> bool:
        """Whether the path names the package."""
        return self.path == "sweeps"

    def is_group(self, config_path: str) -> bool:
        """Whether it is the root or the group itself."""
        return config_path in ("", "sweeps")

    def is_config(self, config_path: str) -> bool:
        """Whether it is a file of the group."""
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """The group at the root, its files in the group."""
        if config_path == "":
            return ["sweeps"] if results_filter in (None, ObjectType.GROUP) else []
        if config_path != "sweeps" or results_filter == ObjectType.GROUP:
            return []
        names = (item.name for item in files("joyful.sweeps").iterdir() if item.name.endswith(".yaml"))
        return sorted(name.removesuffix(".yaml") for name in names if not name.startswith("_"))

    def load_config(self, config_path: str) -> ConfigResult:
        """The file, with the package ``_global_``. Raises ConfigLoadError where there is none."""
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
    """A named sweep has a folder of its own, so that the same command goes on with it; others keep Hydra's dated one, and so does
    a name that is none (joyful.config refuses it, and until then nothing may be written elsewhere)."""
    return f"multirun/{sweep_name}" if sweep_name and re.fullmatch(NAME_PATTERN, sweep_name) else dated


def _run_folder(resume: str | None, dated: str) -> str:
    """A resumed run's log and overrides go beside those of the run, which stay as they are."""
    if not resume or not Path(resume, "run.json").exists():
        return dated
    return f"{resume}/.resumed/{dated.removeprefix('outputs/').replace('/', '_')}"


OmegaConf.register_resolver("joyful_sweep_folder", _sweep_folder, replace=True)
OmegaConf.register_resolver("joyful_run_folder", _run_folder, replace=True)
