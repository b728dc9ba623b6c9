"""What a step frees, the next one gets without the kernel clearing it anew."""

import json
import os
import platform
import subprocess
import sys

import pytest

from joyful.runtime.heap import VARIABLE, environment

#: Tensors of 40 MB, freed in turn as a step does; prints the fewest page faults of the last rounds.
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
for _ in range(12):  # (the heap finds its shape in some rounds)
    round()
print(min(round() for _ in range(4)))
"""


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep what is freed")


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@glibc
def test_freed_memory_is_used_again():
    # (a round writes to 200 MB, which are 48,800 pages of 4 KiB)
    assert faults("give back") > 10_000
    assert faults("keep") < 1_000


#: Bytes that the heap counts as free again after five small pieces of 1,000 were freed, none beside another.
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
    tuple(map(int, platform.libc_ver()[1].split(".")[:2])) < (2, 33), reason="mallinfo2 is of glibc 2.33"
)
def test_small_pieces_that_are_freed_are_free():
    def freed(variables):
        given = {name: value for name, value in os.environ.items() if name != VARIABLE} | variables
        done = subprocess.run([sys.executable, "-c", SLIVERS], capture_output=True, text=True, check=True, env=given)
        return int(done.stdout)

    assert freed({}) <= 0  # the per-thread cache keeps them: nothing can be put together with them
    assert freed(environment({})) >= 40 + 72 + 104 + 56 + 88


def test_the_environment_of_a_training_keeps_what_the_user_set():
    assert environment({"A": "b"}) == {"A": "b", VARIABLE: "glibc.malloc.tcache_count=0"}
    other = {VARIABLE: "glibc.malloc.arena_max=1"}
    assert environment(other) == {VARIABLE: "glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0"}
    theirs = {VARIABLE: "glibc.malloc.tcache_count=5"}
    assert environment(theirs) == theirs
    assert environment(environment(other)) == environment(other)


STARTS = """
import json, os, sys
print(json.dumps("begun"), flush=True)
from joyful.runtime import heap
heap.start_over()
print(json.dumps([sys.argv, os.getpid(), os.environ.get("GLIBC_TUNABLES")]))
"""


#: (as a debugger or a runner of tests does)
FROM_ANOTHER = ["-c", "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"]

#: Ways to start it: what stands before and behind its path, and how often it begins.
WAYS = {
    "plain": ([], ["a b", "--c='d'"], 2),
    "with an option": (["-X", "dev"], ["a b"], 1),
    "from another": (FROM_ANOTHER, ["a b"], 1),
    "only to look": ([], ["--cfg", "job"], 1),
}


@glibc
@pytest.mark.parametrize("way", WAYS)
def test_a_program_starts_over_once_unless_something_stands_before_it(way, tmp_path):
    before, behind, begins = WAYS[way]
    arguments = [str(tmp_path / "program.py"), *behind]
    (tmp_path / "program.py").write_text(STARTS, encoding="utf-8")
    given = {name: value for name, value in os.environ.items() if name != VARIABLE}
    process = subprocess.Popen([sys.executable, *before, *arguments], stdout=subprocess.PIPE, text=True, env=given)
    *begun, told = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 0
    assert begun == ["begun"] * begins
    # the same process and arguments; its children will be in that environment too
    assert told == [arguments, process.pid, environment({})[VARIABLE] if begins == 2 else None]
