"""Preparation of a sweep: check the settings, the data and the disk, then open the study and create its trials."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from joyful.config import LOCATION_SETTINGS, check
from joyful.data.loading import load
from joyful.records import InputError
from joyful.results import write_json
from joyful.runtime import disk
from joyful.runtime.hydra_request import resolved_config
from joyful.sweeper import password, recovery
from joyful.sweeper.database import open_engine, open_storage, storage_url, without_password
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.plan import Plan, check_compositions, make_plan
from joyful.sweeper.registry import Registry
from joyful.sweeper.samplers import SamplerBuilder, allowed_targets, build_pruner, set_by_user
from joyful.sweeper.settings import check_settings
from joyful.sweeper.status import SWEEP_FILE
from joyful.sweeper.study import StudyAccess, enqueue, open_or_create, sampler_factory, states
from joyful.sweeper.worker import WorkerTask

log = logging.getLogger(__name__)

#: Launchers whose workers are processes on this machine.
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")

#: Settings that may differ between two commands of one sweep: folders, the device and the number of threads.
MAY_DIFFER = (*LOCATION_SETTINGS, "device", "training.threads")


def prepare(
    hydra_context: HydraContext, config: DictConfig, arguments: Sequence[str]
) -> tuple[WorkerTask, StudyAccess]:
    """Check the input, open or create the study, and create its trials.

    Args:
        hydra_context: Hydra's context.
        config: The composed configuration of the sweep.
        arguments: The overrides of the command line.

    Returns:
        The task of the workers, without the id of their driver, and the study.

    Raises:
        InputError: For bad input. Then no trial was created.
    """
    values: dict[str, Any] = OmegaConf.to_container(config.hydra.sweeper, resolve=True)  # type: ignore[assignment]
    del values["_target_"]
    sampler_config = values.pop("sampler")
    allowed = allowed_targets(hydra_context.execution_whitelist)
    choice = config.hydra.runtime.choices.get("hydra/sweeper/sampler")
    typed: list[str] = OmegaConf.to_container(config.hydra.overrides.hydra)  # type: ignore[assignment]
    sampler_config = set_by_user(sampler_config, choice, typed)
    build = SamplerBuilder(sampler_config, allowed)
    kind = build.kind
    pruner = build_pruner(values.pop("pruner"), allowed)
    checked = check_settings(values, type(pruner).__name__)
    grid = kind is optuna.samplers.GridSampler
    if not grid:
        build(seed=0)
    plan = make_plan(checked, arguments, grid, hydra_context.config_loader)
    compose = partial(_compose, hydra_context, config)
    job_check = _JobCheck(plan, launcher_name(config) in LOCAL_LAUNCHERS)
    check_compositions(plan, compose, job_check)
    first = resolved_config(compose(plan.first_overrides()))
    folder = Path(config.hydra.sweep.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"hydra.sweep.dir={folder} cannot be created ({error.strerror}); set another folder") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"hydra.sweep.dir={folder} is not writable; set another folder")
    url = storage_url(checked.storage, folder)
    sqlite = url.get_backend_name() == "sqlite"
    recovery.set_damaged_aside(url)
    is_new = sqlite and not Path(str(url.database)).exists()
    if is_new:
        job_check.check_room(folder, plan.n_trials, checked.n_jobs, sqlite)
    backend = open_storage(url)
    name = checked.study_name or folder.name
    description = plan.describe() | {
        "objectives": checked.objectives,
        "target": checked.target,
        "base": _fixed_settings(first),
    }
    study_id = open_or_create(backend, name, checked.directions, description)
    registry = Registry(open_engine(url), study_id)
    finished = sum(state.is_finished() for state in states(registry).values())
    if not is_new and finished < plan.n_trials:
        job_check.check_room(folder, plan.n_trials - finished, checked.n_jobs, sqlite)
    # the points of a grid are fixed parameters of the trials
    sampler_for = sampler_factory(
        optuna.samplers.RandomSampler if grid else build,
        int(first["seed"] if sampler_config.get("seed") is None else sampler_config["seed"]),
        reseed=kind is not optuna.samplers.QMCSampler,
    )
    address = password.address_for_workers(url, str(config.hydra.launcher._target_))
    saved = None if checked.storage is None else without_password(url)
    password.hide(config, url)
    task = WorkerTask(
        HydraContext(hydra_context.config_loader, hydra_context.callbacks, hydra_context.execution_whitelist),
        config, checked.model_copy(update={"storage": saved}), plan, address, name, study_id, "",
        sampler_for, pruner,
    )  # fmt: skip
    with _exclusive(registry, checked.lease_seconds):
        known = {} if states(registry) else recovery.params_of_runs(folder, plan.space, plan.n_trials)
        stored = backend.get_all_trials(study_id, deepcopy=False) if grid else []
        points = {trial.number: trial.system_attrs.get("fixed_params", trial.params) for trial in stored}
        enqueue(backend, study_id, plan.with_points(points or known), known)
    write_json(folder / SWEEP_FILE, {"study_name": name, "storage": saved})
    return task, StudyAccess(backend, registry, name, sampler_for, pruner)


def launcher_name(config: DictConfig) -> str:
    """Return the class name of the configured launcher, without its module."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


