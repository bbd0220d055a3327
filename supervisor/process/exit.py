"""The end of a process: the wait for it, its status, and its cause in the words of the core.

Owns the wait for a pidfd, the wait status of strangers, the cause of an exit,
and the evidence that the operating system ran out of memory.  Never signals a
process, never reaps a child, and decides nothing about what follows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from supervisor.core.model import Cause, Exit, ProcessId
from supervisor.process.identity import LINUX, PROC, has_ended, read_proc
from supervisor.wording import signal_name

# linux/pidfd.h: struct pidfd_info begins with the mask (u64) and ends, in its
# first version of 64 bytes, with the exit code (s32).
_PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info)
_PIDFD_INFO_EXIT = 1 << 3
_PIDFD_INFO = struct.Struct("=Q52xi")

_CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
_SIGKILL = 9  # POSIX; the signal module has no such name on Windows


def describe_exit(returncode: int | None, *, oom: bool = False, output_tail: Iterable[str] = ()) -> Exit:
    """Tell why a process ended, from its return code.

    ``returncode`` is as of ``subprocess.Popen``: the exit code, or minus the
    number of the signal that ended it; ``None`` when nobody knows.  ``oom`` is
    the evidence of an ``OomWatch``; it counts for SIGKILL, and where nobody knows.
    """
    tail = tuple(output_tail)
    if returncode is None:
        return Exit(Cause.OOM if oom else Cause.UNKNOWN, output_tail=tail)
    if returncode >= 0:
        return Exit(Cause.EXITED, code=returncode, output_tail=tail)
    return Exit(_cause_of(-returncode, oom), signal=signal_name(-returncode), output_tail=tail)


def _cause_of(signum: int, oom: bool) -> Cause:
    if oom and signum == _SIGKILL:
        return Cause.OOM
    return Cause.CRASHED if signum in _CRASHES else Cause.KILLED


async def wait_exit(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended; any number of tasks may, at a time.

    The pidfd may be closed meanwhile.  Uses no thread.
    """
    if has_ended(pidfd):
        return
    own = os.dup(pidfd)  # a loop has one reader for a descriptor
    try:
        await wait_exit_alone(own)
    finally:
        os.close(own)


