"""The cgroup of one run: who is in it, what it used, its limits, its end.

The rules are those of cgroups(7) and of the kernel's ``cgroup-v2.rst``.  Its files are the
kernel's own and answer at once.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from supervisor.settings.config import LimitsConfig, size_of
from supervisor.wording import amount

# How long the end of all that was killed is awaited, and how often it is looked at, in seconds.
END_PATIENCE = 2.0
LOOK_INTERVAL = 0.005
CPU_PERIOD = 100_000
"""Microseconds, as the kernel has it by default."""
NO_DIRECTORY = Path(os.devnull)
"""Below it there is nothing."""


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
        # 0 is who is not in our namespace of pids: to signal it would be to signal ourselves.
        return [int(word) for word in read(self.path / "cgroup.procs").split() if word != "0"]

    def add(self, pid: int) -> None:
        """Move a process here with its threads; what it forks from now on is born here.

        One that has ended is no error.  Raises OSError.
        """
        with suppress(ProcessLookupError):
            self.write("cgroup.procs", str(pid))

    @property
    def is_populated(self) -> bool:
        """Whether anybody lives in it or below."""
        return "populated 1" in read(self.path / "cgroup.events")

    def number(self, name: str) -> int | None:
        """What one of its files says; ``None`` where that is not counted, or has no limit."""
        text = read(self.path / name).strip()
        return int(text) if text.isdecimal() else None

    def figures(self) -> str:
        """The most memory that it used, and might use."""
        parts = ("peak", self.number("memory.peak")), ("limit", self.number("memory.max"))
        return ", ".join(f"{name} {amount(count)}" for name, count in parts if count is not None)

    def used(self) -> int:
        """Bytes of memory that cannot be had back: without the cache of files."""
        words = read(self.path / "memory.stat").split()
        counts = dict(zip(words[::2], map(int, words[1::2]), strict=False))
        cached = counts.get("active_file", 0) + counts.get("inactive_file", 0)
        return max(0, (self.number("memory.current") or 0) - cached)

    def too_low(self, limits: LimitsConfig) -> str:
        """Which limit would end the kernel at once, as more is used, else ``""``."""
        used, wanted = self.used(), size_of(limits.memory)
        if wanted is None or wanted >= used:
            return ""
        return f"limits.memory = {limits.memory} is below the {amount(used)} in use"

    def limit(self, limits: LimitsConfig) -> str:
        """Put the limits in force; what is not, as a limit that is too low, is returned with the reason."""
        share = None if limits.cpu is None else round(limits.cpu * CPU_PERIOD)
        wanted = {
            "tasks": ("pids.max", limits.tasks, ""),
            "cpu": ("cpu.max", share, f" {CPU_PERIOD}"),
            "memory": ("memory.max", size_of(limits.memory), ""),
        }
        if refused := [text for text in (self.too_low(limits),) if text]:
            del wanted["memory"]
        for key, (name, value, period) in wanted.items():
            try:
                self.write(name, f"{'max' if value is None else value}{period}")
            except OSError as error:
                # Where nothing is limited there may be no such file: its controller is not delegated.
                if value is not None or not isinstance(error, FileNotFoundError):
                    refused.append(f"limits.{key} cannot be set: {error.strerror}")
        return "; ".join(refused)

    def kill(self) -> None:
        """Send SIGKILL to everybody in it and below, also to what is being forked (Linux 5.14)."""
        try:
            self.write("cgroup.kill", "1")
        except OSError:
            # It is gone, or this is an older Linux: one by one, as often as it takes.
            for directory, _, _ in os.walk(self.path):
                for pid in Group(Path(directory)).pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def end(self, patience: float = END_PATIENCE) -> bool:
        """Kill all, wait up to ``patience`` seconds until nobody is left, and remove it; whether that came.

        Blocks.  Raises OSError.
        """
        deadline = time.monotonic() + patience
        self.kill()
        while self.is_populated:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_INTERVAL)
            self.kill()
        self.remove()
        return True

    def remove(self) -> None:
        """Remove it with those below; nothing while somebody is in it.  Raises OSError."""
        for directory, _, _ in os.walk(self.path, topdown=False):
            with suppress(FileNotFoundError):
                Path(directory).rmdir()


NOBODY = Group(NO_DIRECTORY / "nobody")


def read(path: Path) -> str:
    """The text of a file of the kernel's, ``""`` if there is none."""
    try:
        return path.read_text()
    except OSError:
        return ""
