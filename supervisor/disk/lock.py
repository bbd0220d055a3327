"""The lock on a state directory: one supervisor at a time.

Owns the lock file.  The lock is the operating system's (flock(2)), so it is
gone with its holder, however that ends; the pid in the file is for people.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from supervisor.disk.files import open_own


class AlreadyLocked(Exception):
    """Another supervisor runs on this state directory; ``pid`` is its, if it told."""

    def __init__(self, path: Path, pid: int | None) -> None:
        runs = f"a daemon runs already (pid {pid})" if pid else "a daemon runs already"
        super().__init__(f"cannot lock state directory {path.parent}: {runs}")
        self.pid = pid


class StateLock:
    """Held from ``take`` to ``release``.  Raises AlreadyLocked, or OSError if there is no such directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def is_in_place(self) -> bool:
        """Whether we hold the very file at its path, so that everybody else finds it locked."""
        if self._fd is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.stat())
        except OSError:
            return False

    def take(self) -> None:
        """Take the lock, or tell who has it; of a file that was removed, with what took its place."""
        try:
            import fcntl
        except ImportError:
            raise OSError("state directories cannot be locked on this system: no daemon runs here") from None
        fd = open_own(self.path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            pid = int(text) if text.isdecimal() else None
            if self._fd is not None and pid == os.getpid():
                return  # it is ours: a file system may not answer for a moment, or number one file twice
            raise AlreadyLocked(self.path, pid) from None
        except OSError:
            os.close(fd)
            raise
        self.release()
        self._fd = fd
        with contextlib.suppress(OSError):  # a full disk, say: the lock itself is held
            self._tell_pid(fd)

    def _tell_pid(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let go; the file stays, since removing it would race with the next holder."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
