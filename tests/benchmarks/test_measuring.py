"""Contenders run in turn, and a process reports its own memory."""

import mmap
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.measuring import (
    ROOT,
    RemoteContender,
    in_turn,
    peak_memory_gib,
    reset_peak_memory,
    run_module,
    seconds_of,
)

PEAK = "from benchmarks.measuring import peak_memory_gib; print(peak_memory_gib())"


def test_contenders_take_turns():
    calls = []

    def contender(name):
        return lambda: calls.append(name) or float(len(calls))

    measured = in_turn({name: contender(name) for name in "abc"}, {"a": 4, "b": 2, "c": 4})
    assert "".join(calls) == "ac" + "abc" + "ac" + "abc"
    assert {name: len(values) for name, values in measured.items()} == {"a": 4, "b": 2, "c": 4}
    assert measured["b"] == [4.0, 9.0]


def test_seconds_are_those_of_the_call():
    assert 0 <= seconds_of(lambda: None) < seconds_of(lambda: sum(range(3_000_000)))


def test_a_child_does_not_report_its_parents_peak():
    ballast = np.ones(60_000_000)  # 0.45 GiB
    assert peak_memory_gib() > 0.44
    child = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0 < float(child.stdout) < 0.2
    assert ballast.sum() > 0


def test_the_peak_can_be_reset():
    ballast = mmap.mmap(-1, 480_000_000)  # not from the heap, which might keep freed memory
    np.frombuffer(ballast, np.float64)[:] = 1.0
    high = peak_memory_gib()
    ballast.close()
    now = reset_peak_memory()
    if now == high:
        pytest.skip("this system does not let a process reset its peak")
    assert now < high - 0.4
    assert peak_memory_gib() == pytest.approx(now, abs=0.05)


def test_a_failing_process_is_an_error():
    with pytest.raises(subprocess.CalledProcessError):
        run_module("benchmarks.nothing_of_this_name", [])


def test_a_remote_contender_measures_in_a_separate_process(tmp_path, monkeypatch):
    (tmp_path / "contender_of_the_test.py").write_text(
        "import sys, numpy\n"
        "from benchmarks.measuring import serve\n"
        "calls, ballast = [], numpy.ones(30_000_000)\n"
        "def measure():\n"
        "    print('it prints too')\n"
        "    if len(calls) == 2: sys.exit(3)\n"
        "    return calls.append(0) or len(calls) / 4\n"
        "serve(measure)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with RemoteContender("contender_of_the_test", []) as contender:
        assert [contender(), contender()] == [0.25, 0.5]
        assert 0.22 < contender.peak_memory_gib() < 0.5
        with pytest.raises(subprocess.CalledProcessError):
            contender()
