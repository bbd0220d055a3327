"""The daemon, killed between two steps of a launch: ``python faulty.py POINT run FILE``.

Owns the points.  The program itself knows nothing of them: its functions are
wrapped here, in the process of the test, and SIGKILL comes from within, so
that it strikes at exactly that point and nothing of ours runs after it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from supervisor.__main__ import main
from supervisor.disk import files
from supervisor.kernel.connection import Connection
from supervisor.kernel.entry import Entry
from supervisor.kernel.launch import Launcher
from supervisor.records import record

Wrap = Callable[..., Any]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(function: Wrap) -> Wrap:
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        die()
        return function(*arguments, **keywords)

    return wrapped


def after(function: Wrap) -> Wrap:
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        result = function(*arguments, **keywords)
        die()
        return result

    return wrapped


def _of_process(write: Wrap, strike: Callable[[Wrap], Wrap]) -> Wrap:
    """Strike at the record that has the process first, not at the intent before it."""

    def wrapped(store: Any, entry: Any) -> Any:
        return (strike(write) if entry.process is not None else write)(store, entry)

    return wrapped


def arm(point: str) -> None:  # noqa: C901  one case a point
    """Have the daemon end at this point."""
    store = record.RecordStore
    match point:
        case "before the address is chosen":
            Connection.choose = before(Connection.choose)  # type: ignore[method-assign]
        case "before the connection file":
            Connection.write = before(Connection.write)  # type: ignore[method-assign]
        case "after the connection file":
            Connection.write = after(Connection.write)  # type: ignore[method-assign]
        case "before the intent":
            store.write = before(store.write)  # type: ignore[method-assign]
        case "amid the intent":
            record.write_temporary = after(files.write_temporary)
        case "after the intent":
            Launcher.spawn = before(Launcher.spawn)  # type: ignore[method-assign]
        case "after the spawn":
            Launcher.spawn = after(Launcher.spawn)  # type: ignore[method-assign]
        case "before the process is on record":
            store.write = _of_process(store.write, before)  # type: ignore[method-assign]
        case "after the process is on record":
            store.write = _of_process(store.write, after)  # type: ignore[method-assign]
        case "after the launch":
            Entry._launch = _later(Entry._launch)  # type: ignore[method-assign]
        case _:
            sys.exit(f"{point}: no such point")


def _later(launch_of_entry: Wrap) -> Wrap:
    async def wrapped(*arguments: Any) -> Any:
        await launch_of_entry(*arguments)
        die()

    return wrapped


POINTS = (
    "before the address is chosen",
    "before the connection file",
    "after the connection file",
    "before the intent",
    "amid the intent",
    "after the intent",
    "after the spawn",
    "after the launch",
    "before the process is on record",
    "after the process is on record",
)

if __name__ == "__main__":
    arm(sys.argv.pop(1))
    sys.exit(main())
