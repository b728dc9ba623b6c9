"""Contenders take turns, and a process reports its own memory."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.measuring import ROOT, forget_peak_memory, in_a_process, in_turn, peak_memory_gib, seconds_of

PEAK = "from benchmarks.measuring import peak_memory_gib; print(peak_memory_gib())"


def test_contenders_take_turns():
    calls = []

    def contender(name):
        return lambda: calls.append(name) or float(len(calls))

    measured = in_turn({name: contender(name) for name in "abc"}, {"a": 4, "b": 2, "c": 4})
    assert "".join(calls) == "ac" + "abc" + "ac" + "abc"
    assert {name: len(found) for name, found in measured.items()} == {"a": 4, "b": 2, "c": 4}
    assert measured["b"] == [4.0, 9.0]


def test_seconds_are_those_of_the_call():
    assert 0 <= seconds_of(lambda: None) < seconds_of(lambda: sum(range(3_000_000)))


def test_a_child_does_not_report_its_parents_peak():
    ballast = np.ones(60_000_000)  # 0.45 GiB
    assert peak_memory_gib() > 0.44
    child = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < float(child.stdout) < 0.2
    assert ballast.sum() > 0


def test_the_peak_can_begin_anew():
    ballast = np.ones(60_000_000)
    assert ballast.sum() > 0
    high = peak_memory_gib()
    del ballast
    now = forget_peak_memory()
    if now == high:
        pytest.skip("this system does not let a process forget its peak")
    assert now < high - 0.4
    assert peak_memory_gib() == pytest.approx(now, abs=0.05)


def test_a_failing_process_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        in_a_process("benchmarks.nothing_of_this_name", [])
