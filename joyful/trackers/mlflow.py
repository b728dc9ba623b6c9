"""MLflow: runs of an experiment with the name of the sweep, in mlflow.db in its folder.

MLFLOW_TRACKING_URI names another store or a server. Files are in mlartifacts beside the database, or where the
experiment of a server has them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from joyful.trackers.tracker import TRACKERS, TrackedRun, environment

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

#: Status of a run -> that of MLflow.
STATUSES = {"completed": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "interrupted": "KILLED"}

#: Largest number of parameters of a request, and of characters of a parameter.
_PARAMETERS, _CHARACTERS = 100, 6000


def _settings() -> AbstractContextManager[None]:
    """No telemetry, no output, and not four minutes of waiting for a server that does not answer."""
    return environment(
        MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="2", MLFLOW_HTTP_REQUEST_TIMEOUT="20",
    )  # fmt: skip


@TRACKERS.register("mlflow", "MLflow: mlflow.db in the folder of the sweep, or $MLFLOW_TRACKING_URI")
class MlflowTracker:
    """A run of MLflow."""

    package = "mlflow"

    def __init__(self, run: TrackedRun, earlier: str | None, step: int) -> None:
        with _settings():
            self._client, experiment = _open(run)
            self._may_repeat = earlier is not None and self._continues(earlier)
            self.id = earlier if earlier and self._may_repeat else self._create(run, experiment)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _settings():
            if self._may_repeat:  # a batch is stored as a whole or not at all
                self._may_repeat = False
                if any(metric.step == step for metric in self._client.get_metric_history(self.id, next(iter(values)))):
                    return
            self._client.log_batch(self.id, metrics=[Metric(k, v, now, step) for k, v in values.items()])

    def attach(self, files: Mapping[str, Path], step: int) -> None:
        """See `Tracker.attach`."""
        with _settings():
            for path in files.values():
                self._client.log_artifact(self.id, str(path))

    def finish(self, status: str, scores: Mapping[str, float], step: int) -> None:
        """See `Tracker.finish`."""
        if scores:
            self.log(scores, step)
        with _settings():
            self._client.set_tag(self.id, "status", status)
            self._client.set_terminated(self.id, STATUSES[status])

    def _create(self, run: TrackedRun, experiment: str) -> str:
        from mlflow.entities import Param

        new: str = self._client.create_run(experiment, run_name=run.name, tags={"folder": str(run.folder)}).info.run_id
        params = [
            Param(re.sub(r"[^\w\-. :/]", "_", name)[:250], str(value)[:_CHARACTERS])
            for name, value in run.parameters.items()
        ]
        for start in range(0, len(params), _PARAMETERS):
            self._client.log_batch(new, params=params[start : start + _PARAMETERS])
        return new

    def _continues(self, earlier: str) -> bool:
        """Return whether the store has the run of an earlier process. Its state becomes RUNNING."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.update_run(earlier, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True


def _open(run: TrackedRun) -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment, which is created if necessary."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic", "urllib3"):  # they announce every migration of a new database, and every retry
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    own = None if uri else run.store / "mlflow.db"
    with _one_process(own):
        client = MlflowClient(f"sqlite:///{own}?timeout=60" if own else uri)
        if (known := client.get_experiment_by_name(run.group)) is not None:
            return client, known.experiment_id
        place = (run.store / "mlartifacts").as_uri() if own else None
        try:
            return client, client.create_experiment(run.group, artifact_location=place)
        except MlflowException:  # another process has created it on a server
            if (known := client.get_experiment_by_name(run.group)) is None:
                raise
            return client, known.experiment_id


@contextmanager
def _one_process(database: Path | None) -> Iterator[None]:
    """Context that one process at a time enters. Two must not create the tables of one database."""
    if database is None:
        yield
        return
    with database.with_name(".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
