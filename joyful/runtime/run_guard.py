"""Checks and error messages around Hydra.

`RunGuard` refuses bad settings before Hydra writes anything, and lists the failed runs of a multirun; conf/config.yaml
registers it as hydra.callbacks.guard. `report_config_errors` prints errors of Hydra's own on one line; joyful.cli uses
it. This module does not import torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.compat import HYDRA_PLUGINS
from joyful.records import FailedRun, InputError, print_error
from joyful.runtime import job_log
from joyful.runtime.command import command, print_how_to_go_on, resuming_run, resuming_sweep
from joyful.runtime.config_errors import config_error_message, is_explained
from joyful.runtime.hydra_request import LOCAL_LAUNCHERS, launcher_name, resolved_config
from joyful.runtime.job_check import check_choices, check_jobs, refuse_sweep_without_multirun
from joyful.runtime.signals import CTRL_C, raise_on_ctrl_c

#: The sweeper of this package. It checks every trial and prints its own summary.
_OWN_SWEEPER = "OptunaPrunedSweeper"

#: Maximum number of failed runs that the summary of a multirun lists.
_MAXIMUM_LISTED = 20

#: The error of the stock Optuna sweeper if every trial failed. The list of failed runs says the same.
_NO_TRIALS = "No trials are completed yet."

#: The targets that `_target_` may name. An overlay from an untrusted folder could name any function.
_TARGETS = (
    "joyful.runtime.run_guard.RunGuard", "joyful.sweeper.plugin.OptunaPrunedSweeper", HYDRA_PLUGINS,
    "joyful.sweeper.pausing.PromotionPruner", "joyful.training.sweep_client.TrialCheck",
    "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*",
)  # fmt: skip

#: Environment variables that determine the code of a process. A configuration must not set them (hydra.job.env_set).
_CODE_VARIABLES = re.compile(r"PYTHON\w*|LD_\w*|DYLD_\w*|JOYFUL_(PLUGINS|TARGETS)|PATH|BASH_ENV|ENV|IFS")


def allowed_targets() -> list[str]:
    """Return the names that `_target_` may have, including those from the environment variable JOYFUL_TARGETS.

    JOYFUL_TARGETS holds names separated by commas, such as ``mymodule.*``.
    """
    return [*_TARGETS, *filter(None, os.environ.get("JOYFUL_TARGETS", "").split(","))]


#: If this variable is 1, Hydra raises errors. Otherwise it prints a report and exits with code 1.
_FULL_ERROR = "HYDRA_FULL_ERROR"


def report_config_errors(program: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap a hydra.main program to exit with one line and code 2 if Hydra cannot compose the configuration.

    Examples are a missing file or group, invalid YAML, invalid overrides, and a `_target_` that is not allowed. With
    HYDRA_FULL_ERROR=1, and for errors of the program itself, it raises the error with its traceback.

    Args:
        program: The program that hydra.main returns.

    Returns:
        The wrapped program.
    """

    def run() -> Any:
        if os.environ.get(_FULL_ERROR) == "1":
            return program()
        RunGuard.composed = False
        os.environ[_FULL_ERROR] = "1"
        try:
            with CTRL_C.prefer_signal():
                return program()
        except Exception as error:
            # After the first composition, only errors of Hydra and OmegaConf concern the configuration: trials are
            # composed later.
            if RunGuard.composed and not isinstance(error, (HydraException, OmegaConfBaseException)):
                raise
            more = "" if is_explained(error) else " (set HYDRA_FULL_ERROR=1 for the traceback)"
            print_error(f"{config_error_message(error)}{more}")
            sys.exit(2)
        finally:
            os.environ.pop(_FULL_ERROR, None)

    return run


