"""The orders of a manager, carried out by a daemon; ``own`` has the same interface.

Owns the way to the daemon's control door, and a thread that follows its events
while there are callbacks.  Starts, signals and ends nothing itself.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from supervisor.control.client import Answer, Broken, Client, Connection, NoDaemon, target
from supervisor.control.follow import GAP, Place, Refused, follow, open_events
from supervisor.control.lookup import BadPath, NoConfig, lead
from supervisor.core.model import Cause, Exit, ProcessId
from supervisor.disk.off_loop import begin
from supervisor.kernel.connection import Address
from supervisor.manager.launch import Launch
from supervisor.manager.thread import Work, drive
from supervisor.observe.callbacks import Callbacks
from supervisor.process.identity import identify, is_running
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

T = TypeVar("T")
View = Mapping[str, Any]
AnyPath = str | os.PathLike[str] | None

# How often a view is asked for while one is waited for, in seconds.
_LOOK_INTERVAL = 0.05
# The next daemon is looked for this often, in seconds.
_RETRY_INTERVAL = 0.2


class Attached:
    """One kernel that a running daemon supervises.

    Any of them raises ConnectionError while no daemon answers, but ``process``, which
    then tells of the one that was last known.
    """

    def __init__(self, name: str, socket: AnyPath, config: AnyPath, callbacks: Callbacks) -> None:
        try:
            found = lead(os.environ, socket=_text(socket), config=_text(config))
        except (BadPath, NoConfig) as error:
            raise ConnectionError(str(error)) from None
        self.name = name
        self._client = Client(found=found)
        self.callbacks = callbacks
        self._last_process: ProcessId | None = None
        self._last_address: Address | None = None
        self._lock = threading.Lock()
        # The thread that follows the events, its connection, and whether it listens and is to end.
        self._follower: threading.Thread | None = None
        self._connection: Connection | None = None
        self._listens = threading.Event()
        self._ended = threading.Event()
        self.connection_file = str(self._view()["connection_file"])

    def block(self, work: Work[T]) -> T:
        """Carry out an order; blocks the calling thread."""
        return drive(work)  # there is nothing in it to be awaited

    async def wait(self, work: Work[T]) -> T:
        """Carry out an order; blocks nobody."""
        return await begin(drive, work)

    # What is so

    def _view(self) -> View:
        answer = self._ask("GET", f"/v1/kernels/{self.name}")
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

    is_idle = False

    @property
    def hearer(self) -> ProcessId | None:
        """The process that hears what is sent now; the daemon is asked only if another may be there."""
        known = self._last_process
        return known if known is not None and is_running(known) else self.process

    @property
    def process(self) -> ProcessId | None:
        """The process of the kernel, as far as it is known."""
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
    def is_managing(self) -> bool:
        """Whether the daemon has the kernel up, or is to have it up, and has not given it up."""
        try:
            view = self._view()
        except LookupError:
            return False
        return view["want"] == "up" and view["phase"] not in ("stopped", "failed")

    @property
    def last_exit(self) -> Exit | None:
        """How the last run that died ended; within a callback, the end that it is called for."""
        if (told := self.callbacks.told) is not None:
            return exit_of(told)
        death = self._view()["last_death"]
        return None if death is None else exit_of(death)

    @property
    def address(self) -> Address | None:
        """Where the kernel listens, if that is known."""
        try:
            content = Path(self.connection_file).read_bytes()
            self._last_address = Address.from_mapping(json.loads(content))
        except (OSError, ValueError):
            pass  # stopped: the address that it had is the one that it will have
        return self._last_address

    def choose_address(self, config: KernelConfig, kernel_name: str) -> Address:  # noqa: ARG002
        """The address; it is the daemon that chooses it.  RuntimeError if there is none yet."""
        if (address := self.address) is None:
            raise RuntimeError(f"kernel {self.name} has no connection file: start it first")
        return address

    def formatted(self, launch: Launch, extra_arguments: list[str] | None) -> list[str]:  # noqa: ARG002
        """Not known here: RuntimeError."""
        raise RuntimeError(
            "the command of a supervised kernel is in the daemon's file: see kernel-supervisor check"
        )

    def change(self, config: KernelConfig) -> None:
        """Not ours to change: TypeError."""
        raise TypeError(f"restart: {config.restart}: whether it is started again is in the daemon's file")

    # Orders

    def _order(self, verb: str, **fields: Any) -> None:
        answer = self._ask("POST", f"/v1/kernels/{self.name}/{verb}", fields)
        if answer.is_error:
            raise RuntimeError(f"kernel {self.name}: {answer.body.get('error')}")

    async def start(self, launch: Launch, config: KernelConfig, keywords: Mapping[str, Any]) -> Launch:  # noqa: ARG002
        """Have it started; returns when it is ready.  RuntimeError if it runs, or fails."""
        _refuse(keywords)
        if self._view()["pid"] is not None:
            raise RuntimeError(f"kernel {self.name} runs already")
        self._order("start")
        return launch

    async def restart(
        self,
        launch: Launch,
        config: KernelConfig,  # noqa: ARG002
        keywords: Mapping[str, Any],
        *,
        now: bool,
    ) -> Launch:
        """Have it restarted; returns when it is ready.  ``newports=True``: elsewhere."""
        new_ports = bool(keywords.get("newports"))
        _refuse({name: value for name, value in keywords.items() if name != "newports"})
        self._order("restart", now=now, new_ports=new_ports)
        return launch

    async def shut_down(self, patience: float, *, now: bool, restart: bool) -> None:  # noqa: ARG002
        """Have it stopped; it stays so.  The address is kept in any case."""
        self._order("stop", now=now)

    async def request_shutdown(self, *, restart: bool) -> None:  # noqa: ARG002
        """Have it stopped, without waiting; signals follow after its ``stop_timeout``."""
        self._order("stop", wait=False)

    async def finish_shutdown(self, patience: float) -> None:
        """Wait so many seconds for its end, then have it killed."""
        deadline = time.monotonic() + patience
        while (process := self.process) is not None and is_running(process):
            if time.monotonic() >= deadline:
                self._order("kill")
                return
            time.sleep(_LOOK_INTERVAL)  # noqa: ASYNC251 - in a thread of its own, or the caller's

    async def clean_up(self, *, connection_file: bool) -> None:  # noqa: ARG002
        """Follow the events no longer; the connection file is the daemon's."""
        with self._lock:
            follower, self._follower = self._follower, None
            if follower is not None:
                self.abandon()
                follower.join()

    async def interrupt(self) -> None:
        """Have it interrupted.  RuntimeError if nothing runs."""
        self._order("interrupt")

    async def signal(self, signum: int) -> None:
        """Have its process group signalled; 0 only asks.  RuntimeError if nothing runs."""
        if signum != 0:
            self._order("signal", signal=signum)
        elif self._view()["pid"] is None:
            raise RuntimeError(f"kernel {self.name}: it has no process")

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until it answers.  TimeoutError, or RuntimeError if it will not."""
        deadline = inf if timeout is None else time.monotonic() + timeout
        while (view := self._view())["phase"] != "running":
            if view["phase"] in ("stopped", "failed"):
                raise RuntimeError(f"kernel {self.name} is {view['phase']}: {view['reason']}")
            if time.monotonic() >= deadline:
                raise TimeoutError(f"kernel {self.name} was not ready within {timeout:g} s")
            time.sleep(_LOOK_INTERVAL)  # noqa: ASYNC251 - as above

    # Callbacks

    def listen(self) -> None:
        """Have the callbacks told from now on, of what the next daemon does, too."""
        with self._lock:
            if self._follower is None:
                self._place = Place()
                self._ended.clear()
                self._listens.clear()
                name = f"events of {self.name}"
                self._follower = threading.Thread(target=self._follow, name=name, daemon=True)
                self._follower.start()
        # From here on nothing is missed; a daemon that is away is waited for in the thread only.
        self._listens.wait(5.0)

    def abandon(self) -> None:
        """Nobody holds the manager any more: follow the events no longer; returns at once."""
        self._ended.set()
        if (connection := self._connection) is not None:
            connection.hang_up()

    def _follow(self) -> None:
        for event in follow(self._place, self._connect, self._lost):
            if event.get("event") != GAP:
                self.callbacks(event)

    def _connect(self) -> Connection:
        # At first nothing that was told before, not even in the same millisecond.
        place: dict[str, Any] = self._place.query if self._listens.is_set() else {"last": 0}
        try:
            connection = open_events(self._client, {"kernel": [self.name], "follow": True, **place})
        except Refused as error:
            raise Broken(str(error)) from None
        self._connection = connection
        if self._ended.is_set():
            self.abandon()
        self._listens.set()
        return connection

    def _lost(self, why: NoDaemon | Broken | None) -> bool:
        self._connection = None
        self._listens.set()
        log.debug("the events of kernel %s are not told: %s", self.name, why)
        return not self._ended.wait(_RETRY_INTERVAL)


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


def _text(path: AnyPath) -> str | None:
    return None if path is None else os.fspath(path)


def _refuse(keywords: Mapping[str, Any]) -> None:
    if keywords:
        names = ", ".join(sorted(keywords))
        raise TypeError(f"{names}: what is launched, and how, is in the daemon's file")
