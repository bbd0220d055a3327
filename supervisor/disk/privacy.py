"""Who else may touch what we depend on: the modes and owners of directories and files.

Owns the rules (docs/security.md) and what is told when one is broken.  Never
looks at what is in a file.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
# Who is in it, and how others are shown.
USER_NAMESPACE = (Path("/proc/self/uid_map"), Path("/proc/sys/kernel/overflowuid"))


# An access control list as the system has it (acl(5), <linux/posix_acl_xattr.h>): a version, and for
# each entry its tag, rights and number.
_ACL, _ACL_VERSION, _ENTRY = "system.posix_acl_access", 2, struct.Struct("<HHI")
_OWNER, _USER, _OF_GROUP, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NO_ID = 0xFFFF_FFFF
_changing = threading.Lock()


class UnsafeDirectory(Exception):
    """The directory may be written by others, who could put processes and keys into it."""


def make_private_directory(directory: Path) -> None:
    """Make the directory (0700) if need be, and see that nobody else decides what is in it.

    Raises UnsafeDirectory and OSError.
    """
    with suppress(FileExistsError):  # Not a directory, as is said below.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = directory.stat()
    if not stat.S_ISDIR(there.st_mode):
        raise UnsafeDirectory(f"{directory}: not a directory: remove it or choose another state_dir")
    if there.st_mode & stat.S_ISVTX and there.st_mode & _OTHERS_WRITE:
        # Not even like /tmp: the names of our files are known, and would be there before us.
        raise UnsafeDirectory(f"{directory}: others may write to it: chmod 700 {directory}")
    refuse_shared(directory, "state_dir")


def refuse_shared(directory: Path, what: str) -> None:
    """Raise UnsafeDirectory if others could exchange the directory or files in it; none at all is no danger.

    One like /tmp is fine: there nobody may rename or remove another's files (the sticky bit, unlink(2)).
    What is found there must be ours: see ``is_ours``.
    """
    reason = reason_not_to_trust(directory)
    if reason is not None:
        raise UnsafeDirectory(f"{reason}: chmod go-w it, or choose another {what}")


def is_ours(file: Path) -> bool:
    """Whether a file, or a link, that is there was put there by us or by root; one that is gone is."""
    try:
        return os.name == "nt" or file.lstat().st_uid in (os.geteuid(), 0)
    except OSError:
        return True


def reason_not_to_trust(path: Path) -> str | None:
    """Why others than we and root could decide what is at this path, in words, or ``None``.

    Judged are the path and every directory above it, on the way through links too,
    as by sshd's StrictModes and git's safe.directory.
    """
    try:
        ends = [path.absolute(), path.resolve()]
    except (OSError, RuntimeError):
        ends = [path.absolute()]
    ways = dict.fromkeys(part for end in ends for part in (end, *end.parents))
    return next((f"{part}: {reason}" for part in ways if (reason := _distrust(part)) is not None), None)


def let_in(
    path: Path, rights: int, *, users: Iterable[int] = (), groups: Iterable[int] = (), anew: bool = False
) -> None:
    """Give these users and groups rights (4 read, 2 write, 1 enter) to what is at the path.

    Besides those who have been let in before, or ``anew`` in their place.  By an access control list,
    as a file has but one group.  Raises OSError, where a file system has none too.
    """
    with _changing:
        mode = path.lstat().st_mode
        if not anew and mode & rights == rights:
            return  # as all have them; what names somebody would be all that they have
        entries = {} if anew else _let_in_before(path)
        entries |= {(_USER, uid): rights for uid in users} | {(_GROUP, gid): rights for gid in groups}
        most = mode & 7
        for granted in entries.values():
            most |= granted
        entries |= {
            (_OWNER, _NO_ID): mode >> 6 & 7,
            (_OF_GROUP, _NO_ID): mode & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
        entries[_MASK, _NO_ID] = most
        packed = [_ENTRY.pack(tag, entries[tag, who], who) for tag, who in sorted(entries)]
        os.setxattr(path, _ACL, b"".join([struct.pack("<I", _ACL_VERSION), *packed]), follow_symlinks=False)


def _let_in_before(path: Path) -> dict[tuple[int, int], int]:
    try:
        content = os.getxattr(path, _ACL, follow_symlinks=False)[struct.calcsize("<I") :]
    except OSError:
        return {}  # it has none
    entries = ((tag, who, rights) for tag, rights, who in _ENTRY.iter_unpack(content))
    return {(tag, who): rights for tag, who, rights in entries if tag in (_USER, _GROUP)}


class ExposedFiles:
    """Warns of files that others may write to, once as long as it is so."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def warn_of(self, files: Iterable[Path]) -> None:
        """Log a line for each reason that is new."""
        found = {reason for file in files if (reason := reason_not_to_trust(file)) is not None}
        reasons = {f"{reason}, and so decide what is run here: chown or chmod go-w it" for reason in found}
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


def _distrust(part: Path) -> str | None:
    """Who else may change what is here, by its owner and mode alone."""
    if os.name == "nt":
        return None
    try:
        there = part.lstat()
    except OSError:
        return None
    if there.st_uid not in (os.geteuid(), 0) and not _is_outside(there.st_uid):
        return f"another user (uid {there.st_uid}) may write to it"
    if stat.S_ISLNK(there.st_mode) or (stat.S_ISDIR(there.st_mode) and there.st_mode & stat.S_ISVTX):
        return None  # a link has no mode; and what is found below is judged by itself
    by_group = there.st_mode & stat.S_IWGRP and not _is_own_group(there.st_gid)
    return "others may write to it" if by_group or there.st_mode & stat.S_IWOTH else None


def _is_outside(uid: int) -> bool:
    """Whether the owner is not in this user namespace, as root in a sandbox (user_namespaces(7))."""
    try:
        users = USER_NAMESPACE[0].read_text().split()
        nobody = int(USER_NAMESPACE[1].read_text())
    except (OSError, ValueError):
        return False
    return uid == nobody and users != ["0", "0", "4294967295"]


def _is_own_group(gid: int) -> bool:
    """Whether the group is ours alone, as where each user has one and the umask is 002."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid != 0 and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
