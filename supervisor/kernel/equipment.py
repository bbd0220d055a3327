"""In what a daemon and a library that supervises one kernel differ.

Owns the defaults, which are the daemon's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, field

from supervisor.cgroups.tree import NOWHERE, Tree
from supervisor.kernel.connection import Connection
from supervisor.kernel.launch import Launcher
from supervisor.kernel.line import Context
from supervisor.kernel.warmth import Warmth
from supervisor.records.places import Places


def make_connection(kernel: str, places: Places) -> Connection:
    """An address of its own for a kernel, in the runtime directory."""
    return Connection(kernel, places.connection_file(kernel), places.runtime_dir / "ipc")


class Equipment(Struct, frozen=True):
    """That in which a daemon and a library that supervises one kernel differ; the defaults are the daemon's.

    ``context`` is the zmq context of our own sockets; ``None``: the one of the process.
    ``keeps_reserve``: kernels wait while there are few descriptors left, instead of failing.
    ``wait_disk`` returns, in whatever thread, once the disk of a directory takes changes.
    ``cgroups`` is where runs get cgroups of their own.
    """

    launcher: Launcher = field(default_factory=Launcher)
    connect: Callable[[str, Places], Connection] = make_connection
    context: Context | None = None
    keeps_reserve: bool = True
    wait_disk: Callable[[Path], object] = lambda _directory: None
    warmth: Warmth = field(default_factory=Warmth)
    cgroups: Tree = NOWHERE
