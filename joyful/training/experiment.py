"""The joint: builds everything from a configuration and trains one run. The only file that knows all rooms.

`train_run` is the function behind run.py, train.py and the sweeper: it raises what goes wrong. `door` is the same for a
person at the shell: errors become one line and an exit code.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from joyful import results
from joyful.config import LESS_MEMORY, PLACES, Settings, check, config_hash, differences
from joyful.data.batching import DeviceSplit
from joyful.data.loading import load
from joyful.model.fusion import AutoFusion, FusionSizes
from joyful.model.graph_model import GraphModel, initialise, standardise
from joyful.model.hierarchical_fusion import AutoFusion_Hierarchical
from joyful.records import DialogueDataset, EpochRecord, InputError, Request, print_error
from joyful.runtime import disk, heap
from joyful.runtime.signals import RaisingSignals, Signalled, raise_at_ctrl_c
from joyful.training import checkpoints, restoring
from joyful.training.coach import Coach, TrainingFailedError
from joyful.training.objective import reconstruction_criterion
from joyful.training.precision import bfloat16_gain
from joyful.training.progress import TrainingProgress, closing_table

OBJECTIVE = "best dev f1_weighted"


class Interrupted(Signalled):
    """A run was told to end by a signal."""


class PrunedError(Exception):
    """The observer ended the run before its time; its folder says so, and holds all that was trained."""


class Observer(Protocol):
    """Whoever watches a run from outside, as a sweep does. Both may raise to end the run, then nothing more is written."""

    def before_write(self) -> None:
        """Called before each change of the run's folder."""

    def evaluated(self, record: EpochRecord, best: Mapping[str, float]) -> bool:
        """Called after each evaluation, before it is written, with the best one so far. False prunes the run."""


def build_fusion(settings: Settings, dimensions: Mapping[str, int]) -> AutoFusion:
    """The fusion that `fusion` names, for these modality widths, with the reconstruction loss that `loss` names."""
    m = settings.model
    common: dict[str, Any] = {
        "sizes": FusionSizes(m.inter_size, m.fusion_hidden_size, m.fusion_latent_size),
        "criterion": reconstruction_criterion(settings.loss, tuple(dimensions)),
        "intermodal": settings.fusion.intermodal,
    }
    if settings.fusion.name == "auto":
        return AutoFusion(dimensions, **common)
    return AutoFusion_Hierarchical(dimensions, modal_attention=m.modal_attention, **common)


def build_model(settings: Settings, data: DialogueDataset) -> GraphModel:
    """The model for this dataset, its weights a function of the seed. Raises InputError where sizes do not fit."""
    n_unimodal = settings.fusion.ulgm_hidden_size if settings.fusion.use_ulgm else 0
    try:
        fusion = build_fusion(settings, data.dimensions)
        model = GraphModel(settings.model, fusion, len(data.labels), data.n_speakers, n_unimodal)
    except ValueError as error:
        raise InputError(str(error)) from None
    initialise(model, settings.seed)
    return model


