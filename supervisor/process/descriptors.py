"""How many files this process may have open: as many as it can, and how many are left.

Owns our own limit (getrlimit(2), RLIMIT_NOFILE).  Opens nothing, and decides
nothing about what to do when there are few.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

_OPEN = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

# The limits that we were started with, once ours is raised.
_before: list[tuple[int, int]] = []


def raise_limit() -> None:
    """Let this process have as many open as it may: the soft limit becomes the hard one.

    Where processes can be given back what we had (prlimit(2)), as some programs
    depend on it: select(2) knows no descriptor above 1023.
    """
    if sys.platform != "linux":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _before.append((soft, hard))


def give_back_limit(child: subprocess.Popen[bytes]) -> None:
    """Give a process that we have just started the limits that we were started with."""
    if sys.platform != "linux" or not _before:
        return
    import resource

    with suppress(OSError):  # it has ended, or has become somebody else
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, _before[0])


def limit() -> int:
    """How many this process may have open."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def left() -> int:
    """How many more this process can open."""
    if (most := limit()) == sys.maxsize:
        return most
    try:
        # The listing has one open itself.
        return most - len(os.listdir(_OPEN)) + 1  # noqa: PTH208
    except OSError:
        return 0  # not even for that
