"""Everything before a sweep's first worker: checks all that can be checked, then opens the study and creates its trials."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from joyful.config import PLACES, Settings, check
from joyful.data.loading import load
from joyful.records import InputError
from joyful.results import write_json
from joyful.runtime import disk
from joyful.runtime.hydra_request import plain
from joyful.sweeper import password, recovery
from joyful.sweeper.database import open_engine, open_storage, storage_url, without_password
from joyful.sweeper.plan import Plan, check_compositions, make_plan
from joyful.sweeper.registry import FailureDetector, Registry
from joyful.sweeper.settings import check_settings
from joyful.sweeper.status import SWEEP_FILE
from joyful.sweeper.study import FINISHED, enqueue, open_or_create, sampler_factory, states
from joyful.sweeper.worker import WorkerTask

log = logging.getLogger(__name__)

#: Modules whose samplers and pruners a configuration may name.
SAMPLERS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
PRUNERS = ("optuna.pruners.*",)

#: Their workers are processes of this machine.
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")

#: Settings that may differ between two commands of one sweep: places, and on what the trials are trained.
MAY_DIFFER = (*PLACES, "device", "training.threads")


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to run. task: what its workers do, but for the driver's id. n_trials: trials of the study."""

    task: WorkerTask
    registry: Registry
    folder: Path
    n_trials: int


def prepare(
    hydra_context: HydraContext,
    config: DictConfig,
    sampler: Any,
    pruner: Any,
    settings: Mapping[str, Any],
    arguments: Sequence[str],
) -> Sweep:
    """Everything before the first worker: the study, with all its trials. Raises InputError for bad input, creating no trial."""
    build = _sampler_builder(sampler)
    try:
        pruner_ = instantiate(pruner, _execution_whitelist_=PRUNERS)
    except Exception as error:
        raise InputError(f"hydra/sweeper/pruner: {' '.join(str(error).split())[:500]}") from None
    values = OmegaConf.to_container(OmegaConf.create(dict(settings)), resolve=True)
    assert isinstance(values, dict)
    checked = check_settings({str(k): v for k, v in values.items()}, type(pruner_).__name__)
    grid = build.kind is optuna.samplers.GridSampler
    plan = make_plan(checked, arguments, grid)
    compose = partial(_compose, hydra_context, config)
    job_check = _JobCheck(plan, launcher_name(config) in LOCAL_LAUNCHERS)
    check_compositions(plan, compose, job_check)
    first = plain(compose(plan.first_overrides()))
    folder = Path(config.hydra.sweep.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"hydra.sweep.dir={folder} cannot be made ({error.strerror}); choose another folder") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"hydra.sweep.dir={folder} cannot be written; choose another folder")
    url = storage_url(checked.storage, folder)
    sqlite = url.get_backend_name() == "sqlite"
    recovery.set_damaged_aside(url)
    begins = sqlite and not Path(str(url.database)).exists()
    if begins:
        job_check.check_room(folder, plan.n_trials, checked.n_jobs, sqlite)
    backend = open_storage(url)
    name = checked.study_name or folder.name
    description = plan.describe() | {
        "objectives": checked.objectives,
        "target": checked.target,
        "base": _without_places(first),
    }
    study_id = open_or_create(backend, name, checked.directions, description)
    registry = Registry(open_engine(url), study_id)
    finished = sum(state in FINISHED for state in states(registry.engine, study_id).values())
    if not begins and finished < plan.n_trials:
        job_check.check_room(folder, plan.n_trials - finished, checked.n_jobs, sqlite)
    seed = build.seed if build.seed is not None else int(first["seed"])
    if grid:  # its points are the trials' fixed parameters
        sampler_for = sampler_factory(optuna.samplers.RandomSampler, seed, reseed=True)
    else:
        sampler_for = sampler_factory(build, seed, reseed=build.kind is not optuna.samplers.QMCSampler)
    address = password.address_for_workers(url, str(config.hydra.launcher._target_))
    saved = None if checked.storage is None else without_password(url)
    password.hide(config, url)
    task = WorkerTask(
        HydraContext(hydra_context.config_loader, hydra_context.callbacks, hydra_context.execution_whitelist),
        config, checked.model_copy(update={"storage": saved}), plan, address, name, study_id, "",
        sampler_for, pruner_,
    )  # fmt: skip
    with _alone(registry, checked.lease_seconds):
        known = {} if states(registry.engine, study_id) else recovery.params_of_runs(folder, plan.space, plan.n_trials)
        n_trials = enqueue(backend, study_id, plan, known)
    write_json(folder / SWEEP_FILE, {"study_name": name, "storage": saved})
    return Sweep(task, registry, folder, n_trials)


