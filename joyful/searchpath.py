"""Makes `+sweeps=NAME` work from any working directory: the repository root is the last place where Hydra looks for configs.

Hydra finds this plugin by its entry point (group hydra.plugins, see pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class JoyfulSearchPath(SearchPathPlugin):
    """Appends the folder that holds conf/ and sweeps/ where joyful runs from its repository."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        root = Path(__file__).resolve().parent.parent
        if (root / "sweeps").is_dir():
            search_path.append(provider="joyful", path=f"file://{root}")
