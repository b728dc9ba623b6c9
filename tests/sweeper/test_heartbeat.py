"""Heartbeats continue after failures, until the check or the end of the work ends them."""

import logging
import threading

import pytest

from joyful.sweeper import heartbeat
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import heartbeats
from joyful.sweeper.registry import Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.001)
    url = storage_url(None, tmp_path)
    open_storage(url)
    return Registry(open_engine(url), 1)


def test_the_check_ends_it_and_only_the_first_of_several_failures_is_logged(registry, caplog):
    me = registry.join("worker", None).id
    answers = iter([False, OSError("away"), OSError("still away"), None, OSError("away again"), "the driver says stop"])

    def check():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING), heartbeats(registry, me, threading.Event(), check) as thread:
        thread.join(60)
    assert list(answers) == []
    assert registry.member(me).beats == 6
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["heartbeat failed: away", "heartbeat failed: away again"]


def test_the_end_of_the_work_ends_it(registry):
    me, done, calls = registry.join("driver").id, threading.Event(), []

    def check():
        calls.append(1)
        if len(calls) == 3:
            done.set()

    with heartbeats(registry, me, done, check) as thread:
        thread.join(60)
    assert (len(calls), registry.member(me).beats) == (3, 3)