async def wait_exit_alone(pidfd: int) -> None:
    """The same for the one task that may, which keeps the pidfd open: no further descriptor is needed."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)


def stranger_wait_status(pidfd: int) -> int | None:
    """The return code of a process that has ended and was reaped, whoever its parent is.

    In the form of ``Popen.returncode``.  ``None`` if it is not known: not
    ended, not reaped yet, or Linux before 6.15.
    """
    told, returncode = _ask_exit(pidfd)
    return returncode if told else None


async def stranger_returncode(pidfd: int, patience: float = 2.0) -> int | None:
    """The same for a process that has ended, waiting up to ``patience`` seconds for its parent to reap it."""
    deadline = time.monotonic() + patience
    pause = 0.001
    while True:
        told, returncode = _ask_exit(pidfd)
        if told or time.monotonic() >= deadline:
            return returncode
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.05)


def _ask_exit(pidfd: int) -> tuple[bool, int | None]:
    """Whether this is all that will ever be told, and the return code."""
    if not LINUX:
        return True, None
    import fcntl

    if (status := _zombie_status(pidfd)) is not None:
        return True, os.waitstatus_to_exitcode(status)
    try:
        answer = fcntl.ioctl(pidfd, _PIDFD_GET_INFO, _PIDFD_INFO.pack(_PIDFD_INFO_EXIT, 0))
    except OSError:  # ENOTTY before Linux 6.13, ESRCH before 6.15
        return True, None
    mask, status = _PIDFD_INFO.unpack(answer)
    if not mask & _PIDFD_INFO_EXIT:
        return False, None
    return True, os.waitstatus_to_exitcode(status)


def _zombie_status(pidfd: int) -> int | None:
    """The wait status of a process that its parent has not reaped yet (proc(5): field 52 of ``stat``).

    Shown to whoever may trace the process: its own user, if with no fewer
    capabilities.  To others it is 0, so they are not told.
    """
    try:
        pid = _pid_of(pidfd)
        if (PROC / str(pid)).stat().st_uid not in (os.geteuid(), os.getuid()) and os.geteuid() != 0:
            return None
        fields = read_proc(pid, "stat").rpartition(b")")[2].split()
        # Still the same, so what was read in between was about it and not about the pid's next owner.
        if fields[0] != b"Z" or _pid_of(pidfd) != pid:
            return None
    except (OSError, ValueError, IndexError):
        return None
    return int(fields[49])


def _pid_of(pidfd: int) -> int:
    """The pid that a pidfd stands for, -1 once it is reaped (pidfd_open(2))."""
    for line in (PROC / "self/fdinfo" / str(pidfd)).read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ProcessLookupError


class OomWatch:
    """Evidence that the kernel's OOM killer struck one process.

    Remembers at the begin how many processes of its cgroup the OOM killer has
    ended, and compares after its death (``oom_kill`` in ``memory.events.local``,
    or in ``memory.oom_control`` with cgroups of version 1).  Several kernels
    share a cgroup, so each count serves as evidence for one death only.  Where
    there is no such file, there is no evidence.
    """

    def __init__(
        self,
        process: ProcessId,
        *,
        cgroups: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
    ) -> None:
        self._file = _oom_file(process.pid, cgroups, proc)
        self._before = _oom_kills(self._file)

    def renew(self, is_alive: Callable[[], bool]) -> None:
        """Compare with the present count from now on, if the process is alive.

        A child of the kernel that the OOM killer ended days ago is then no
        evidence when somebody kills the kernel by hand today.
        """
        present = _oom_kills(self._file)
        # Asked afterwards: else a kill in between would be taken for one that it has survived.
        if is_alive():
            self._before = present

    def struck(self, returncode: int | None = -_SIGKILL) -> bool:
        """Whether this death was the OOM killer's doing; to be asked once, after the death.

        Any other ``returncode`` than that of SIGKILL leaves the evidence for another death; one that
        nobody knows (``None``: an adopted process, before Linux 6.15) may have been SIGKILL.
        """
        if returncode not in (-_SIGKILL, None) or self._file is None or self._before is None:
            return False
        kills = _oom_kills(self._file)
        explained = max(self._before, _explained.get(self._file, 0))
        if kills is None or kills <= explained:
            return False
        _explained[self._file] = explained + 1
        return True


_explained: dict[Path, int] = {}  # per counter file: kills that already explain a death


def _oom_file(pid: int, cgroups: Path, proc: Path) -> Path | None:
    """The nearest file with an OOM count at or above the cgroup of a process (cgroups(7))."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    rows = (line.split(":", 2) for line in lines)  # hierarchy:controllers:path
    places = {tuple(row[1].split(",")): row[2] for row in rows if len(row) == 3}
    for controllers, path in places.items():
        if "memory" in controllers:
            return _nearest(cgroups / "memory", path, ("memory.oom_control",))
    if (unified := places.get(("",))) is None:
        return None
    names = ("memory.events.local", "memory.events")
    return _nearest(cgroups / "unified", unified, names) or _nearest(cgroups, unified, names)


def _nearest(root: Path, path: str, names: tuple[str, ...]) -> Path | None:
    """The memory controller may be off in the cgroup itself; an ancestor then counts for it."""
    below = PurePosixPath(path.lstrip("/"))
    if ".." in below.parts:  # outside of our cgroup namespace
        return None
    for directory in (below, *below.parents):
        for name in names:
            if (file := root / directory / name).is_file():
                return file
    return None


def _oom_kills(file: Path | None) -> int | None:
    try:
        words = file.read_text().split() if file is not None else []
    except OSError:
        words = []
    return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else None
