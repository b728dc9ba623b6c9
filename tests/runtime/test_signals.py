"""Signals whose exceptions Python ignores, errors after signals, and Ctrl-C while a program loads."""

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
from joyful.runtime.signals import Signalled, resend_ignored_signals

def stop(number, frame):
    raise Signalled(number)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore Ctrl-C
if sys.argv[2] == "insist":
    resend_ignored_signals()
    resend_ignored_signals()

class Thing: pass

def gone(_, kill=os.kill, pid=os.getpid()):
    # a callback of a weak reference: Python only prints exceptions from here
    kill(pid, int(sys.argv[1]))
    for _ in range(1000): pass

thing = Thing()
reference = weakref.ref(thing, gone)
try:
    del thing
    time.sleep(5)
    print("not interrupted")
except Signalled as error:
    print(error, error.code)
except KeyboardInterrupt:
    print("Ctrl-C")
if sys.argv[2] == "insist":
    reference = weakref.ref(gone, lambda _: 1 / 0)
    del gone  # other errors are reported as before
"""


def run_program(number, mode):
    arguments = [sys.executable, "-c", PROGRAM, str(int(number)), mode]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, "SIGTERM 143"), (signal.SIGINT, "Ctrl-C")])
def test_an_ignored_signal_is_sent_again_without_a_traceback(number, expected):
    output, errors = run_program(number, "insist")
    assert output == expected
    assert "ZeroDivisionError" in errors
    assert "Signalled" not in errors
    assert "KeyboardInterrupt" not in errors


@pytest.mark.soak("waits for 5 s and checks the test above")
def test_without_it_the_signal_would_be_lost():
    output, errors = run_program(signal.SIGTERM, "lose")
    assert output == "not interrupted"
    assert "Exception ignored in" in errors


#: Ctrl-C while an extension calls Python: exceptions from `callback` cannot reach the program.
LOADING = """
import ctypes, os, signal, sys
from joyful.runtime.signals import CTRL_C, exit_on_ctrl_c, raise_on_ctrl_c

def press(pid=os.getpid()):
    os.kill(pid, signal.SIGINT)
    for _ in range(1000): pass

ignored = sys.argv[1] == "ignored"
signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
exit_on_ctrl_c()
if sys.argv[1] == "loaded":
    raise_on_ctrl_c()
callback = ctypes.CFUNCTYPE(None)(press)
try:
    press() if sys.argv[1] == "loaded" else callback()
    print("went on")
except KeyboardInterrupt:
    print("Ctrl-C")
raise_on_ctrl_c()
assert (signal.getsignal(signal.SIGINT) is signal.SIG_IGN) == ignored
assert (CTRL_C.raised is not None) == (sys.argv[1] == "loaded")
"""


@pytest.mark.parametrize(
    ("when", "code", "output", "error"),
    [
        ("loading", 130, "", "joyful: interrupted by Ctrl-C before anything began; nothing is lost\n"),
        ("loaded", 0, "Ctrl-C\n", ""),
        ("ignored", 0, "went on\n", ""),  # as in a background job of a shell
    ],
)
def test_ctrl_c_while_a_program_loads_exits_with_one_line(when, code, output, error):
    done = subprocess.run([sys.executable, "-c", LOADING, when], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (code, output, error)


#: Ctrl-C at one of the Python calls that torch's extension makes while it is loaded.
TORCH = """
import os, signal, sys
from joyful.runtime import signals

signal.signal(signal.SIGINT, signal.default_int_handler)
signals.exit_on_ctrl_c()
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


def test_ctrl_c_at_any_call_from_torchs_extension_exits_with_one_line(tally):
    calls = int(load_torch("inf").stdout)
    assert calls > 100
    chance, wrong = random.Random(seed()), []
    moments = [chance.randrange(calls) for _ in range(count(quick=1, full=100))]
    for moment in moments:
        done = load_torch(moment)
        if (done.returncode, done.stdout) != (130, "") or done.stderr.count("\n") != 1:
            wrong.append((moment, done.returncode, done.stderr))
    tally("Ctrl-C while torch is loaded", len(moments), 0, len(wrong))
    assert wrong == []


def interrupted(then=None):
    """Receive a signal and then fail with another error, as OmegaConf does if it is interrupted."""
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(1000):
            pass
    finally:
        raise then or AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'")


def test_an_error_after_a_signal_becomes_the_signal():
    with pytest.raises(AttributeError), RaisingSignals(Signalled, signal.SIGUSR1):
        interrupted()
    with (
        pytest.raises(Signalled, match="SIGUSR1"),
        RaisingSignals(Signalled, signal.SIGUSR1) as signals,
        signals.prefer_signal(),
    ):
        interrupted()


def test_excepted_errors_after_a_signal_are_kept():
    others = pytest.raises(ValueError, match="its own")
    with others, RaisingSignals(Signalled, signal.SIGUSR1) as signals, signals.prefer_signal(ValueError):
        interrupted(ValueError("its own"))


def test_an_error_without_a_signal_is_kept():
    with (
        pytest.raises(ZeroDivisionError),
        RaisingSignals(Signalled, signal.SIGUSR1) as signals,
        signals.prefer_signal(),
    ):
        1 / 0  # noqa: B018


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_ignored_signals_stay_ignored_and_the_previous_handler_is_restored(before):
    original = signal.signal(signal.SIGUSR1, before)
    try:
        with RaisingSignals(Signalled, signal.SIGUSR1) as signals, contextlib.suppress(Signalled):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert (signals.raised is None) == (before is signal.SIG_IGN)
        assert signal.getsignal(signal.SIGUSR1) is before
    finally:
        signal.signal(signal.SIGUSR1, original)


def test_another_thread_installs_no_handlers():
    handlers = []

    def look():
        with RaisingSignals(Signalled, signal.SIGUSR1):
            handlers.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]
