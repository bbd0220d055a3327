"""The real daemon, with places where an effect can be made to fail, to stall, or to end the daemon.

``python daemon_with_faults.py FAULTS run CONFIG`` is ``kernel-supervisor run
CONFIG``, but each effect below first looks into the JSON file FAULTS, which a
test rewrites while the daemon runs:

    {"record.intent": {"before": {"raise": "ENOSPC"}},
     "spawn": {"after": {"kill": true}},
     "fsync": {"before": {"stall": 2.0}}}

``raise`` is an OSError of that name (a ZMQError at ``zmq.socket``), ``stall``
sleeps so many seconds in the thread that does the work, and ``kill`` is SIGKILL
to the daemon itself.  Each fault that strikes adds a line ``POINT WHEN`` to
FAULTS.struck.

The program knows nothing of it: the functions are wrapped here, so there is no
hook, no test and no cost in what users run.

=====================  =======================================================
``record.intent``      the record of a launch that has no process yet
``record.identity``    the record with the process, which is not ready yet
``record.ready``       the record of a process that is ready
``record.rest``        any other record (dead, stopped, failed)
``….rename``           of each of them: its bytes are on disk beside it, not yet in its place
``address``            the choice of its address
``connection.write``   the connection file
``spawn``              the process itself: fork and exec
``watch``              taking hold of a new process (its identity, its pidfd)
``adopt``              taking hold of the process of an earlier daemon, or of one that was forked
``fork``               a process that a zygote is asked for
``go``                 its way to a kernel, or that of a spare
``park``, ``promote``  a spare, on its way there and into the place of its kernel
``zmq.socket``         a socket to a kernel
``events``             a line of events.jsonl
``last-good``          the configuration that is kept for the next start
``lock``               the pid in the lock file
``fsync``              every flush to the disk
``rename of FILE``     the rename that puts any file in its place
=====================  =======================================================
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from supervisor.cli.program import main
from supervisor.daemon import settings_file
from supervisor.disk import lock
from supervisor.kernel import connection, entry, launch, warmth
from supervisor.observe import events_file
from supervisor.records import record
from supervisor.warm import zygotes

_sleep, _kill = time.sleep, os.kill
_current = threading.local()


class Faults:
    """The file that says what goes wrong now."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def strike(self, point: str, when: str, error: type[OSError] = OSError) -> None:
        try:
            fault = json.loads(self.path.read_bytes()).get(point, {}).get(when)
        except FileNotFoundError:
            return
        if fault is None:
            return
        with open(f"{self.path}.struck", "a", encoding="utf-8") as struck:  # noqa: PTH123
            struck.write(f"{point} {when}\n")
        if "stall" in fault:
            _sleep(fault["stall"])
        if fault.get("kill"):
            _kill(os.getpid(), signal.SIGKILL)
        if name := fault.get("raise"):
            number = getattr(errno, name)
            raise zmq.ZMQError(number) if error is zmq.ZMQError else error(number, os.strerror(number))

    def wrap(
        self, owner: Any, name: str, point: str | Callable[..., str], error: type[Any] = OSError
    ) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def faulty(*arguments: Any, **keywords: Any) -> Any:
            where = point if isinstance(point, str) else point(*arguments)
            self.strike(where, "before", error)
            result = original(*arguments, **keywords)
            self.strike(where, "after", error)
            return result

        setattr(owner, name, faulty)


def kind_of(_store: record.RecordStore, written: record.Record) -> str:
    if written.process is None:
        kind = "intent" if written.spawned_at is not None else "rest"
    else:
        kind = "ready" if written.ready else "identity"
    _current.kind = f"record.{kind}"
    return _current.kind


def install(faults: Faults) -> None:
    """Wrap the effects."""
    faults.wrap(record.RecordStore, "write", kind_of)
    # Called between the temporary file and the rename.
    faults.wrap(record, "_keep_previous", lambda _path: f"{_current.kind}.rename")
    faults.wrap(connection.Connection, "choose", "address")
    faults.wrap(entry.Entry, "_write_file", "connection.write")
    faults.wrap(launch, "start", "spawn")
    faults.wrap(entry, "KernelManager", "watch")
    faults.wrap(entry, "AdoptedKernel", "adopt")
    faults.wrap(zygotes.Zygote, "fork", "fork")
    faults.wrap(zygotes.Forked, "go", "go")
    faults.wrap(warmth.Warmth, "park", "park")
    faults.wrap(warmth.Warmth, "promote", "promote")
    faults.wrap(zmq.Context, "socket", "zmq.socket", zmq.ZMQError)
    faults.wrap(events_file.EventsFile, "_append", "events")
    faults.wrap(settings_file, "write_atomically", "last-good")
    faults.wrap(lock.StateLock, "_tell_pid", "lock")
    faults.wrap(os, "fsync", "fsync")
    faults.wrap(Path, "replace", lambda _temporary, to: f"rename of {Path(to).name}")


if __name__ == "__main__":
    install(Faults(Path(sys.argv[1])))
    sys.exit(main(sys.argv[2:]))