class RunGuard(Callback):
    """Hydra callback that exits with one line and code 2 for bad settings, and with 1 if a run of a multirun failed.

    Hydra sends the callback with each job, and a launcher may run jobs on other machines. Every failed run therefore
    writes a small file to a hidden folder of the sweep, which `on_multirun_end` reads and removes. The folder has a
    name of its own for each command, so failures of other commands in the same sweep folder are not reported.

    Attributes:
        composed: Whether Hydra has composed the configuration of the command in this process.
        process: Id of the process that has composed it; None in the processes of a launcher.
        folder: Folder of the run or of the multirun; None for our own sweeper, which says itself how to go on.
        multirun: Whether the command is a multirun.
        check_start: Checks what the settings need on this machine, such as files. joyful.cli sets it. None: no check.
    """

    composed = False
    process: int | None = None
    folder: str | None = None
    multirun = False
    check_start: Callable[[Any], None] | None = None

    def __init__(self) -> None:
        self._failures: Path | None = None  # folder of the files; None in a single run

    @classmethod
    def print_how_to_go_on(cls) -> None:
        """After a signal, print the folder and the command that resumes the run or the multirun."""
        if cls.folder is None:
            return
        if cls.multirun:
            print_how_to_go_on(cls.folder, resuming_sweep(cls.folder))
        elif Path(cls.folder, "run.json").exists():
            print_how_to_go_on(cls.folder, resuming_run(cls.folder))
        else:
            print_how_to_go_on(cls.folder, command())

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse bad settings, and `resume` or `fork` of a folder without a run, before Hydra creates a folder."""
        RunGuard.composed, RunGuard.process = True, os.getpid()
        _refuse_bad(config, "hydra.run.dir")
        RunGuard.folder = str(config.get("resume") or config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse bad settings that all runs share, before Hydra creates a folder."""
        RunGuard.composed, RunGuard.process = True, os.getpid()
        # Ctrl-C ends the processes of other launchers through this exception; our own sweeper handles it itself
        if not _uses_own_sweeper(config):
            raise_on_ctrl_c()
        _refuse_bad(config, "hydra.sweep.dir")
        if not _uses_own_sweeper(config):
            RunGuard.folder, RunGuard.multirun = str(config.hydra.sweep.dir), True
            _refuse_bad_jobs(config)
        self._failures = Path(config.hydra.sweep.dir).absolute() / f".failed-{uuid.uuid4().hex}"

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Give the log of the job our format."""
        job_log.shorten(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Report a failed run, and record it for `on_multirun_end`."""
        if self._failures is None or job_return.status != JobStatus.COMPLETED:
            return
        end = job_return.return_value
        if not isinstance(end, FailedRun):
            return
        from joyful.results import write_json

        folder = config.hydra.runtime.output_dir
        print_error(f"{folder}: {end.reason}")
        record = {"run": os.path.relpath(folder, self._failures.parent), "reason": end.reason}
        try:
            self._failures.mkdir(parents=True, exist_ok=True)
            write_json(self._failures / f"{config.hydra.job.num}.json", record)
        except OSError as error:  # without the record, only an error of the job can set the exit code
            job_return.status, job_return.return_value = JobStatus.FAILED, error

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print a table of all runs, list those of this command that failed, and exit with code 1 if there are any."""
        error = sys.exc_info()[1]
        if self._failures is None:
            return
        if not _uses_own_sweeper(config) and isinstance(error, Exception | None):
            from joyful.runtime.run_table import print_runs

            if Path(config.hydra.sweep.dir).is_dir():
                print_runs(Path(config.hydra.sweep.dir))
        failed = [json.loads(path.read_text()) for path in self._failures.glob("*.json")]
        shutil.rmtree(self._failures, ignore_errors=True)
        if not failed or not isinstance(error, Exception | None):
            return
        from joyful.results.reading import natural

        failed.sort(key=lambda record: natural(record["run"]))
        for record in failed[:_MAXIMUM_LISTED]:
            print_error(f"run {record['run']} failed: {record['reason']}")
        print_error(
            f"{len(failed)} run{'s' * (len(failed) > 1)} failed in {config.hydra.sweep.dir}; fix the cause, then run "
            "the command again"
        )
        if error is None or str(error) == _NO_TRIALS:
            sys.exit(1)


def _uses_own_sweeper(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).endswith(_OWN_SWEEPER)


def _refuse_bad(config: DictConfig, place: str) -> None:
    """Exit with code 2 if a setting is bad. place: Hydra's setting of the output folder."""
    from joyful.config import check

    folder = None
    try:
        folder = OmegaConf.select(config, place)
        if folder is None:
            raise InputError(f"{place}: expected a folder, got none")
        for path in (os.getcwd(), os.path.abspath(folder)):
            if "${" in path:
                raise InputError(
                    "working and output folder: expected paths without ${, which Hydra reads as a reference, got "
                    f"{path}; start the command in another folder"
                )
        if place == "hydra.sweep.dir":
            _refuse_unknown(config.hydra.sweeper, Sweeper)
            _refuse_unknown(config.hydra.launcher, Launcher)
        forbidden = [str(name) for name in config.hydra.job.env_set if _CODE_VARIABLES.fullmatch(str(name))]
        if forbidden:
            raise InputError(
                "hydra.job.env_set: expected no variables that determine the code, "
                f"got {', '.join(forbidden)}; set them in the shell"
            )
        check_choices(config)
        if place == "hydra.run.dir":
            refuse_sweep_without_multirun(config)
        settings = check(resolved_config(config))
        if settings.trackers:
            from joyful.trackers import require

            require(settings.trackers)
        if place == "hydra.run.dir" and RunGuard.check_start is not None:
            RunGuard.check_start(settings)
        for name in ("resume", "fork"):
            other = getattr(settings, name)
            if other and not (Path(other) / "run.json").exists() and not (name == "fork" and Path(other).is_file()):
                file, remedy = (", or a file of weights", " or FILE.pt") if name == "fork" else ("", "")
                raise InputError(
                    f"{name}={other}: expected the folder of a run (with run.json){file}, found none; set {name}=FOLDER{remedy}"
                )
        unwritable = settings.resume and _unwritable(Path(settings.resume))
        if unwritable:
            raise InputError(
                f"resume: {unwritable}; check its permissions, or start a new run from it with fork={settings.resume}"
            )
        unwritable = _unwritable(Path(str(folder)))
        if unwritable:
            raise InputError(f"{unwritable}; set {place}=FOLDER to a writable folder")
    except OmegaConfBaseException as error:
        if folder is not None and place == "hydra.sweep.dir":
            return  # perhaps only a job sets the value; `_refuse_bad_jobs` checks them
        print_error(config_error_message(error))
        sys.exit(2)
    except InputError as error:
        print_error(str(error))
        sys.exit(2)