def choose_device(name: str) -> torch.device:
    """auto: CUDA where there is one, else the processor. Raises InputError for cuda where there is none."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device=cuda: expected a CUDA device, found none; set device=auto or device=cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def choose_threads(setting: str | int, multirun: bool) -> int:
    """auto: every core that this process may use in a single run, one in any multirun."""
    if isinstance(setting, int):
        return setting
    return 1 if multirun else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def data_digest(data: DialogueDataset) -> str:
    """Digest (SHA-256, 16 hex digits) of labels, lengths, speakers and features of all splits."""
    digest = hashlib.sha256()
    for split, dialogues in data.splits.items():
        digest.update(split.encode())
        for array in (dialogues.labels, dialogues.lengths, dialogues.speakers, *dialogues.features.values()):
            digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return digest.hexdigest()[:16]


def train_run(request: Request, observer: Observer | None = None) -> float:
    """Train one run, or go on with it, and return its objective: the best dev weighted F1, to be maximised.

    A folder that already holds this very run is gone on with, or, if complete, only asked for its objective.
    Raises InputError for bad settings and data, before anything is trained; TrainingFailedError where a loss is not finite (the
    run's status is failed then); Interrupted on SIGTERM, KeyboardInterrupt on SIGINT (status interrupted); PrunedError where the
    observer says so.
    """
    with RaisingSignals(_interruption, signal.SIGTERM, signal.SIGINT) as signals, signals.kept(PrunedError):
        return _train_run(request, observer, signals)


def _train_run(request: Request, observer: Observer | None, signals: RaisingSignals) -> float:
    config, source = _merged(request)
    settings = check(config)
    folder = Path(settings.resume) if settings.resume else request.folder
    device = choose_device(settings.device)
    threads = choose_threads(settings.training.threads, request.multirun)
    prepare_torch(device, threads)
    data = load(settings.data, settings.modality_names)
    header = _header(settings, config, request, device, threads)
    need = disk.run_need(settings, data.dimensions, len(data.labels), data.n_speakers)
    missing = max(0, need.kept - disk.size(folder)) + need.passing
    disk.check_room(folder, missing, "the run", f"hydra.{'sweep' if request.multirun else 'run'}.dir=FOLDER")
    with _own_to_read(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with results.lock(folder, request.take_over_after):
        with _own_to_read(folder):
            run, finished = restoring.open_or_create(folder, header)
        if finished:
            return float(run.info["objective"])
        if observer is None:
            _say_where_bfloat16_is_slower(settings, device)
        try:
            with signals.kept(PrunedError):  # (here, too: the status is to say so)
                return _train(run, settings, data, device, source, observer)
        except (PrunedError, InputError, results.ResultsError):
            raise
        except Exception as error:
            reason, no_memory = describe_failure(error), is_out_of_memory(error)
            if no_memory:  # what the failed step still holds: writing needs memory too
                traceback.clear_frames(error.__traceback__)
            run.set_status("failed", reason)
            if no_memory:
                raise TrainingFailedError(reason) from None
            raise
        except (Interrupted, KeyboardInterrupt) as signal_:
            run.set_status(
                "interrupted", f"stopped by {signal_ if str(signal_) else 'Ctrl-C'}; resume={folder} goes on"
            )
            raise


def _say_where_bfloat16_is_slower(settings: Settings, device: torch.device) -> None:
    if settings.training.precision != "bf16" or device.type != "cpu":
        return
    gain = bfloat16_gain()
    if gain < 1:
        print_error(
            f"training.precision=bf16 makes this run slower: bfloat16's matrix products have {gain:.2g} times the speed of "
            "float32's on this processor; set training.precision=fp32"
        )


@contextmanager
def _own_to_read(folder: Path) -> Iterator[None]:
    """Inside, what the disk refuses of the run's folder is bad input: nothing was trained yet."""
    try:
        yield
    except (InputError, results.ResultsError):
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be used ({error.strerror}); check its permissions, or choose another folder"
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory, on the host or on the device."""
    # torch raises a plain RuntimeError on the host
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def describe_failure(error: BaseException) -> str:
    """Why a run failed, in one line; for want of memory, what would need less."""
    if is_out_of_memory(error):
        return f"out of memory; {LESS_MEMORY}"
    words = " ".join(str(error).split())[:500]
    return words if isinstance(error, TrainingFailedError) else f"{type(error).__name__}: {words}"


def _train(
    run: results.RunFolder,
    settings: Settings,
    data: DialogueDataset,
    device: torch.device,
    source: Path | None,
    observer: Observer | None,
) -> float:
    started = time.monotonic()
    splits = {name: DeviceSplit(d, tuple(data.dimensions), data.n_speakers, device) for name, d in data.splits.items()}
    model = build_model(settings, data)
    standardise(model, splits["train"].features)
    coach = Coach(settings, model.to(device), splits, len(data.labels), device, run.path / "checkpoint")
    coach.stamp = {"config_hash": config_hash(settings), "data": data_digest(data)}
    before_write = observer.before_write if observer is not None else _nothing
    coach.before_write = before_write
    before_write()
    with _own_to_read(run.path):
        history, timing = restoring.restore(run, coach)
        if source is not None and not history:
            history, timing = restoring.restore_from(source, coach)
    run.set_status("running")
    with TrainingProgress(settings.training.epochs, coach.epoch) as progress:
        for record in coach.train():
            go_on = observer is None or observer.evaluated(record, coach.best)
            clock = time.monotonic()
            # an epoch's checkpoint is written after its record was taken, so its time comes with the next one
            timing += _checkpoint_rows(coach)
            history += record.rows
            run.write_history(history)
            seconds = record.seconds | {"write": time.monotonic() - clock}
            timing += [{"epoch": record.epoch, "phase": phase, "seconds": value} for phase, value in seconds.items()]
            run.write_timing(timing)
            progress.show(record)
            if not go_on:
                reason = f"pruned at epoch {record.epoch:g} of {settings.training.epochs}"
                checkpoints.drop_previous(run.path / "checkpoint")
                run.set_status("pruned", reason, objective=coach.best["f1_weighted"])
                raise PrunedError(reason)
    objective = coach.best["f1_weighted"]
    before_write()
    timing += _checkpoint_rows(coach)
    run.write_timing(timing)
    checkpoints.drop_previous(
        run.path / "checkpoint"
    )  # (first: a run that has its last status is not written to again)
    run.set_status("completed", objective=objective)
    if observer is None:
        closing_table(
            f"joyful {data.name}, seed {settings.seed}",
            run.path, "completed", coach.best, settings.training.epochs, time.monotonic() - started,
        )  # fmt: skip
    return objective


def _nothing() -> None:
    pass


def _checkpoint_rows(coach: Coach) -> list[dict[str, Any]]:
    """Rows of timing.parquet for the checkpoints written since the last call."""
    taken, coach.checkpoint_seconds = coach.checkpoint_seconds, {}
    return [{"epoch": float(epoch), "phase": "checkpoint", "seconds": seconds} for epoch, seconds in taken.items()]


def _merged(request: Request) -> tuple[dict[str, Any], Path | None]:
    """The configuration to train, and the folder whose checkpoint is the start (for fork), else None.

    resume: the saved configuration; whatever was overridden beside it must agree with it. fork: the saved one with the overrides.
    """
    config = request.config
    folder = config.get("resume") or config.get("fork")
    if not folder:
        return config, None
    if config.get("resume") and config.get("fork"):
        raise InputError("resume and fork: expected one of the two, got both; resume goes on, fork begins a new folder")
    what = "resume" if config.get("resume") else "fork"
    try:
        saved = results.read_run(Path(folder))["config"]
    except FileNotFoundError:
        raise InputError(f"{what}={folder}: expected the folder of a run (with run.json), found none") from None
    except OSError as error:
        raise InputError(
            f"{what}={folder}: its run.json cannot be read ({error.strerror}); check its permissions"
        ) from None
    old, new = dict(saved), {**saved, what: folder}
    for name in request.overridden:
        if name not in ("resume", "fork"):
            value = _select(config, name)
            new = _replace(new, name.split("."), value)
            if name not in PLACES:
                old = _replace(old, name.split("."), _select(saved, name))
    changed = [line for line in differences(old, new) if not line.startswith(PLACES)]
    if what == "resume" and changed:
        raise InputError(
            f"resume={folder}: the run has another configuration ({'; '.join(changed)}); resume it as it is, or start a "
            f"new one from it by fork={folder}"
        )
    return new, Path(folder) if what == "fork" else None


def _select(config: Mapping[str, Any], name: str) -> Any:
    node: Any = config
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _replace(config: Mapping[str, Any], parts: list[str], value: Any) -> dict[str, Any]:
    inner = value if len(parts) == 1 else _replace(config.get(parts[0]) or {}, parts[1:], value)
    return {**config, parts[0]: inner}


def _header(
    settings: Settings, config: dict[str, Any], request: Request, device: torch.device, threads: int
) -> dict[str, Any]:
    return {
        "objective_name": OBJECTIVE,
        "seed": settings.seed,
        "role": settings.role,
        "epochs": settings.training.epochs,
        "config_hash": config_hash(settings),
        "device": describe_device(device),
        "threads": threads,
        "choices": request.choices,
        "config": {**config, "resume": None},
    }


def describe_device(device: torch.device) -> str:
    """The device as a reader knows it; a GPU with its name among all of the machine, where one was chosen for this process."""
    if device.type != "cuda":
        return device.type
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return torch.cuda.get_device_name(device) + (f" (GPU {visible})" if visible else "")


def prepare_torch(device: torch.device, threads: int) -> None:
    """Threads, algorithms that give the same bits each time, and a heap that keeps what steps free."""
    torch.set_num_threads(threads)
    heap.keep_freed_memory()
    if device.type == "cuda":
        os.environ.setdefault(
            "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
        )  # cuBLAS repeats its bits only with a fixed workspace
    # use_deterministic_algorithms(True) is the same, and loads the compiler, whose own setting it is too: 1.5 s in every process
    torch.set_deterministic_debug_mode("error")
    # only a debugging aid, and it costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number)


def main(get_request: Callable[[], Request]) -> float:
    """train_run of what `ask` returns, for a person at the shell.

    Bad input ends with one line and code 2, a failed run with 1, a signal with 130 or 143. In a multirun a failed run is one
    line and NaN, and the next one is trained: joyful.runtime.run_guard sums up.
    """
    try:
        raise_at_ctrl_c()
        request = get_request()
        return train_run(request)
    except InputError as error:
        _leave(str(error), 2)
    except TrainingFailedError as error:
        return _failed(request, str(error))
    except (results.ResultsError, results.LockLostError) as error:
        _leave(str(error), 1)
    except KeyboardInterrupt:
        _leave("interrupted by Ctrl-C; nothing that was completed is lost", 130)
    except Interrupted as error:
        _leave(f"interrupted by {error}; nothing that was completed is lost", error.code)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _failed(request, describe_failure(error))
    return math.nan  # not reached: _leave raises


def _failed(request: Request, message: str) -> float:
    if not request.multirun:
        _leave(message, 1)
    print_error(f"{request.folder}: {message}")
    return math.nan


def _leave(message: str, code: int) -> None:
    print_error(message)
    raise SystemExit(code)
