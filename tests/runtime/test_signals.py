"""A signal that comes while Python can only ignore what its handler raises, and Ctrl-C while a program loads."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

from joyful.runtime.signals import RaisingSignals, Signalled
from tests.support.faults import count, seed

PROGRAM = """
import os, signal, sys, time, weakref
from joyful.runtime.signals import Signalled, insist_on_signals

def stop(number, frame):
    raise Signalled(number)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.default_int_handler)  # (a shell's job in the background ignores Ctrl-C, and so do its tests)
if sys.argv[2] == "insist":
    insist_on_signals()
    insist_on_signals()

class Thing: pass

def gone(_, kill=os.kill, pid=os.getpid()):
    # a callback of a weak reference: what is raised here is only printed
    kill(pid, int(sys.argv[1]))
    for _ in range(1000): pass

thing = Thing()
reference = weakref.ref(thing, gone)
try:
    del thing
    time.sleep(5)
    print("slept on")
except Signalled as error:
    print(error, error.code)
except KeyboardInterrupt:
    print("Ctrl-C")
if sys.argv[2] == "insist":
    reference = weakref.ref(gone, lambda _: 1 / 0)
    del gone  # what is no signal is told as ever
"""


def answer(number, how):
    arguments = [sys.executable, "-c", PROGRAM, str(int(number)), how]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(("number", "said"), [(signal.SIGTERM, "SIGTERM 143"), (signal.SIGINT, "Ctrl-C")])
def test_it_comes_again_and_no_traceback_is_shown(number, said):
    told, errors = answer(number, "insist")
    assert told == said
    assert "ZeroDivisionError" in errors
    assert "Signalled" not in errors
    assert "KeyboardInterrupt" not in errors


def test_without_it_the_signal_would_be_lost():
    told, errors = answer(signal.SIGTERM, "lose")
    assert told == "slept on"
    assert "Exception ignored in" in errors


#: Ctrl-C while an extension calls Python: `callback` is such a call, and what it raises cannot reach the program.
LOADING = """
import ctypes, os, signal, sys
from joyful.runtime.signals import CTRL_C, leave_at_ctrl_c, raise_at_ctrl_c

def press(pid=os.getpid()):
    os.kill(pid, signal.SIGINT)
    for _ in range(1000): pass

ignored = sys.argv[1] == "ignored"
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
leave_at_ctrl_c()
if sys.argv[1] == "loaded":
    raise_at_ctrl_c()
callback = ctypes.CFUNCTYPE(None)(press)
try:
    press() if sys.argv[1] == "loaded" else callback()
    print("went on")
except KeyboardInterrupt:
    print("Ctrl-C")
raise_at_ctrl_c()
assert (signal.getsignal(signal.SIGINT) is signal.SIG_IGN) == ignored
assert (CTRL_C.raised is not None) == (sys.argv[1] == "loaded")
"""


@pytest.mark.parametrize(
    ("when", "code", "said", "error"),
    [
        ("loading", 130, "", "joyful: interrupted by Ctrl-C before anything began; nothing is lost\n"),
        ("loaded", 0, "Ctrl-C\n", ""),
        ("ignored", 0, "went on\n", ""),  # a shell's job in the background ignores Ctrl-C
    ],
)
def test_while_a_program_loads_ctrl_c_ends_it_in_one_line(when, code, said, error):
    done = subprocess.run([sys.executable, "-c", LOADING, when], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (code, said, error)


#: Ctrl-C at one Python call among those that torch's extension makes while it is loaded.
TORCH = """
import os, signal, sys
from joyful.runtime import signals

signal.signal(signal.SIGINT, signal.default_int_handler)
signals.leave_at_ctrl_c()
inside, calls, wanted = [], 0, float(sys.argv[1])

def profile(frame, event, called):
    global calls
    if event == "c_call":
        inside.append((getattr(called, "__module__", None) or "").startswith("torch._C"))
    elif event in ("c_return", "c_exception", "return") and inside:
        inside.pop()
    elif event == "call":
        calls += any(inside)
        if calls > wanted:
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)
            return
        inside.append(False)

sys.setprofile(profile)
import torch
sys.setprofile(None)
print(calls)
"""


def load_torch(call):
    return subprocess.run([sys.executable, "-c", TORCH, str(call)], capture_output=True, text=True, timeout=120)


def test_so_it_does_at_every_call_of_python_by_torchs_extension(tally):
    calls = int(load_torch("inf").stdout)
    assert calls > 100
    chance, wrong = random.Random(seed()), []
    moments = [chance.randrange(calls) for _ in range(count(quick=3, full=100))]
    for moment in moments:
        done = load_torch(moment)
        if (done.returncode, done.stdout) != (130, "") or done.stderr.count("\n") != 1:
            wrong.append((moment, done.returncode, done.stderr))
    tally("Ctrl-C while torch is loaded", len(moments), 0, len(wrong))
    assert wrong == []


def interrupted(then=None):
    """Gets a signal, and fails as it tidies up, as OmegaConf does where it is interrupted while it makes a node."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):
            pass
    finally:
        raise then or AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'")


def test_an_error_after_a_signal_is_the_signals():
    with pytest.raises(AttributeError), RaisingSignals(Signalled, signal.SIGUSR1):
        interrupted()
    with (
        pytest.raises(Signalled, match="SIGUSR1"),
        RaisingSignals(Signalled, signal.SIGUSR1) as signals,
        signals.kept(),
    ):
        interrupted()


def test_but_for_errors_that_are_none_of_its_doing():
    others = pytest.raises(ValueError, match="its own")
    with others, RaisingSignals(Signalled, signal.SIGUSR1) as signals, signals.kept(ValueError):
        interrupted(ValueError("its own"))


def test_an_error_without_a_signal_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), RaisingSignals(Signalled, signal.SIGUSR1) as signals, signals.kept():
        1 / 0  # noqa: B018


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_ignored_stays_ignored_and_the_handler_before_comes_back(before):
    original = signal.signal(signal.SIGUSR1, before)
    try:
        with RaisingSignals(Signalled, signal.SIGUSR1) as signals, contextlib.suppress(Signalled):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert (signals.raised is None) == (before is signal.SIG_IGN)
        assert signal.getsignal(signal.SIGUSR1) is before
    finally:
        signal.signal(signal.SIGUSR1, original)


def test_in_another_thread_signals_are_nobodys():
    found = []

    def look():
        with RaisingSignals(Signalled, signal.SIGUSR1):
            found.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
