"""Reading back what trackers have stored, with the libraries of the trackers."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Name of a curve -> step -> value.
Curves = dict[str, dict[int, float]]


@dataclass
class Stored:
    """A run, as a tracker stores it.

    Attributes:
        parameters: Name -> value.
        curves: Name -> step -> value.
        repeated: Name and step of the values that were logged more than once.
        scores: Final scores, name -> value.
        status: The status of the run.
        texts: Name -> text or path of what was attached.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    repeated: list[tuple[str, int]] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    status: str = ""
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, step: int, value: float) -> None:
        """Add a value of a curve."""
        curve = self.curves.setdefault(name, {})
        self.repeated += [(name, step)] if step in curve else []
        curve[step] = value


def read_tensorboard(folder: Path) -> Stored:
    """Return what the event files in a folder hold."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    stored = Stored()
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            if tag.startswith("score/"):
                stored.scores[tag.removeprefix("score/")] = event.value
            else:
                stored.add(tag, event.step, event.value)
    for tag in events.Tags()["tensors"]:
        plugin = events.SummaryMetadata(tag).plugin_data.plugin_name
        if plugin == "text":
            stored.texts[tag] = events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()
    stored.status = stored.texts.pop("status", "")
    if any(tag.startswith("_hparams_/") for tag in events.Tags()["tensors"]):
        content = events.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
        for name, value in metadata.parse_session_start_info_plugin_data(content).hparams.items():
            stored.parameters[name] = getattr(value, value.WhichOneof("kind"))
    return stored


def read_hparams_view(folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of TensorBoard's view HParams in its order, and the finished runs in it: column -> value."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, get_experiment, list_session_groups
    from tensorboard.plugins.hparams.backend_context import Context

    events = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(events, str(folder))
    view = Context(TBContext(logdir=str(folder), multiplexer=events, data_provider=provider))
    request: Any = api_pb2.GetExperimentRequest()
    experiment = get_experiment.Handler(RequestContext(), view, "", request).run()
    shown = {info.name.tag: info.display_name for info in experiment.metric_infos}
    request = api_pb2.ListSessionGroupsRequest(slice_size=100, allowed_statuses=[api_pb2.STATUS_SUCCESS])
    rows = []
    for group in list_session_groups.Handler(RequestContext(), view, "", request).run().session_groups:
        row = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        rows.append(row | {shown[value.name.tag]: value.value for value in group.metric_values})
    return [*(info.name for info in experiment.hparam_infos), *shown.values()], rows


def read_mlflow(uri: str, experiment: str) -> dict[str, Stored]:
    """Return the runs of an experiment by their name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = {}
    for run in client.search_runs([found.experiment_id]):
        stored = runs[run.info.run_name] = Stored(dict(run.data.params), status=run.info.status)
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            for metric in history:
                stored.add(name, metric.step, metric.value)
            if len(history) == 1:
                stored.scores[name] = history[0].value
        for file in client.list_artifacts(run.info.run_id):
            stored.texts[file.path] = file.path
        stored.texts["status"] = run.data.tags.get("status", "")
    return runs


def read_wandb(folder: Path) -> Stored:
    """Return what the files *.wandb below a folder hold: those of the processes of one run, in their order."""
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    stored, ids = Stored(), set()
    for path in sorted(folder.rglob("run-*.wandb")):
        for data in _records(path.read_bytes()):
            record = messages.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add((record.run.run_id, record.run.project, record.run.run_group, record.run.display_name))
                stored.parameters |= _items(record.run.config.update)
            elif kind == "history":
                values = _items(record.history.item)
                step = int(values["_step"])
                for name, value in values.items():
                    if not name.startswith("_"):
                        stored.add(name, step, value)
            elif kind == "summary":
                stored.scores |= _items(record.summary.update)
            elif kind == "files":
                stored.texts |= {file.path: file.path for file in record.files.files}
    stored.status = str(stored.scores.pop("status", ""))
    (stored.texts["id"],) = (":".join(parts) for parts in ids)
    return stored


def _items(items: Any) -> dict[str, Any]:
    """Return the key or nested key of items of a record, and their values."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file *.wandb: a LevelDB log after seven bytes. The library reads it in its binary only."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield parts
            parts = b""
