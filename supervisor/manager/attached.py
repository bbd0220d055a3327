"""A ``KernelManager`` of a kernel that a running daemon supervises.

Owns the way from the manager's methods to the daemon's control door, and a
thread that follows its events while there are callbacks.  Starts, signals and
ends nothing itself.
"""

from __future__ import annotations

import json
import os
import time
import weakref
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from supervisor.control.client import Answer, Broken, Client, NoDaemon, target
from supervisor.control.places import PlaceError, lead
from supervisor.core.model import Exit, ProcessId
from supervisor.kernel.connection import Address
from supervisor.manager.callbacks import Callback
from supervisor.manager.follower import Follower, exit_of
from supervisor.manager.kernel_manager import KernelManager
from supervisor.process.identity import identify, is_running

View = Mapping[str, Any]

# How often a view is asked for while one is waited for, in seconds.
_LOOK_INTERVAL = 0.05


class AttachedKernelManager(KernelManager):
    """From ``KernelManager.attach``: the same methods, carried out by the daemon.

    Its file says what is launched and how it is restarted; so the launch
    keywords of ``start_kernel`` and ``restart_kernel`` are refused.  Any of the
    methods raises ConnectionError while no daemon answers, but ``is_alive`` and
    ``pid``, which then tell of the process as last known.
    """

    def __init__(
        self,
        name: str,
        *,
        socket: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> None:
        try:
            found = lead(os.environ, socket=_text(socket), config=_text(config))
        except PlaceError as error:
            raise ConnectionError(str(error)) from None
        self._client = Client.at(found)
        self._name = name
        self._last_process: ProcessId | None = None
        self._last_address: Address | None = None
        view = self._view()
        super().__init__(kernel_id=name, connection_file=str(view["connection_file"]))
        self._follower: Follower | None = None

    # What is so

    def _view(self) -> View:
        answer = self._ask("GET", f"/v1/kernels/{self._name}")
        if answer.status == 404:
            raise LookupError(f"{answer.body.get('error')}: {answer.body.get('hint')}")
        if answer.is_error:
            raise RuntimeError(str(answer.body.get("error")))
        view: View = answer.body["kernel"]
        self._note_process(view["pid"])
        return view

    def _note_process(self, pid: int | None) -> None:
        if pid is None:
            self._last_process = None
        elif self._last_process is None or self._last_process.pid != pid:
            try:
                self._last_process = identify(pid)
            except OSError:
                self._last_process = None

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        # An order answers once it is carried out; the daemon bounds how long that is.
        patience: dict[str, Any] = {"timeout": None} if body is not None else {}
        try:
            return self._client.ask(method, target(path), body, **patience)
        except NoDaemon as error:
            raise ConnectionError(f"{error.headline}: {error}") from None
        except Broken as error:
            raise ConnectionError(f"the daemon broke off: {error}") from None

    def _process(self) -> ProcessId | None:
        self._here()
        try:
            self._view()
        except LookupError:
            # It has left the daemon's file, and has ended: until then the daemon knows it.
            self._last_process = None
        except ConnectionError:
            # The kernels outlive a daemon that crashed or detached, and wait for the next one.
            if self._last_process is not None and not is_running(self._last_process):
                self._last_process = None
        return self._last_process

    @property
    def has_kernel(self) -> bool:
        """Whether the daemon has the kernel up, or is to have it up, and has not given it up."""
        try:
            view = self._view()
        except LookupError:
            return False
        return view["want"] == "up" and view["phase"] not in ("stopped", "failed")

    @property
    def autorestart(self) -> bool:
        """Whether a kernel that dies is started again is in the daemon's file; setting it: TypeError."""
        return self._autorestart

    @autorestart.setter
    def autorestart(self, autorestart: bool) -> None:
        raise TypeError(f"autorestart: {autorestart}: whether it is started again is in the daemon's file")

    @property
    def last_exit(self) -> Exit | None:
        """How the last run that died ended; within a callback, the end that it is called for."""
        if (told := self._callbacks.told_exit) is not None:
            return told
        death = self._view()["last_death"]
        return None if death is None else exit_of(death)

    def _known_address(self) -> Address | None:
        try:
            content = Path(self.connection_file).read_bytes()
            self._last_address = Address.from_mapping(json.loads(content))
        except (OSError, ValueError):
            pass  # stopped: the address that it had is the one that it will have
        return self._last_address

    def _address(self) -> Address:
        address = self._known_address()
        if address is None:
            raise RuntimeError(f"kernel {self._name} has no connection file: start it first")
        return address

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the kernel answers.  TimeoutError after so many seconds, RuntimeError if it will not."""
        deadline = inf if timeout is None else time.monotonic() + timeout
        while (view := self._view())["phase"] != "running":
            if view["phase"] in ("stopped", "failed"):
                raise RuntimeError(f"kernel {self._name} is {view['phase']}: {view['reason']}")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"kernel {self._name} was not ready within {timeout:g} s")
            time.sleep(_LOOK_INTERVAL)

    # Orders

    def _order(self, verb: str, **fields: Any) -> None:
        self._here()
        answer = self._ask("POST", f"/v1/kernels/{self._name}/{verb}", fields)
        if answer.is_error:
            raise RuntimeError(f"kernel {self._name}: {answer.body.get('error')}")

    def start_kernel(self, **kw: Any) -> None:
        """Have the daemon start the kernel; returns when it is ready.  RuntimeError if it runs, or fails."""
        _refuse(kw)
        if self._view()["pid"] is not None:
            raise RuntimeError(f"kernel {self._name} runs already")
        self._order("start")

    def restart_kernel(self, now: bool = False, **kw: Any) -> None:
        """Have the daemon restart the kernel; returns when it is ready.  ``newports=True``: elsewhere."""
        new_ports = bool(kw.pop("newports", False))
        _refuse(kw)
        self._order("restart", now=now, new_ports=new_ports)

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # noqa: ARG002
        """Have the daemon stop the kernel; it stays stopped.  The address is kept in any case."""
        self._order("stop", now=now)

    def request_shutdown(self, restart: bool = False) -> None:  # noqa: ARG002
        """Have the daemon stop the kernel, and return; signals follow after its ``stop_timeout``."""
        self._order("stop", wait=False)

    def finish_shutdown(self, waittime: float | None = 1, pollinterval: float = 0.1) -> None:
        """Wait ``waittime`` seconds for the end of the kernel, then have it killed."""
        deadline = time.monotonic() + (self.shutdown_wait_time if waittime is None else waittime)
        while self.is_alive():
            if time.monotonic() >= deadline:
                self._order("kill")
                return
            time.sleep(pollinterval)

    def cleanup(self, connection_file: bool = True) -> None:  # noqa: ARG002
        """Follow the daemon's events no longer.  The connection file is the daemon's, and stays."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.stop()

    def interrupt_kernel(self) -> None:
        """Have the kernel interrupted.  RuntimeError if nothing runs."""
        self._order("interrupt")

    def signal_kernel(self, signum: int) -> None:
        """Have a signal sent to the process group.  RuntimeError if nothing runs."""
        self._order("signal", signal=int(signum))

    def format_kernel_cmd(self, extra_arguments: Sequence[str] | None = None) -> list[str]:  # noqa: ARG002
        """Not known here: RuntimeError.  ``kernel-supervisor check`` tells it."""
        raise RuntimeError("the command of a supervised kernel is in the daemon's file")

    def add_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """As of a kernel of one's own; events come from the daemon, also from the next one."""
        super().add_restart_callback(callback, event)
        with self._lock:
            if self._follower is None:
                self._follower = Follower(self._client, self._name, self._callbacks)
                weakref.finalize(self, self._follower.abandon).atexit = False


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _refuse(keywords: Mapping[str, Any]) -> None:
    if keywords:
        names = ", ".join(sorted(keywords))
        raise TypeError(f"{names}: what is launched, and how, is in the daemon's file")
