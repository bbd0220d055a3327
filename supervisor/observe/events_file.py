"""The lifecycle events on disk: ``events.jsonl`` and its rotated predecessors.

Owns these files: appends, rotates, reads back.  Never raises because of the
disk: what cannot be written waits in memory, bounded, and is written in order
once the disk takes it.  Imports the standard library only and no logging: the
command line reads the files without a daemon.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import BinaryIO, TypedDict, Unpack

from supervisor.disk.files import open_own
from supervisor.observe.event_line import decode, encode, lost

MAX_BYTES = 10 * 1024 * 1024
BACKUPS = 5
MAX_WAITING = 1000
# A write that takes longer than so many seconds is told.
PATIENCE = 2.0

_MAX_WAITING_BYTES = 4 * 1024 * 1024
_BLOCK = 64 * 1024
_SEQUENCE = re.compile(rb'"seq":(\d{1,18})[,}]')

Place = tuple[int, int]
"""A file by its inode, and how many bytes of it."""


class EventsFile:
    """The observer that appends each event to a file, after those that wait.

    Each line is written by a job given to ``put``, which calls it at once, or later
    in a thread: a disk that hangs then holds up nobody.  What is written and what
    waits are read together by a ``snapshot``.

    The file is opened for each event, which costs tens of microseconds: one that was
    deleted, moved or made writable again needs no special care, and no
    descriptor is held.  Nothing is synced: a crash of the machine may cost the
    last events.  ``on_change`` is called with ``degraded`` whenever that changes
    between something and nothing, where the job is called or the event came from.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_bytes: int = MAX_BYTES,
        backups: int = BACKUPS,
        *,
        max_waiting: int = MAX_WAITING,
        on_change: Callable[[str | None], None] | None = None,
        put: Callable[[Callable[[], None]], None] = lambda job: job(),
    ) -> None:
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._backups = backups
        self._max_waiting = max_waiting
        self._on_change = on_change
        self._put = put
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        # The lines that are being written, since when (monotonic), and how many lost ones are told first.
        self._current: tuple[list[bytes], float, int] | None = None
        self._is_writing = False
        self._end: Place | None = None
        self._dropped = 0
        self._trouble: str | None = None
        self._told = False

    @property
    def degraded(self) -> str | None:
        """What is wrong and how much waits or is lost; ``None`` if nothing is."""
        current, trouble = self._current, self._trouble
        if current is not None and time.monotonic() - current[1] > PATIENCE:
            trouble = f"cannot write {self.path}: the disk does not answer"
        if trouble is None:
            return None
        gone = f", {self._dropped} lost" if self._dropped else ""
        waiting = len(self._waiting) + (len(current[0]) if current else 0)
        return f"{trouble}; {waiting} events wait in memory{gone}"

    def __call__(self, event: Mapping[str, object]) -> None:
        """Have the event appended."""
        line = encode(event)
        with self._lock:
            self._waiting.append(line)
            self._waiting_bytes += len(line)
        self.flush()
        with self._lock:
            while len(self._waiting) > self._max_waiting or self._waiting_bytes > _MAX_WAITING_BYTES:
                self._waiting_bytes -= len(self._waiting.popleft())
                self._dropped += 1
        self._tell()

    def flush(self) -> bool:
        """Have written what waits; tell whether nothing waits any more."""
        with self._lock:
            begins = bool(self._waiting) and not self._is_writing
            self._is_writing = self._is_writing or begins
        if begins:
            try:
                self._put(self._write)
            except OSError as error:  # no thread is to be had
                self._is_writing = False
                self._trouble = f"cannot write {self.path}: {error.strerror or error}"
        return not self._waiting and self._current is None

    def last_sequence(self) -> int:
        """A number that no event up to now has reached, whatever was lost with an earlier supervisor.

        Reads the disk.  No less than the seconds since the epoch: the files may have been removed.
        """
        try:
            # The very last may be the marker of lost ones, with all else torn off.
            numbers = [event.get("seq") for event in replay(self.path, last=2)]
        except OSError:
            numbers = []
        last = max((number for number in numbers if isinstance(number, int)), default=0)
        # What waited for the disk in a supervisor that was killed had numbers too, and was seen by followers.
        return max(last + 2 * self._max_waiting, int(time.time()))

    def snapshot(self) -> Past:
        """What has happened until now; asks no disk."""
        with self._lock:
            current = [] if self._current is None else self._current[0]
            return Past(self.path, self._end, (*current, *self._waiting))

    def _write(self) -> None:
        self._trouble = None
        try:
            while data := self._next():
                end, whole = self._append(data)
                with self._lock:
                    self._end = end
                    self._put_back(whole)
                if whole < data.count(b"\n"):
                    raise OSError(None, "only part of a line could be written")
        except OSError as error:
            self._trouble = f"cannot write {self.path}: {error.strerror or error}"
            with self._lock:
                self._put_back(0)
                self._is_writing = False
        self._tell()

    def _next(self) -> bytes:
        """What is to be written next, a marker first where some were lost.

        Many lines if many wait: a disk that is well must keep up with a burst.
        """
        with self._lock:
            if not self._waiting:
                self._is_writing = False
                return b""
            lines, size = [], 0
            while self._waiting and size < _BLOCK:
                lines.append(self._waiting.popleft())
                size += len(lines[-1])
            self._waiting_bytes -= size
            dropped, self._dropped = self._dropped, 0
            self._current = lines, time.monotonic(), dropped
        marker = encode(lost("events.dropped", dropped)) if dropped else b""
        return marker + b"".join(lines)

    def _put_back(self, whole: int) -> None:
        """Have wait what was to be written, but for the first ``whole`` lines, which are."""
        if self._current is None:
            return
        lines, _, dropped = self._current
        self._dropped += 0 if whole else dropped
        rest = lines[max(0, whole - bool(dropped)) :]
        self._waiting.extendleft(reversed(rest))
        self._waiting_bytes += sum(map(len, rest))
        self._current = None

    def _tell(self) -> None:
        degraded = self.degraded
        with self._lock:
            is_news, self._told = self._told != (degraded is not None), degraded is not None
        if is_news and self._on_change is not None:
            self._on_change(degraded)

    def _append(self, data: bytes) -> tuple[Place, int]:
        """Append these lines; the end of the file then, and how many of them are in it whole."""
        fd = self._open()
        try:
            size = os.fstat(fd).st_size
            if size and size + len(data) > self._max_bytes and self._rotate():
                os.close(fd)
                fd = -1
                fd, size = self._open(), 0
            # A line torn by a crash or a full disk must not spoil this one.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            written = os.write(fd, b"\n" + data if torn else data)
            whole = data[: max(0, written - torn)].count(b"\n")
            return (os.fstat(fd).st_ino, size + written), whole
        finally:
            if fd >= 0:
                os.close(fd)

    def _open(self) -> int:
        return open_own(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)

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


