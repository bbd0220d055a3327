"""What real processes use."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.process.identity import identify
from supervisor.process.usage import Meter
from tests.waiting import wait_for

MEGABYTE = 1_000_000
# It tells when it is what it is to be, and ends with its stdin.
PROGRAM = """
import subprocess, sys, threading
size, children, spins = map(int, sys.argv[1:])
memory = bytearray(size)
memory[::4096] = b"x" * len(memory[::4096])
below = [
    subprocess.Popen([sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
                     stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(children)
]
for child in below:
    child.stdout.readline()
def spin():
    while True:
        pass
if spins:
    threading.Thread(target=spin, daemon=True).start()
print("there", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(size: int = 0, children: int = 0, spins: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", PROGRAM, str(size), str(children), str(spins)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_memory_threads_and_descriptors_are_those_of_the_whole_tree() -> None:
    with running() as small, running(size=80 * MEGABYTE, children=2) as large:
        one, other = identify(small.pid), identify(large.pid)

        found = Meter().measure([one, other])

        assert found[other].memory > found[one].memory + 80 * MEGABYTE
        assert (0, 2) == (found[one].children, found[other].children)
        assert found[other].threads >= 3 > found[one].threads
        assert found[other].descriptors > found[one].descriptors > 2
        assert found[one].is_exact


def test_a_share_of_a_core_is_of_the_present() -> None:
    with running() as idle, running(spins=1) as busy:
        one, other = identify(idle.pid), identify(busy.pid)
        meter = Meter()

        def is_told() -> bool:
            found = meter.measure([one, other])
            return found[other].core > found[one].core and found[other].cpu_seconds > 0

        for _ in range(2):
            wait_for(is_told)  # on a busy machine it may have had no turn since


def test_what_has_ended_uses_nothing_whoever_has_its_pid() -> None:
    with running() as process:
        identity = identify(process.pid)

    assert {} == Meter().measure([identity])