def _refuse_bad_jobs(config: DictConfig) -> None:
    """Exit with code 2 if a job of a multirun is bad. The sweeper of this package checks its trials itself."""
    from joyful.config import check

    def check_job(job: DictConfig) -> None:
        check_choices(job)
        settings = check(resolved_config(job))
        if RunGuard.check_start is not None and launcher_name(config) in LOCAL_LAUNCHERS:
            RunGuard.check_start(settings)

    try:
        check_jobs(config, check_job)
    except InputError as error:
        print_error(error)
    except (HydraException, OmegaConfBaseException) as error:
        print_error(config_error_message(error))
    else:
        return
    sys.exit(2)


def _refuse_unknown(settings: DictConfig, kind: type[Plugin]) -> None:
    """Raise InputError if a sweeper or a launcher is not among the plugins that Hydra has found."""
    known = sorted(f"{plugin.__module__}.{plugin.__qualname__}" for plugin in Plugins.instance().discover(kind))
    if settings.get("_target_") not in known:
        raise InputError(
            f"hydra.{kind.__name__.lower()}._target_: expected one of {', '.join(known)}, "
            f"got {settings.get('_target_')!r}"
        )


def _unwritable(folder: Path) -> str:
    """Return why a folder, which need not exist, cannot be written; empty if it can."""
    for parent in (folder, *folder.absolute().parents):
        try:
            if not parent.is_dir():
                if os.path.lexists(parent):
                    return f"{folder} cannot be written: {parent} is not a folder"
                continue
        except OSError as error:
            return f"{folder} cannot be written ({error.strerror})"
        if os.access(parent, os.W_OK | os.X_OK):
            return ""
        read_only = os.statvfs(parent).f_flag & os.ST_RDONLY
        return f"{folder} cannot be written: {parent} is {'on a read-only disk' if read_only else 'not writable'}"
    return ""
