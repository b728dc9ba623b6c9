"""Building and training one run from a configuration.

This module connects data, losses, model, training and results. `train_run` is the function behind run.py, train.py and
the sweeper, and raises errors. `main` does the same for the command line: it reports errors as one line and an exit
code.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from joyful import results
from joyful.compat import use_deterministic_algorithms
from joyful.config import LOCATION_SETTINGS, MEMORY_ADVICE, Settings, check, config_hash
from joyful.data.description import describe_data
from joyful.data.loading import check_files, load
from joyful.model.joyful import standardisation_means, standardise
from joyful.records import DialogueDataset, EpochRecord, FailedRun, InputError, Request, print_error
from joyful.results.machine import cores
from joyful.runtime import disk, heap
from joyful.runtime.signals import RaisingSignals, Signalled, raise_on_ctrl_c
from joyful.trackers import require
from joyful.training import restoring
from joyful.training.averaging import too_few_steps
from joyful.training.batching import DeviceSplit, present_features
from joyful.training.building import build_model, choose_device, model_without_memory
from joyful.training.coach import Coach, TrainingFailedError
from joyful.training.disk_need import DataSizes, disk_need
from joyful.training.memory import is_out_of_memory
from joyful.training.progress import TrainingProgress, closing_table
from joyful.training.run_log import RunLog, run_log
from joyful.training.run_tracking import RunTracking
from joyful.training.run_writer import RunWriter
from joyful.validation import differences

OBJECTIVE = "best dev f1_weighted"

#: Who is told of each evaluation: the sweep, run.log and the trackers.
Watchers = tuple["Observer | None", RunLog, RunTracking]


class Interrupted(Signalled):
    """A signal has ended the run."""


class PrunedError(Exception):
    """The observer has pruned the run. Its folder has the status "pruned" and the results up to then.

    If the observer has paused the run (its attribute `paused` is true), the status is "interrupted".
    """


class Observer(Protocol):
    """Observer of a run, such as a sweep. An error raised by its methods ends the run without further writes."""

    def evaluated(self, record: EpochRecord, best: Mapping[str, float]) -> bool:
        """Called after each evaluation, before its rows are written.

        Args:
            record: The record of the evaluation.
            best: Scores of the best evaluation so far (`Coach.best`).

        Returns:
            Whether the run continues. False prunes it.
        """


def build_coach(settings: Settings, data: DialogueDataset, device: torch.device) -> Coach:
    """Return the coach of a run, with its model and the data on the device.

    Raises:
        InputError: If the settings do not fit together or to the data.
    """
    modalities = tuple(data.dimensions)
    splits = {name: DeviceSplit(d, modalities, data.n_speakers, device) for name, d in data.splits.items()}
    model = build_model(settings, data)
    standardise(model, present_features(data.splits["train"], modalities))
    model.to(device)
    for split in splits.values():
        split.fill_missing(standardisation_means(model))
    return Coach(settings, model, splits, len(data.labels), device)


def run_need(settings: Settings, sizes: DataSizes) -> disk.DiskNeed:
    """Estimate the disk space of one run from its model, built without memory for the parameters.

    Args:
        settings: The settings of the run.
        sizes: The sizes of the dataset.

    Raises:
        InputError: If sizes in the settings do not fit together.
    """
    model = model_without_memory(settings, sizes.dimensions, sizes.n_classes, sizes.n_speakers)
    return disk_need(settings, model, sizes)


def choose_threads(setting: str | int, multirun: bool) -> int:
    """Return the number of threads for the setting training.threads.

    Args:
        setting: A number, or "auto": one thread in a multirun, otherwise all cores that this process may use.
        multirun: Whether the run is part of a multirun.
    """
    if isinstance(setting, int):
        return setting
    return 1 if multirun else cores()


def check_start(settings: Settings) -> None:
    """Check that this machine has the device of a run and the files of its dataset, which are not read.

    Raises:
        InputError: If it has not, or if the files have none of the modalities.
    """
    choose_device(settings.device)
    check_files(settings.data, settings.modality_names)


def train_run(request: Request, observer: Observer | None = None) -> float:
    """Train or resume one run.

    A run that is already in the folder is resumed. If it is complete, only its objective is returned.

    Args:
        request: Configuration, folder and options of the run.
        observer: Called after evaluations; may prune the run.

    Returns:
        The objective: the best dev weighted F1, a fraction. Higher is better.

    Raises:
        InputError: If the settings or the data are invalid. Nothing is trained in that case.
        OtherDataError: If the run, or another run of its multirun, was trained on other data.
        TrainingFailedError: If a loss is not finite or memory runs out. The status of the run is then "failed".
        Interrupted: On SIGTERM. The status of the run is then "interrupted".
        KeyboardInterrupt: On SIGINT. The status of the run is then "interrupted".
        PrunedError: If the observer prunes the run. The status of the run is then "pruned".
        ResultsError: If a file of the run cannot be written.
        LockLostError: If another process has taken over the run.
    """
    with RaisingSignals(_interruption, signal.SIGTERM, signal.SIGINT) as signals, signals.prefer_signal(PrunedError):
        return _train_run(request, observer, signals)


def _train_run(request: Request, observer: Observer | None, signals: RaisingSignals) -> float:
    config, source = _merge_saved_config(request)
    settings = check(config)
    require(settings.trackers)
    folder = Path(settings.resume) if settings.resume else request.folder
    device = choose_device(settings.device)
    threads = choose_threads(settings.training.threads, request.multirun)
    prepare_torch(device, threads)
    data = load(settings.data, settings.modality_names)
    header = _header(settings, config, request, device, threads) | {"data": describe_data(data, settings.data)}
    if request.multirun:
        restoring.check_same_data(folder, header)
    need = run_need(settings, DataSizes.of(data))
    missing = max(0, need.permanent - disk.folder_size(folder)) + need.temporary
    disk.check_disk_space(folder, missing, "the run", f"hydra.{'sweep' if request.multirun else 'run'}.dir=FOLDER")
    with _disk_errors_as_input_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with results.lock(folder, request.take_over_after), run_log(folder):
        with _disk_errors_as_input_errors(folder):
            run, finished = restoring.open_or_create(folder, header)
        with RunTracking(settings, run, request, signals) as tracking:
            if finished:
                return float(run.info["objective"])
            overrides = request.overrides if request.multirun else ()
            log = RunLog(settings.training.epochs, run.info | header, data, overrides)
            watchers = observer, log, tracking
            with _status_of_early_end(run, log, signals):
                return _train(run, settings, data, header["data"]["digest"], device, source, watchers)


@contextmanager
def _status_of_early_end(run: results.RunFolder, log: RunLog, signals: RaisingSignals) -> Iterator[None]:
    """Write the status of a run whose training ends early inside a `with` block."""
    try:
        with signals.prefer_signal(PrunedError):  # also here, so that the status becomes "interrupted"
            yield
    except PrunedError:
        raise
    except (InputError, results.ResultsError) as error:
        log.end("stopped", str(error))
        raise
    except Exception as error:
        reason, out_of_memory = describe_failure(error), is_out_of_memory(error)
        if out_of_memory:  # free the tensors of the failed step, since writing the status needs memory
            traceback.clear_frames(error.__traceback__)
        run.set_status("failed", reason)
        log.end("failed", reason)
        if out_of_memory:
            raise TrainingFailedError(reason) from None
        raise
    except (Interrupted, KeyboardInterrupt) as signal_:
        cause = f"stopped by {signal_ if str(signal_) else 'Ctrl-C'}"
        run.set_status("interrupted", f"{cause}; set resume={run.path} to resume it")
        log.end("interrupted", cause)
        raise


@contextmanager
def _disk_errors_as_input_errors(folder: Path) -> Iterator[None]:
    """Convert OSError to InputError inside a `with` block, for accesses to the folder before training starts."""
    try:
        yield
    except (InputError, results.ResultsError):
        raise
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be used ({error.strerror}); check its permissions or choose another "
            "folder"
        ) from None


def describe_failure(error: BaseException) -> str:
    """Return the reason of a failed run, on one line. For lack of memory it names settings that reduce memory."""
    if is_out_of_memory(error):
        return f"out of memory; {MEMORY_ADVICE}"
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, TrainingFailedError) else f"{type(error).__name__}: {text}"


def _train(
    run: results.RunFolder,
    settings: Settings,
    data: DialogueDataset,
    digest: str,
    device: torch.device,
    source: Path | None,
    watchers: Watchers,
) -> float:
    started = time.monotonic()
    observer, log, tracking = watchers
    coach = build_coach(settings, data, device)
    fingerprint = {"config_hash": config_hash(settings), "data": digest}
    writer = RunWriter(run, data, fingerprint)
    with _disk_errors_as_input_errors(run.path):
        writer.restore(coach, source)
    run.set_status("running")
    tracking.log(writer.history)
    log.begin(too_few_steps(settings.training.moving_average, settings.training.epochs * coach.steps_per_epoch))
    if coach.epoch:
        log.resume(coach.epoch, coach.best)
    with TrainingProgress(settings.training.epochs, coach.epoch) as progress:
        for record in coach.train():
            should_continue = observer is None or observer.evaluated(record, coach.best)
            writer.write(record, coach)
            tracking.log(record.rows)
            progress.show(record)
            log.evaluated(record, coach.best)
            if not should_continue:
                word, status = ("paused", "interrupted") if getattr(observer, "paused", False) else ("pruned", "pruned")
                reason = f"{word} at epoch {record.epoch:g} of {settings.training.epochs}"
                writer.finish(status, coach, reason)
                log.end(status, reason)
                raise PrunedError(reason)
    objective = coach.best["f1_weighted"]
    writer.finish("completed", coach)
    log.end("completed")
    if observer is None:
        closing_table(
            f"joyful {data.name}, seed {settings.seed}",
            run.path, run.info, coach.best, time.monotonic() - started,
        )  # fmt: skip
    return objective


def _merge_saved_config(request: Request) -> tuple[dict[str, Any], Path | None]:
    """Merge the configuration saved by the run that `resume` or `fork` names with the overrides.

    With resume, the overrides must agree with the saved configuration. With fork, they replace saved settings. A file of
    weights has no saved settings.

    Returns:
        The configuration to train, and the folder or file that `fork` names, otherwise None.
    """
    config = request.config
    folder = config.get("resume") or config.get("fork")
    if not folder:
        return config, None
    if config.get("resume") and config.get("fork"):
        raise InputError(
            "resume and fork: expected one of them, got both; set resume to continue a run, or fork to start a new run "
            "from it"
        )
    mode = "resume" if config.get("resume") else "fork"
    if mode == "fork" and Path(folder).is_file():
        return config, Path(folder)
    try:
        saved = results.read_run(Path(folder))["config"]
    except FileNotFoundError:
        raise InputError(
            f"{mode}={folder}: expected the folder of a run, found no run.json; set {mode} to such a folder"
        ) from None
    except OSError as error:
        raise InputError(
            f"{mode}={folder}: its run.json cannot be read ({error.strerror}); check its permissions"
        ) from None
    old, new = dict(saved), {**saved, mode: folder, "track": config.get("track") or {}}
    for name in request.overridden:
        if name not in ("resume", "fork"):
            value = _select(config, name)
            new = _replace(new, name.split("."), value)
            if name not in LOCATION_SETTINGS:
                old = _replace(old, name.split("."), _select(saved, name))
    changed = [line for line in differences(old, new) if not line.startswith(LOCATION_SETTINGS)]
    if mode == "resume" and changed:
        raise InputError(
            f"resume={folder}: the run has a different configuration ({'; '.join(changed)}); resume it without these "
            f"overrides, or set fork={folder} to start a new run from it"
        )
    return new, Path(str(new["fork"])) if new.get("fork") else None


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
        "config": {name: value for name, value in config.items() if name != "track"} | {"resume": None},
    }


def describe_device(device: torch.device) -> str:
    """Return the name of a device for reports. A GPU's name includes CUDA_VISIBLE_DEVICES if it is set.

    Example:
        >>> describe_device(torch.device("cpu"))
        'cpu'
    """
    if device.type != "cuda":
        return device.type
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return torch.cuda.get_device_name(device) + (f" (GPU {visible})" if visible else "")


def prepare_torch(device: torch.device, threads: int) -> None:
    """Configure this process for training: threads, deterministic algorithms, and a heap that keeps freed memory.

    Args:
        device: The device of the run.
        threads: Number of threads of torch.
    """
    torch.set_num_threads(threads)
    heap.keep_freed_memory()
    if device.type == "cuda":
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # cuDNN's recurrent layers would round to TF32, so training.precision=fp32 would not be that.
        torch.backends.cudnn.allow_tf32 = False
    use_deterministic_algorithms()
    # Filling uninitialized memory is a debugging aid that costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _interruption(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number)


def main(get_request: Callable[[], Request], multirun: bool) -> float:
    """Run `train_run` for the command line: report errors as one line on standard error and an exit code.

    A failed or refused run of a multirun raises nothing, because joblib never returns if a job exits, and Hydra's
    sweepers stop. `joyful.runtime.run_guard` reports it and sets the exit code at the end.

    Args:
        get_request: Returns the request. Its errors are reported in the same way.
        multirun: Whether the run is part of a multirun.

    Returns:
        The objective of the run, or a FailedRun for a failed or refused run of a multirun.

    Raises:
        SystemExit: With exit code 130 after Ctrl-C and 143 after SIGTERM. In a single run also with 2 for invalid
            input and 1 for a failed run.
    """
    try:
        raise_on_ctrl_c()
        return train_run(get_request())
    except InputError as error:
        return _failed(str(error), 2, multirun)
    except (TrainingFailedError, results.ResultsError, results.LockLostError) as error:
        return _failed(str(error), 1, multirun)
    except KeyboardInterrupt:
        raise _exit("interrupted by Ctrl-C; nothing that was completed is lost", 130) from None
    except Interrupted as error:
        raise _exit(f"interrupted by {error}; nothing that was completed is lost", error.code) from None
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return _failed(describe_failure(error), 1, multirun)


def _failed(message: str, code: int, multirun: bool) -> FailedRun:
    if not multirun:
        raise _exit(message, code)
    return FailedRun(message)


def _exit(message: str, code: int) -> SystemExit:
    print_error(message)
    return SystemExit(code)
