"""Import the scalars of TensorBoard event files."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joyful.analysis.importers import FORMATS, Importer, Options
from joyful.analysis.importers.options import SPLIT_NAMES
from joyful.analysis.importers.points import Points
from joyful.analysis.importers.runs import ImportedRun
from joyful.analysis.importers.sources import find, open_file, optional_module, read_hparams, shown
from joyful.results import InputError

HELP = """\
Import the scalars of TensorBoard event files (events.out.tfevents.*), written by torch, TensorFlow,
Keras, Lightning or others: one file, or a folder. All event files of one folder are one run. Files in
a subfolder train, validation, val, eval or test of a run are the values of that split.

This format needs the package tensorboard: pip install 'joyful-sweeps[import]'

  arm, seed   settings and the seed are read from the hyperparameters plugin, or from hparams.yaml
              beside the files. Without them, set --arm-from and --seed-from, which search the path
              of the run's folder
  step        as logged. If a step was logged again, after a restart, the last value is kept
  epoch       a scalar named epoch, if there is one: it counts from 0 (see --epochs-from)
  seconds     from the wall times of the events
  splits      names such as val/loss, val_loss or Loss/val; all others belong to train

example
  joyful import tensorboard tb_logs --out from_tensorboard \\
      --arm-from "^([^-/]+)" --seed-from "seed_([0-9]+)"
"""

#: Largest record that is read. Scalars are far smaller; larger ones hold images and graphs.
_MAXIMUM_RECORD = 2**16

_EXPECTED = "an event file of TensorBoard"


def read(source: Path, options: Options) -> list[ImportedRun]:
    """Read the runs of event files. Raise InputError if one is not valid or tensorboard is not installed."""
    optional_module("tensorboard", "tensorboard")
    folders: dict[str, list[tuple[str, Path]]] = {}
    for name, path in find(source, lambda name: "tfevents" in name, "event files (events.out.tfevents.*)"):
        parts = name.split("/")[:-1]
        split = f"{parts.pop().lower()}/" if parts and parts[-1].lower() in SPLIT_NAMES else ""
        folders.setdefault("/".join(parts), []).append((split, path))
    runs = []
    for name, files in shown(list(folders.items()), "reading runs"):
        run = ImportedRun(name or source.absolute().name, [path for _, path in files], unit="record")
        if options.needs_settings():
            run.settings = read_hparams(files[0][1])
        points = Points(run, options)
        start = float("inf")
        for number, (split, path) in enumerate(files):
            for line, event in _events(path, options):
                start = min(start, event.wall_time)
                for value in event.summary.value:
                    run.settings |= _hyperparameters(value) if value.tag.startswith("_hparams_/") else {}
                    scalar = _scalar(value)
                    if scalar is None or value.tag in ("hp_metric", "") or value.tag.startswith("_hparams_/"):
                        options.left_out["summaries that are not scalars"] += not value.tag.startswith("_hparams_/")
                        continue
                    points.add(_name(value.tag, split), event.step, scalar, line, event.wall_time, number)
        points.close(origin=start)
        runs.append(run)
    return runs


def _events(path: Path, options: Options) -> Iterator[tuple[int, Any]]:
    """Yield the number and the content of the records of an event file. Records too large for scalars are skipped."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    number = 0
    with open_file(path, _EXPECTED) as file:
        size = os.fstat(file.fileno()).st_size
        while header := file.read(12):
            number += 1
            place = f"{path}, record {number}"
            damaged = InputError(
                f"{place}: expected {_EXPECTED}, but the record is damaged; restore or remove the file"
            )
            if len(header) == 12 and masked_crc32c(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise damaged
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
            if file.tell() + length + 4 > size:  # the program was ended while it wrote
                if number == 1:
                    raise damaged
                options.left_out["incomplete records at the end of event files"] += 1
                return
            if length > _MAXIMUM_RECORD:
                options.left_out["summaries that are not scalars"] += 1
                file.seek(length + 4, os.SEEK_CUR)
                continue
            record, event = file.read(length), event_pb2.Event()
            if masked_crc32c(record) != struct.unpack("<I", file.read(4))[0]:
                raise damaged
            try:
                event.ParseFromString(record)
            except Exception:  # DecodeError of the protobuf in use
                raise damaged from None
            yield number, event


def _scalar(value: Any) -> float | None:
    """Return the number of a summary; None if it is not a scalar."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return float(value.simple_value)
    if kind != "tensor" or any(dimension.size != 1 for dimension in value.tensor.tensor_shape.dim):
        return None
    from tensorboard.util.tensor_util import make_ndarray

    try:
        array = make_ndarray(value.tensor)
        return float(array.item()) if array.size == 1 and array.dtype.kind in "fiu" else None
    except (TypeError, ValueError):
        return None


def _name(tag: str, split: str) -> str:
    """Return the name of a metric with the prefix of its split: Loss/val becomes val/Loss."""
    name, _, last = tag.rpartition("/")
    if split:
        return split + tag
    return f"{last}/{name}" if name and last.lower() in SPLIT_NAMES else tag


def _hyperparameters(value: Any) -> dict[str, Any]:
    """Return the settings that the hyperparameters plugin stored in a summary, if any."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = plugin_data_pb2.HParamsPluginData()
    try:
        content.ParseFromString(value.metadata.plugin_data.content)
    except Exception:  # DecodeError of the protobuf in use
        return {}
    settings = {}
    for name, setting in content.session_start_info.hparams.items():
        kind = setting.WhichOneof("kind")
        if kind in ("number_value", "string_value", "bool_value"):
            settings[name] = getattr(setting, kind)
    return settings


FORMATS.register("tensorboard", "scalars of TensorBoard event files")(Importer(HELP, read, epochs="from 0"))
