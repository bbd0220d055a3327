"""Threads that have ended keep no memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Many threads at a time, each of which takes a megabyte in small pieces; tells how many arenas there are then
# besides the first: each begins at a multiple of 64 MB, and what it does not use yet may not be touched.
PROGRAM = """
import ctypes, sys, threading
from pathlib import Path
from supervisor.process.memory import share_arena

if sys.argv[1] == "shared":
    share_arena()
malloc = ctypes.CDLL(None).malloc
meet = threading.Barrier(8)

def take():
    meet.wait()
    for _ in range(1000):
        malloc(1000)
    meet.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ends = [line.split()[:2] for line in Path("/proc/self/maps").read_text().splitlines()]
spans = [([int(end, 16) for end in span.split("-")], access) for span, access in ends]
print(sum(
    access == "rw-p" and begin % (64 << 20) == 0 and then == "---p" and end == next_begin
    for ((begin, end), access), ((next_begin, _), then) in zip(spans, spans[1:])
))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_threads_have_no_memory_of_their_own_once_they_share_it() -> None:
    def arenas(how: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    if arenas("own") == 0:
        pytest.skip("this C library has no arenas")

    assert 0 == arenas("shared")
