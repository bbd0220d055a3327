"""How a process ended, put into the words of the core.

Owns the names of signals, the cause of an exit, and the evidence that the
operating system ran out of memory.  Never waits for a process, never signals
one, and decides nothing about what follows.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from supervisor.core.model import Cause, Exit, ProcessId
from supervisor.wording import signal_name

_CRASHES = frozenset(
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
)
_SIGKILL = 9  # POSIX; the signal module has no such name on Windows


def describe_exit(
    returncode: int | None,
    *,
    oom: bool = False,
    output_tail: Iterable[str] = (),
    detail: str = "",
) -> Exit:
    """Tell why a process ended, from its return code.

    ``returncode`` is as of ``subprocess.Popen``: the exit code, or minus the
    number of the signal that ended it; ``None`` when nobody knows.  ``oom`` is
    the evidence of an ``OomWatch``; it counts for SIGKILL only.
    """
    tail = tuple(output_tail)
    if returncode is None:
        return Exit(Cause.UNKNOWN, output_tail=tail, detail=detail)
    if returncode >= 0:
        return Exit(Cause.EXITED, code=returncode, output_tail=tail, detail=detail)
    return Exit(_cause_of(-returncode, oom), signal=signal_name(-returncode), output_tail=tail, detail=detail)


def _cause_of(signum: int, oom: bool) -> Cause:
    if oom and signum == _SIGKILL:
        return Cause.OOM
    return Cause.CRASHED if signum in _CRASHES else Cause.KILLED


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

        Any other ``returncode`` than that of SIGKILL leaves the evidence for another death.
        """
        if returncode != -_SIGKILL or self._file is None or self._before is None:
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
    if file is None:
        return None
    try:
        words = file.read_text().split()
    except OSError:
        return None
    if "oom_kill" not in words:
        return None
    return int(words[words.index("oom_kill") + 1])
