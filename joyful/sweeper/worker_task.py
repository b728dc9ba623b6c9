"""What a driver hands to its workers, and how a worker opens the study from it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.pruners import BasePruner
from sqlalchemy.engine import make_url

from joyful.runtime import closed_pipes
from joyful.sweeper.database import open_engine, open_storage
from joyful.sweeper.evidence import Evidence
from joyful.sweeper.pausing import Pausing, policy_of
from joyful.sweeper.plan import Plan
from joyful.sweeper.program import Program
from joyful.sweeper.registry import Registry
from joyful.sweeper.settings import SweepSettings
from joyful.sweeper.study import StudyAccess


@dataclass(frozen=True)
class WorkerTask:
    """The task function of a worker's launcher job. Picklable: connections and processes are created where it runs.

    Attributes:
        hydra_context: Hydra's context of the sweep, for composing trials.
        config: Configuration of the sweep.
        settings: Settings of the sweep.
        plan: The trials.
        program: The program to run.
        url: URL of the database.
        study_name: Name of the study.
        study_id: Optuna's id of the study.
        driver: Id of the driver that launches the worker.
        sampler_for: Trial number -> sampler.
        pruner: The pruner.
        gpus: GPUs to assign round-robin; None: those visible to each worker.
    """

    hydra_context: HydraContext
    config: DictConfig
    settings: SweepSettings
    plan: Plan
    program: Program
    url: str
    study_name: str
    study_id: int
    driver: str
    sampler_for: Any
    pruner: BasePruner
    gpus: tuple[str, ...] | None = None

    @property
    def folder(self) -> Path:
        """The sweep folder."""
        return Path(self.config.hydra.sweep.dir)

    def access(self) -> StudyAccess:
        """Return access to the study, with connections of the calling process."""
        url = make_url(self.url)
        registry = Registry(open_engine(url), self.study_id)
        return StudyAccess(open_storage(url), registry, self.study_name, self.sampler_for, self.pruner)

    def evidence(self) -> Evidence | None:
        """Return what decides how many pairs the sweep needs, or None if their number is fixed."""
        if self.settings.pairs != "auto":
            return None
        return Evidence(self.folder, self.plan, with_folds=self.settings.folds is not None)

    def pausing(self, registry: Registry) -> Pausing | None:
        """Return what decides which trials are paused and promoted, or None if the pruner pauses none."""
        policy = policy_of(self.pruner, self.settings.directions)
        return None if policy is None else Pausing(registry, policy)

    def __call__(self, job: DictConfig) -> dict[str, Any]:
        """Work until all trials are finished.

        Args:
            job: Configuration of the launcher job. Not used.

        Returns:
            Number of trials that this worker finished, by state. If it ended early, "problem" has the reason. An
            exception would end the other workers in the middle of their work.
        """
        from joyful.sweeper.worker import Worker  # it imports this module

        closed_pipes.tolerate()  # here too, because a launcher may run this in another process
        runtime = HydraConfig.get()
        # Relative paths refer to the driver's working directory. On a cluster, workers start in another one.
        with contextlib.chdir(self.config.hydra.runtime.cwd):
            return Worker(self, Path(runtime.runtime.output_dir), int(runtime.job.num)).work()
