"""What processes use: memory, processor, threads, descriptors, of whole process trees.

Owns the measuring, which is done only when somebody asks.  Blocks: with many
large processes for tenths of a second.  Signals and decides nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil
from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.model import ProcessId
from supervisor.process.identity import LINUX, children, is_running

# A share of a core is that since the last measure, if it is not older or younger than this, in seconds.
_OLDEST = 60.0
_YOUNGEST = 0.1
_ASKED = ["cpu_times", "status", "memory_info", "memory_full_info", "num_threads", "num_fds"]


class Usage(Struct, frozen=True):
    """What a process and its descendants use together.

    ``memory`` in bytes: the proportional set size, in which what several share is
    divided among them, where it may be read, else the resident size (``is_exact``
    is False then).  ``cpu_seconds`` of processor time, user and system; ``core``:
    the share of one core at present, 2.0 for two whole ones.  ``children``: how
    many processes there are besides the first.
    """

    memory: int
    is_exact: bool
    cpu_seconds: float
    core: float
    threads: int
    descriptors: int
    children: int


class Meter:
    """Measures again and again: shares of a core are those since the last time.  For one thread at a time."""

    def __init__(self) -> None:
        self._last: dict[ProcessId, tuple[float, float]] = {}

    def measure(self, roots: Iterable[ProcessId]) -> dict[ProcessId, Usage]:
        """The usage of each of these processes that still lives, with its descendants."""
        alive = [root for root in roots if is_running(root)]
        now = time.monotonic()
        if any(not _YOUNGEST <= now - self._last.get(root, (0.0, 0.0))[0] <= _OLDEST for root in alive):
            self._last |= _processor_times(alive)
            time.sleep(_YOUNGEST)
        found = {root: usage for root in alive if (usage := self._of(root, _tree(root))) is not None}
        self._last = {root: last for root, last in self._last.items() if now - last[0] <= _OLDEST}
        self._last |= {root: (time.monotonic(), usage.cpu_seconds) for root, usage in found.items()}
        return found

    def _of(self, root: ProcessId, tree: list[psutil.Process]) -> Usage | None:
        parts = [part for process in tree if (part := _usage(process)) is not None]
        if not parts or not is_running(root):
            return None
        cpu_seconds = sum(part.cpu_seconds for part in parts)
        since, before = self._last.get(root, (time.monotonic(), cpu_seconds))
        passed = time.monotonic() - since
        # Descendants that ended took their time with them: a sum that shrinks is no use of less than nothing.
        core = max(0.0, cpu_seconds - before) / passed if passed > 0 else 0.0
        return replace(
            parts[0],
            memory=sum(part.memory for part in parts),
            is_exact=all(part.is_exact for part in parts),
            cpu_seconds=round(cpu_seconds, 2),
            core=round(core, 3),
            threads=sum(part.threads for part in parts),
            descriptors=sum(part.descriptors for part in parts),
            children=len(parts) - 1,
        )


def _processor_times(roots: Iterable[ProcessId]) -> dict[ProcessId, tuple[float, float]]:
    found = {}
    for root in roots:
        times = [spent for process in _tree(root) if (spent := _spent(process)) is not None]
        found[root] = (time.monotonic(), sum(times))
    return found


def _tree(root: ProcessId) -> list[psutil.Process]:
    """A process with its descendants."""
    tree: list[psutil.Process] = []
    pids = [root.pid]
    for pid in pids:  # which grow meanwhile
        with suppress(psutil.Error, OSError):
            tree.append(psutil.Process(pid))
            pids += _below(pid)
    return tree


def _below(pid: int) -> Iterable[int]:
    """The children of a process, of which psutil tells by a look at all processes of the machine."""
    return children(pid) if LINUX else [child.pid for child in psutil.Process(pid).children()]


def _spent(process: psutil.Process) -> float | None:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _usage(process: psutil.Process) -> Usage | None:
    """What one process uses, ``None`` if it has ended."""
    try:
        told = process.as_dict(_ASKED)  # None for what may not be read, as of another user
    except psutil.Error:
        return None
    spent, resident = told["cpu_times"], told["memory_info"]
    if spent is None or resident is None or told["status"] == psutil.STATUS_ZOMBIE:
        return None
    shared = getattr(told["memory_full_info"], "pss", None)  # not on every system
    memory, cpu_seconds = int(resident.rss if shared is None else shared), float(spent.user + spent.system)
    threads, descriptors = told["num_threads"] or 0, told.get("num_fds") or 0
    return Usage(memory, shared is not None, cpu_seconds, 0.0, threads, descriptors, 0)
