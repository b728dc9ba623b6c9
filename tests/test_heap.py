"""What a step frees, the next one gets without the kernel clearing it anew."""

import platform
import subprocess
import sys

import pytest

#: Tensors of 40 MB, freed in turn as a step does; prints the fewest page faults of the last rounds.
PROGRAM = """
import resource, sys
import torch
from joyful.heap import keep_freed_memory
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


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told to keep what is freed")
def test_freed_memory_is_used_again():
    # (a round writes to 200 MB, which are 48,800 pages of 4 KiB)
    assert faults("give back") > 10_000
    assert faults("keep") < 1_000