class Choice(TypedDict, total=False):
    """Which events are asked for: see ``replay``."""

    kernels: Collection[str] | None
    event: str | None
    since: datetime | None
    last: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Past:
    """What had happened at one moment: what was on disk up to ``end``, and what waited for it."""

    path: Path
    end: Place | None
    waiting: tuple[bytes, ...]

    def replay(self, **choice: Unpack[Choice]) -> Iterator[dict[str, object]]:
        """As the function ``replay``, with what waited at the end; what cannot be read is left out."""
        wanted = _Wanted(choice)
        waiting = [found for line in self.waiting if (found := wanted.event_of(line)) is not None]
        if (last := choice.get("last")) is not None:
            waiting = waiting[-last:] if last else []
            choice["last"] = last - len(waiting)
        return chain(self._on_disk(choice), waiting)

    def _on_disk(self, choice: Choice) -> Iterator[dict[str, object]]:
        try:
            yield from replay(self.path, self.end, **choice)
        except OSError as error:
            import logging  # whoever only reads the files does without

            logging.getLogger(__name__).warning("the events so far cannot be read: %s", error)


def replay(
    path: str | os.PathLike[str], end: Place | None = None, **choice: Unpack[Choice]
) -> Iterator[dict[str, object]]:
    """Return the events on disk at the moment of the call, or up to ``end``, oldest first, across files.

    Only those of ``kernels``, named ``event``, not before ``since`` (local time
    if it has no zone), with a number above ``after``; of these only the ``last``.
    Damaged lines are left out, missing files are no error.  OSError if a file may not be read.
    """
    wanted, last = _Wanted(choice), choice.get("last")
    files = ExitStack()
    try:
        opened = _until(end, _open_all(Path(path), files))
    except BaseException:
        files.close()
        raise
    forwards = last is None and choice.get("after") is None
    events = _read_all(opened, wanted, files) if forwards else _read_last(opened, wanted, last, files)
    weakref.finalize(events, files.close)  # for a caller that never begins to read
    return events


