"""Sweeps on PostgreSQL: several commands, killed workers, restarts and outages of the database, passwords."""

import base64
import gc
import json
import re
import subprocess
import sys
import time

import psutil
import pytest
import sqlalchemy

from joyful.records import InputError
from joyful.results.design import read_decisions
from joyful.sweeper.database import RETRY_SECONDS, open_engine, open_storage, storage_url
from joyful.sweeper.status import open_sweep
from tests.support import small_program, sweeps
from tests.support.faults import count
from tests.support.launchers import EPOCHS, TRIALS, held_lease, sweep_command, train_alone
from tests.support.postgresql import Server, programs

pytestmark = [
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed: apt-get install postgresql"),
]
pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'joyful-sweeps[sweep]'")


@pytest.fixture(scope="module")
def server():
    server = Server(programs())
    try:
        yield server
    finally:
        server.stop()


def decoded(data):
    """Return bytes followed by what the base64 texts in them hold, such as the state of a program."""
    texts = re.findall(rb"[A-Za-z0-9+/]{1000,}", data)
    return b"".join([data, *(base64.b64decode(text + b"=" * (-len(text) % 4)) for text in texts)])


@pytest.fixture
def commands(server):
    """Three commands for one sweep. The last one writes pickles of everything that its workers receive."""
    command = [*sweep_command(), f"hydra.sweeper.storage={server.url}", "hydra.sweeper.lease_seconds=5"]
    return [command, command, [*command, "hydra/launcher=submitit_local", "hydra.sweeper.n_jobs=1"]]


def run_two_commands(folder, overrides):
    """Run the small program's sweep by two commands at the same time, which must both succeed."""
    drivers = [sweeps.start(small_program.command(folder, *overrides), folder) for _ in range(2)]
    try:
        assert [driver.wait(120) for driver in drivers] == [0, 0], (folder / "sweep.log").read_text()[-3000:]
    finally:
        for driver in drivers:
            sweeps.kill_group(driver)


@pytest.mark.slow
def test_two_commands_pause_and_promote_trials(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.password)
    small_program.write(tmp_path)
    search = ["x=interval(0,1)", "steps=6", "hydra.sweeper.n_trials=6", f"hydra.sweeper.storage={server.url}"]
    search += [
        "hydra/sweeper/pruner=asha_promotion",
        "hydra.sweeper.pruner.fewest_trials=6",
        "hydra.sweeper.study_name=paused",
    ]
    run_two_commands(tmp_path, search)
    with open_sweep(tmp_path / "multirun/paused", server.url) as access:
        trials = access.open().trials
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert len(complete) >= 2
    assert all(trial.last_step == 3 for trial in trials if trial.state.name == "PRUNED")
    best = sorted(trials, key=lambda trial: trial.intermediate_values[3])[:2]
    assert {trial.number for trial in best} <= {trial.number for trial in complete}


@pytest.mark.soak("takes 7 s; the test above has two commands too")
def test_two_commands_of_a_small_program(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.password)
    small_program.write(tmp_path)
    search = ["x=interval(0,1)", "hydra.sweeper.n_trials=6", f"hydra.sweeper.storage={server.url}"]
    run_two_commands(tmp_path, search)
    folder = tmp_path / "multirun/main"
    assert sweeps.states(folder, server.url) == dict.fromkeys(range(6), "COMPLETE")
    assert server.password not in "".join(path.read_text() for path in folder.rglob("*.yaml"))


@pytest.mark.soak("takes 10 s; test_pairs_auto.py buys pairs by one command, the test above shares a database")
def test_two_commands_buy_pairs_until_a_claim_is_decided(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.password)
    small_program.write_paired(tmp_path)
    metrics = "metrics: [{measure: best, split: dev, of: accuracy}]"
    claim = f"claims: [{{claim: quality, no_worse_than: 2, unit: points, {metrics}}}]\n"
    (tmp_path / "claims.yaml").write_text(claim)
    overrides = [
        "hydra.sweeper.arms=['lr=0.3','lr=0.6']", "hydra.sweeper.pairs=auto", "hydra.sweeper.max_pairs=8",
        "hydra.sweeper.claims=claims.yaml", "hydra.sweeper.direction=maximize", f"hydra.sweeper.storage={server.url}",
        "hydra.sweep.dir=multirun/auto",
    ]  # fmt: skip
    run_two_commands(tmp_path, overrides)
    (line,) = read_decisions(tmp_path / "multirun/auto").lines
    assert (line.state, line.verdict, line.seeds[:6]) == ("decided", "supported", (1, 2, 3, 4, 5, 6))


