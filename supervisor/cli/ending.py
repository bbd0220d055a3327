"""The verbs that end the daemon: ``detach`` and ``shutdown``.  Both wait until it is gone."""

from __future__ import annotations

import os
import select
import time
from argparse import Namespace
from typing import Any

from supervisor.cli import words
from supervisor.cli.asking import client_of, get, refuse
from supervisor.cli.exits import DONE, FAILED, Quit
from supervisor.cli.screen import Transient, complain, tell
from supervisor.control.client import (
    QUICK_TIMEOUT,
    STATUS_PATH,
    Broken,
    Client,
    Connection,
    NoDaemon,
    Unresponsive,
)

_LOOK_INTERVAL = 0.5


def detach(arguments: Namespace) -> int:
    """Have the daemon exit and leave its kernels running."""
    return _end(arguments, "/v1/detach", {}, "the daemon has exited; the kernels go on")


def shutdown(arguments: Namespace) -> int:
    """Have the daemon stop all kernels and exit."""
    fields = {"now": True} if arguments.now else {}
    return _end(arguments, "/v1/shutdown", fields, "all kernels are stopped, the daemon has exited")


def _end(arguments: Namespace, path: str, fields: dict[str, Any], done: str) -> int:
    client = client_of(arguments)
    # An order that is not heard now would be carried out whenever the daemon goes on.
    client.ask("GET", STATUS_PATH, timeout=QUICK_TIMEOUT)
    transient = Transient()
    with client.connect() as connection:
        daemon = _Daemon(connection, client)
        try:
            _ask(connection, path, fields, daemon)
            if arguments.no_wait:
                done = "the daemon is on its way out"
            else:
                daemon.wait_gone(transient)
        except KeyboardInterrupt:
            transient.clear()
            complain("stopped waiting; the daemon is still on its way out")
            return FAILED
        finally:
            daemon.close()
    transient.clear()
    tell({"ok": True, "message": done}, [done], as_json=arguments.json)
    return DONE


def _ask(connection: Connection, path: str, fields: dict[str, Any], daemon: _Daemon) -> None:
    """Give the order."""
    try:
        answer = connection.ask("POST", path, fields, timeout=QUICK_TIMEOUT)
    except Broken:
        if daemon.is_gone():
            return  # it was quicker than its answer
        raise
    except Unresponsive:
        raise Quit(FAILED, "the daemon has not answered yet; the order stands", "see status") from None
    if answer.is_error:
        refuse(answer)


class _Daemon:
    """The daemon at the other end of a connection, as a process that will end."""

    def __init__(self, connection: Connection, client: Client) -> None:
        self._client = client
        self._pidfd = _pidfd(connection)

    def is_gone(self) -> bool:
        """Whether it has ended, as far as can be seen."""
        if self._pidfd is not None:
            return bool(select.select([self._pidfd], [], [], 0)[0])
        try:
            self._client.connect().close()
        except NoDaemon:
            return True
        return False

    def wait_gone(self, transient: Transient) -> None:
        """Return when it has ended; meanwhile show which kernels still run."""
        while not self.is_gone():
            if self._pidfd is not None:
                select.select([self._pidfd], [], [], _LOOK_INTERVAL)
            else:
                time.sleep(_LOOK_INTERVAL)
            if transient.shows:
                transient.show(self._progress())

    def close(self) -> None:
        """Let go of the process."""
        if self._pidfd is not None:
            os.close(self._pidfd)

    def _progress(self) -> str:
        try:
            views = get(self._client, "/v1/status")["kernels"]
        except (NoDaemon, Broken):
            return "waiting for the daemon to exit"
        left = [words.progress(view, words.now()) for view in views if view.get("pid")]
        return f"waiting for {', '.join(left)}" if left else "waiting for the daemon to exit"


def _pidfd(connection: Connection) -> int | None:
    """A handle on the process that listens, where there are such."""
    pid = connection.listener()[0]
    try:
        return os.pidfd_open(pid) if pid and pid != os.getpid() else None
    except (OSError, AttributeError):
        return None
