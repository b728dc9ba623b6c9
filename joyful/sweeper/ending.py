"""The end of a sweep: print a summary, write the best settings as a configuration, and write parameter importances."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import optuna
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from joyful.records import InputError, one_line, print_error
from joyful.results import write_bytes, write_json
from joyful.results.finalists import is_repeat
from joyful.runtime import command
from joyful.sweeper.database import with_retries
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.job_config import pop_key
from joyful.sweeper.status import Snapshot, take_snapshot
from joyful.sweeper.study import OVERRIDES, StudyAccess
from joyful.sweeper.trials import print_trials
from joyful.sweeper.view_text import describe_claims, describe_finalists, format_line, of_seeds
from joyful.sweeper.worker_task import WorkerTask
from joyful.validation import differences

#: Files in the sweep folder: the best settings, for --config-dir, and the importance of each parameter.
OVERLAY, IMPORTANCES = Path("experiment") / "best.yaml", "importances.json"

#: Largest number of trials in the table at the end.
MOST_TRIALS = 20

#: The config group of the best settings.
GROUP = "experiment"


def conclude(task: WorkerTask, access: StudyAccess) -> int:
    """Write the best settings and the importances of a finished sweep, and print a summary to standard output.

    Args:
        task: The task of its workers.
        access: Its study.

    Returns:
        The exit code: 0, or 1 if every trial failed.
    """
    folder, console = task.folder, Console(file=sys.stdout, highlight=False, soft_wrap=True)
    snapshot = take_snapshot(access, FailureDetector(task.settings.lease_seconds), folder)
    console.print(Text(format_line(snapshot)))
    for text in describe_claims(snapshot):
        console.print(Text(text))
    for number, reason in snapshot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"))
    print_trials(access, folder, most=MOST_TRIALS)
    for text in describe_finalists(snapshot):
        console.print(Text(text))
    if snapshot.failed == snapshot.n_trials:
        print_error(
            f"every trial failed; fix the cause, run joyful sweep retry {folder} --failed, then run the same "
            "command again"
        )
        return 1
    if snapshot.best_trial is not None and not task.plan.trials:
        _write_overlay(task, _trial(access, snapshot.best_trial), snapshot, console)
        _write_importances(access.open(), folder, console)
    if any(folder.glob("*/run.json")) or any(folder.glob("*/*/run.json")):
        console.print(Text(f"report: joyful report {shlex.quote(str(folder))}"))
    console.print(Text(f"results: {folder}"))
    return 0


def _trial(access: StudyAccess, number: int) -> FrozenTrial:
    backend, study_id = access.backend, access.registry.study_id
    return with_retries(lambda: backend.get_trial(backend.get_trial_id_from_study_id_trial_number(study_id, number)))


def _write_overlay(task: WorkerTask, best: FrozenTrial, snapshot: Snapshot, console: Console) -> None:
    """Write the best settings, and print the command that runs them."""
    place, program = shlex.quote(str(task.folder)), command.program()
    try:
        text, option = overlay(task, best, snapshot)
    except Exception as error:
        console.print(Text(f"the best settings cannot be written as a file: {one_line(error, 500)}"))
        console.print(Text(f"run the best settings: {program} {best.user_attrs[OVERRIDES]}"))
        return
    (task.folder / OVERLAY).parent.mkdir(exist_ok=True)
    write_bytes(task.folder / OVERLAY, text.encode())
    console.print(Text(f"run the best settings: {program} --config-dir {place} {option}"))


def overlay(task: WorkerTask, best: FrozenTrial, snapshot: Snapshot) -> tuple[str, str]:
    """Return the best settings as a configuration of the group `experiment`, and the override that selects it.

    It holds the config groups and the settings that the overrides of the trial name, and all others in which its
    configuration differs from that of the program without overrides. The settings `seed_key`, `role_key` and
    `may_differ` are left out.

    Args:
        task: The task of the workers.
        best: The best trial.
        snapshot: The state of the sweep, with its value.

    Returns:
        The YAML text, and "experiment=best" or "+experiment=best".

    Raises:
        InputError: If such a configuration would not give the settings of the trial, for example because the trial
            deletes a setting.
    """
    settings, loader = task.settings, task.hydra_context.config_loader
    left_out = [settings.seed_key, *settings.may_differ, *filter(None, [settings.role_key])]
    overrides = shlex.split(str(best.user_attrs[OVERRIDES]))
    trial = loader.load_sweep_config(task.config, overrides)
    name = task.config.hydra.job.config_name
    plain = loader.load_configuration(name, [], run_mode=RunMode.RUN)
    usual, chosen = plain.hydra.runtime.choices, trial.hydra.runtime.choices
    groups = {group: chosen[group] for group in usual if not group.startswith("hydra/") and group != GROUP}
    named = {item.lstrip("+").split("=", 1)[0] for item in overrides}
    groups = {group: choice for group, choice in groups.items() if choice != usual[group] or group in named}
    selected = [f"{group}={'null' if choice is None else choice}" for group, choice in groups.items()]
    base = _settings(loader.load_configuration(name, selected, run_mode=RunMode.RUN), left_out)
    wanted = _settings(trial, left_out)
    document: dict[str, Any] = {}
    if groups:
        document["defaults"] = [{f"override /{group}": choice} for group, choice in groups.items()]
    document |= _changed(base, wanted, named)
    params = ", ".join(sorted(best.params))
    value = f"{snapshot.best_value:.6g}{of_seeds(snapshot, '{:.6g}'.format)}"
    head = f"# @package _global_\n# Best of the sweep: trial {best.number}, {value} ({params})\n"
    text = head + OmegaConf.to_yaml(OmegaConf.create(document))
    option = f"{GROUP}=best" if GROUP in usual else f"+{GROUP}=best"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, OVERLAY)
        file.parent.mkdir()
        file.write_text(text, encoding="utf-8")
        search = f"hydra.searchpath=[file://{folder}]"
        given = _settings(loader.load_configuration(name, [search, option], run_mode=RunMode.RUN), left_out)
    if lines := differences(wanted, given):
        raise InputError("; ".join(lines))
    return text, option


def _settings(config: DictConfig, left_out: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a composed configuration as plain containers, with their interpolations."""
    values: Any = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    del values["hydra"]
    for name in left_out:
        pop_key(values, name)
    return dict(values)


def _changed(base: Mapping[str, Any], wanted: Mapping[str, Any], named: Set[str], prefix: str = "") -> dict[str, Any]:
    """Return the part of `wanted` that differs from `base`, and the settings of the dotted names `named`."""
    changed = {}
    for key, value in wanted.items():
        before, name = base.get(key), f"{prefix}{key}"
        if isinstance(value, Mapping) and isinstance(before, Mapping) and value:
            if part := _changed(before, value, named, f"{name}."):
                changed[key] = part
        elif key not in base or value != before or type(value) is not type(before) or name in named:
            changed[key] = value
    return changed


def _write_importances(study: optuna.Study, folder: Path, console: Console) -> None:
    """Write the PED-ANOVA importances (Watanabe et al. 2023) of the parameters for the first objective."""
    complete = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if not is_repeat(t)]
    if len(complete) < 4 or len({t.values[0] for t in complete}) < 2 or not complete[0].params:
        return
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
    values = {name: float(value) for name, value in importances.items()}
    write_json(folder / IMPORTANCES, values)
    console.print(Text("importances: " + ", ".join(f"{name} {100 * value:.0f} %" for name, value in values.items())))
