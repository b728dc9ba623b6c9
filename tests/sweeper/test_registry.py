"""Leases have one holder at a time, and failures are detected without comparing clocks."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading

import pytest
from sqlalchemy import update

from joyful.sweeper import heartbeat, identity, registry
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import FailureDetector
from joyful.sweeper.registry import LeaseLostError, Registry
from tests.support.manual_clock import ManualClock

ELSEWHERE = identity.Identity("another-machine", 1, 1.0)


@pytest.fixture
def table(tmp_path):
    url = storage_url(None, tmp_path)
    open_storage(url)
    return Registry(open_engine(url), 1)


def join(table, role="worker", driver=None, where=None):
    member = table.join(role, driver)
    if where is not None:
        row = registry._members.c
        values = vars(where)
        table.write(update(registry._members).where(row.id == member.id).values(**values))
        member = dataclasses.replace(member, identity=where)
    return member


def test_a_trial_is_claimed_once(table):
    a, b = join(table).id, join(table).id
    first = table.claim(0, a, None)
    assert (first.owner, first.term, first.worker_failures) == (a, 1, 0)
    assert table.claim(0, b, None) is None
    assert table.claim(0, a, None) == first  # repeated after a lost answer: the owner still holds it


def test_one_of_many_concurrent_claims_succeeds(table):
    names = [join(table).id for _ in range(4)]
    won = {name: [] for name in names}

    def work(name):
        for number in range(25):
            if table.claim(number, name, None) is not None:
                won[name].append(number)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for numbers in won.values() for n in numbers) == list(range(25))
    assert {n: lease.owner for n, lease in table.leases().items()} == {
        n: name for name, numbers in won.items() for n in numbers
    }


def test_a_takeover_succeeds_once_and_the_former_owner_may_not_write(table):
    a, b, c = (join(table).id for _ in range(3))
    held = table.claim(0, a, None)
    table.renew(held, epochs=3)
    seen = table.leases()[0]
    new = table.claim(0, b, seen, owner_failed=True)
    assert (new.owner, new.term, new.epochs, new.worker_failures) == (b, 2, 3, 1)
    assert table.claim(0, c, seen, owner_failed=True) is None
    with pytest.raises(LeaseLostError, match="trial 0 was taken over"):
        table.renew(held)
    table.release(0, a)  # no effect: a does not hold it any more
    assert table.leases()[0].owner == b
    table.renew(new)


def test_releasing_a_trial_does_not_count_as_a_failure(table):
    a, b = join(table).id, join(table).id
    table.claim(0, a, None)
    table.leave(a)
    free = table.leases()[0]
    assert free.owner == ""
    assert a not in table.members()
    assert table.claim(0, b, free).worker_failures == 0


def test_failures_in_a_row_are_counted_and_start_again_after_a_whole_epoch(table):
    a = join(table).id
    lease = table.claim(0, a, None)
    for expected in (1, 2):
        lease = table.count_failure(lease)
        assert lease.worker_failures == expected
    table.renew(lease, epochs=1)
    lease = table.count_failure(lease)
    assert lease.worker_failures == 1
    lease = table.count_failure(lease)
    assert lease.worker_failures == 2
    table.reset_failures(0)
    assert (table.leases()[0].worker_failures, table.leases()[0].owner) == (0, "")


def test_a_worker_that_joins_and_claims_between_two_reads_is_a_member(table, monkeypatch):
    original, new = table.read, []

    def read_and_then(statement):
        rows = original(statement)
        if not new:
            new.append(join(table).id)
            table.claim(0, new[0], None)
        return rows

    monkeypatch.setattr(table, "read", read_and_then)
    leases, members = table.leases_and_members()
    assert new
    assert all(lease.owner in members for lease in leases.values())
    assert table.leases()[0].owner in members


def test_stop_reaches_the_workers_of_one_driver(table):
    driver = join(table, "driver")
    mine, other = join(table, driver=driver.id), join(table, driver="other")
    table.stop(driver.id)
    assert table.member(mine.id).stop
    assert not table.member(other.id).stop
    assert table.member("nobody") is None


def test_one_configuration_has_one_trainer(table):
    assert table.claim_configuration("d", 3) == 3
    assert table.claim_configuration("d", 1) == 3
    assert table.claim_configuration("d", 3) == 3
    assert table.replace_failed("d", 3, 1)
    assert not table.replace_failed("d", 3, 2)
    assert table.claim_configuration("d", 2) == 1


def test_an_ended_process_of_this_machine_is_dead_at_once(table):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = identity.Identity(identity.machine(), process.pid, identity._start_time(process.pid))
    member, detector = join(table, where=here), FailureDetector(30)
    detector.observe(table.members())
    assert not detector.is_dead(member)
    process.kill()
    process.wait()
    assert detector.is_dead(member)
    assert detector.is_dead(None)  # it has left


def test_a_reused_process_id_is_another_process():
    me = identity.current_process()
    assert not me.has_ended
    assert dataclasses.replace(me, start_time=me.start_time - 1).has_ended
    assert identity.current_process() == me


def test_a_member_on_another_machine_is_dead_after_lease_seconds_of_observation(table, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(heartbeat, "time", clock)
    member, detector = join(table, where=ELSEWHERE), FailureDetector(10)

    def observe(seconds, beating):
        for _ in range(seconds):
            clock.now += 1
            if beating:
                table.beat(member.id)
            detector.observe(table.members())

    detector.observe(table.members())
    observe(30, beating=True)
    assert not detector.is_dead(member)
    observe(10, beating=False)
    assert not detector.is_dead(member)
    observe(2, beating=False)
    assert detector.is_dead(member)
    observe(1, beating=True)
    assert not detector.is_dead(member)


def test_a_pause_of_the_observer_or_the_database_is_not_a_failure(table, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(heartbeat, "time", clock)
    member, detector = join(table, where=ELSEWHERE), FailureDetector(10)
    detector.observe(table.members())
    clock.now += 3600  # nobody can read or write
    detector.observe(table.members())
    assert not detector.is_dead(member)


def test_stopped_processes_are_detected():
    with subprocess.Popen(["sleep", "60"]) as process:
        other = dataclasses.replace(identity.current_process(), pid=process.pid)
        try:
            assert not other.is_stopped
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert other.is_stopped
            process.send_signal(signal.SIGCONT)
            os.waitid(os.P_PID, process.pid, os.WCONTINUED)
            assert not other.is_stopped
        finally:
            process.kill()
    assert not other.is_stopped


def test_a_worker_that_lost_its_trial_does_not_claim_it_back(table):
    mine = table.claim(0, join(table).id, None)
    other = table.claim(0, join(table).id, mine)
    assert table.is_held(other)
    assert not table.is_held(mine)
    with pytest.raises(LeaseLostError):
        table.count_failure(mine)
    assert table.leases()[0] == other
