"""One sweep by three commands on one PostgreSQL, which is restarted, while one of them is killed."""

import gc
import json
import subprocess
import sys
import time

import psutil
import pytest
import sqlalchemy

from joyful.records import InputError
from joyful.sweeper.database import PATIENCE, open_engine, open_storage, storage_url
from joyful.sweeper.status import open_sweep
from tests.support import sweeps
from tests.support.faults import count, soaking
from tests.support.launchers import EPOCHS, SEEDS, alone, held, sweep_command
from tests.support.postgresql import Server, programs

pytestmark = [
    pytest.mark.xdist_group("postgresql"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed: apt-get install postgresql"),
]
pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'joyful[sweep]'")


@pytest.fixture(scope="module")
def server():
    server = Server(programs())
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def commands(server):
    """Three ways into one sweep; the last leaves pickles of all that its workers are given."""
    command = [*sweep_command(), f"hydra.sweeper.storage={server.url}", "hydra.sweeper.lease_seconds=5"]
    return [command, command, [*command, "hydra/launcher=submitit_local", "hydra.sweeper.n_jobs=1"]]


def test_three_commands_a_killed_worker_and_a_restarted_database(server, commands, tmp_path, monkeypatch, tally):
    folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
    monkeypatch.setenv("PGPASSWORD", server.password)  # for looking on: sweep.json has no password
    drivers = []
    try:
        drivers += [sweeps.start(command, tmp_path) for command in commands]
        sweeps.until(lambda: held(folder, epochs=2), 180)
        lease = held(folder, epochs=2)
        worker = next(w for w in sweeps.workers(folder) if w.id == lease.owner)
        psutil.Process(worker.identity.pid).kill()
        server.restart()
        sweeps.until(lambda: sweeps.leases(folder)[lease.number].owner not in ("", lease.owner), 180)
        server.restart()
        for driver in drivers:
            if driver.pid != worker.identity.pid:
                assert driver.wait(240) == 0, log.read_text()[-3000:]
    finally:
        for driver in drivers:
            sweeps.kill_group(driver)
    assert sweeps.states(folder, server.url) == dict.fromkeys(range(len(SEEDS)), "COMPLETE")
    # each trial's epochs were reported once, whoever trained them
    with open_sweep(folder) as sweep:
        trials = sweep.access.backend.get_all_trials(sweep.study_id)
    assert [sorted(t.intermediate_values) for t in trials] == [list(range(1, EPOCHS + 1))] * len(SEEDS)
    assert sweeps.unlike(sweeps.histories(folder), alone(tmp_path / "alone")) == []
    tally("the database restarted under a sweep", 2)

    written = [path for path in [log, *folder.rglob("*")] if path.is_file()]
    assert any(path.suffix == ".pkl" for path in written)
    assert any(path.name == "hydra.yaml" for path in written)
    assert [path for path in written if server.password.encode() in path.read_bytes()] == []

    status = [sys.executable, "-m", "joyful.sweeper", "status", str(folder), "--json"]
    shown = subprocess.run(status, capture_output=True, text=True, check=True, cwd=sweeps.RUN.parent)
    assert json.loads(shown.stdout)["complete"] == len(SEEDS)


@pytest.mark.timeout(1200)
def test_a_database_that_is_away_for_a_while_costs_time_and_nothing_else(server, tmp_path, monkeypatch, tally):
    monkeypatch.setenv("PGPASSWORD", server.password)
    folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
    command = [*sweep_command(), f"hydra.sweeper.storage={server.url}", "hydra.sweeper.study_name=away"]
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.until(lambda: held(folder, epochs=2), 180)
        server.pause()
        time.sleep(count(quick=6, full=60))  # (longer than a lease, and than any member's silence)
        assert driver.poll() is None, log.read_text()[-3000:]
        server.resume()
        assert driver.wait(240) == 0, log.read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
        server.resume()
    assert "Traceback" not in log.read_text()
    assert {lease.term for lease in sweeps.leases(folder).values()} == {1}  # nobody was taken for dead
    assert sweeps.unlike(sweeps.histories(folder), alone(tmp_path / "alone")) == []
    tally("the database away for a while under a sweep", 1)


@pytest.mark.skipif(not soaking(), reason="waits as long as the program does: in make soak")
@pytest.mark.timeout(1200)
def test_a_database_that_never_comes_back_is_one_line_and_the_command_goes_on_later(
    server, tmp_path, monkeypatch, tally
):
    monkeypatch.setenv("PGPASSWORD", server.password)
    folder, log = tmp_path / "multirun/launched", tmp_path / "sweep.log"
    command = [*sweep_command(), f"hydra.sweeper.storage={server.url}", "hydra.sweeper.study_name=gone"]
    driver = sweeps.start(command, tmp_path)
    try:
        sweeps.until(lambda: held(folder, epochs=2), 180)
        server.pause()
        assert driver.wait(2 * PATIENCE) == 1, log.read_text()[-3000:]
    finally:
        sweeps.kill_group(driver)
        server.resume()
    assert "Traceback" not in log.read_text()
    assert "the sweep's database does not answer" in log.read_text()
    done = sweeps.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert sweeps.unlike(sweeps.histories(folder), alone(tmp_path / "alone")) == []
    tally("the database gone for good under a sweep", 1)


def test_looking_at_a_sweep_leaves_no_connection(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", server.password)
    command = sweeps.command("looked", "hydra/sweeper=optuna_pruned", f"hydra.sweeper.storage={server.url}",
                             "hydra.sweeper.trials=['seed=1']", epochs=1)  # fmt: skip
    done = sweeps.run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    engine = open_engine(storage_url(server.url, tmp_path))

    def connections():
        with engine.connect() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            return connection.scalar(sqlalchemy.text(query))

    before = connections()
    gc.disable()  # (which would end them too, sooner or later)
    try:
        for _ in range(10):
            assert sweeps.workers(tmp_path / "multirun/looked") == []
            assert sweeps.states(tmp_path / "multirun/looked", server.url) == {0: "COMPLETE"}
        # (the server strikes off a connection some time after its client has gone)
        sweeps.until(lambda: connections() == before, 10)
    finally:
        gc.enable()
        engine.dispose()


def test_an_unreachable_database_is_said_in_one_line(tmp_path):
    command = [*sweep_command(), "hydra.sweeper.storage=postgresql://joyful:geheim@127.0.0.1:1/sweeps"]
    done = sweeps.run(command, tmp_path, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "joyful: hydra.sweeper.storage: postgresql+psycopg://joyful:***@127.0.0.1:1/sweeps cannot be used"
    )
    assert done.stderr.count("\n") == 1
    assert "geheim" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("sweep.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("hunter2-of-the-test@", "wrong@"), "password authentication failed"),
        (("/postgres", "/nothing"), 'database "nothing" does not exist'),
        ((":hunter2-of-the-test@", "@"), "no password supplied"),
    ],
)
def test_a_database_that_refuses_says_why(server, tmp_path, change, said, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(InputError, match=said) as caught:
        open_storage(storage_url(server.url.replace(*change), tmp_path))
    assert server.password not in str(caught.value)


def test_a_password_in_the_query_is_a_password(tmp_path):
    url = storage_url("postgresql://joyful@host/sweeps?password=geheim&sslmode=require", tmp_path)
    assert (url.password, dict(url.query)) == ("geheim", {"sslmode": "require"})
    assert "geheim" not in url.render_as_string()
