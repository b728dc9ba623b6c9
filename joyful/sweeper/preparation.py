"""Preparation of a sweep: check the settings and the disk, then open the study and create its trials."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from joyful.records import InputError, one_line
from joyful.results import write_json
from joyful.results.finalists import is_repeat
from joyful.runtime import disk
from joyful.runtime.hydra_request import literal
from joyful.sweeper import password, recovery
from joyful.sweeper.creation import KnownRun, enqueue, search_runs
from joyful.sweeper.database import open_engine, open_storage, storage_url, without_password
from joyful.sweeper.evidence import make_design, register
from joyful.sweeper.finalists import finals_of
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.job_config import identity, output_folder, pop_key, without
from joyful.sweeper.pausing import PromotionPruner, policy_of
from joyful.sweeper.plan import Plan, check_compositions, make_plan, override
from joyful.sweeper.program import Program
from joyful.sweeper.registry import Lease, Registry
from joyful.sweeper.samplers import SamplerBuilder, allowed_targets, build_object, build_pruner, set_by_user
from joyful.sweeper.settings import check_settings
from joyful.sweeper.status import SWEEP_FILE
from joyful.sweeper.study import OTHER_STUDY, SamplerFactory, StudyAccess, open_or_create
from joyful.sweeper.trial_table import FINISHED, add_indexes, count_states
from joyful.sweeper.worker_task import WorkerTask

log = logging.getLogger(__name__)


def prepare(
    hydra_context: HydraContext, config: DictConfig, arguments: Sequence[str], task_function: TaskFunction
) -> tuple[WorkerTask, StudyAccess]:
    """Check the input, open or create the study, and create its trials.

    Args:
        hydra_context: Hydra's context.
        config: The composed configuration of the sweep.
        arguments: The overrides of the command line.
        task_function: The function of the program.

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
    check = values.pop("check")
    job_check = JobCheck(None if check is None else build_object("check", check, allowed))
    checked = check_settings(values)
    grid = kind is optuna.samplers.GridSampler
    if not grid:
        build(seed=0)
    if checked.arms:
        pruner = optuna.pruners.NopPruner()  # arms are compared over whole runs
    plan = make_plan(checked, arguments, grid, hydra_context.config_loader)
    design = make_design(checked, plan) if plan.arms is not None else None
    compose = partial(_compose, hydra_context, config)
    job_check.varied = frozenset(plan.varied())
    check_compositions(plan, compose, job_check)
    if isinstance(pruner, PromotionPruner):
        pruner = pruner.for_sweep(plan.n_trials, job_check.steps or None)
    first = identity(compose(plan.first_overrides()))
    plan = replace(plan, finals=finals_of(checked, plan, first))
    job_check.varied = frozenset(plan.varied())
    _check_further_seed(plan, compose, job_check)
    folder = Path(config.hydra.sweep.dir)
    url = storage_url(checked.storage, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"hydra.sweep.dir={folder} cannot be created ({error.strerror}); set another folder") from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"hydra.sweep.dir={folder} is not writable; set another folder")
    name = checked.study_name or folder.name
    _refuse_other_sweep(folder, name)
    sqlite = url.get_backend_name() == "sqlite"
    recovery.set_damaged_aside(url)
    most_trials = plan.n_trials + (plan.finals.most if plan.finals is not None else 0)
    is_new = sqlite and not Path(str(url.database)).exists()
    if is_new:
        job_check.check_room(folder, most_trials, checked.n_jobs, sqlite)
    backend = open_storage(url)
    description = plan.describe() | {"base": without(first, checked.may_differ)}
    study_id = open_or_create(backend, name, checked.directions, description, checked.metric_names)
    registry = Registry(open_engine(url), study_id)
    counts = count_states(registry)
    finished = sum(counts.get(state, 0) for state in FINISHED)
    if not is_new and finished < plan.n_trials:
        job_check.check_room(folder, most_trials - finished, checked.n_jobs, sqlite)
    # the points of a grid are fixed parameters of the trials
    sampler_for = SamplerFactory(
        optuna.samplers.RandomSampler if grid else build,
        _seed_of(sampler_config.get("seed"), pop_key(first, checked.seed_key)),
        reseed=kind is not optuna.samplers.QMCSampler,
    )
    address = password.address_for_workers(url, str(config.hydra.launcher._target_))
    saved = None if checked.storage is None else without_password(url)
    password.hide(config, url)
    program = Program.of(hydra_context, task_function, password.hide_in_arguments(sys.argv, url))
    task = WorkerTask(
        HydraContext(hydra_context.config_loader, hydra_context.callbacks, hydra_context.execution_whitelist),
        config, checked.model_copy(update={"storage": saved}), plan, program, address,
        name, study_id, "",
        sampler_for, pruner,
    )  # fmt: skip
    with exclusive(registry, checked.lease_seconds):
        if design is not None:
            register(replace(design, git=dict(program.git)), folder, registry)
        known: dict[int, KnownRun] = {}
        add_indexes(registry)
        if not count_states(registry):
            known = recovery.runs_of(folder, plan, checked.seed_key)
        stored = [t for t in backend.get_all_trials(study_id, deepcopy=False) if not is_repeat(t)] if grid else []
        points = {place: trial.system_attrs.get("fixed_params", trial.params) for place, trial in enumerate(stored)}
        enqueue(backend, registry, plan.with_points(points or search_runs(known)), known)
    steps = {"steps": job_check.steps} if job_check.steps else {}
    policy = policy_of(pruner, checked.directions)
    promotion = {} if policy is None else {"promotion": asdict(policy)}
    finals = {} if plan.finals is None else {"finalists": asdict(plan.finals)}
    write_json(folder / SWEEP_FILE, {"study_name": name, "storage": saved, **steps, **promotion, **finals})
    return task, StudyAccess(backend, registry, name, sampler_for, pruner)


