"""Small real processes for the tests, and waiting for conditions of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from supervisor.process.identity import LINUX
from tests.waiting import DEADLINE

SLEEPER = ("sleep", "600")
SUCCESSFUL = ("true",)
EXITS_7 = ("sh", "-c", "exit 7")
STUBBORN = ("sh", "-c", "trap '' TERM INT HUP; exec sleep 600")  # what is ignored stays so after exec

# How they ended is told of strangers, too, since Linux 6.15.
TELLS_STRANGERS = LINUX and tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)


def start(argv: tuple[str, ...], **options: object) -> subprocess.Popen[bytes]:
    """Start a child in a session of its own; its input and output are none of ours."""
    options = {"start_new_session": True, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL} | options
    return subprocess.Popen(argv, **options)  # type: ignore


async def start_async(argv: tuple[str, ...]) -> asyncio.subprocess.Process:
    """The same as an asyncio process."""
    null = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*argv, stdin=null, stdout=null, start_new_session=True)


_PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.readline()
child.wait()
print("reaped", flush=True)
"""


class Stranger:
    """A process whose parent is another process, which reaps it when told to (``reap``)."""

    def __init__(self, argv: tuple[str, ...], *, reap: bool = True) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PARENT, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.parent.stdout is not None
        self.pid = int(self.parent.stdout.readline())
        if reap:
            self.reap()

    def reap(self) -> None:
        """Let the parent reap its child as soon as that ends."""
        assert self.parent.stdin is not None
        if not self.parent.stdin.closed:
            self.parent.stdin.close()

    def close(self) -> None:
        """End both; nothing is left."""
        if self.parent.poll() is None and state_of(self.pid) not in {"Z", ""}:
            os.kill(self.pid, signal.SIGKILL)
        self.reap()
        self.parent.wait(DEADLINE)
        assert self.parent.stdout is not None
        self.parent.stdout.close()


def end(popen: subprocess.Popen[bytes]) -> None:
    """End a child of ours, whatever became of it."""
    if popen.poll() is None:
        popen.kill()
    popen.wait(DEADLINE)


def state_of(pid: int) -> str:
    """The state of a process as of proc(5): R, S, T, Z …; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name_of(pid: int) -> str:
    """What the process executes now; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
