"""Freed memory is kept and used again, without new pages from the kernel."""

import json
import os
import platform
import subprocess
import sys

import pytest

from joyful.runtime.heap import VARIABLE, training_environment

#: Allocates and frees tensors of 40 MB as a training step does; prints the fewest page faults of the last rounds.
PROGRAM = """
import resource, sys
import torch
from joyful.runtime.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(10_000_000) for _ in range(5)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for _ in range(12):  # the heap settles after some rounds
    round()
print(min(round() for _ in range(4)))
"""


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can keep freed memory")


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@glibc
@pytest.mark.soak("takes 5 s; the next test shows the same setting")
def test_freed_memory_is_used_again():
    # a round writes to 200 MB, which are 48,800 pages of 4 KiB
    assert faults("give back") > 10_000
    assert faults("keep") < 1_000


#: Prints the bytes that the heap counts as free again after five of 1,000 small pieces were freed, none of them adjacent.
SLIVERS = """
import ctypes
from joyful.runtime.heap import keep_freed_memory
keep_freed_memory()
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "a b c d e f g used free h".split()]
libc = ctypes.CDLL(None)
libc.mallinfo2.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
pieces = [libc.malloc(size) for size in (40, 56, 72, 88, 104) * 200]
before = libc.mallinfo2().used
for piece in pieces[:10:2]:
    libc.free(piece)
print(before - libc.mallinfo2().used)
"""


@glibc
@pytest.mark.skipif(
    tuple(map(int, platform.libc_ver()[1].split(".")[:2])) < (2, 33), reason="mallinfo2 needs glibc 2.33"
)
def test_small_freed_pieces_can_be_merged():
    def freed(variables):
        base = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
        done = subprocess.run([sys.executable, "-c", SLIVERS], capture_output=True, text=True, check=True, env=base)
        return int(done.stdout)

    assert freed({}) <= 0  # the per-thread cache keeps them, so they cannot be merged
    assert freed(training_environment({})) >= 40 + 72 + 104 + 56 + 88


def test_the_training_environment_keeps_the_settings_of_the_user():
    assert training_environment({"A": "b"}) == {"A": "b", VARIABLE: "glibc.malloc.tcache_count=0"}
    other = {VARIABLE: "glibc.malloc.arena_max=1"}
    assert training_environment(other) == {VARIABLE: "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0"}
    own = {VARIABLE: "glibc.malloc.tcache_count=5"}
    assert training_environment(own) == own
    assert training_environment(training_environment(other)) == training_environment(other)


STARTS = """
import json, os, sys
print(json.dumps("started"), flush=True)
from joyful.runtime import heap
heap.restart_with_heap_settings()
print(json.dumps([sys.argv, os.getpid(), os.environ.get("GLIBC_TUNABLES")]))
"""


#: Starts the program as a debugger or a test runner does.
FROM_ANOTHER = ["-c", "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"]

#: Ways to start the program: arguments before and after its path, and how often it starts.
WAYS = {
    "plain": ([], ["a b", "--c='d'"], 2),
    "with an option": (["-X", "dev"], ["a b"], 1),
    "from another": (FROM_ANOTHER, ["a b"], 1),
    "only printing": ([], ["--cfg", "job"], 1),
}


@glibc
@pytest.mark.parametrize("way", WAYS)
def test_a_program_restarts_once_if_it_was_started_directly(way, tmp_path):
    before, after, starts = WAYS[way]
    arguments = [str(tmp_path / "program.py"), *after]
    (tmp_path / "program.py").write_text(STARTS, encoding="utf-8")
    base = {name: value for name, value in os.environ.items() if name != VARIABLE}
    process = subprocess.Popen([sys.executable, *before, *arguments], stdout=subprocess.PIPE, text=True, env=base)
    *started, result = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 0
    assert started == ["started"] * starts
    # the process and its arguments are the same; its children inherit the environment
    assert result == [arguments, process.pid, training_environment({})[VARIABLE] if starts == 2 else None]
