"""The sign of life: once a beat, whatever a look meets, until a look or the work ends it."""

import logging
import threading

import pytest

from joyful.sweeper import heartbeat as pulse
from joyful.sweeper.database import open_engine, open_storage, storage_url
from joyful.sweeper.heartbeat import keep_alive
from joyful.sweeper.registry import Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setattr(pulse, "BEAT", 0.001)
    url = storage_url(None, tmp_path)
    open_storage(url)
    return Registry(open_engine(url), 1)


def test_a_look_ends_it_and_failures_in_a_row_are_told_once(registry, caplog):
    me = registry.join("worker", None).id
    answers = iter([False, OSError("away"), OSError("still away"), None, OSError("away again"), "the driver says stop"])

    def look():
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING):
        assert keep_alive(registry, me, threading.Event(), look)
    assert list(answers) == []
    assert registry.member(me).beats == 6
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"no sign of life could be given: {words}" for words in ("away", "away again")]


def test_the_end_of_the_work_ends_it(registry):
    me, done, looks = registry.join("driver").id, threading.Event(), []

    def look():
        looks.append(1)
        if len(looks) == 3:
            done.set()

    assert not keep_alive(registry, me, done, look)
    assert (len(looks), registry.member(me).beats) == (3, 3)