def launcher_name(config: DictConfig) -> str:
    """The class of the launcher that a configuration names, without its module."""
    return str(config.hydra.launcher._target_).rpartition(".")[2]


@dataclass(frozen=True)
class _SamplerBuilder:
    """A sampler's class or factory, called again for each trial with a seed of its own. Picklable."""

    config: Any
    kind: Any
    seed: int | None

    def __call__(self, seed: int) -> optuna.samplers.BaseSampler:
        return instantiate({**self.config, "seed": seed}, _execution_whitelist_=SAMPLERS)


def _sampler_builder(config: Any) -> _SamplerBuilder:
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else dict(config)
    assert isinstance(plain, dict)
    values = {str(key): value for key, value in plain.items()}
    try:
        sampler = instantiate(values, _execution_whitelist_=SAMPLERS)
    except Exception as error:
        raise InputError(f"hydra/sweeper/sampler: {' '.join(str(error).split())[:500]}") from None
    kind = sampler.func if isinstance(sampler, partial) else type(sampler)
    return _SamplerBuilder(values, kind, values.get("seed"))


def _compose(hydra_context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    job = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = "0", 0
    return job


class _JobCheck:
    """Checks a composed trial. data_is_here: its data are read too, once for each choice of them, and what it will need of the disk
    is noted; other machines may have their data elsewhere."""

    def __init__(self, plan: Plan, data_is_here: bool) -> None:
        self._gate = "weights.gate_reg_weight"
        self._varied, self._data_is_here = plan.varied(), data_is_here
        self._read: dict[str, tuple[dict[str, int], int, int]] = {}
        self._needs: list[disk.Need] = []
        self._epochs = 0

    def __call__(self, job: DictConfig) -> None:
        settings, gate = check(plain(job)), self._gate
        if gate in self._varied and settings.fusion.name == "auto":
            raise InputError(
                f"{gate} is searched, but fusion=auto has no gates; set fusion=hierarchical or leave {gate} out"
            )
        if not self._data_is_here:
            return
        key = _data_of(settings)
        if key not in self._read:
            data = load(settings.data, settings.modality_names)
            self._read[key] = data.dimensions, len(data.labels), data.n_speakers
        self._needs.append(disk.run_need(settings, *self._read[key]))
        self._epochs = max(self._epochs, settings.training.epochs)

    def check_room(self, folder: Path, trials: int, workers: int, sqlite: bool) -> None:
        """Say how much disk so many trials will need. Raises NoRoomError where less is free. The largest of the checked trials
        stands for all of a search; of a list, all were checked."""
        if not self._needs:
            return
        largest = max(need.kept for need in self._needs)
        kept = sum(sorted((need.kept for need in self._needs), reverse=True)[:trials])
        kept += largest * max(0, trials - len(self._needs))
        passing = max(need.passing for need in self._needs) * min(workers, trials)
        study = disk.study_need(trials, self._epochs) if sqlite else 0
        what = f"the sweep ({trials} {'trial' if trials == 1 else 'trials'} to train)"
        log.info("%s", disk.check_room(folder, kept + passing + study, what, "hydra.sweep.dir=FOLDER"))


def _data_of(settings: Settings) -> str:
    return f"{settings.data.model_dump_json()} {settings.modality_names}"


def _without_places(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What a study's trials were begun with: under other base settings they would compare nothing."""
    return {
        key: _without_places(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in MAY_DIFFER
    }


@contextmanager
def _alone(registry: Registry, lease_seconds: float) -> Iterator[None]:
    """One driver at a time creates trials. Trial number -1 stands for the right to do so."""
    me, detector = registry.join("driver"), FailureDetector(lease_seconds)
    try:
        while True:
            leases, members = registry.leases_and_members()
            detector.look(members)
            before = leases.get(-1)
            free = before is None or not before.owner or detector.is_dead(members.get(before.owner))
            if free and registry.claim(-1, me.id, before) is not None:
                break
            time.sleep(0.2)
        yield
    finally:
        registry.leave(me.id)
