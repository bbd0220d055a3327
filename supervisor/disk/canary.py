"""Whether a disk takes changes at the moment, found out by a process that hangs in our stead.

A thread that changes something on a frozen file system (fsfreeze(8)) sleeps where no signal
reaches it, SIGKILL neither, and keeps its whole process from ending until the thaw.  So
such work is begun only once a process of its own has got through: to wait for that can be
given up.  It removes a file that is not there, which changes nothing.

Also the program of that process, when this file is run.  Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

# How long a process that hangs is waited for in the end, in seconds.
LAST_PATIENCE = 0.5

_MISSING = b".kernel-supervisor-canary"


class Canaries:
    """One process for each file system that is asked for, as long as it is not closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._canaries: dict[int, _Canary] = {}
        self._begun: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Begin the process of the first that will be asked for: its start takes a moment."""
        with suppress(OSError):
            self._begun = _begin()

    def wait(self, directory: Path) -> None:
        """Return once the disk of the directory takes changes, or that cannot be found out; in any thread."""
        try:
            device = directory.stat().st_dev
        except OSError:
            return  # whoever works there is told
        with self._lock:
            canary = self._canaries.get(device)
            if canary is None:
                canary = self._canaries[device] = _Canary(directory, self._begun)
                self._begun = None
        canary.wait()

    def close(self) -> None:
        """Have the processes end, those that hang once they do no longer."""
        for canary in self._canaries.values():
            canary.close()
        _end(self._begun)
        self._begun = None


class _Canary:
    def __init__(self, directory: Path, process: subprocess.Popen[bytes] | None) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._process = process

    def wait(self) -> None:
        with self._lock:
            try:
                if self._process is None:
                    self._process = _begin()
                asked, answered = self._process.stdin, self._process.stdout
                assert asked is not None, "a pipe was asked for"
                assert answered is not None, "a pipe was asked for"
                asked.write(os.fsencode(self._directory.absolute()) + b"\0")
                if not answered.read(1):
                    self.close()
            except (OSError, ValueError):
                self.close()  # out of processes, say, or it was killed: there is another the next time

    def close(self) -> None:
        process, self._process = self._process, None
        _end(process)


def _begin() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__],
        cwd="/",
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None or process.stdin is None or process.stdout is None:
        return
    process.stdin.close()
    try:
        process.wait(LAST_PATIENCE)
    except subprocess.TimeoutExpired:
        return
    process.stdout.close()


def answer() -> None:
    """Answer each directory on standard input, ended by a zero, as soon as its disk takes changes."""
    asked = b""
    while said := os.read(0, 1 << 16):
        asked += said
        if asked.endswith(b"\0"):
            with suppress(OSError):
                os.unlink(os.path.join(asked[:-1], _MISSING))  # noqa: PTH108, PTH118 - pathlib is slow to import
            os.write(1, b".")
            asked = b""


if __name__ == "__main__":
    answer()
