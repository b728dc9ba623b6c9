"""The Hydra plugin of the sweeper. It imports Optuna and the rest of the package only when a sweep starts."""

from __future__ import annotations

import sys
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaPrunedSweeper(Sweeper):
    """The sweeper `hydra/sweeper=optuna_pruned`.

    Args:
        **settings: The settings of `hydra.sweeper`. Not used, because the configuration holds them too.
    """

    def __init__(self, **settings: Any) -> None: ...

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context and the configuration. The task function is not used: workers always train with joyful."""
        self.hydra_context, self.config, self.launcher = hydra_context, config, None

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep.

        Args:
            arguments: The overrides of the command line.

        Raises:
            SystemExit: With code 1 if every trial failed or the sweep cannot continue, 2 for bad input, 130 or 143
                after a signal.
        """
        from joyful.sweeper import driver

        assert self.hydra_context is not None
        assert self.config is not None
        if code := driver.main(self.hydra_context, self.config, arguments):
            sys.exit(code)
