"""The file that a kernel process writes its stdout and stderr to: rotation, tail, following.

Owns the file and its backups ``.1`` (newest), ``.2``, ….  The kernel appends by
itself and nothing here is in its way.  Never truncates, and imports the
standard library only, because the command line reads these files too.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.disk.files import open_own, write_all
from supervisor.output.stream import (
    BLOCK,
    Anchor,
    Position,
    backup_path,
    backups_of,
    blocks,
    data_start,
    end_of,
    last_bytes,
    locked,
    next_bytes,
    opened,
    position_of,
    size,
    spans_after,
)

_LINE_LIMIT = 500
_LEAST_OF_SECRET = 8  # fewer characters of it are no help to anybody
_LINE_SEARCH = 1024 * 1024
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")
# What a file system, or the whole system, without holes says (fallocate(2)).
_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
# <linux/falloc.h>
_KEEP_SIZE, _PUNCH_HOLE, _COLLAPSE_RANGE = 0x01, 0x02, 0x08


class OutputFile:
    """The output file at ``path`` and its backups.

    Methods block for as long as the disk does and raise OSError; a file that
    is not there is no error, it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # How many bytes were given up because there was no room for them, not even in place of a backup.
        self.lost = 0

    def rotate(self, max_bytes: int, backups: int) -> bool:
        """Before a start: make the file backup ``.1`` if it has ``max_bytes`` (0: never); tells if it did.

        No line is lost but those of backups beyond ``backups``.  With none, about
        half of ``max_bytes`` stays, in a new file where no room can be given back.
        """
        if backups == 0:
            try:
                return self.trim(max_bytes, 0)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                return self._copy_newest(max_bytes)
        with locked(self.path) as fd:
            if fd is None or not 0 < max_bytes <= size(fd):
                return False
            _shift(self.path, backups)
            self.path.replace(backup_path(self.path, 1))
            return True

    def trim(self, max_bytes: int, backups: int) -> bool:
        """While the kernel writes: move data to backups if the file has ``max_bytes``; tells if it did.

        Whole lines go, where one ends within ``max_bytes``; what is not moved
        stays in place, and no line is lost but those of backups beyond
        ``backups``.  With no backups, about half of ``max_bytes`` stays.

        The room is given back to the file system (fallocate(2)): where it can
        take out blocks (ext4, xfs) the file gets shorter, elsewhere it gets a
        hole at its beginning.  Where it can do neither, raises OSError, and
        nothing has changed.

        What is to go goes first: a full disk gets room by it.  Where not even that of the
        backups is enough, what does not fit is ``lost``.
        """
        with locked(self.path) as fd:
            if fd is None or not 0 < max_bytes <= size(fd):
                return False
            _check_release(fd)
            # To the present end only: the kernel may write faster than we copy.
            end = os.fstat(fd).st_size
            if backups == 0:
                _release(fd, _line_end(fd, data_start(fd), end - max_bytes // 2))
                return True
            start, kept = data_start(fd), (backups + 1) * max_bytes
            # Faster than a disk takes it: to wait for that would let it grow meanwhile.
            is_flood = end - start > kept
            if is_flood:
                # It would be moved into backups only to be dropped with the oldest of them.
                for backup in backups_of(self.path).values():
                    backup.unlink(missing_ok=True)
                end -= _release(fd, _line_end(fd, start, end - kept))
            while end - (start := data_start(fd)) >= max_bytes:
                cut = _line_end(fd, start, start + max_bytes)
                end -= _release(fd, self._move(fd, start, cut, backups, durably=not is_flood))
            return True

    def _move(self, fd: int, start: int, cut: int, backups: int, *, durably: bool) -> int:
        """Copy a part of the file into a new backup, in place of older ones where there is no other room.

        Returns up to where it need not be kept any more.
        """
        _shift(self.path, backups)
        while True:
            try:
                _copy(fd, start, cut, self.path, backup_path(self.path, 1), durably=durably)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                oldest = next(reversed(backups_of(self.path).values()), None)
                if oldest is None:
                    given_up = _line_end(fd, start, start + max(1, (cut - start) // 4))
                    self.lost += given_up - start
                    return given_up
                oldest.unlink(missing_ok=True)
            else:
                return cut

    def keep_within(self, max_bytes: int, backups: int) -> tuple[int, int]:
        """As ``trim``; returns how many bytes the file has before and after it, 0 if there is none."""
        before = self._size()
        if not 0 < max_bytes <= before or not self.trim(max_bytes, backups):
            return before, before
        return before, self._size()

    def _size(self) -> int:
        with opened(self.path) as fd:
            return 0 if fd is None else size(fd)

    def _copy_newest(self, max_bytes: int) -> bool:
        with locked(self.path) as fd:
            if fd is None or not 0 < max_bytes <= size(fd):
                return False
            end = os.fstat(fd).st_size
            _copy(fd, _line_end(fd, data_start(fd), end - max_bytes // 2), end, self.path, self.path)
            return True

    def make(self) -> None:
        """Make the file, and its directory, if need be."""
        os.close(open_for_writer(self.path))

    def position(self) -> Position:
        """The end of what is written by now, for ``tail_since``."""
        return end_of(self.path)

    def tail_since(
        self, position: Position, lines: int = 20, max_bytes: int = BLOCK, *, hide: str = ""
    ) -> tuple[str, ...]:
        """The last lines written after ``position``, such as a run's beginning, fit for a log.

        At most ``lines``, of the last ``max_bytes``; see ``clean_lines``.
        """
        with locked(self.path, shared=True):
            data, is_whole = last_bytes(spans_after(self.path, position), max_bytes)
        return clean_lines(data, lines, is_whole=is_whole, hide=hide)


class Reader:
    """Reads a file from its last ``lines`` lines on, piece by piece, through rotation, trimming and restarts.

    ``read`` blocks for as long as the disk does, and waits for nothing else.
    """

    def __init__(self, path: Path, lines: int | None) -> None:
        self._path = path
        self._lines = lines
        self._anchor = Anchor()
        self._position: Position | None = None

    def read(self) -> bytes:
        """What comes next, nothing if there is nothing new.  Raises OSError."""
        if self._position is None:
            data, self._position = _begin(self._path, self._lines)
            if data:
                return data
        held = self._anchor.hold(self._path, self._position)
        data, self._position = next_bytes(self._path, held)
        return data

    def close(self) -> None:
        """Let go of what it holds."""
        self._anchor.close()


def open_for_writer(path: Path) -> int:
    """The file to be appended to, made if need be, with its directory.  Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        return open_own(path, flags)
    except FileNotFoundError:
        # Not before: even where it is there, mkdir(2) waits for a frozen disk.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_own(path, flags)


def follow(
    path: Path,
    lines: int | None = 10,
    *,
    interval: float = 0.1,
    is_over: Callable[[], bool] = lambda: False,
) -> Iterator[bytes]:
    """The last ``lines`` lines (``None``: all there is), then whatever is written, as it comes, raw.

    Goes on through rotation, trimming and restarts, and waits for a file that
    is not there.  Looks every ``interval`` seconds; ends when ``is_over`` says
    so and everything has been handed out.  Lines are missed only if more was
    written between two looks than the backups hold; where no backups are kept,
    some may be missed or come again.  Raises OSError.
    """
    reader = Reader(path, lines)
    try:
        while True:
            over = is_over()
            if chunk := reader.read():
                yield chunk
            elif over:
                return
            else:
                time.sleep(interval)
    finally:
        reader.close()


def read(path: Path, lines: int | None = None) -> bytes:
    """The last ``lines`` lines, raw, backups included; ``None``: all there is."""
    return b"".join(follow(path, lines, is_over=lambda: True))


def clean_lines(data: bytes, limit: int, *, is_whole: bool = True, hide: str = "") -> tuple[str, ...]:
    r"""The last ``limit`` lines of raw output, fit for a log or a terminal.

    Decoded as UTF-8 with replacements, each cut at 500 characters; escape
    sequences are taken out, other control characters shown as ``\x07`` and the
    like; of a line that was overwritten by carriage returns, as progress bars
    do, the last state counts.  A first line that may be a fragment
    (``is_whole`` false) is left out unless it is all there is.  ``hide`` is a
    secret: it is replaced before anything is cut, so that no part of it is left.
    """
    raw = data.replace(b"\0", b"").split(b"\n")
    if raw[-1] == b"":
        raw.pop()
    if not is_whole and len(raw) > 1:
        raw = raw[1:]
    elif not is_whole:
        raw[:1] = [_without_end_of(hide, line) for line in raw[:1]]
    return tuple(_clean(line, hide) for line in raw[-limit:]) if limit > 0 else ()


def _without_end_of(secret: str, line: bytes) -> bytes:
    """The line, of which the beginning is not there, without what may be the end of the secret."""
    ends = (secret[begin:].encode() for begin in range(1, len(secret) - _LEAST_OF_SECRET + 1))
    return next((line.removeprefix(end) for end in ends if line.startswith(end)), line)


def _clean(line: bytes, hide: str = "") -> str:
    text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
    text = _ESCAPE_SEQUENCE.sub("", text)
    if hide:
        text = text.replace(hide, "[redacted]")
    if len(text) > _LINE_LIMIT:
        text = "…" + text[-_LINE_LIMIT:]  # the end, where the reason stands
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _begin(path: Path, lines: int | None) -> tuple[bytes, Position]:
    """The last lines, and the place after them."""
    if lines is None:
        return b"", Position()
    with locked(path, shared=True):
        spans = spans_after(path, Position())
        limit = BLOCK
        data, is_whole = last_bytes(spans, limit)
        while not is_whole and data[:-1].count(b"\n") < lines:
            limit *= 4
            data, is_whole = last_bytes(spans, limit)
        position = position_of(path, spans[-1].end if spans and spans[-1].path == path else 0)
    if lines == 0 or not data:
        return b"", position
    newline = len(data) - 1  # The last byte ends the last line; what counts is the end of the one before.
    for _ in range(lines):
        newline = data.rfind(b"\n", 0, newline)
        if newline < 0:
            break
    return data[newline + 1 :], position


# Moving data to backups


def _shift(path: Path, backups: int) -> None:
    """Make room for a new backup ``.1``; one without a place is removed."""
    there = backups_of(path)
    for number in [number for number in there if number > backups]:
        there.pop(number).unlink(missing_ok=True)
    free = next(number for number in range(1, backups + 2) if number not in there)
    for number in range(min(free, backups) - 1, 0, -1):
        there[number].replace(backup_path(path, number + 1))


def _copy(fd: int, begin: int, end: int, path: Path, target: Path, *, durably: bool = True) -> None:
    """Put a part of the file at ``path`` into ``target``, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        copy = open_own(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for block in blocks(fd, begin, end):
                write_all(copy, block)
            if durably:
                # Before the original is released: a power cut must not take both.
                os.fsync(copy)
        finally:
            os.close(copy)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _line_end(fd: int, start: int, bound: int) -> int:
    """The end of the last line that ends before ``bound``, or ``bound`` if that is too far back."""
    begin = bound - min(_LINE_SEARCH, (bound - start) // 2)
    newline = b"".join(blocks(fd, begin, bound)).rfind(b"\n")
    return bound if newline < 0 else begin + newline + 1


def _release(fd: int, cut: int) -> int:
    """Give the room before ``cut`` back; returns by how many bytes the file got shorter."""
    _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, 0, cut)
    # Whole blocks only, and never to the end of the file.
    block = os.fstatvfs(fd).f_bsize
    whole = min(cut, os.fstat(fd).st_size - 1) // block * block
    if whole <= 0:
        return 0
    try:
        _fallocate(fd, _COLLAPSE_RANGE, 0, whole)
    except OSError:
        return 0  # This file system cannot; the hole does.
    return whole


def _check_release(fd: int) -> None:
    """Raise OSError if the file system cannot punch holes; tried far beyond the end, to no effect."""
    _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, os.fstat(fd).st_size + (1 << 30), BLOCK)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "the output of a running kernel can be trimmed on Linux only")
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
