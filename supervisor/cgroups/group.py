"""The cgroup of one run: who is in it, what it used, its limits, its end.

The rules are those of cgroups(7) and of the kernel's ``cgroup-v2.rst``.  Its files are the
kernel's own and answer at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from msgspec import Struct

from supervisor.settings.config import LimitsConfig
from supervisor.wording import amount

# How long the end of all that was killed is awaited, and how often it is looked at, in seconds.
END_PATIENCE = 2.0
LOOK_INTERVAL = 0.005
CPU_PERIOD = 100_000
"""Microseconds, as the kernel has it by default."""


class Memory(Struct, frozen=True):
    """What a cgroup used of its memory, in bytes; ``None`` where that is not counted, or has no limit."""

    peak: int | None = None
    limit: int | None = None

    def __str__(self) -> str:
        parts = [("peak", self.peak), ("limit", self.limit)]
        return ", ".join(f"{name} {amount(count)}" for name, count in parts if count is not None)


class Group(Struct, frozen=True):
    """The cgroup at ``path``; one that is gone has nobody in it and counts nothing."""

    path: Path

    def make(self) -> None:
        """Have it.  Raises OSError."""
        self.path.mkdir(exist_ok=True)

    def write(self, name: str, text: str) -> None:
        """Write to one of its files, never making one.  Raises OSError."""
        fd = os.open(self.path / name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def pids(self) -> list[int]:
        """Who is in it, and not in one of its own cgroups."""
        return [int(word) for word in read(self.path / "cgroup.procs").split()]

    def add(self, pid: int) -> None:
        """Move a process here with its threads; what it forks from now on is born here.

        Raises ProcessLookupError if it has ended, OSError.
        """
        self.write("cgroup.procs", str(pid))

    @property
    def is_populated(self) -> bool:
        """Whether anybody lives in it or below."""
        return "populated 1" in read(self.path / "cgroup.events")

    def memory(self) -> Memory:
        """The most that it used, and might use."""
        return Memory(_number(self.path / "memory.peak"), _number(self.path / "memory.max"))

    def used(self) -> int | None:
        """Bytes of memory that cannot be had back: without the cache of files."""
        current = _number(self.path / "memory.current")
        if current is None:
            return None
        words = read(self.path / "memory.stat").split()
        counts = dict(zip(words[::2], words[1::2], strict=False))
        cached = sum(int(counts.get(key, 0)) for key in ("active_file", "inactive_file"))
        return max(0, current - cached)

    def too_low(self, limits: LimitsConfig) -> str:
        """Which limit would end the kernel at once, as more is used, else ``""``."""
        used, wanted = self.used() or 0, limits.memory_bytes
        if wanted is None or wanted >= used:
            return ""
        return f"limits.memory = {limits.memory} is below the {amount(used)} in use"

    def limit(self, limits: LimitsConfig) -> str:
        """Put the limits in force, but not one that is too low, which is returned.  Raises OSError."""
        refused, wanted = self.too_low(limits), limits.memory_bytes
        values = {
            "pids.max": limits.tasks,
            "cpu.max": f"{round(limits.cpu * CPU_PERIOD)} {CPU_PERIOD}"
            if limits.cpu
            else f"max {CPU_PERIOD}",
            "memory.max": wanted,
        }
        for name, value in values.items():
            if not (name == "memory.max" and refused):
                self.write(name, "max" if value is None else str(value))
        return refused

    def kill(self) -> None:
        """Send SIGKILL to everybody in it and below, also to what is being forked (Linux 5.14)."""
        try:
            self.write("cgroup.kill", "1")
        except FileNotFoundError:
            pass  # the cgroup is gone, and they with it

    def end(self, patience: float = END_PATIENCE) -> bool:
        """Kill all, wait up to ``patience`` seconds until nobody is left, and remove it; whether that came.

        Blocks.  Raises OSError.
        """
        self.kill()
        deadline = time.monotonic() + patience
        while self.is_populated:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_INTERVAL)
        self.remove()
        return True

    def remove(self) -> None:
        """Remove it with those below; nothing while somebody is in it.  Raises OSError."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                pass


def read(path: Path) -> str:
    """The text of a file of the kernel's, ``""`` if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = read(path).strip()
    return int(text) if text.isdecimal() else None
