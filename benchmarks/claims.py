"""Benchmark of claims: how fast workers take trials from the study of a sweep, and what the number of its trials costs.

    python -m benchmarks.claims [--trials 100 1000 10000] [--workers 1] [--database sqlite] [--claims 1000] [--seconds 0]
        [--finished 0.5] [--created 0] [--folder FOLDER] [--json FILE]

The workers are joyful's, with its registry, Optuna's storage, heartbeats and failure detection. Only two parts have
stand-ins: a trial is not composed by Hydra, and its training process sleeps for --seconds and reports once. Each worker is
a process of its own with its own connections, forked from this one, so it starts without imports.

For each number of trials, a new study has that many, the first --finished of them complete. The workers then claim and
finish trials until each has its part of --claims. The time of a claim is that of finding a free trial and writing its
lease. At the end, every trial must have been claimed and finished once, with its own value, or the benchmark fails.
Then the states of `joyful sweep status` and of the view are read, each by a process with an open connection.

--database postgresql starts a server in a temporary folder. Its load is the processor time of all its processes.
--created N measures how long the driver takes to create N trials.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from omegaconf import OmegaConf
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from sqlalchemy.engine import URL

from benchmarks.claimed_study import NAME, STEPS, check, create, database, fill, server_seconds, transactions, value_of
from benchmarks.figures import machine, parser
from benchmarks.measuring import seconds_of
from joyful.sweeper import worker as worker_module
from joyful.sweeper.claiming import Found
from joyful.sweeper.database import open_engine, open_storage, with_password
from joyful.sweeper.heartbeat import FailureDetector, heartbeats
from joyful.sweeper.live import LiveReader
from joyful.sweeper.registry import Lease, Registry
from joyful.sweeper.settings import SweepSettings
from joyful.sweeper.status import SWEEP_FILE, take_snapshot
from joyful.sweeper.study import StudyAccess, silence_logs
from joyful.sweeper.worker import Worker
from joyful.sweeper.worker_task import WorkerTask
from tests.support.statements import Counts, counted

#: Readings of a state, of which the median counts.
READINGS = 5


@dataclass(frozen=True)
class Measurement:
    """The figures of one study.

    Attributes:
        trials: Its number of trials.
        workers: Its number of workers.
        claims: Trials that were claimed and finished.
        per_second: Claims a second, over all workers.
        median: Milliseconds of a claim.
        percentile_99: Milliseconds of a claim that 99 % of the claims do not exceed.
        statements: Statements of a claim; None where they are not counted.
        rows: Rows that a claim reads; None where they are not counted.
        trial_statements: Statements of a claimed trial to its end, the claim included; likewise.
        trial_rows: Rows that it reads; likewise.
        trial: Milliseconds of a worker's trial to its end, without the sleep.
        lost: Claims that another worker was faster to make, for each claim.
        status: Milliseconds of reading the state for `joyful sweep status`.
        view: Milliseconds of a further reading of the state for the view.
        server: Share of one core that the database server used, None without one.
        transactions: Transactions a second of the server, None without one.
    """

    trials: int
    workers: int
    claims: int
    per_second: float
    median: float
    percentile_99: float
    statements: float | None
    rows: float | None
    trial_statements: float | None
    trial_rows: float | None
    trial: float
    lost: float
    status: float
    view: float
    server: float | None
    transactions: float | None


# --- workers


class SleepingTrainer:
    """The stand-in of a training process: it sleeps, reports once and completes."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._number, self._has_reported = seconds, -1, False

    def send(self, message: dict[str, Any]) -> None:
        if "run" in message:
            self._number, self._has_reported = message["run"]["number"], False

    def receive(self) -> dict[str, Any]:
        if not self._has_reported:
            time.sleep(self._seconds)
            self._has_reported = True
            return {"report": 1, "value": value_of(self._number)}
        return {"end": "completed", "values": [value_of(self._number)]}

    def close(self, grace: float = 0.0) -> None:
        pass

    kill = terminate = close


