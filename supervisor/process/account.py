"""Whose a kernel is: another account of this machine, for a daemon that runs as root.

Owns who an account is, with what it begins, and how a thread of ours looks at files as it would.
Never becomes one: what does is a process of its own.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

# What user code makes is nobody else's to read, as in our units.
UMASK = 0o077
# Of our environment it gets what is about the machine; the rest may be secrets of ours, or of another kernel.
_SHARED = ("PATH", "LANG", "LANGUAGE", "TZ")
# setgroups(2) of one thread: the one of libc is for all threads (nptl(7)). Those with 32-bit numbers.
_ALL = 0xFFFF_FFFF
_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206, "armv7l": 206}


class Account(Struct, frozen=True):
    """Who it is, as the system's database of users has it (passwd(5), initgroups(3))."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def environment(self) -> dict[str, str]:
        """What its processes begin with, as of a login: of ours but where programs are and how we speak."""
        shared = {k: v for k, v in os.environ.items() if k in _SHARED or k.startswith("LC_")}
        return {**shared, "HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}

    def popen_options(self) -> dict[str, Any]:
        """How ``subprocess.Popen`` begins a process of it."""
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups, "umask": UMASK}


def account_of(user: str | None) -> Account | None:
    """The account of this name; ``None`` for our own, and where none is named.  Raises KeyError."""
    if user is None:
        return None
    import pwd

    found = pwd.getpwnam(user)
    if found.pw_uid == os.geteuid():
        return None
    groups = tuple(os.getgrouplist(user, found.pw_gid))
    shell = found.pw_shell or "/bin/sh"
    return Account(user, found.pw_uid, found.pw_gid, groups, found.pw_dir, shell)


def uid_of(user: str | None) -> int | None:
    """The number of the account of this name, ours where none is named; ``None`` for one that is gone."""
    try:
        account = account_of(user)
    except KeyError:
        return None
    return os.geteuid() if account is None else account.uid


def expand(text: str, account: Account | None) -> str:
    """A text with ``~`` at its begin filled in as of the account; an unknown ``~USER`` stays as it is."""
    if account is not None and (text == "~" or text.startswith("~/")):
        return account.home + text[1:]
    # As a string: not everything is a path.
    return os.path.expanduser(text)  # noqa: PTH111


@contextmanager
def acting(account: Account | None) -> Iterator[None]:
    """While it lasts, this thread, and no other, opens, makes and looks at files as the account would.

    By its user for files (setfsuid(2)), not its effective one: nobody may signal us for it.  The real
    one stays, too, so what may be done is to be asked with ``may``.  Raises OSError.
    """
    if account is None:
        yield
        return
    import ctypes

    # What is imported later would be looked for as the account, which our own files may be closed to.
    import difflib  # noqa: F401

    import jupyter_core.paths  # noqa: F401

    if sys.platform != "linux" or platform.machine() not in _SETGROUPS:
        raise OSError(errno.ENOSYS, "no kernel can have another account than the daemon on this machine")
    libc = ctypes.CDLL(None, use_errno=True)
    before, uid, gid = os.getgroups(), libc.setfsuid(-1), libc.setfsgid(-1)
    try:
        _set_groups(libc, account.groups)
        libc.setfsgid(account.gid)
        libc.setfsuid(account.uid)
        if (libc.setfsuid(-1) & _ALL, libc.setfsgid(-1) & _ALL) != (account.uid, account.gid):
            raise PermissionError(errno.EPERM, f"the daemon may not act as user {account.name}")
        yield
    finally:
        libc.setfsuid(uid)
        libc.setfsgid(gid)
        _set_groups(libc, before)


def _set_groups(libc: Any, groups: tuple[int, ...] | list[int]) -> None:
    import ctypes

    numbers = (ctypes.c_uint32 * len(groups))(*groups)
    if libc.syscall(_SETGROUPS[platform.machine()], len(groups), numbers):
        code = ctypes.get_errno()
        raise OSError(code, f"groups cannot be set: {os.strerror(code)}")


def may(path: str | os.PathLike[str], mode: int) -> bool:
    """As ``os.access``, for whom the thread is acting."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
