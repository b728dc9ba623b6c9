"""What Hydra calls before it writes anything, and after a multirun: bad settings are refused, and failed runs are named.

conf/config.yaml has it as hydra.callbacks.guard. Light: torch is not imported here.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from joyful.hydra_request import plain
from joyful.records import InputError, tell

#: Our own sweeper checks every trial, and ends with a summary of its own.
_OURS = "OptunaPrunedSweeper"

#: Failed runs that the summary of a multirun names.
_NAMED = 20


#: What a configuration may have called by `_target_`: an overlay from somebody else's folder may name anything.
_TARGETS = (
    "joyful.run_guard.RunGuard", "joyful.sweeper.plugin.OptunaPrunedSweeper", "hydra._internal.core_plugins.*",
    "hydra_plugins.*", "optuna.samplers.*", "optuna.pruners.*",
)  # fmt: skip

#: Environment variables that decide which code a process runs: no configuration may set them (hydra.job.env_set).
_CODE = re.compile(r"PYTHON\w*|LD_\w*|DYLD_\w*|PATH|BASH_ENV|ENV|IFS")


def targets() -> list[str]:
    """What may be called by `_target_`, and what JOYFUL_TARGETS adds (names with commas between, such as mymodule.*)."""
    return [*_TARGETS, *filter(None, os.environ.get("JOYFUL_TARGETS", "").split(","))]


class RunGuard(Callback):
    """Ends the program with one line and code 2 for settings that are wrong, 1 where every run of a multirun failed."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse bad settings, and a run to go on with that is none, before Hydra makes a folder."""
        _refuse_bad(config, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """As on_run_start, for the settings that all runs share."""
        _refuse_bad(config, "hydra.sweep.dir")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Name the runs that failed; end with 1 where all did."""
        error = sys.exc_info()[1]
        if str(config.hydra.sweeper._target_).endswith(_OURS) or not isinstance(error, Exception | None):
            return
        statuses, failed = _outcomes(Path(config.hydra.sweep.dir))
        if not failed:
            return
        for name, reason in list(failed.items())[:_NAMED]:
            tell(f"run {name} failed: {reason}")
        tell(
            f"{len(failed)} of {len(statuses)} runs failed; the same command trains them again ({config.hydra.sweep.dir})"
        )
        if len(failed) == len(statuses):
            sys.exit(1)


def _refuse_bad(config: DictConfig, place: str) -> None:
    """place: the setting that says where it is written to."""
    from joyful.config import check

    try:
        forbidden = [str(name) for name in config.hydra.job.env_set if _CODE.fullmatch(str(name))]
        if forbidden:
            raise InputError(
                f"hydra.job.env_set: expected variables that choose no code, got {', '.join(forbidden)}; set them in the shell"
            )
        settings = check(plain(config))
        for name in ("resume", "fork"):
            folder = getattr(settings, name)
            if folder and not (Path(folder) / "run.json").exists():
                raise InputError(f"{name}={folder}: expected the folder of a run (with run.json), found none")
        unwritable = settings.resume and _unwritable(Path(settings.resume))
        if unwritable:
            raise InputError(
                f"resume: {unwritable}; check its permissions, or begin a new run from it by fork={settings.resume}"
            )
        unwritable = _unwritable(Path(str(OmegaConf.select(config, place))))
        if unwritable:
            raise InputError(f"{unwritable}; choose a folder that you may write by {place}=FOLDER")
    except OmegaConfBaseException:
        return  # a value that only a trial of a sweep sets: whoever resolves it says so
    except InputError as error:
        tell(str(error))
        sys.exit(2)


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
