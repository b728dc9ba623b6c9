"""The Hydra plugin of the sweeper. It imports Optuna and the rest of the package only when a sweep starts.

Hydra imports this module in every program, because the entry point of the plugin names it. It adds the option
`optuna_pruned` of the group hydra/sweeper, and the group hydra/sweeper/pruner.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from joyful.runtime.hydra_request import literal

log = logging.getLogger(__name__)

#: The settings of `hydra.sweeper` and their defaults. `joyful.sweeper.settings` documents them.
DEFAULTS: dict[str, Any] = {
    "defaults": [{"sampler": "tpe"}, {"pruner": "percentile"}],
    "_target_": "joyful.sweeper.plugin.OptunaPrunedSweeper",
    "n_trials": 20,
    "n_jobs": 2,
    "direction": "minimize",
    "params": {},
    "trials": None,
    "arms": None,
    "pairs": 12,
    "max_pairs": 60,
    "claims": None,
    "first_seed": 1,
    "folds": None,
    "seeds": 1,
    "finalists": 3,
    "calibration": True,
    "metric_names": None,
    "seed_key": "seed",
    "fold_key": "fold",
    "role_key": None,
    "may_differ": [],
    "check": None,
    "storage": None,
    "study_name": None,
    "track": [],
    "workers_per_gpu": 1,
    "lease_seconds": 30,
}

#: Choices of the group hydra/sweeper/pruner.
PRUNERS: dict[str, dict[str, Any]] = {
    # prune a trial that is in the worst fifth of the complete trials at the same step
    "percentile": {
        "_target_": "optuna.pruners.PercentilePruner", "percentile": 80.0, "n_startup_trials": 5, "n_warmup_steps": 2
    },
    # prune a trial that is below the median of the complete trials at the same step
    "median": {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 5, "n_warmup_steps": 3},
    # asynchronous successive halving (Li et al. 2020): the best third continues at steps 3, 9, 27, ...
    "asha": {
        "_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 3, "reduction_factor": 3,
        "min_early_stopping_rate": 0,
    },
    # successive halving that pauses trials at a quarter and a half of their steps, and promotes the best half there, also later
    "asha_promotion": {
        "_target_": "joyful.sweeper.pausing.PromotionPruner", "min_resource": None, "reduction_factor": 2,
        "max_resource": None, "breadth_first": False, "fewest_trials": 8,
    },
    # train every trial to the end
    "none": {"_target_": "optuna.pruners.NopPruner"},
}  # fmt: skip

#: Hydra's own `hydra.sweep.dir`. A folder of every start anew could not be resumed by the same command.
_DATED = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"


def register() -> None:
    """Add the configurations of the sweeper to Hydra's ConfigStore."""
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="optuna_pruned", node=DEFAULTS, provider="joyful", replace=True)
    for name, node in PRUNERS.items():
        store.store(group="hydra/sweeper/pruner", name=name, node=node, provider="joyful", replace=True)


class OptunaPrunedSweeper(Sweeper):
    """The sweeper `hydra/sweeper=optuna_pruned`.

    Args:
        **settings: The settings of `hydra.sweeper`. Not used, because the configuration holds them too.
    """

    def __init__(self, **settings: Any) -> None: ...

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context, the configuration and the task function, and choose the folder of the sweep.

        If nothing sets `hydra.sweep.dir`, the folder is multirun/NAME with the name of the study, by default that of the
        program. So the same command resumes the sweep.
        """
        self.hydra_context, self.config, self.launcher = hydra_context, config, None
        self._task_function = task_function
        if OmegaConf.to_container(config.hydra.sweep, resolve=False)["dir"] == _DATED:  # type: ignore[index, call-overload]
            name = config.hydra.sweeper.study_name or config.hydra.job.name
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.sweep.dir = literal(Path("multirun", str(name)))

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep.

        Args:
            arguments: The overrides of the command line.

        Raises:
            SystemExit: With code 1 if every trial failed or the sweep cannot continue, 2 for bad input, 130 or 143
                after a signal.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        log.info("sweep in %s: checking the settings of the trials", self.config.hydra.sweep.dir)
        from joyful.sweeper import driver, program

        program.refuse_while_importing()
        if code := driver.main(self.hydra_context, self.config, arguments, self._task_function):
            sys.exit(code)


register()
