"""Train runs of any Hydra program again, as a sweep with the overrides of the recorded trials."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joyful.records import InputError, one_line
from joyful.results import RUN, read_run


class ProgramFailedError(Exception):
    """The program failed, with the reason on one line."""


def train(sweep: Path, infos: Mapping[str, Mapping[str, Any]], command: str, folder: Path) -> dict[str, Path]:
    """Train runs of a sweep with hydra/sweeper=optuna_pruned again.

    Args:
        sweep: Folder of the sweep. It is not changed.
        infos: Name of each run to train -> content of its run.json.
        command: The command of the program, such as "python main.py", which may have further overrides.
        folder: Folder to write to.

    Returns:
        Name of each run -> folder of the run that was trained again.

    Raises:
        InputError: If the study of the sweep does not have a run, or the program refuses the overrides.
        ProgramFailedError: If the program or a trial fails.
    """
    overrides, directions = _recorded(sweep, list(infos), folder / "study")
    trials = list(dict.fromkeys(overrides.values()))  # a sweep trains a configuration once
    place = folder / "sweep"
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"--command {command!r}: {error}; close the quotes") from None
    try:
        done = subprocess.run([*words, *_options(trials, directions, place)], capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"--command {command!r}: {words[0]} cannot be started ({error.strerror})") from None
    if done.returncode:
        reason = one_line((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1], 500)
        if done.returncode == 2:
            raise InputError(f"--command {command!r}: {reason}")
        raise ProgramFailedError(f"{command} ended with exit code {done.returncode}: {reason}")
    folders = {name: place / str(trials.index(text)) for name, text in overrides.items()}
    for name, trained in folders.items():
        _check(name, infos[name], trained)
    return folders


def _check(name: str, info: Mapping[str, Any], trained: Path) -> None:
    """Raise an error if a run failed, or was trained with another configuration than the recorded one."""
    if not (trained / RUN).exists():
        raise ProgramFailedError(f"run {name}: the program wrote no history; see {RUN} in docs/SWEEPS.md")
    again = read_run(trained)
    if again["status"] != "completed":
        raise ProgramFailedError(f"run {name}: {again['status']} when trained again: {again['reason']}")
    if again.get("config_hash") != info.get("config_hash"):
        raise InputError(
            f"run {name}: expected the recorded configuration, got another one from the overrides of its trial; give the "
            "program's files and further overrides of the first command in --command"
        )


def _options(trials: Sequence[str], directions: Sequence[str], place: Path) -> list[str]:
    """Return the overrides of the sweep that trains the trials, each once and to its end."""
    from joyful.runtime.hydra_request import literal
    from joyful.sweeper.plan import override

    return [
        "-m", "hydra/sweeper=optuna_pruned", "hydra/sweeper/pruner=none", "hydra/launcher=basic",
        "~hydra.sweeper.params", "+hydra.sweeper.params={}", "hydra.sweeper.arms=null", "hydra.sweeper.n_jobs=1",
        override("hydra.sweeper.trials", list(trials)), f"hydra.sweeper.direction=[{','.join(directions)}]",
        "hydra.sweeper.metric_names=null", "hydra.sweeper.storage=null", "hydra.sweeper.study_name=audit",
        override("hydra.sweep.dir", literal(place)), "hydra.sweep.subdir=${hydra:job.num}",
    ]  # fmt: skip


def _recorded(sweep: Path, names: Sequence[str], scratch: Path) -> tuple[dict[str, str], list[str]]:
    """Return the overrides of the trial of each run, and the directions of the study, from a copy of the study."""
    from joyful.sweeper.status import SWEEP_FILE, open_sweep
    from joyful.sweeper.study import FOLDER, OVERRIDES

    scratch.mkdir()
    for path in (sweep / SWEEP_FILE, *sweep.glob("study.db*")):
        if path.is_file():
            shutil.copy(path, scratch)
    if not (scratch / SWEEP_FILE).exists():
        raise InputError(
            f"{sweep}: expected the folder of a sweep with {SWEEP_FILE}, which has the overrides of its runs; audit its "
            "report alone with --runs 0"
        )
    with open_sweep(scratch) as access:
        study = access.open()
        trials = [trial.user_attrs for trial in study.get_trials(deepcopy=False) if OVERRIDES in trial.user_attrs]
        directions = [direction.name.lower() for direction in study.directions]
    found = {}
    for name in names:
        parts = Path(name).parts
        matching = [t[OVERRIDES] for t in trials if Path(str(t.get(FOLDER, ""))).parts[-len(parts) :] == parts]
        if len(matching) != 1:
            raise InputError(f"run {name}: expected one trial of the study with this folder, got {len(matching)}")
        found[name] = str(matching[0])
    return found, directions
