"""TensorBoard: event files in the folder tensorboard of the run, with its settings and scores in the view HParams.

Values are stored with 32 bits, as all scalars of TensorBoard are. Neither torch nor TensorFlow is needed.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from joyful.trackers.tracker import TRACKERS, TrackedRun

#: Numbers of the event files of this process.
_NUMBERS = itertools.count()

#: Scalars with this prefix are the columns of the view HParams, beside the settings.
SCORES = "score/"


@TRACKERS.register("tensorboard", "TensorBoard: event files in the run's folder tensorboard/")
class TensorBoardTracker:
    """The event file of one process for a run. A resumed run has one more file in the same folder."""

    package = "tensorboard"

    def __init__(self, run: TrackedRun, earlier: str | None, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.id = "tensorboard"
        folder = run.folder / "tensorboard"
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{next(_NUMBERS)}"
        self._writer = RecordWriter((folder / name).open("xb"))
        self._parameters = {name: "null" if value is None else value for name, value in run.parameters.items()}
        self._varies = run.varies
        self._write(0, file_version="brain.Event:2")
        if earlier is not None:  # readers drop what was logged at later steps before
            self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
        elif self._parameters:
            self._write(0, summary=self._session_start(run.name))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker.log`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step, Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]))

    def attach(self, files: Mapping[str, Path], step: int) -> None:
        """Show the Markdown files in the view Text. See `Tracker.attach`."""
        for name, path in files.items():
            if path.suffix == ".md":
                self._text(name, path.read_text("utf-8"), step)

    def finish(self, status: str, scores: Mapping[str, float], step: int) -> None:
        """See `Tracker.finish`."""
        if status != "interrupted":
            self.log({f"{SCORES}{name}": value for name, value in scores.items()}, step)
            self._text("status", status, step)
            if self._parameters:
                self._write(step, self._columns(scores))
                self._write(step, self._session_end(status))
        self._writer.close()

    def _write(self, step: int, summary: Any = None, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, summary=summary, **content)
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _text(self, name: str, text: str, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.plugins.text.metadata import create_summary_metadata

        value = Summary.Value(tag=name, metadata=create_summary_metadata(name, None))
        value.tensor.CopyFrom(TensorProto(dtype=DT_STRING, string_val=[text.encode()]))
        self._write(step, Summary(value=[value]))

    # --- the view HParams

    def _session_start(self, name: str) -> Any:
        from tensorboard.plugins.hparams import summary_v2

        return summary_v2.hparams_pb(self._parameters, trial_id=name)

    def _columns(self, scores: Mapping[str, float]) -> Any:
        from tensorboard.plugins.hparams import api_pb2, metadata

        experiment = api_pb2.Experiment(
            # the view shows the first five, and those that differ come first
            hparam_infos=[api_pb2.HParamInfo(name=name, differs=self._varies(name)) for name in self._parameters],
            metric_infos=[
                api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"{SCORES}{name}"), display_name=name) for name in scores
            ],
        )
        return self._of_plugin(metadata.EXPERIMENT_TAG, experiment=experiment)

    def _session_end(self, status: str) -> Any:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        code = api_pb2.STATUS_FAILURE if status == "failed" else api_pb2.STATUS_SUCCESS
        end = plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
        return self._of_plugin(metadata.SESSION_END_INFO_TAG, session_end_info=end)

    def _of_plugin(self, tag: str, **data: Any) -> Any:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
        return Summary(value=[Summary.Value(tag=tag, metadata=content, tensor=metadata.NULL_TENSOR)])
