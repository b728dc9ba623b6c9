"""What stands around Hydra: bad settings are refused before it writes anything, what it refuses itself is one line, and the
failed runs of a multirun are named.

conf/config.yaml has RunGuard as hydra.callbacks.guard, run.py has `refusing`. Light: torch is not imported here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.records import InputError, print_error
from joyful.runtime.hydra_request import plain, refusal
from joyful.runtime.signals import CTRL_C, raise_at_ctrl_c

#: Our own sweeper checks every trial, and ends with a summary of its own.
_OURS = "OptunaPrunedSweeper"

#: Failed runs that the summary of a multirun names.
_NAMED = 20


#: What a configuration may have called by `_target_`: an overlay from somebody else's folder may name anything.
_TARGETS = (
    "joyful.runtime.run_guard.RunGuard", "joyful.sweeper.plugin.OptunaPrunedSweeper", "hydra._internal.core_plugins.*",
    "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*",
)  # fmt: skip

#: Environment variables that decide which code a process runs: no configuration may set them (hydra.job.env_set).
_CODE = re.compile(r"PYTHON\w*|LD_\w*|DYLD_\w*|PATH|BASH_ENV|ENV|IFS")


def targets() -> list[str]:
    """What may be called by `_target_`, and what JOYFUL_TARGETS adds (names with commas between, such as mymodule.*)."""
    return [*_TARGETS, *filter(None, os.environ.get("JOYFUL_TARGETS", "").split(","))]


#: Hydra raises what went wrong where this is 1; elsewhere it prints a report and ends with code 1.
_FULL_ERROR = "HYDRA_FULL_ERROR"


def refusing(program: Callable[[], Any]) -> Callable[[], Any]:
    """A program of hydra.main that ends with one line and code 2 where Hydra cannot compose what is asked for: no such file or
    group, YAML or overrides that cannot be read, a `_target_` that may not be called. With HYDRA_FULL_ERROR=1, a traceback."""

    def run() -> Any:
        if os.environ.get(_FULL_ERROR) == "1":
            return program()
        RunGuard.composed = False
        os.environ[_FULL_ERROR] = "1"
        try:
            with CTRL_C.kept():
                return program()
        except Exception as error:
            # after that only errors that Hydra itself makes are about the configuration: a trial of a sweep is composed late
            if RunGuard.composed and not isinstance(error, (HydraException, OmegaConfBaseException)):
                os.environ.pop(_FULL_ERROR)
                return _reported_by_hydra(error)
            print_error(f"{refusal(error)} (HYDRA_FULL_ERROR=1 shows where)")
            sys.exit(2)
        finally:
            os.environ.pop(_FULL_ERROR, None)

    return run


def _reported_by_hydra(error: Exception) -> Any:
    from hydra._internal.utils import run_and_report

    def again() -> None:
        raise error

    return run_and_report(again)


class RunGuard(Callback):
    """Ends the program with one line and code 2 for settings that are wrong, 1 where every run of a multirun failed."""

    #: Whether Hydra has composed what the command asks for, in this process.
    composed = False

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse bad settings, and a run to go on with that is none, before Hydra makes a folder."""
        RunGuard.composed = True
        _refuse_bad(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """As on_run_start, for the settings that all runs share."""
        RunGuard.composed = True
        # another launcher's processes end by what Ctrl-C raises here; our sweeper sees to it itself
        if not _is_ours(config):
            raise_at_ctrl_c()
        _refuse_bad(config, "hydra.sweep.dir")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Name the runs that failed; end with 1 where all did."""
        error = sys.exc_info()[1]
        if _is_ours(config) or not isinstance(error, Exception | None):
            return
        statuses, failed = _outcomes(Path(config.hydra.sweep.dir))
        if not failed:
            return
        for name, reason in list(failed.items())[:_NAMED]:
            print_error(f"run {name} failed: {reason}")
        print_error(
            f"{len(failed)} of {len(statuses)} runs failed; the same command trains them again ({config.hydra.sweep.dir})"
        )
        if len(failed) == len(statuses):
            sys.exit(1)


def _is_ours(config: DictConfig) -> bool:
    return str(config.hydra.sweeper._target_).endswith(_OURS)


def _refuse_bad(config: DictConfig, place: str) -> None:
    """place: the setting that says where it is written to."""
    from joyful.config import check

    folder = None
    try:
        folder = OmegaConf.select(config, place)
        if folder is None:
            raise InputError(f"{place}: expected a folder, got none")
        if place == "hydra.sweep.dir":
            _refuse_unknown(config.hydra.sweeper, Sweeper)
            _refuse_unknown(config.hydra.launcher, Launcher)
        forbidden = [str(name) for name in config.hydra.job.env_set if _CODE.fullmatch(str(name))]
        if forbidden:
            raise InputError(
                f"hydra.job.env_set: expected variables that choose no code, got {', '.join(forbidden)}; set them in the shell"
            )
        settings = check(plain(config))
        for name in ("resume", "fork"):
            other = getattr(settings, name)
            if other and not (Path(other) / "run.json").exists():
                raise InputError(f"{name}={other}: expected the folder of a run (with run.json), found none")
        unwritable = settings.resume and _unwritable(Path(settings.resume))
        if unwritable:
            raise InputError(
                f"resume: {unwritable}; check its permissions, or begin a new run from it by fork={settings.resume}"
            )
        unwritable = _unwritable(Path(str(folder)))
        if unwritable:
            raise InputError(f"{unwritable}; choose a folder that you may write by {place}=FOLDER")
    except OmegaConfBaseException as error:
        if folder is not None and place == "hydra.sweep.dir":
            return  # a value that only a trial of a sweep sets, perhaps: whoever resolves it says so
        print_error(refusal(error))
        sys.exit(2)
    except InputError as error:
        print_error(str(error))
        sys.exit(2)


def _refuse_unknown(settings: DictConfig, kind: type[Plugin]) -> None:
    """Raises InputError for a sweeper or a launcher that Hydra has not found among its plugins."""
    known = sorted(f"{plugin.__module__}.{plugin.__qualname__}" for plugin in Plugins.instance().discover(kind))
    if settings.get("_target_") not in known:
        raise InputError(
            f"hydra.{kind.__name__.lower()}._target_: expected one of {', '.join(known)}, got {settings.get('_target_')!r}"
        )


def _unwritable(folder: Path) -> str:
    """Why nothing can be written into a folder that may have to be made, empty where it can."""
    for parent in (folder, *folder.absolute().parents):
        try:
            if not parent.is_dir():
                if os.path.lexists(parent):
                    return f"{folder} cannot be written: {parent} is no folder"
                continue
        except OSError as error:
            return f"{folder} cannot be written ({error.strerror})"
        if os.access(parent, os.W_OK | os.X_OK):
            return ""
        read_only = os.statvfs(parent).f_flag & os.ST_RDONLY
        return f"{folder} cannot be written: {parent} is {'on a read-only disk' if read_only else 'not yours to write'}"
    return ""


def _outcomes(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Status of every run in a multirun's folder, and why some failed."""
    from joyful.results import read_runs

    if not folder.is_dir():
        return {}, {}
    runs = read_runs(folder, [])
    statuses = {header.name: header.status for header in runs.headers}
    return statuses, {header.name: header.reason or "?" for header in runs.headers if header.status == "failed"}
