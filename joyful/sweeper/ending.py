"""The end of a sweep: print a summary, write the best settings as a configuration, and write parameter importances."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.text import Text

from joyful.records import InputError, print_error
from joyful.results import read_run, write_bytes, write_json
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.status import best_trial, take_snapshot
from joyful.sweeper.study import OVERRIDES, SAME_AS, StudyAccess
from joyful.sweeper.view import format_line
from joyful.sweeper.worker import WorkerTask

#: Files in the sweep folder: the best settings, for --config-dir, and the importance of each parameter.
OVERLAY, IMPORTANCES = Path("experiment") / "best.yaml", "importances.json"

#: Settings of a run that are not part of the best settings.
EXCLUDED = ("seed", "role", "sweep_name", "resume", "fork", "device")


def conclude(task: WorkerTask, access: StudyAccess) -> int:
    """Write the best settings and the importances of a finished sweep, and print a summary to standard output.

    Args:
        task: The task of its workers.
        access: Its study.

    Returns:
        The exit code: 0, or 1 if every trial failed.
    """
    folder, console = task.folder, Console(file=sys.stdout, highlight=False, soft_wrap=True)
    snapshot = take_snapshot(access, FailureDetector(task.settings.lease_seconds))
    console.print(Text(format_line(snapshot)))
    for number, reason in snapshot.failures.items():
        console.print(Text(f"trial {number} failed: {reason}"))
    if snapshot.failed == snapshot.n_trials:
        print_error(
            f"every trial failed; fix the cause, run joyful sweep retry {folder} --failed, then run the same "
            "command again"
        )
        return 1
    study = access.open()
    best = best_trial(study)
    if best is not None and not task.plan.trials:
        _write_overlay(best, folder, console)
        _write_importances(study, folder, console)
    console.print(Text(f"report: joyful report {shlex.quote(str(folder))}"))
    console.print(Text(f"results: {folder}"))
    return 0


def _write_overlay(best: FrozenTrial, folder: Path, console: Console) -> None:
    number = int(best.user_attrs.get(SAME_AS, best.number))  # the trial that trained its configuration
    try:
        info = read_run(folder / str(number))
    except (InputError, OSError) as error:
        console.print(Text(f"the best settings cannot be written: {error}"))
        return
    (folder / OVERLAY).parent.mkdir(exist_ok=True)
    write_bytes(folder / OVERLAY, overlay(best, info["config"], info["choices"]).encode())
    command = f"python run.py --config-dir {shlex.quote(str(folder))} experiment=best"
    console.print(Text(f"train the best settings: {command}"))


def overlay(best: FrozenTrial, config: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """Return the YAML text of an experiment with the best settings.

    It holds the config groups and the settings that the overrides of the best trial set.

    Args:
        best: The best trial.
        config: The composed configuration of its run.
        choices: Config group -> choice, of its run.
    """
    items = [item for item in shlex.split(str(best.user_attrs[OVERRIDES])) if "=" in item]
    keys = dict.fromkeys(item.split("=", 1)[0] for item in items)
    document: dict[str, Any] = {}
    if groups := [key for key in keys if key in choices and key != "experiment"]:
        document["defaults"] = [{f"override /{group}": choices[group]} for group in groups]
    for name in keys:
        *sections, last = name.split(".")
        if name in choices or name.startswith(("+", "~", "hydra")) or name.split(".")[0] in EXCLUDED:
            continue
        source, target = config, document
        for section in sections:
            source, target = source[section], target.setdefault(section, {})
        target[last] = source[last]
    params = ", ".join(sorted(best.params))
    head = f"# @package _global_\n# Best of the sweep: trial {best.number}, {best.values[0]:.4f} ({params})\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _write_importances(study: optuna.Study, folder: Path, console: Console) -> None:
    """Write the PED-ANOVA importances (Watanabe et al. 2023) of the parameters for the first objective."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < 4 or len({t.values[0] for t in complete}) < 2 or not complete[0].params:
        return
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    target = (lambda trial: trial.values[0]) if len(study.directions) > 1 else None
    importances = optuna.importance.get_param_importances(study, evaluator=evaluator, target=target)
    values = {name: float(value) for name, value in importances.items()}
    write_json(folder / IMPORTANCES, values)
    console.print(Text("importances: " + ", ".join(f"{name} {100 * value:.0f} %" for name, value in values.items())))
