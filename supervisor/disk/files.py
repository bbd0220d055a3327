"""Files that are replaced whole or not at all.

Owns how a file is written so that no reader and no crash ever meets half of
it.  Never decides what is in a file or where it belongs.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from collections.abc import Callable
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"

# Not following links, not waiting for the other end of a FIFO.
_OPEN_FLAGS = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
# What open(2) says to that of a link, of a FIFO that nobody reads or a socket, of a directory.
_REFUSED = (errno.ELOOP, errno.ENXIO, errno.EISDIR)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_atomically(
    path: Path,
    data: bytes,
    mode: int = 0o600,
    before: Callable[[], object] = lambda: None,
    owner: tuple[int, int] | None = None,
) -> None:
    """Replace the file by these bytes, at once and durably.

    Written under a temporary name in the same directory, flushed to the disk,
    renamed (after a call of ``before``); then the directory is flushed, because a rename that only the
    cache knows does not survive a power cut (fsync(2), rename(2)).  The file
    has exactly ``mode``, whatever the umask, and belongs to ``owner`` (user, group; else us).
    Whoever has the old file open keeps reading the old content.  A symbolic link is replaced, not followed.

    Raises OSError that names the file (no space, read-only, no directory, …); the old file
    is then as it was and nothing is left behind.
    """
    # A dot first, so that ``jupyter --existing`` does not find half a connection file by its glob.
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}{TEMPORARY_SUFFIX}")
    fd = open_own(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(fd, mode)
            write_all(fd, data)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fsync(fd)
        finally:
            os.close(fd)
        before()
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def open_own(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a regular file of ours; anything else in its place is refused.

    A symbolic link is not followed, a FIFO or a device not waited for and not written
    to, a directory not read.  Raises OSError that says what is there.
    """
    try:
        fd = os.open(path, flags | _OPEN_FLAGS, mode)
    except OSError as error:
        if error.errno in _REFUSED:
            raise _not_ours(path, error.errno) from None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise _not_ours(path, errno.EINVAL)


def read_own(path: Path) -> bytes:
    """What is in a file of ours.  Raises OSError as ``open_own`` does."""
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_bounded(path: Path, limit: int) -> bytes:
    """What is in a file that somebody else put there: a regular one with a name, not too large.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | _OPEN_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(fd, "rb") as file:
        there = os.fstat(fd)
        # One without a name is what we have in memory, by way of /proc/self/fd.
        if not stat.S_ISREG(there.st_mode) or not there.st_nlink:
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return data


def _not_ours(path: Path, number: int) -> OSError:
    kind = stat.S_IFMT(path.lstat().st_mode)
    return OSError(number, f"it is {_KINDS.get(kind, 'no regular file')}: remove it", str(path))


def write_all(fd: int, data: bytes) -> None:
    """Write every byte: write(2) may write fewer than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable; nothing where directories cannot be opened."""
    if os.name == "nt":
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_temporaries(directory: Path) -> None:
    """Remove what writers that were killed left behind; call it while nobody writes there."""
    for leftover in directory.glob(f".*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def remove_temporaries_of(path: Path) -> None:
    """The same for one file, in a directory where others may be writing.  Never raises."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(OSError):
            leftover.unlink()