@pytest.mark.soak("takes more than a minute")
@pytest.mark.timeout(1200)
def test_three_commands_an_outage_a_killed_worker_and_restarts(server, commands, tmp_path, monkeypatch, tally):
    folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
    monkeypatch.setenv("PGPASSWORD", server.password)  # for reading the study: sweep.json has no password
    drivers = []
    try:
        drivers += [sweeps.start(command, tmp_path) for command in commands]
        sweeps.wait_until(lambda: held_lease(folder, epochs=2), 180)
        server.pause()
        time.sleep(count(quick=3, full=60))  # the full form is longer than a lease
        assert all(driver.poll() is None for driver in drivers), log.read_text()[-3000:]
        server.resume()
        sweeps.wait_until(lambda: held_lease(folder, epochs=5), 180)
        leases = sweeps.leases(folder)
        assert {leases[number].term for number in leases if number >= 0} == {1}  # no worker counted as dead
        lease = held_lease(folder, epochs=5)
        worker = next(w for w in sweeps.workers(folder) if w.id == lease.owner)
        psutil.Process(worker.identity.pid).kill()
        server.restart()
        sweeps.wait_until(lambda: sweeps.leases(folder)[lease.number].owner not in ("", lease.owner), 180)
        server.restart()
        for driver in drivers:
            if driver.pid != worker.identity.pid:
                assert driver.wait(240) == 0, log.read_text()[-3000:]
    finally:
        for driver in drivers:
            sweeps.kill_group(driver)
        server.resume()
    assert "Traceback" not in log.read_text()
    assert sweeps.states(folder, server.url) == dict.fromkeys(range(len(TRIALS)), "COMPLETE")
    # each epoch of each trial was reported once
    with open_sweep(folder) as study:
        trials = study.backend.get_all_trials(study.registry.study_id)
    assert [sorted(t.intermediate_values) for t in trials] == [list(range(1, EPOCHS + 1))] * len(TRIALS)
    assert sweeps.differing_histories(sweeps.histories(folder), train_alone()) == []
    tally("the database away for a while under a sweep", 1)
    tally("the database restarted under a sweep", 2)

    written = [path for path in [log, *folder.rglob("*")] if path.is_file()]
    assert any(path.suffix == ".pkl" for path in written)
    assert any(path.name == "hydra.yaml" for path in written)
    assert [path for path in written if server.password.encode() in decoded(path.read_bytes())] == []

    status = [sys.executable, "-m", "joyful.sweeper", "status", str(folder), "--json"]
    shown = subprocess.run(status, capture_output=True, text=True, check=True, cwd=sweeps.RUN.parent)
    assert json.loads(shown.stdout)["complete"] == len(TRIALS)


@pytest.mark.soak("waits for RETRY_SECONDS")
@pytest.mark.timeout(1200)
def test_a_long_outage_of_the_database_is_one_line_and_the_sweep_can_be_resumed(server, tmp_path, monkeypatch, tally):
    monkeypatch.setenv("PGPASSWORD", server.password)
    folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
    command = [*sweep_command(), f"hydra.sweeper.storage={server.url}", "hydra.sweeper.study_name=gone"]
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.wait_until(lambda: held_lease(folder, epochs=2), 180)
        server.pause()
        assert driver.wait(2 * RETRY_SECONDS) == 1, log.read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
        server.resume()
    assert "Traceback" not in log.read_text()
    assert "the sweep's database does not answer" in log.read_text()
    done = sweeps.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sweeps.differing_histories(sweeps.histories(folder), train_alone()) == []
    tally("the database gone for good under a sweep", 1)


def test_reading_a_sweep_leaves_no_connection(server, tmp_path, monkeypatch, fork_server):
    monkeypatch.setenv("PGPASSWORD", server.password)
    small_program.write(tmp_path)
    overrides = (
        f"hydra.sweeper.storage={server.url}",
        "hydra.sweeper.trials=['x=0.1']",
        "hydra.sweeper.study_name=looked",
    )
    done = small_program.run(tmp_path, *overrides, server=fork_server)
    assert done.returncode == 0, done.stderr
    engine = open_engine(storage_url(server.url, tmp_path))

    def connections():
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return connection.scalar(sqlalchemy.text(query))

    before = connections()
    gc.disable()  # the garbage collector would close them too
    try:
        for _ in range(10):
            assert sweeps.workers(tmp_path / "multirun/looked") == []
            assert sweeps.states(tmp_path / "multirun/looked", server.url) == {0: "COMPLETE"}
        # the server removes a connection some time after the client has closed it
        sweeps.wait_until(lambda: connections() == before, 10)
    finally:
        gc.enable()
        engine.dispose()


def test_an_unreachable_database_is_one_line(tmp_path, fork_server):
    command = [*sweep_command(), "hydra.sweeper.storage=postgresql://joyful:geheim@127.0.0.1:1/sweeps"]
    done = sweeps.run(command, tmp_path, fork_server)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "joyful: hydra.sweeper.storage: postgresql+psycopg://joyful:***@127.0.0.1:1/sweeps cannot be used"
    )
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("sweep.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("hunter2-of-the-test@", "wrong@"), "password authentication failed"),
        (("/postgres", "/nothing"), 'database "nothing" does not exist'),
        ((":hunter2-of-the-test@", "@"), "no password supplied"),
    ],
)
def test_a_refused_connection_gives_the_reason(server, tmp_path, change, message, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(InputError, match=message) as error:
        open_storage(storage_url(server.url.replace(*change), tmp_path))
    assert server.password not in str(error.value)


def test_a_password_in_the_query_is_hidden(tmp_path):
    url = storage_url("postgresql://joyful@host/sweeps?password=geheim&sslmode=require", tmp_path)
    assert (url.password, dict(url.query)) == ("geheim", {"sslmode": "require"})
    assert "geheim" not in url.render_as_string()
