"""Lines written off the caller's thread, so that nobody who logs ever waits.

Owns the queue in front of standard output.  Never raises and never blocks its
caller: a pipe that nobody reads, a full disk, a closed terminal cost lines,
not the loop.  Lines beyond the bound are dropped, oldest first, and the next
line that gets through is preceded by a marker that tells how many.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from supervisor.disk.off_loop import Lane

MAX_LINES = 2000
MAX_BYTES = 1024 * 1024


class LineWriter:
    """A bounded queue of lines, and the lane in which they are written.

    ``marker(count)`` returns the line that stands for ``count`` lost ones.
    A file descriptor is duplicated, so that a later owner of its number never
    gets lines of log.
    """

    def __init__(
        self,
        stream: TextIO | None,
        marker: Callable[[int], bytes],
        *,
        max_lines: int = MAX_LINES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._stream = stream
        self._marker = marker
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._fd = _duplicate(stream)
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._torn = False
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._lane = Lane("log", borrows=False)

    @property
    def dropped(self) -> int:
        """How many lines were lost since the last marker."""
        return self._dropped

    def write(self, line: bytes) -> None:
        """Queue a line, newline included; returns at once, whatever becomes of it."""
        with self._changed:
            if self._closed:
                return
            self._lines.append(line)
            self._bytes += len(line)
            while len(self._lines) > self._max_lines or (
                self._bytes > self._max_bytes and len(self._lines) > 1
            ):
                self._bytes -= len(self._lines.popleft())
                self._dropped += 1
            self._begin()

    def _begin(self) -> None:
        if self._busy or not self._lines:
            return
        try:
            self._lane.put(self._work)
        except OSError:
            return  # no thread is to be had: the next line tries again
        self._busy = True

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until everything queued is written; tell whether it was within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._lines or self._busy:
                self._begin()
                left = deadline - time.monotonic()
                if left <= 0 or not self._busy:
                    return False
                self._changed.wait(left)
            return True

    def close(self, timeout: float = 1.0) -> bool:
        """Write what is queued, for ``timeout`` seconds at most, and end; idempotent."""
        flushed = self.flush(timeout)
        with self._changed:
            self._lines.clear()
            if not self._closed and not self._busy:
                self._let_go()
            self._closed = True
        return flushed

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._lines:
                    self._busy = False
                    self._changed.notify_all()
                    if self._closed:
                        self._let_go()
                    return
                line = self._lines.popleft()
                self._bytes -= len(line)
                dropped, self._dropped = self._dropped, 0
            if not self._emit(dropped, line):
                with self._changed:
                    self._dropped += dropped + 1

    def _let_go(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def _emit(self, dropped: int, line: bytes) -> bool:
        data = (self._marker(dropped) if dropped else b"") + line
        try:
            if self._fd is not None:
                self._write_all(self._fd, b"\n" + data if self._torn else data)
            elif self._stream is not None:
                self._stream.write(data.decode("utf-8", "replace"))
                self._stream.flush()
        except (OSError, ValueError):  # EPIPE, ENOSPC, EIO; ValueError: the stream was closed
            return False
        return True

    def _write_all(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = os.write(fd, rest)
            except BlockingIOError:  # somebody who shares our stdout made it non-blocking
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                poll.poll()
                continue
            self._torn = True  # until the end of the line is out, the next one needs a fresh line
            rest = rest[written:]
        self._torn = False


def _duplicate(stream: TextIO | None) -> int | None:
    if stream is None:
        return None
    try:
        stream.flush()
        return os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is both of the first two
        return None
