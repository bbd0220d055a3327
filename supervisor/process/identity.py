"""Which process is meant: a pid alone is used again by the next one.

Owns the identity of processes, pidfds, and what the operating system tells
about a process.  Never signals, waits or reaps.

Linux first: other systems have no pidfds, there ``open_pidfd`` raises OSError
(ENOSYS), and callers look from time to time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from supervisor.core.model import ProcessId

LINUX = sys.platform == "linux"
PROC = Path("/proc")


class Stat(Struct, frozen=True):
    """What is used of ``/proc/PID/stat`` (proc(5))."""

    state: str
    group: int
    start_time: int


def catches(process: ProcessId, signum: int) -> bool:
    """Whether a process has a handler for a signal (proc(5): SigCgt); False where that is not told."""
    try:
        fields = dict(line.split(b":", 1) for line in read_proc(process.pid, "status").splitlines())
        return bool(int(fields[b"SigCgt"], 16) >> (signum - 1) & 1) and is_running(process)
    except (OSError, KeyError, ValueError):
        return False


@functools.cache
def current_boot_id() -> str:
    """What tells this boot of the machine from every other."""
    if LINUX:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=True
        )
        return asked.stdout.strip()
    return sys.platform  # start times are of the calendar there, which tells boots apart too


def identify(pid: int) -> ProcessId:
    """The identity of the process that has this pid now, be it a zombie.

    Raises ProcessLookupError if there is none; the id of a mere thread counts as none.
    """
    stat = read_stat(pid)
    # /proc and kill(2) know the ids of threads too.
    if LINUX and f"\nTgid:\t{pid}\n" not in read_proc(pid, "status").decode(errors="replace"):
        raise gone(pid)
    return ProcessId(pid, stat.start_time, current_boot_id())


def open_pidfd(process: ProcessId) -> int:
    """Open a pidfd of exactly this process, which the caller has to close.

    A zombie can be opened.  Raises ProcessLookupError if the process is gone,
    even if its pid is in use again, and another OSError if the system gives
    no pidfd (ENOSYS where it has none).
    """
    if process.boot_id != current_boot_id():
        raise gone(process.pid)
    if not hasattr(os, "pidfd_open"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        # EINVAL, and ENOENT of newer kernels: a thread's id, or no pid at all
        if error.errno in {errno.ESRCH, errno.EINVAL, errno.ENOENT}:
            raise gone(process.pid) from None
        raise
    # Only now: while the pidfd is open, it means one process, whoever has the pid.
    try:
        if read_stat(process.pid).start_time != process.start_time:
            raise gone(process.pid)
    except BaseException:
        os.close(pidfd)
        raise
    return pidfd


@contextlib.contextmanager
def opened(process: ProcessId) -> Iterator[int]:
    """A pidfd of exactly this process, for so long; raises as ``open_pidfd`` does."""
    pidfd = open_pidfd(process)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def has_ended(pidfd: int) -> bool:
    """Whether the process of a pidfd has ended; a zombie has."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def is_running(process: ProcessId) -> bool:
    """Whether exactly this process exists and has not ended; a zombie has."""
    try:
        with opened(process) as pidfd:
            return not has_ended(pidfd)
    except ProcessLookupError:
        return False
    except OSError:
        return looks_running(process)


def looks_running(process: ProcessId) -> bool:
    """Tell the same without a pidfd; the main thread counts for the process."""
    try:
        stat = read_stat(process.pid)
    except ProcessLookupError:
        return False
    same = stat.start_time == process.start_time and process.boot_id == current_boot_id()
    return same and stat.state not in "ZXx"


def owner_of(process: ProcessId) -> int | None:
    """The user that a process runs as, ``None`` where that is not told.

    -1 if it has more than one: a program that takes on another's rights (setuid) keeps the environment, and
    so a mark, that its caller made.  Not the owner of ``/proc/PID``, which is root for one that may not be
    dumped (proc(5)).
    """
    try:
        status = read_proc(process.pid, "status").decode(errors="replace") if LINUX else ""
    except OSError:
        return None
    uids = next((set(line.split()[1:4]) for line in status.splitlines() if line.startswith("Uid:")), set())
    return int(uids.pop()) if len(uids) == 1 else -1 if uids else None


def gone(pid: int) -> ProcessLookupError:
    """The error to raise for a process that is not there (any more)."""
    return ProcessLookupError(errno.ESRCH, f"process {pid} has ended")


def all_pids() -> Iterator[int]:
    """The pids of all processes, each of which may end at any time."""
    if LINUX:
        return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())
    import psutil

    return iter(psutil.pids())


def children(pid: int) -> set[int]:
    """The children of a process, whichever of its threads started or inherited them (proc(5)); Linux only."""
    found: set[int] = set()
    for task in os.listdir(f"{PROC}/{pid}/task"):  # noqa: PTH208
        try:
            found.update(map(int, read_proc(pid, f"task/{task}/children").split()))
        except OSError:
            continue  # that thread has ended, or this system does not tell
    return found


def read_proc(pid: int, name: str) -> bytes:
    """Read ``/proc/PID/NAME``; raises ProcessLookupError if there is no such process."""
    try:
        # Not by Path, which takes as long as the reading; some look through all processes.
        with open(f"{PROC}/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()
    except (FileNotFoundError, ProcessLookupError):
        raise gone(pid) from None


def read_stat(pid: int) -> Stat:
    """The state, group and start time of a process; raises ProcessLookupError if there is none."""
    if not LINUX:
        return _ask_psutil(pid)
    # The second field is the program's name, which may contain anything.
    fields = read_proc(pid, "stat").rpartition(b")")[2].split()
    return Stat(fields[0].decode(), int(fields[2]), int(fields[19]))


def _ask_psutil(pid: int) -> Stat:
    import psutil

    try:
        process = psutil.Process(pid)
        state = "Z" if process.status() == psutil.STATUS_ZOMBIE else "R"
        group = os.getpgid(pid) if hasattr(os, "getpgid") else 0
        return Stat(state, group, int(process.create_time() * 1_000_000))
    except psutil.NoSuchProcess:
        raise gone(pid) from None
    except psutil.AccessDenied:
        raise PermissionError(errno.EPERM, f"process {pid} is not ours") from None
