"""The picture of a running sweep: rows of its trials, progress in epochs, narrow and plain terminals, watch and trials."""

import dataclasses
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from joyful.results import RunFolder
from joyful.runtime.text_table import short_names
from joyful.sweeper.__main__ import main
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.live import LiveReader, LiveState, RunningTrial
from joyful.sweeper.metric import metric_of
from joyful.sweeper.panel import draw, step_line
from joyful.sweeper.status import Snapshot, open_sweep
from joyful.sweeper.study import FOLDER, OWN, TrialAccess, open_or_create
from joyful.sweeper.trials import print_trials
from joyful.sweeper.view import SweepView
from tests.support import small_program, sweeps
from tests.support.terminal import TerminalProgram, lines_of

SNAPSHOT = Snapshot(
    name="weights", n_trials=40, complete=9, pruned=3, failed=1, running=2, waiting=25, best_value=0.61234, best_trial=4,
    best_params={"weights.encoder_loss_weight": 0.0312345, "weights.cl_loss_weight": 0.2, "fusion": "auto"}, workers=2,
    seconds_left=4000.0, failures={7: "the loss is not finite in epoch 3"},
)  # fmt: skip
ROWS = (
    RunningTrial(
        13, {"weights.encoder_loss_weight": "0.03123", "weights.cl_loss_weight": "0.2", "fusion": "hierarchical"},
        done=7, total=20, value=0.412, best=0.419, elapsed=35.0, left=65.0,
    ),
    RunningTrial(
        14, {"weights.encoder_loss_weight": "0.9", "weights.cl_loss_weight": "0.0123", "fusion": "auto"},
        "loading the data", elapsed=4.0, total=20,
    ),
)  # fmt: skip
STATE = LiveState(SNAPSHOT, ROWS, ROWS[:1], metric_of("dev_f1"), "epoch", done=107, total=800, at_most=True)


class Stream(io.StringIO):
    """A stream with an encoding."""

    def __init__(self, encoding="utf-8"):
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding


@pytest.fixture(autouse=True)
def locale(monkeypatch):
    for name in ("LC_ALL", "LC_CTYPE", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "en_GB.UTF-8")


def console(width=80, terminal=True, encoding="utf-8", **settings):
    return Console(
        file=Stream(encoding),
        width=width,
        height=24,
        force_terminal=terminal,
        highlight=False,
        no_color=True,
        **settings,
    )


def drawn(state, width=80, waiting="", **settings):
    return [line.plain for line in draw(state, "multirun/weights", console(width, **settings), waiting)]


# --- the picture


def test_at_80_columns_the_settings_shrink_and_nothing_else():
    lines = drawn(STATE)
    assert lines[1].endswith("107 of at most 800 epochs  at most 1 h 06 min left")
    paused = dataclasses.replace(STATE, snapshot=dataclasses.replace(SNAPSHOT, waiting=18, paused={3: 6, 9: 1}))
    assert "18 waiting  7 paused (6 at step 3, 1 at step 9)" in "\n".join(drawn(paused, 120))
    assert lines[2] == "13/40 trials  2 running  25 waiting  9 complete  3 pruned  1 failed  2 workers"
    assert re.fullmatch(r"trial  enco\S* cl_l\S* fus\S*  +epoch  +dev F1    best  time  left", lines[3])
    assert re.fullmatch(r"   13  0.0\S* +0\S* +h\S*  +7/20 ━━──────     41.2 %  41.9 %  0:35  1:05", lines[4])
    assert re.fullmatch(r"   14  0.9 +0\S* +auto +loading the data +0:04 *", lines[5])
    assert lines[6].startswith("best so far: dev F1 61.2 %, trial 4: encoder_loss_weight=0.03123 cl_loss")
    assert len(lines) == 7


