"""Who else may touch what we depend on: the modes and owners of directories and files.

Owns the rules (docs/security.md) and what is told when one is broken.  Never
looks at what is in a file.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class UnsafeDirectory(Exception):
    """The directory may be written by others, who could put processes and keys into it."""


def make_private_directory(directory: Path) -> None:
    """Make the directory (0700) if need be, and see that nobody else may write to it.

    Raises UnsafeDirectory and OSError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # Not a directory, as is said below.
    there = directory.stat()
    if not stat.S_ISDIR(there.st_mode):
        raise UnsafeDirectory(f"{directory}: not a directory: remove it or choose another state_dir")
    if os.name == "nt":
        return
    if there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeDirectory(f"{directory}: others may write to it: chmod 700 {directory}")
    if there.st_uid not in (os.geteuid(), 0):
        raise UnsafeDirectory(f"{directory}: it belongs to another user (uid {there.st_uid}): chown it")


def refuse_shared(directory: Path, what: str) -> None:
    """Raise UnsafeDirectory if others could exchange files in the directory; none at all is no danger.

    One like /tmp is fine: there nobody may rename or remove another's files (the sticky bit, unlink(2)).
    """
    reason = _reason_not_to_trust(directory)
    if reason is not None:
        raise UnsafeDirectory(f"{directory}: {reason}: chmod go-w it, or choose another {what}")


def exposure(file: Path) -> str | None:
    """Why others may decide what is in a file that we obey, in words, or ``None``."""
    for path in (file, file.parent):
        if (reason := _reason_not_to_trust(path)) is not None:
            return f"{path}: {reason}, and so decide what is run here: chown or chmod go-w it"
    return None


class ExposedFiles:
    """Warns of files that others may write to, once as long as it is so."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def warn_of(self, files: Iterable[Path]) -> None:
        """Log a line for each reason that is new."""
        reasons = {reason for file in files if (reason := exposure(file)) is not None}
        for reason in sorted(reasons - self._told):
            log.warning("%s", reason)
        self._told = reasons


def tighten(files: Iterable[Path]) -> list[Path]:
    """Take the rights of others off files of ours; returns those that had any.  Never raises."""
    mended = []
    for file in files:
        try:
            there = file.lstat()
            if stat.S_ISREG(there.st_mode) and there.st_mode & _OTHERS and there.st_uid == os.geteuid():
                file.chmod(stat.S_IMODE(there.st_mode) & ~_OTHERS)
                mended.append(file)
        except OSError:
            continue
    return mended


def _reason_not_to_trust(path: Path) -> str | None:
    if os.name == "nt":
        return None
    try:
        there = path.stat()
    except OSError:
        return None
    if there.st_uid not in (os.geteuid(), 0):
        return f"another user (uid {there.st_uid}) may write to it"
    is_sticky = stat.S_ISDIR(there.st_mode) and there.st_mode & stat.S_ISVTX
    return "others may write to it" if there.st_mode & _OTHERS_WRITE and not is_sticky else None
