"""What falls to a process with pid 1, as in a container: the ends of those whose parents are gone.

Owns the reaping of them.  Never of a child that somebody of ours waits for.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from supervisor.process.identity import children, read_stat


def is_first() -> bool:
    """Whether this process has pid 1: all others end with it, and orphans become its children."""
    return os.getpid() == 1


def reap_orphans(ours: Collection[int], seen: Collection[int]) -> set[int]:
    """Reap the ended children that nobody waits for; returns those to be looked at again.

    ``ours`` are processes that somebody waits for.  Another is left until it was ``seen``
    at an earlier look: whoever has started it may not have come to it yet.
    """
    ended = {pid for pid in children(os.getpid()) if pid not in ours and _has_ended(pid)}
    for pid in ended.intersection(seen):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass  # somebody has, meanwhile
    return ended.difference(seen)


def _has_ended(pid: int) -> bool:
    try:
        return read_stat(pid).state == "Z"
    except OSError:
        return False