def test_at_140_columns_everything_is_shown():
    lines = drawn(STATE, 140)
    assert "encoder_loss_weight=0.03123 cl_loss_weight=0.2 fusion=hierarchical" in lines[4]
    assert " 7/20 ━━━━━───────────  41.2 %  41.9 %  0:35  1:05" in lines[4]
    assert lines[6] == (
        "best so far: dev F1 61.2 %, trial 4: encoder_loss_weight=0.03123 cl_loss_weight=0.2 fusion=auto"
    )
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("width", [*range(20, 100, 7), 80, 140, 300])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_longer_than_the_terminal(width, encoding):
    many = dataclasses.replace(STATE, running=ROWS * 30)
    for state in (STATE, many, dataclasses.replace(STATE, running=(), total=None, done=0)):
        lines = drawn(state, width, waiting="starting 2 workers (JoblibLauncher), 0:03", encoding=encoding)
        assert max(map(len, lines)) < max(width, 21)
        assert len(lines) <= 24 or width < 30
        if encoding == "ascii":
            assert all(line.isascii() for line in lines)
    assert any(re.match("and [0-9]+ more running|and", line) for line in drawn(many, width))


@pytest.mark.parametrize("variables", [{"LC_ALL": "C"}, {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, {"LANG": "POSIX"}])
def test_the_locale_c_gets_ascii(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines = drawn(STATE)
    assert all(line.isascii() for line in lines)
    assert "7/20 ##......" in lines[4]


def test_no_colour(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    output = Console(file=Stream(), width=80, height=24, force_terminal=True)
    with SweepView(lambda: STATE, Path("x"), output):
        pass
    shown = output.file.getvalue()
    assert "41.9 %" in shown
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a.b.lr", "seed"], ["lr", "seed"]),
        (["a.lr", "b.lr"], ["a.lr", "b.lr"]),
        (["x.a.lr", "y.a.lr", "lr"], ["x.a.lr", "y.a.lr", "lr"]),
        (["data/source", "weights"], ["source", "weights"]),
    ],
)
def test_names_are_as_short_as_they_can_be(names, short):
    assert list(short_names(names).values()) == short


def test_wide_and_hostile_characters_keep_the_width():
    rows = tuple(
        dataclasses.replace(row, settings={"text": "\x1b[2J情感识别" * number, "seed": str(number)})
        for number, row in enumerate(ROWS, start=1)
    )
    for width in (70, 80, 100):
        lines = draw(dataclasses.replace(STATE, running=rows), "x", console(width))
        assert max(line.cell_len for line in lines) < width
        assert not any("\x1b" in line.plain for line in lines)


def test_a_sweep_without_running_trials_says_what_it_does():
    state = dataclasses.replace(STATE, running=(), snapshot=dataclasses.replace(SNAPSHOT, running=0, workers=0))
    texts = []
    for drivers, workers in ((1, 0), (1, 2), (0, 0)):
        now = dataclasses.replace(state, drivers=drivers, snapshot=dataclasses.replace(state.snapshot, workers=workers))
        output = console()
        with SweepView(lambda now=now: now, Path("x"), output, idle="starting 2 workers (JoblibLauncher)"):
            texts.append(output.file.getvalue())
    assert "starting 2 workers (JoblibLauncher), 0:00" in texts[0]
    assert "2 workers started, the first trials are next, 0:00" in texts[1]
    assert "no process works on this sweep; run its command again to go on" in texts[2]


def test_the_reason_of_a_failed_trial_appears_above_the_picture():
    states = iter([STATE, dataclasses.replace(STATE, snapshot=dataclasses.replace(SNAPSHOT, failures={
        7: "old", 9: "diverged"}))])  # fmt: skip
    output = console()
    with SweepView(lambda: next(states), Path("x"), output) as view:
        view.update()
    assert "trial 9 failed: diverged" in output.file.getvalue()
    assert "trial 7" not in output.file.getvalue()


def test_the_end_of_a_training_process_appears_above_the_picture():
    row = dataclasses.replace(ROWS[0], failures=1)
    states = iter([STATE, *[dataclasses.replace(STATE, running=(row,))] * 2])
    output = console()
    with SweepView(lambda: next(states), Path("x"), output) as view:
        view.update()
        view.update()
    line = "trial 13 starts again, because its process or its worker ended (1 in a row)"
    assert output.file.getvalue().count(line) == 1


def test_between_two_reads_the_times_go_on():
    lines = [line.plain for line in draw(STATE, "x", console(), ago=10.0)]
    assert lines[4].endswith("0:45  0:55")


def test_without_a_terminal_there_is_a_line_for_each_step():
    output = console(terminal=False)
    with SweepView(lambda: STATE, Path("x"), output):
        pass
    lines = output.file.getvalue().splitlines()
    assert lines[0] == "trial 13: epoch 7/20, dev F1 41.2 % (best 41.9 %), 0:35"
    assert lines[1].startswith("sweep weights: 13 of 40 trials done (9 complete, 3 pruned, 1 failed), 2 running; best")


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    output = console()
    with SweepView(lambda: STATE, Path("x"), output):
        pass
    assert output.file.getvalue().startswith("trial 13: epoch 7/20, ")
    assert "\x1b" not in output.file.getvalue()


def test_the_line_of_another_program():
    row = dataclasses.replace(ROWS[0], total=None, value=1.5, best=1.25)
    state = dataclasses.replace(STATE, metric=metric_of(None), unit="step")
    assert step_line(state, row) == "trial 13: step 7, value 1.5000 (best 1.2500), 0:35"


# --- reading the study


@pytest.fixture
def sweep(tmp_path):
    """A study with 4 trials, as the sweeper creates it, and its folder."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"study_name": "weights", "storage": None, "steps": 4}))
    from joyful.sweeper.database import open_storage, storage_url

    backend = open_storage(storage_url(None, folder))
    description = {"space": {"x": {}}, "trials": None, "base": {}}
    study_id = open_or_create(backend, "weights", ["maximize"], description, ["dev_f1"])
    for _ in range(4):
        template = optuna.trial.create_trial(state=optuna.trial.TrialState.WAITING)
        backend.create_new_trial(study_id, template)
    with open_sweep(folder) as access:
        yield access, folder


def start(access, number, folder, term=1):
    """Let a worker of this process hold a trial."""
    worker = access.registry.join("worker")
    lease = access.registry.claim(number, worker.id, None)
    trial = TrialAccess(access, number)
    trial.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attrs(**{FOLDER: str(folder / str(number)), OWN: "x=1"})
    return trial, lease


def report(access, trial, lease, step, value):
    trial.report(step, value)
    access.registry.renew(lease, trial.steps_with(step))


def test_a_trial_from_its_first_second_to_its_end(sweep, tmp_path):
    access, folder = sweep
    reader = LiveReader(access, FailureDetector(30.0), folder, steps=4)
    state = reader.read()
    assert (state.running, state.done, state.total, state.snapshot.waiting) == ((), 0, 16, 4)
    trial, lease = start(access, 2, folder)
    assert [row.phase for row in reader.read().running] == ["starting the process"]
    (folder / "2").mkdir()
    assert [row.phase for row in reader.read().running] == ["loading the data"]
    header = {
        "objective_name": "best dev f1_weighted", "seed": 1, "role": "search", "epochs": 5, "config_hash": "0",
        "device": "cpu", "threads": 1, "choices": {}, "config": {},
    }  # fmt: skip
    run = RunFolder.create(folder / "2", header)
    (row,) = reader.read().running
    assert (row.phase, row.done, row.total) == ("", 0, 5)  # the number of its own epochs counts
    rows = []
    for step, (value, best) in enumerate([(0.4, 0.4), (0.3, 0.4), (0.5, 0.5)], start=1):
        report(access, trial, lease, step, best)
        assert [item.value for item in reader.read().reports] == []  # its files are not written yet
        rows.append({"step": step, "epoch": float(step), "split": "dev", "f1_weighted": value})
        run.write_history(rows)
        state = reader.read()
        assert [(item.done, item.value, item.best) for item in state.reports] == [(step, value, best)]
        (row,) = state.running
        assert (row.done, row.value, row.best) == (step, value, best)
    assert step_line(state, state.reports[0]).startswith("trial 2: epoch 3/5, dev F1 50.0 % (best 50.0 %), 0:0")
    assert (state.done, state.total) == (3, 5 + 3 * 4)
    assert row.left is not None
    trial.tell(optuna.trial.TrialState.COMPLETE, [0.5])
    access.registry.release(2, lease.owner)
    state = reader.read()
    assert (state.running, state.snapshot.best_value, state.snapshot.best_trial) == ((), 0.5, 2)
    assert (state.done, state.total) == (3, 3 + 3 * 4)


def test_steps_of_a_trial_that_ended_between_two_reads_are_reported(sweep):
    access, folder = sweep
    reader = LiveReader(access, FailureDetector(30.0), folder, steps=4)
    reader.read()
    trial, lease = start(access, 0, folder)
    for step in (1, 2, 3):
        report(access, trial, lease, step, step / 10)
    trial.tell(optuna.trial.TrialState.PRUNED)
    state = reader.read()
    assert [(row.number, row.done, row.best) for row in state.reports] == [(0, 1, 0.1), (0, 2, 0.2), (0, 3, 0.3)]
    assert reader.read().reports == ()


def test_a_new_observer_does_not_report_old_steps_but_knows_them(sweep):
    access, folder = sweep
    trial, lease = start(access, 0, folder)
    report(access, trial, lease, 1, 0.3)
    reader = LiveReader(access, FailureDetector(30.0), folder, steps=4)
    state = reader.read()
    assert (state.reports, state.running[0].done, state.running[0].best) == ((), 1, 0.3)


def test_a_trial_without_a_worker_waits(sweep):
    access, folder = sweep
    _, lease = start(access, 0, folder)
    access.registry.leave(lease.owner)
    state = LiveReader(access, FailureDetector(30.0), folder).read()
    assert (state.running, state.snapshot.running, state.snapshot.waiting) == ((), 0, 4)


@pytest.mark.slow
def test_the_cost_of_a_read_does_not_grow_with_the_study(sweep, monkeypatch):
    """Statements are counted, because times depend on the machine."""
    from sqlalchemy import event

    access, folder = sweep
    study = access.open()
    reader = LiveReader(access, FailureDetector(30.0), folder, steps=4)
    counts = []
    for more in (0, 200):
        for i in range(more):
            values = {1: i / 1000, 2: i / 900}
            study.add_trial(optuna.trial.create_trial(value=i / 1000, intermediate_values=values))
        reader.read()
        statements = []
        event.listen(access.registry.engine, "before_cursor_execute", lambda *a, s=statements: s.append(a[2]))
        with monkeypatch.context() as patch:
            patch.setattr(access.backend, "get_trial", lambda number: pytest.fail("reads a finished trial"))
            reader.read()
        counts.append(len(statements))
    assert counts[0] == counts[1] < 12


# --- real sweeps

#: A program whose steps take a moment.
SLOW = """\
    import time
    for step in range(1, cfg.steps + 1):
        time.sleep(0.2)
        trial.report((cfg.x - 0.3) ** 2 + 1 / step, step)
    return (cfg.x - 0.3) ** 2
"""


@pytest.mark.slow
def test_a_terminal_of_80_columns_shows_the_workers_and_the_trials_at_once(tmp_path):
    small_program.write(tmp_path, SLOW)
    trials = ",".join(f"'x=0.{i} seed={i}'" for i in range(1, 5))
    command = small_program.command(
        tmp_path, f"hydra.sweeper.trials=[{trials}]", "hydra/launcher=joblib", "steps=8", "hydra.job.name=p"
    )
    program = TerminalProgram(command, tmp_path)
    seen = {}
    for seconds in program.read():
        for text in ("checking the settings", "starting 2 workers", "x=0.1 seed=1", "/8 ━", "best so far: value"):
            if text in program.output:
                seen.setdefault(text, seconds)
    assert program.process.returncode == 0, program.output[-2000:]
    assert len(seen) == 5, program.output
    assert list(seen) == sorted(seen, key=seen.__getitem__)
    assert seen["starting 2 workers"] < 15.0  # 2 s on a machine without other work
    lines = lines_of(program.output)
    picture = [line for line in lines if not re.match(r"\[|results:|sweep p: ", line)]
    assert max(map(len, picture)) < 80
    assert any(re.fullmatch(r" +\d  x=0.\d seed=\d  \d/8 [━─]+ +\d\.\d+ +\d\.\d+  0:\d\d  0:\d\d", x) for x in lines)


@pytest.mark.slow
def test_a_pipe_gets_a_line_for_each_step_and_a_table_at_the_end(tmp_path, fork_server):
    small_program.write(tmp_path)
    done = small_program.run(tmp_path, "hydra.sweeper.trials=['x=0.1','x=0.3','x=0.5']", server=fork_server)
    assert done.returncode == 0, done.stderr
    for number, step in itertools.product(range(3), range(1, 5)):
        assert len(re.findall(rf"^trial {number}: step {step}(/4)?, value ", done.stderr, re.M)) == 1
    assert "3 of 3 trials done" in done.stderr
    table = done.stdout[done.stdout.index("trial  settings") :].splitlines()
    assert [line.split() for line in table[:4]] == [
        ["trial", "settings", "value", "state", "folder"],
        ["1", "x=0.3", "0.2500", "complete", "multirun/main/1"],
        ["0", "x=0.1", "0.2900", "complete", "multirun/main/0"],
        ["2", "x=0.5", "0.2900", "complete", "multirun/main/2"],
    ]


@pytest.mark.slow
@pytest.mark.soak("takes 9 s; the commands of the documents watch finished sweeps")
def test_watch_follows_a_sweep_to_its_end_and_ctrl_c_ends_it(tmp_path):
    small_program.write(tmp_path, SLOW)
    folder = tmp_path / "multirun/main"
    command = small_program.command(tmp_path, "hydra.sweeper.trials=['x=0.1','x=0.2']", "steps=25")
    watch = [sys.executable, "-m", "joyful.sweeper", "watch", str(folder)]
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.wait_until(lambda: sweeps.workers(folder))
        stopped = TerminalProgram(watch, tmp_path, 80)
        pressed = False
        for _ in stopped.read():
            if "no trial is complete yet" in stopped.output and not pressed:
                os.killpg(stopped.process.pid, signal.SIGINT)
                pressed = True
        assert stopped.process.returncode == 130, stopped.output
        assert "Traceback" not in stopped.output
        done = subprocess.run(watch, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, driver.wait(60)) == (0, 0)
    finally:
        sweeps.kill_group(driver)
    assert "trial 1: step 25, value 0.0500 (best 0.0500), " in done.stderr or "trial 1: step 25/25" in done.stderr
    assert "2/2 trials" in done.stdout
    assert max(map(len, lines_of(stopped.output))) < 80


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fork_server):
    """The folder of a finished sweep: complete, pruned and failed trials."""
    folder = tmp_path_factory.mktemp("finished")
    body = (
        "    import optuna\n    trial.report(cfg.x, 1)\n    if cfg.x > 0.8:\n        raise ValueError('too large')\n"
        "    if cfg.x > 0.6:\n        raise optuna.TrialPruned\n    return cfg.x\n"
    )
    small_program.write(folder, body)
    trials = ",".join(f"'x={x}'" for x in (0.5, 0.9, 0.1, 0.7))
    done = small_program.run(folder, f"hydra.sweeper.trials=[{trials}]", server=fork_server)
    assert done.returncode == 0, done.stderr
    return folder / "multirun/main"


def test_trials_are_listed_best_first(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.parent.parent)
    assert main(["trials", "multirun/main"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["trial", "settings", "value", "state", "folder"],
        ["2", "x=0.1", "0.1000", "complete", "multirun/main/2"],
        ["0", "x=0.5", "0.5000", "complete", "multirun/main/0"],
        ["3", "x=0.7", "0.7000", "pruned", "multirun/main/3"],
        ["1", "x=0.9", "0.9000", "failed", "multirun/main/1"],
    ]
    assert main(["trials", "multirun/main", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [trial["number"] for trial in listed] == [2, 0, 3, 1]
    assert (listed[0]["state"], listed[0]["values"], listed[0]["settings"]) == ("complete", [0.1], {"x": "0.1"})
    assert "too large" in listed[3]["reason"]


def test_folders_are_links_in_a_terminal_and_the_rest_is_counted(finished, monkeypatch):
    monkeypatch.chdir(finished.parent.parent)
    output = console(80)
    with open_sweep(finished) as access:
        print_trials(access, Path("multirun/main"), output, most=2)
    text = output.file.getvalue()
    assert f"file://{finished / '2'}\x1b\\multirun/main/2\x1b]8;;\x1b\\" in text
    assert "and 2 more trials (1 pruned, 1 failed): joyful sweep trials multirun/main" in text


def test_watch_of_a_finished_sweep_ends_at_once(finished, capsys):
    before = time.monotonic()
    assert main(["watch", str(finished)]) == 0
    assert time.monotonic() - before < 20
    assert "4/4 trials" in capsys.readouterr().out
