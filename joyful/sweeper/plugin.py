"""Hydra's face of the sweeper: holds the settings, and imports Optuna and the rest only when a sweep begins."""

from __future__ import annotations

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaPrunedSweeper(Sweeper):
    """`hydra/sweeper=optuna_pruned`; its settings are those of joyful.sweeper.settings, with a sampler and a pruner."""

    def __init__(self, sampler: Any, pruner: Any, **settings: Any) -> None:
        self._sampler, self._pruner, self._settings = sampler, pruner, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over. The task function is joyful's own whatever the program is."""
        self.hydra_context, self.config, self.launcher = hydra_context, config, None

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep to its end. Ends the program with 1 where every trial failed, 2 for bad input, 130 or 143 for signals."""
        from joyful.sweeper import driver

        assert self.hydra_context is not None
        assert self.config is not None
        code = driver.main(self.hydra_context, self.config, self._sampler, self._pruner, self._settings, arguments)
        if code:
            sys.exit(code)