def _compose(hydra_context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    job = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = "0", 0
    return job


class _JobCheck:
    """Checks the configuration of a trial.

    Args:
        plan: The plan of the sweep.
        data_is_local: Whether to load the data too, once per data configuration, and to record the disk space of the
            trials. On other machines the data may be in another folder.
    """

    def __init__(self, plan: Plan, data_is_local: bool) -> None:
        self._varied, self._data_is_local = plan.varied(), data_is_local
        self._loaded: dict[str, tuple[dict[str, int], int, int]] = {}
        self._needs: list[disk.DiskNeed] = []
        self._epochs = 0

    def __call__(self, job: DictConfig) -> None:
        # these import torch, which other commands do not need
        from joyful.model.joyful import FUSIONS
        from joyful.training.experiment import run_need

        settings, gate_weight = check(resolved_config(job)), "weights.gate_reg_weight"
        if gate_weight in self._varied and not FUSIONS[settings.fusion.name].has_gates:
            raise InputError(
                f"{gate_weight} is varied, but fusion={settings.fusion.name} has no gates; "
                f"set fusion=hierarchical or remove {gate_weight}"
            )
        if not self._data_is_local:
            return
        key = f"{settings.data.model_dump_json()} {settings.modality_names}"
        if key not in self._loaded:
            data = load(settings.data, settings.modality_names)
            self._loaded[key] = data.dimensions, len(data.labels), data.n_speakers
        self._needs.append(run_need(settings, *self._loaded[key]))
        self._epochs = max(self._epochs, settings.training.epochs)

    def check_room(self, folder: Path, trials: int, workers: int, sqlite: bool) -> None:
        """Log how much disk space the trials need.

        For a list of trials, all were checked. For a search, the largest checked trial represents those that were not.

        Args:
            folder: The sweep folder.
            trials: Number of trials to train.
            workers: Number of workers.
            sqlite: Whether the study is on this disk too.

        Raises:
            DiskSpaceError: If less is free.
        """
        if not self._needs:
            return
        largest = max(need.permanent for need in self._needs)
        permanent = sum(sorted((need.permanent for need in self._needs), reverse=True)[:trials])
        permanent += largest * max(0, trials - len(self._needs))
        temporary = max(need.temporary for need in self._needs) * min(workers, trials)
        study = disk.study_need(trials, self._epochs) if sqlite else 0
        what = f"the sweep ({trials} {'trial' if trials == 1 else 'trials'} to train)"
        log.info("%s", disk.check_disk_space(folder, permanent + temporary + study, what, "hydra.sweep.dir=FOLDER"))


def _fixed_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings that all trials of a study must share to be comparable: all except MAY_DIFFER."""
    return {
        key: _fixed_settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in MAY_DIFFER
    }


@contextmanager
def _exclusive(registry: Registry, lease_seconds: float) -> Iterator[None]:
    """Let one driver at a time create trials, by a lease on the trial number -1."""
    me, detector = registry.join("driver"), FailureDetector(lease_seconds)
    try:
        while True:
            leases, members = registry.leases_and_members()
            detector.observe(members)
            lease = leases.get(-1)
            free = lease is None or not lease.owner or detector.is_dead(members.get(lease.owner))
            if free and registry.claim(-1, me.id, lease) is not None:
                break
            time.sleep(0.2)
        yield
    finally:
        registry.leave(me.id)
