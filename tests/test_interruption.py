"""A signal that comes while Python can only ignore what its handler raises."""

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, time, weakref
from joyful.interruption import Signalled, insist_on_signals

def stop(number, frame):
    raise Signalled(number)

signal.signal(signal.SIGTERM, stop)
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
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
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