class _Wanted:
    """Which lines are asked for."""

    def __init__(self, choice: Choice) -> None:
        kernels, event, since = choice.get("kernels"), choice.get("event"), choice.get("since")
        self._after = choice.get("after")
        self._kernels = None if kernels is None else frozenset(kernels)
        self._event = event
        self._since = None if since is None else since.astimezone(UTC)
        # Names are plain ASCII, so a line that matches contains them as they are: cheaper than parsing.
        self._marks = None if kernels is None else [f'"{name}"'.encode() for name in kernels]
        self._event_mark = b"" if event is None else f'"{event}"'.encode()

    def is_past(self, line: bytes) -> bool:
        """Whether this line, and so each before it, has a number that is too low.

        A torn line has none, and where some were lost the marker has none.
        """
        if self._after is None:
            return False
        number = _SEQUENCE.search(line)  # no text of a kernel has it: the quotes in it are escaped
        return number is not None and int(number[1]) <= self._after

    def event_of(self, line: bytes) -> dict[str, object] | None:
        if self._event_mark not in line or self.is_past(line):
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
            file = files.enter_context(os.fdopen(open_own(name, os.O_RDONLY), "rb"))
        except FileNotFoundError:
            continue
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            opened.append((file, status.st_size))
    return opened


def _until(end: Place | None, opened: list[tuple[BinaryIO, int]]) -> list[tuple[BinaryIO, int]]:
    for position, (file, size) in enumerate(opened):
        if end is not None and os.fstat(file.fileno()).st_ino == end[0]:
            return [(file, min(size, end[1])), *opened[position + 1 :]]
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
    opened: list[tuple[BinaryIO, int]], wanted: _Wanted, last: int | None, files: ExitStack
) -> Iterator[dict[str, object]]:
    with files:
        lines = (line for file, size in opened for line in _backwards(file, size))
        recent = takewhile(lambda line: not wanted.is_past(line), lines)
        events = (found for line in recent if (found := wanted.event_of(line)) is not None)
        newest = list(islice(events, None if last is None else max(0, last)))
    yield from reversed(newest)


def _backwards(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield the lines of a file from its end, reading no more of it than is asked for."""
    # The end of a line whose beginning is not read yet; in pieces, as one may be as long as the file.
    rest: list[bytes] = []
    while size > 0:
        start = max(0, size - _BLOCK)
        file.seek(start)
        first, *lines = file.read(size - start).split(b"\n")
        if lines:
            rest.append(lines.pop())
            yield from (line for line in (b"".join(reversed(rest)), *reversed(lines)) if line)
            rest = []
        rest.append(first)
        size = start
    if line := b"".join(reversed(rest)):
        yield line
