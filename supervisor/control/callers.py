"""Who calls at the door, and what that entitles them to ask.

Owns the roles (docs/security.md has their table) and the groups that give them.  Knows no request.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from enum import IntEnum
from typing import Any

from msgspec import Struct

# <asm-generic/socket.h>, unix(7); Python has no name for it, and takes at most so many bytes.
_SO_PEERGROUPS, _MOST_BYTES = 59, 1024
# What a kernel was given and what it made of it: may be anything, passwords too.
_CONTENTS = frozenset({"executing", "output_tail", "detail", "reason", "stacks"})


class Role(IntEnum):
    """What somebody is to the daemon; each may do all that those before it may."""

    STRANGER = 0
    READER = 1
    OPERATOR = 2
    OWNER = 3

    def __str__(self) -> str:
        return "the account of the daemon" if self is Role.OWNER else f"{self.name.lower()}s"


class Caller(Struct, frozen=True):
    """The process that connected, as it was then; ``groups`` is ``None`` where the socket does not tell."""

    pid: int
    uid: int
    groups: frozenset[int] | None = None

    @classmethod
    def at(cls, sock: socket.socket) -> Caller | None:
        """Who is at the other end (SO_PEERCRED, SO_PEERGROUPS: unix(7)); ``None``: not told here."""
        option = getattr(socket, "SO_PEERCRED", None)
        if option is None:
            return None
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
        try:
            told = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_BYTES)
        except OSError:
            return cls(pid, uid)  # before Linux 4.13, or more groups than there is room for
        return cls(pid, uid, frozenset({gid, *memoryview(told).cast("I")}))

    def looked_up(self) -> Caller:
        """The same with the groups that the user has by now; blocks."""
        import pwd

        try:
            found = pwd.getpwuid(self.uid)
        except KeyError:
            return Caller(self.pid, self.uid, frozenset())
        return Caller(self.pid, self.uid, frozenset(os.getgrouplist(found.pw_name, found.pw_gid)))


class Circle(Struct, frozen=True):
    """Who is let in besides our own user and root: the numbers of two groups."""

    operators: int | None = None
    readers: int | None = None

    @classmethod
    def named(cls, operators: str | None, readers: str | None) -> Circle:
        """The groups of these names; blocks.  Raises KeyError."""
        if sys.platform == "win32" or operators is readers is None:
            return cls()
        import grp

        return cls(*(grp.getgrnam(name).gr_gid if name else None for name in (operators, readers)))

    @property
    def groups(self) -> frozenset[int]:
        """Both of them."""
        return frozenset(group for group in (self.operators, self.readers) if group is not None)

    def role(self, caller: Caller | None) -> Role | None:
        """What a caller is; ``None`` as long as its groups decide and are not known."""
        if caller is None or caller.uid in (0, os.geteuid()):
            return Role.OWNER
        if not self.groups:
            return Role.STRANGER
        if caller.groups is None:
            return None
        if self.operators in caller.groups:
            return Role.OPERATOR
        return Role.READER if self.readers in caller.groups else Role.STRANGER


def without_contents(told: Any) -> Any:
    """An answer, or a part of one, for a reader: how kernels are, and nothing of what is in them."""
    if isinstance(told, dict):
        return {key: without_contents(value) for key, value in told.items() if key not in _CONTENTS}
    return list(map(without_contents, told)) if isinstance(told, list | tuple) else told


async def stream_without_contents(stream: AsyncIterator[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    """The same of a stream."""
    try:
        async for batch in stream:
            yield without_contents(batch)
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()