def _refuse_other_sweep(folder: Path, name: str) -> None:
    """Raise InputError if the folder holds a sweep with another study, whose trials have the same folders."""
    try:
        other = json.loads((folder / SWEEP_FILE).read_bytes())["study_name"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # there is none, or the file is damaged and is written again
    if other != name:
        raise InputError(f"{folder}: expected the study {name}, got a folder of the study {other}; {OTHER_STUDY}")


def _compose(hydra_context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> DictConfig:
    job = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id, job.hydra.job.num = "0", 0
        job.hydra.sweep.dir = literal(config.hydra.sweep.dir)
    return job


def _check_further_seed(plan: Plan, compose: Callable[[Sequence[str]], DictConfig], check: JobCheck) -> None:
    """Check the configuration of a finalist with a further seed, and that it has its own folder.

    Raises:
        InputError: If it is invalid, or if its folder is that of the trial of the search.
    """
    if plan.finals is None:
        return
    overrides = plan.first_overrides()
    seed = override(plan.finals.seed_key, plan.finals.seeds[0])
    first, second = compose(overrides), compose([*overrides, seed])
    with open_dict(second):
        second.hydra.job.id, second.hydra.job.num = "1", 1
    try:
        check(second)
    except Exception as error:
        raise InputError(f"a finalist with {seed}: {one_line(error, 500)}") from None
    if output_folder(first) == output_folder(second):
        raise InputError(
            f"hydra.sweep.subdir: expected a folder for each seed of a finalist, got {first.hydra.sweep.subdir} for two; "
            "set hydra.sweep.subdir='${hydra.job.num}'"
        )


def _seed_of(*candidates: Any) -> int:
    """Return the first candidate that is an integer, or 0."""
    return next((value for value in candidates if isinstance(value, int) and not isinstance(value, bool)), 0)


class JobCheck:
    """Checks the configuration of a trial with the function of `hydra.sweeper.check`, and records the disk space.

    Attributes:
        varied: Names of the settings and groups that differ between trials.
        steps: Largest number of steps of a checked trial, 0 if the function does not tell.

    Args:
        check: The function, or None. It gets the composed configuration of a trial, with the section hydra, and
            `varied`. It returns the disk space of the trial and its number of steps, or None. It raises an exception
            if the configuration is invalid.
    """

    def __init__(self, check: Callable[[DictConfig, frozenset[str]], tuple[disk.DiskNeed, int] | None] | None) -> None:
        self._check, self.varied = check, frozenset[str]()
        self._needs: list[disk.DiskNeed] = []
        self.steps = 0

    def __call__(self, job: DictConfig) -> None:
        identity(job)
        found = self._check(job, self.varied) if self._check is not None else None
        if found is not None:
            self._needs.append(found[0])
            self.steps = max(self.steps, found[1])

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
        study = disk.study_need(trials, self.steps) if sqlite else 0
        what = f"the sweep ({trials} {'trial' if trials == 1 else 'trials'} to train)"
        log.info("%s", disk.check_disk_space(folder, permanent + temporary + study, what, "hydra.sweep.dir=FOLDER"))


@contextmanager
def exclusive(registry: Registry, lease_seconds: float) -> Iterator[Lease]:
    """Let one driver at a time create trials, by a lease on the trial number -1, which the context yields."""
    me, detector = registry.join("driver"), FailureDetector(lease_seconds)
    try:
        while True:
            leases, members = registry.leases_and_members()
            detector.observe(members)
            lease = leases.get(-1)
            free = lease is None or not lease.owner or detector.is_dead(members.get(lease.owner))
            if free and (claimed := registry.claim(-1, me.id, lease)) is not None:
                break
            time.sleep(0.2)
        yield claimed
    finally:
        registry.leave(me.id)