class SleepingWorker(Worker):
    """A worker whose trials are not composed and not trained, and which ends after some claims."""

    def __init__(self, task: WorkerTask, folder: Path, most: int, seconds: float, counts: Counts | None) -> None:
        super().__init__(task, folder, 0)
        self._trainer = self._stop_signal._trainer = SleepingTrainer(seconds)  # type: ignore[assignment]
        self._most, self._counter, self._sleep = most, counts, seconds
        self.claims: list[tuple[int, float]] = []  # number, seconds
        self.trials: list[float] = []  # seconds of each trial, without the sleep
        self.counted, self.counted_trials, self.lost = [], [], 0  # type: ignore[var-annotated]
        claim = self._registry.claim

        def counting(*arguments: Any, **options: Any) -> Lease | None:
            lease = claim(*arguments, **options)
            self.lost += lease is None
            return lease

        self._registry.claim = counting  # type: ignore[method-assign]

    def _process_trials(self) -> None:
        claim = self._claiming.next
        self._claiming.next = lambda: self._timed(claim)  # type: ignore[method-assign]
        super()._process_trials()

    def _timed(self, claim: Callable[[], Found]) -> Found:
        if len(self.claims) >= self._most:
            return Found(None, unfinished=False, lost=False)
        if self._counter is not None:
            self._counter.take()
        start = time.perf_counter()
        found = claim()
        if found.lease is not None:
            self.claims.append((found.lease.number, time.perf_counter() - start))
            if self._counter is not None:
                self.counted.append((self._counter.statements, self._counter.rows))
        return found

    def _run_trial(self, lease: Lease) -> None:
        start = time.perf_counter()
        super()._run_trial(lease)
        self.trials.append(time.perf_counter() - start - self._sleep)
        if self._counter is not None:
            self.counted_trials.append(self._counter.take())

    def _compose(self, overrides: Sequence[str], number: int) -> Any:
        return OmegaConf.create({"x": number, "hydra": {"runtime": {"choices": {}}}})


def task_of(url: URL, study_id: int, driver: str, folder: Path) -> WorkerTask:
    """Return the task of the workers."""
    values: dict[str, Any] = dict.fromkeys(SweepSettings.model_fields)
    values |= {
        "direction": "maximize",
        "pairs": 1,
        "seed_key": "seed",
        "may_differ": [],
        "lease_seconds": 60.0,
        "track": [],
    }
    plan: Any = SimpleNamespace(
        space={}, fixed=(), overrides=lambda number, params: [f"x={number}"], varied=lambda: {"x"},
        role=lambda number: "run", arm=lambda number: None,
    )  # fmt: skip
    program: Any = SimpleNamespace(git={}, pickle=lambda config: "")
    return WorkerTask(
        None, OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}), SweepSettings.model_construct(**values),  # type: ignore[arg-type]
        plan, program, with_password(url), NAME, study_id, driver, lambda number: RandomSampler(seed=number), NopPruner(),
    )  # fmt: skip


def work(task: WorkerTask, folder: Path, index: int, most: int, seconds: float, barrier: Any, counting: bool) -> None:
    """Claim and finish trials in this process, and write what was measured to a file."""
    folder_of = mock.patch.object(
        worker_module, "output_folder", lambda config: Path("claims", str(config.x)).absolute()
    )
    with counted() as counts, folder_of:
        worker = SleepingWorker(task, folder, most, seconds, counts if counting else None)
        barrier.wait(300)
        start = time.time()
        done = worker.work()
    found = {
        "claims": worker.claims, "trials": worker.trials, "counted": worker.counted, "counted_trials": worker.counted_trials,
        "lost": worker.lost, "done": done, "start": start, "end": time.time(),
    }  # fmt: skip
    (folder / f"{index}.json").write_text(json.dumps(found), encoding="utf-8")


