"""The lifecycle events on disk: ``events.jsonl`` and its rotated predecessors.

Owns these files: appends, rotates, reads back.  Never raises because of the
disk: what cannot be written waits in memory, bounded, and is written in order
once the disk takes it.  Imports the standard library only and no logging: the
command line reads the files without a daemon.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from supervisor.observe.event_line import decode, encode
from supervisor.wording import timestamp

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5
MAX_WAITING = 1000

_MAX_WAITING_BYTES = 4 * 1024 * 1024
_BLOCK = 64 * 1024


class EventsFile:
    """The observer that appends each event to a file.

    The file is opened for each event, which costs tens of microseconds: one that was
    deleted, moved or made writable again needs no special care, and no
    descriptor is held.  Nothing is synced: a crash of the machine may cost the
    last events.  ``on_change`` is called with ``degraded`` whenever that changes
    between something and nothing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        *,
        max_waiting: int = MAX_WAITING,
        on_change: Callable[[str | None], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._backups = backups
        self._max_waiting = max_waiting
        self._on_change = on_change
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._trouble: str | None = None

    @property
    def degraded(self) -> str | None:
        """What is wrong and how much waits or is lost; ``None`` if nothing is."""
        if self._trouble is None:
            return None
        lost = f", {self._dropped} lost" if self._dropped else ""
        return f"{self._trouble}; {len(self._waiting)} events wait in memory{lost}"

    def __call__(self, event: Mapping[str, object]) -> None:
        """Append the event, after those that wait."""
        line = encode(event)
        self._waiting.append(line)
        self._waiting_bytes += len(line)
        self.flush()
        while len(self._waiting) > self._max_waiting or self._waiting_bytes > _MAX_WAITING_BYTES:
            self._waiting_bytes -= len(self._waiting.popleft())
            self._dropped += 1

    def flush(self) -> bool:
        """Try to write what waits; tell whether nothing waits any more."""
        was_degraded = self._trouble is not None
        try:
            self._trouble = None
            while self._waiting:
                if self._dropped:
                    self._append(encode(_marker(self._dropped)))
                    self._dropped = 0
                self._append(self._waiting[0])
                self._waiting_bytes -= len(self._waiting.popleft())
        except OSError as error:
            self._trouble = f"cannot write {self.path}: {error.strerror or error}"
        if was_degraded != (self._trouble is not None) and self._on_change is not None:
            self._on_change(self.degraded)
        return not self._waiting

    def replay(
        self,
        *,
        kernels: Collection[str] | None = None,
        event: str | None = None,
        since: datetime | None = None,
        last: int | None = None,
    ) -> Iterator[dict[str, object]]:
        """As the function ``replay``, with what still waits for the disk at the end."""
        wanted = _Wanted(kernels, event, since)
        waiting = [found for line in self._waiting if (found := wanted.event_of(line)) is not None]
        if last is not None:
            waiting = waiting[-last:] if last else []
            last -= len(waiting)
        written = replay(self.path, kernels=kernels, event=event, since=since, last=last)
        return _chain(written, waiting)

    def _append(self, line: bytes) -> None:
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if size and size + len(line) > self._max_bytes and self._rotate():
                os.close(fd)
                fd = -1
                fd = self._open()
                size = 0
            # A line torn by a crash or a full disk must not spoil this one.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = b"\n" + line if torn else line
            if os.write(fd, data) != len(data):
                raise OSError(None, "only part of a line could be written")
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        return os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _rotate(self) -> bool:
        """Move the files up by one; where that fails, go on with the one there is."""
        try:
            if not self._backups:
                self.path.unlink()
                return True
            for number in range(self._backups - 1, 0, -1):
                older = _numbered(self.path, number)
                if older.exists():
                    older.replace(_numbered(self.path, number + 1))
            self.path.replace(_numbered(self.path, 1))
        except OSError as error:
            self._trouble = f"cannot rotate {self.path}: {error.strerror or error}"
            return False
        return True


def replay(
    path: str | os.PathLike[str],
    *,
    kernels: Collection[str] | None = None,
    event: str | None = None,
    since: datetime | None = None,
    last: int | None = None,
) -> Iterator[dict[str, object]]:
    """Return the events on disk at the moment of the call, oldest first, across rotated files.

    Only those of ``kernels``, named ``event``, not before ``since`` (local time
    if it has no zone); of these only the ``last``.  Damaged lines are left out,
    missing files are no error.  OSError if a file may not be read.
    """
    wanted = _Wanted(kernels, event, since)
    files = ExitStack()
    try:
        opened = _open_all(Path(path), files)
    except BaseException:
        files.close()
        raise
    events = _read_all(opened, wanted, files) if last is None else _read_last(opened, wanted, last, files)
    weakref.finalize(events, files.close)  # for a caller that never begins to read
    return events


class _Wanted:
    """Which lines are asked for."""

    def __init__(self, kernels: Collection[str] | None, event: str | None, since: datetime | None) -> None:
        self._kernels = None if kernels is None else frozenset(kernels)
        self._event = event
        self._since = None if since is None else since.astimezone(UTC)
        # Names are plain ASCII, so a line that matches contains them as they are: cheaper than parsing.
        self._marks = None if kernels is None else [f'"{name}"'.encode() for name in kernels]
        self._event_mark = b"" if event is None else f'"{event}"'.encode()

    def event_of(self, line: bytes) -> dict[str, object] | None:
        if self._event_mark not in line:
            return None
        if self._marks is not None and not any(mark in line for mark in self._marks):
            return None
        found = decode(line)
        if found is None or (self._event is not None and found.get("event") != self._event):
            return None
        if self._kernels is not None and found.get("kernel") not in self._kernels:
            return None
        return found if self._since is None or _is_since(found, self._since) else None


def _is_since(event: Mapping[str, object], since: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(event.get("timestamp"))).astimezone(UTC) >= since
    except (ValueError, OverflowError):
        return False


def _open_all(path: Path, files: ExitStack) -> list[tuple[BinaryIO, int]]:
    """Open the files, newest first, with the size of each.

    In this order a rotation in the meantime shows a file twice, and skips none.
    """
    opened: list[tuple[BinaryIO, int]] = []
    seen: set[tuple[int, int]] = set()
    for name in (path, *(_numbered(path, number) for number in _numbers(path))):
        try:
            file = files.enter_context(name.open("rb"))
        except FileNotFoundError:
            continue
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            opened.append((file, status.st_size))
    return opened


def _numbers(path: Path) -> list[int]:
    endings = (file.name.removeprefix(f"{path.name}.") for file in path.parent.glob(f"{path.name}.*"))
    found = [int(ending) for ending in endings if ending.isascii() and ending.isdigit()]
    # One more than there is: a rotation in the meantime moves the oldest up.
    return sorted({*found, *(number + 1 for number in found), 1})


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _read_all(
    opened: list[tuple[BinaryIO, int]], wanted: _Wanted, files: ExitStack
) -> Iterator[dict[str, object]]:
    with files:
        for file, size in reversed(opened):
            left = size
            while left > 0 and (line := file.readline(left)):
                left -= len(line)
                if (found := wanted.event_of(line)) is not None:
                    yield found


def _read_last(
    opened: list[tuple[BinaryIO, int]], wanted: _Wanted, last: int, files: ExitStack
) -> Iterator[dict[str, object]]:
    with files:
        lines = (line for file, size in opened for line in _backwards(file, size))
        events = (found for line in lines if (found := wanted.event_of(line)) is not None)
        newest = list(islice(events, max(0, last)))
    yield from reversed(newest)


def _backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines of a file from its end, reading no more of it than is asked for."""
    rest = b""
    while size > 0:
        start = max(0, size - _BLOCK)
        file.seek(start)
        first, *lines = (file.read(size - start) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest, size = first, start
    if rest:
        yield rest


def _chain(first: Iterator[dict[str, object]], then: list[dict[str, object]]) -> Iterator[dict[str, object]]:
    yield from first
    yield from then


def _marker(dropped: int) -> dict[str, object]:
    return {"timestamp": timestamp(), "level": "warning", "event": "events.dropped", "dropped": dropped}
