"""A thread that follows one kernel's events of a daemon, from one daemon to the next.

Owns the connection to the event stream, and where in it we are.  Knows callbacks, not
managers, so that a manager that nobody holds any more is free to go.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Mapping
from typing import Any

from supervisor.control.client import Broken, Client, Connection, NoDaemon, target
from supervisor.core.model import Cause, Exit
from supervisor.manager.callbacks import RestartCallbacks
from supervisor.wording import timestamp

log = logging.getLogger(__name__)

# The next daemon is looked for this often, in seconds.
_RETRY_INTERVAL = 0.2


class Follower:
    """Begins to follow when it is made; every event comes once, also those between two daemons."""

    def __init__(self, client: Client, kernel: str, callbacks: RestartCallbacks) -> None:
        self._client = client
        self._kernel = kernel
        self._callbacks = callbacks
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        # The instant of our beginning or of the last event, and the events of that instant:
        # the stream resumes there.
        self._since = timestamp()
        self._seen: list[Mapping[str, Any]] = []
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"events of {kernel}", daemon=True)
        self._thread.start()
        # From here on nothing is missed; a daemon that is away is waited for in the thread only.
        self._listens.wait(5.0)

    def abandon(self) -> None:
        """Follow no longer; returns at once."""
        self._stop.set()
        with self._lock:
            if self._connection is not None:
                # Not close: the thread that reads from it would not wake up.
                with socket.socket(fileno=os.dup(self._connection.fileno())) as same:
                    same.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Follow no longer; returns when the thread has ended."""
        self.abandon()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (NoDaemon, Broken, OSError, ValueError) as error:
                log.debug("the events of kernel %s are not told: %s", self._kernel, error)
            self._listens.set()
            self._stop.wait(_RETRY_INTERVAL)

    def _follow(self) -> None:
        with self._client.connect() as connection:
            with self._lock:
                self._connection = connection
            try:
                self._read(connection)
            finally:
                with self._lock:
                    self._connection = None

    def _read(self, connection: Connection) -> None:
        # At first nothing that was told before, not even in the same millisecond.
        place: dict[str, Any] = {"since": self._since} if self._listens.is_set() else {"last": 0}
        connection.send("GET", target("/v1/events", {"kernel": [self._kernel], "follow": True, **place}))
        if connection.open_stream() is not None or self._stop.is_set():
            return
        self._listens.set()
        for event in connection.lines():
            # A gap is older than its own instant: what is missing would be asked for from there.
            if event.get("event") != "stream.gap" and not self._is_known(event):
                self._tell(event)

    def _is_known(self, event: Mapping[str, Any]) -> bool:
        at = str(event.get("timestamp"))
        if at == self._since and event in self._seen:
            return True
        if at != self._since:
            self._since, self._seen = at, []
        self._seen.append(event)
        return False

    def _tell(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "kernel.died" | "kernel.stopped":
                self._callbacks.note(exit_of(event))
            case "kernel.restarting":
                if "cause" in event:
                    # An ordered restart: no death was told before.
                    self._callbacks.note(exit_of(event))
                self._callbacks.call("restart")
            case "kernel.failed":
                self._callbacks.call("dead")
            case _:
                pass


def exit_of(told: Mapping[str, Any]) -> Exit:
    """How a run ended, from an event or a view."""
    causes = {cause.value: cause for cause in Cause}
    return Exit(
        causes.get(str(told.get("cause")), Cause.UNKNOWN),
        told.get("exit_code"),
        told.get("signal"),
        tuple(told.get("output_tail") or ()),
        str(told.get("detail") or ""),
    )