def run_workers(
    registry: Registry, task: WorkerTask, folder: Path, workers: int, claims: int, seconds: float
) -> list[dict[str, Any]]:
    """Run the workers, and return what each has measured.

    Raises:
        RuntimeError: If a worker fails.
    """
    fork = multiprocessing.get_context("fork")
    barrier, shares = fork.Barrier(workers), [claims // workers + (i < claims % workers) for i in range(workers)]
    counting = workers == 1 and task.url.startswith("sqlite")
    processes = [
        fork.Process(target=work, args=(task, folder, i, shares[i], seconds, barrier, counting)) for i in range(workers)
    ]
    for process in processes:
        process.start()
    # after the forks, which take no threads along
    with heartbeats(registry, task.driver, threading.Event(), lambda: False):
        for process in processes:
            process.join()
    registry.engine.dispose()
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise RuntimeError(f"expected all workers to end, got exit codes {failed}")
    found = [json.loads((folder / f"{i}.json").read_text(encoding="utf-8")) for i in range(workers)]
    if problems := [one["done"]["problem"] for one in found if "problem" in one["done"]]:
        raise RuntimeError(problems[0])
    return found


def measure(options: argparse.Namespace, n_trials: int, folder: Path) -> Measurement:
    """Measure one study. See the module."""
    n_finished = round(options.finished * n_trials)
    claims = min(options.claims or n_trials, n_trials - n_finished)
    (folder / SWEEP_FILE).write_text(json.dumps({"study_name": NAME, "storage": None}), encoding="utf-8")
    with database(options.database, folder) as (url, server):
        study_id = fill(url, n_trials, n_finished, folder)
        registry = Registry(open_engine(url), study_id)
        driver = registry.join("driver")
        before = (server_seconds(server), transactions(registry)) if server else (0.0, 0)
        registry.engine.dispose()  # the forked processes must not share a connection
        task = task_of(url, study_id, driver.id, folder)
        found = run_workers(registry, task, folder, options.workers, claims, options.seconds)
        wall = max(one["end"] for one in found) - min(one["start"] for one in found)
        after = (server_seconds(server), transactions(registry)) if server else (0.0, 0)
        access = StudyAccess(open_storage(url), registry, NAME, RandomSampler, NopPruner())
        with access:
            check(access, n_finished, found)
            status = [seconds_of(lambda: take_snapshot(access, FailureDetector(30), folder)) for _ in range(READINGS)]
            reader = LiveReader(access, FailureDetector(30), folder, STEPS)
            reader.read()
            view = [seconds_of(reader.read) for _ in range(READINGS)]
    times = sorted(seconds for one in found for _, seconds in one["claims"])
    one = found[0]
    return Measurement(
        n_trials, options.workers, len(times), len(times) / wall, 1000 * statistics.median(times),
        1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
        _mean([s for s, _ in one["counted"]]), _mean([r for _, r in one["counted"]]),
        _mean([s for s, _ in one["counted_trials"]]), _mean([r for _, r in one["counted_trials"]]),
        1000 * statistics.median(seconds for one in found for seconds in one["trials"]),
        sum(one["lost"] for one in found) / len(times),
        1000 * statistics.median(status), 1000 * statistics.median(view),
        (after[0] - before[0]) / wall if server else None, (after[1] - before[1]) / wall if server else None,
    )  # fmt: skip


def _mean(values: Sequence[int]) -> float | None:
    return statistics.fmean(values) if values else None


def table(measurements: Sequence[Measurement]) -> list[str]:
    """Return the measurements as a table in Markdown."""
    columns = {
        "trials": lambda m: f"{m.trials:,}", "workers": lambda m: f"{m.workers}", "claims": lambda m: f"{m.claims:,}",
        "claims a second": lambda m: f"{m.per_second:.1f}", "claim, ms, 50 %": lambda m: f"{m.median:.1f}",
        "99 %": lambda m: f"{m.percentile_99:.1f}", "statements": lambda m: _number(m.statements),
        "rows": lambda m: _number(m.rows), "lost": lambda m: f"{m.lost:.2f}", "trial, ms": lambda m: f"{m.trial:.1f}",
        "its statements": lambda m: _number(m.trial_statements), "its rows": lambda m: _number(m.trial_rows),
        "status, ms": lambda m: f"{m.status:.1f}", "view, ms": lambda m: f"{m.view:.1f}",
        "server, cores": lambda m: _number(m.server), "transactions a second": lambda m: _number(m.transactions),
    }  # fmt: skip
    lines = [list(columns), ["---"] * len(columns), *([show(one) for show in columns.values()] for one in measurements)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each number of trials, and print the table."""
    command_line = parser("claims", __doc__ or "")
    command_line.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000], help="trials of each study")
    command_line.add_argument("--workers", type=int, default=1, help="workers (default: %(default)s)")
    command_line.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite", help="the database")
    command_line.add_argument(
        "--claims", type=int, default=1000, help="most claims in each study; 0: all trials (default: %(default)s)"
    )
    command_line.add_argument("--seconds", type=float, default=0.0, help="seconds of a trial (default: %(default)s)")
    command_line.add_argument(
        "--finished", type=float, default=0.5, help="share of complete trials (default: %(default)s)"
    )
    command_line.add_argument("--created", type=int, default=0, metavar="N", help="also time the creation of N trials")
    command_line.add_argument(
        "--folder", type=Path, default=None, help="where databases lie (default: a temporary folder)"
    )
    options = command_line.parse_args(arguments)
    if not 0 <= options.finished < 1:
        command_line.error(f"--finished: expected a share from 0 to less than 1, got {options.finished}")
    if options.workers > min(options.trials) * (1 - options.finished):
        command_line.error(f"--workers: expected at most one worker for each waiting trial, got {options.workers}")
    silence_logs()
    measurements, document = [], {"machine": machine(), "database": options.database, "seconds": options.seconds}
    with tempfile.TemporaryDirectory(prefix="joyful-claims-", dir=options.folder) as place:
        for n_trials in options.trials:
            folder = Path(place, str(n_trials))
            folder.mkdir()
            measurements.append(measure(options, n_trials, folder))
            print("\n".join(table(measurements)[-1:] if len(measurements) > 1 else table(measurements)), flush=True)
        if options.created:
            folder = Path(place, "created")
            folder.mkdir()
            document["created"] = options.created
            document["create_seconds"] = create(options.database, options.created, folder)
            print(f"\n{options.created:,} trials created in {document['create_seconds']:.1f} s")
    if options.json is not None:
        document["measurements"] = [asdict(one) for one in measurements]
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
