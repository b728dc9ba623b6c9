"""What Hydra must know of joyful in every process: where `+sweeps=NAME` is found, and where runs and sweeps write.

Hydra finds this plugin by its entry point (group hydra.plugins, see pyproject.toml) and imports it in workers too, so the
resolvers are known there.
"""

from __future__ import annotations

import builtins
import re
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from joyful.records import NAME_PATTERN


class JoyfulSearchPath(SearchPathPlugin):
    """Appends the folder that holds conf/ and sweeps/, so that `+sweeps=NAME` works from any working directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        root = Path(__file__).resolve().parent.parent
        if (root / "sweeps").is_dir():
            search_path.append(provider="joyful", path=f"{SweepSource.scheme()}://{root}")


class SweepSource(FileConfigSource):
    """The folder sweeps/ and nothing beside it, although the path is that of the folder that holds it.

    Its files' settings are those of the whole configuration, without Hydra's line `# @package _global_` at their head: the
    first line of a sweep's file is the command that runs it.
    """

    @staticmethod
    def scheme() -> str:
        return "joyful"

    def is_group(self, config_path: str) -> bool:
        """Whether it is the root or lies in sweeps/: Hydra's help would list every folder beside it, .venv and all."""
        return config_path.split("/")[0] in ("", "sweeps") and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether it is a file in sweeps/."""
        return config_path.split("/")[0] == "sweeps" and super().is_config(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> builtins.list[str]:
        """What is in sweeps/, and at the root the group of that name."""
        if config_path == "":
            return ["sweeps"] if results_filter in (None, ObjectType.GROUP) else []
        return super().list(config_path, results_filter) if self.is_group(config_path) else []

    def load_config(self, config_path: str) -> ConfigResult:
        """The file, with the package _global_."""
        result = super().load_config(config_path)
        result.header["package"] = result.header.get("package") or "_global_"
        return result


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
