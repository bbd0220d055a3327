"""What the operating system tells of processes: who is whose child, what they cost, what is left.

Owns every look into ``/proc``.  Linux only.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

MARK = "KERNELS_BENCHMARK"
PROC = Path("/proc")


class Late(Exception):
    """A condition did not come true in time."""


def wait_until(condition: Callable[[], object], timeout: float, what: str, pause: float = 0.001) -> float:
    """Seconds until ``condition`` was true.  Raises Late."""
    begin = time.perf_counter()
    while not condition():
        if time.perf_counter() - begin > timeout:
            raise Late(f"{what}: not within {timeout:g} s")
        time.sleep(pause)
    return time.perf_counter() - begin


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none of one that is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def children(pid: int) -> list[int]:
    """The children of a process, whichever of its threads started them."""
    found: list[int] = []
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def resident(pid: int) -> float:
    """Resident memory in MB (10^6 bytes), as VmRSS has it."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024 / 1e6


def proportional(pid: int) -> float:
    """The same, where a page that n processes share counts for an n-th (Pss)."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def processor_time(pid: int) -> float:
    """Seconds of processor time of all threads of a process, ended ones too, to the nanosecond.

    The clock of another process: MAKE_PROCESS_CPUCLOCK of linux/posix-timers.h, as
    clock_getcpuclockid(3) has it.
    """
    return time.clock_gettime((~pid << 3) | 2)


def wakeups(pid: int) -> int:
    """How often the threads of a process have slept until something woke them (proc(5), of each thread)."""
    found = 0
    for task in (PROC / str(pid) / "task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        found += next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
    return found


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list((PROC / str(pid) / "task").iterdir()))


def kill_marked(mark: str) -> int:
    """Kill, each by its pid, whatever of this benchmark still runs; how many there were."""
    wanted = f"{MARK}={mark}".encode()
    count = 0
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
                count += 1
        except OSError:
            continue
    return count
