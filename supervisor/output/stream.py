"""A kernel's output file and its backups, read as one stream.

Owns where the bytes of the stream are: the data of the oldest backup first,
that of the live file last.  Leading NUL bytes of a file are not data but the
room of data that was moved to a backup.  Never writes.  Standard library only:
the command line reads these files too.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.disk.files import open_own

BLOCK = 64 * 1024
_LOCK_TIMEOUT = 1.0
# In place of a time: the inode cannot be another file's, as it is held open.
_HELD = -1


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the stream: so many bytes after the end of a backup.

    The backup, the newest at the time, is known by inode and modification time
    in nanoseconds, because its name changes; both 0: from the beginning.
    Trimming and rotation move bytes into newer backups, which leaves the place
    true.
    """

    inode: int = 0
    modified: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """Part of a file: from ``begin`` to before ``end``."""

    path: Path
    begin: int
    end: int


def backup_path(path: Path, number: int) -> Path:
    """Where the backup of that number is; 1 is the newest."""
    return path.with_name(f"{path.name}.{number}")


def backups_of(path: Path) -> dict[int, Path]:
    """The backups that there are, by their numbers, the newest first."""
    found = {}
    prefix = f"{path.name}."
    try:
        files = list(path.parent.iterdir())
    except FileNotFoundError:
        files = []
    for file in files:
        number = file.name.removeprefix(prefix)
        if file.name.startswith(prefix) and re.fullmatch("[1-9][0-9]{0,3}", number):
            found[int(number)] = file
    return dict(sorted(found.items()))


def spans_after(path: Path, position: Position) -> list[Span]:
    """What comes after the position, oldest first; everything if its backup is gone by now."""
    newer: list[Path] = []
    for backup in backups_of(path).values():
        if (there := _stat(backup)) and _is_backup_of(there, position):
            break
        newer.append(backup)
    else:
        if position.inode:
            position = Position()
    spans = []
    skip = position.offset
    for file in (*reversed(newer), path):
        with opened(file) as fd:
            if fd is None:
                continue
            start, end = data_start(fd), os.fstat(fd).st_size
        if file == path and skip > end - start:
            skip = 0  # Somebody emptied it: what is there is new.
        taken = min(skip, end - start)
        skip -= taken
        spans.append(Span(file, start + taken, end))
    return spans


def end_of(path: Path) -> Position:
    """The end of what is written by now."""
    with locked(path, shared=True) as fd:
        return _from_newest(path, 0 if fd is None else size(fd))


def position_of(path: Path, place: int) -> Position:
    """The position of a place in the live file."""
    with opened(path) as fd:
        return _from_newest(path, 0 if fd is None else max(0, place - data_start(fd)))


def last_bytes(spans: list[Span], limit: int) -> tuple[bytes, bool]:
    """The last bytes of the spans, and whether they are all there is."""
    parts: list[bytes] = []
    is_whole = True
    for span in reversed(spans):
        begin = max(span.begin, span.end - limit)
        parts.append(_read(span.path, begin, span.end))
        limit -= span.end - begin
        if begin > span.begin:
            is_whole = False
            break
    return b"".join(reversed(parts)), is_whole


def next_bytes(path: Path, position: Position) -> tuple[bytes, Position]:
    """The next bytes after the position, at most a block, and the place after them."""
    while True:
        with locked(path, shared=True) as fd:
            found = _next_bytes(path, position)
            # Without a live file there was no lock; one that was made since may have been trimmed meanwhile.
            if fd is not None or not path.exists():
                return found


def _next_bytes(path: Path, position: Position) -> tuple[bytes, Position]:
    spans = spans_after(path, position)
    pending = next((span for span in spans if span.begin < span.end), None)
    if spans and spans[-1].path == path and pending in (None, spans[-1]):
        # All backups are behind us: count from the newest, for the oldest may go.
        position = position_of(path, spans[-1].begin)
    elif position.inode and not _is_there(path, position):
        position = Position()
    if pending is None:
        return b"", position
    data = _read(pending.path, pending.begin, min(pending.end, pending.begin + BLOCK))
    return data, replace(position, offset=position.offset + len(data))


class Anchor:
    """Keeps the backup open that a position is counted from, so that no other file gets its inode."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._inode = 0

    def hold(self, path: Path, position: Position) -> Position:
        """The position, with its backup known by its inode alone while that is held open.

        A child of an ended run may still write to it, at any moment.
        """
        if position.inode != self._inode:
            self.close()
            for backup in backups_of(path).values() if position.inode else ():
                try:
                    fd = open_own(backup, os.O_RDONLY)
                except FileNotFoundError:
                    continue  # a rotation has moved it on
                if os.fstat(fd).st_ino == position.inode:
                    self._fd, self._inode = fd, position.inode
                    break
                os.close(fd)
        if self._fd is None:
            return position
        return replace(position, modified=_HELD)

    def close(self) -> None:
        """Let it go; closing twice is no error."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._inode = None, 0


def size(fd: int) -> int:
    """The number of bytes of data in a file."""
    return os.fstat(fd).st_size - data_start(fd)


def data_start(fd: int) -> int:
    """Where the leading NUL bytes end."""
    end = os.fstat(fd).st_size
    try:
        begin = os.lseek(fd, 0, os.SEEK_DATA) if hasattr(os, "SEEK_DATA") else 0
    except OSError as error:
        # ENXIO: nothing but a hole; else the file system cannot tell.
        begin = end if error.errno == errno.ENXIO else 0
    for block in blocks(fd, begin, end):
        if data := block.lstrip(b"\0"):
            return begin + len(block) - len(data)
        begin += len(block)
    return begin


def blocks(fd: int, begin: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from ``begin`` to before ``end``, a block at a time."""
    while begin < end and (block := os.pread(fd, min(BLOCK, end - begin), begin)):
        yield block
        begin += len(block)


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[int | None]:
    """The file opened, ``None`` if it is not there; OSError if it is not a regular file."""
    try:
        fd = open_own(path, os.O_RDWR if write else os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[int | None]:
    """The file opened, ``None`` if it is not there, and not rotated or trimmed by others in the meantime.

    A lock that is not to be had in time is done without: a reader that was
    stopped while it read must not make the file grow for ever.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    while True:
        with opened(path, write=not shared) as fd:
            if fd is None or time.monotonic() > deadline or _lock(path, fd, shared=shared):
                yield fd
                return
        time.sleep(0.005)


def _lock(path: Path, fd: int, *, shared: bool) -> bool:
    """Lock it, and make sure that it is still the file of that name."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    there = _stat(path)
    return there is not None and there.st_ino == os.fstat(fd).st_ino


def _from_newest(path: Path, offset: int) -> Position:
    # Not always the first: there is none while it is copied, which may outlast our patience with the lock.
    newest = next(filter(None, map(_stat, backups_of(path).values())), None)
    return Position(offset=offset) if newest is None else Position(*_identity(newest), offset)


def _is_there(path: Path, position: Position) -> bool:
    return any((there := _stat(b)) and _is_backup_of(there, position) for b in backups_of(path).values())


def _is_backup_of(there: os.stat_result, position: Position) -> bool:
    held = position.modified == _HELD and there.st_ino == position.inode
    return held or _identity(there) == (position.inode, position.modified)


def _read(path: Path, begin: int, end: int) -> bytes:
    with opened(path) as fd:
        return b"" if fd is None else b"".join(blocks(fd, begin, end))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _identity(there: os.stat_result) -> tuple[int, int]:
    return there.st_ino, there.st_mtime_ns
