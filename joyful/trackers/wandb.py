"""Weights & Biases: offline runs in the folder wandb of the run, which `wandb sync` uploads.

WANDB_MODE=online uploads at once. The sweep is the project and the group of its runs.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joyful.trackers.tracker import TRACKERS, TrackedRun, environment


@TRACKERS.register("wandb", "Weights & Biases: offline in the run's folder wandb/, or as $WANDB_MODE says")
class WandbTracker:
    """A run of W&B. Offline, each process that resumes a run writes one more folder with the same id.

    The process of W&B writes with a delay of 0.2 s. If the run is killed, its last steps may be missing there.
    """

    package = "wandb"

    def __init__(self, run: TrackedRun, earlier: str | None, step: int) -> None:
        with environment(WANDB_ERROR_REPORTING="false"):
            import wandb

            self.id = earlier or secrets.token_hex(8)
            settings = wandb.Settings(
                silent=True, console="off", symlink=False, init_timeout=20, login_timeout=1,
                disable_git=True, disable_code=True, disable_job_creation=True, save_code=False,
                x_save_requirements=False, x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True,
                x_transaction_log_flush_interval=0.2,
            )  # fmt: skip
            mode: Any = os.environ.get("WANDB_MODE") or "offline"
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or run.group, group=run.group, name=run.name, id=self.id,
                dir=run.folder, config=dict(run.parameters), mode=mode,
                resume="allow", reinit="create_new", settings=settings,
            )  # fmt: skip

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(values), step=step, commit=True)  # else the values wait for the next step

    def attach(self, files: Mapping[str, Path], step: int) -> None:
        """Show the HTML files as panels, and store the others beside the run. See `Tracker.attach`."""
        import wandb

        for name, path in files.items():
            if path.suffix == ".html":
                self._run.log({name: wandb.Html(str(path), inject=False)}, step=step, commit=True)
            else:
                copied = shutil.copy(path, self._run.dir)  # `save` would link to the file, and say so
                self._run.save(copied, base_path=self._run.dir, policy="now")

    def finish(self, status: str, scores: Mapping[str, float], step: int) -> None:
        """See `Tracker.finish`."""
        self._run.summary.update({**scores, "status": status})
        self._run.finish(exit_code=0 if status in ("completed", "pruned") else 1)
