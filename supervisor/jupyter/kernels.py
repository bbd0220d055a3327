"""Supervised kernels in a Jupyter server, beside the server's own.

Owns what the server knows of each: its view, which the daemon tells, and the
one connection to its present run, from which every page is told.  Events are
hints, the view is the truth: whatever happened, the two are compared.  Orders
go to the daemon, which alone starts, stops and restarts.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

import zmq
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from tornado import web
from traitlets import Unicode

from supervisor.jupyter.daemon import Away, Daemon, Refused
from supervisor.jupyter.recorder import Message, Recorder, file_of
from supervisor.jupyter.remembered import Remembered
from supervisor.jupyter.views import connect, death_of, how_it_ended

log = logging.getLogger(__name__)

Fields = dict[str, Any]

# Seconds: how often a new run is asked until it is heard on iopub, how long that may take, how
# long an idle kernel takes to answer on shell, how long an order waits for the connection, and how
# long the end of a run waits until all that it has published is passed on.
NUDGE_INTERVAL = 0.2
NUDGE_PATIENCE = 3.0
IDLE_PATIENCE = 0.3
UP_PATIENCE = 30.0
LAST_WORDS_PATIENCE = 0.5

_LASTING = ("execute_request", "comm_msg")  # those that may take long are on record
_UNTRACKED = ("kernel_info_request", "comm_info_request", "interrupt_request", "")


def _state_of(phase: str) -> str:
    """What the front ends call a phase in which no run can be reached."""
    if phase in ("stopped", "failed"):
        return "dead"
    return "restarting" if phase in ("stopping", "backoff") else "starting"


class Page(Protocol):
    """A client's connection, as a kernel tells it of its run."""

    session_id: str
    is_away: bool

    def begin_run(self) -> None:
        """A run can be reached."""

    def end_run(self, reason: str, status: str) -> None:
        """It cannot any more, for this reason; front ends call the state ``status``."""

    def tell(self, status: str) -> None:
        """The kernel is busy or idle."""

    def hear(self, published: Published) -> None:
        """The kernel published something."""


class Published:
    """What a kernel has published, read once for all pages."""

    def __init__(self, header: Fields, parent: Fields, parts: list[bytes]) -> None:
        self.header, self.parent, self.parts = header, parent, parts

    @cached_property
    def binary(self) -> bytes:
        """As the front ends have it that speak the newer protocol."""
        return bytes(serialize_msg_to_ws_v1(self.parts, "iopub"))

    def message(self, here: set[str]) -> Message:
        """As it is recorded: missed by the session that asked for it unless that is ``here``."""
        session = str(self.parent.get("session") or "")
        message = Message.of("iopub", session, self.header, self.parent, self.binary)
        return message._replace(missed=bool(session) and session not in here)


class Run:
    """The server's connection to one run of a kernel."""

    def __init__(self, kernel: SupervisedKernel, generation: int) -> None:
        self.generation = generation
        self.is_heard = asyncio.Event()
        # The requests that it executes, and since when, in seconds since the epoch; and since when
        # what it was found executing, if that is known.
        self.executing: dict[str, float] = {}
        self.found: list[float] = []
        self._kernel = kernel
        self._session = kernel.session
        self.iopub = kernel.connect_iopub()
        self.iopub.on_recv(self._hear)
        self._shell = kernel.connect_shell()
        self._shell.on_recv(self._answered)
        self._control = kernel.connect_control()
        self._asked = self._ask(self._shell)
        self.is_idle = asyncio.Event()

    def _ask(self, stream: Any) -> str:
        return str(self._session.send(stream, "kernel_info_request")["header"]["msg_id"])

    async def reach(self) -> None:
        """Return once it is heard on iopub: a subscription takes a moment, and what comes before is lost."""
        deadline = time.monotonic() + NUDGE_PATIENCE
        while not self.is_heard.is_set() and time.monotonic() < deadline:
            self._ask(self._control)
            try:
                await asyncio.wait_for(self.is_heard.wait(), NUDGE_INTERVAL)
            except TimeoutError:
                pass
        self.is_heard.set()
        try:
            await asyncio.wait_for(self.is_idle.wait(), IDLE_PATIENCE)
        except TimeoutError:
            pass  # it executes

    def _answered(self, _: list[bytes]) -> None:
        self.is_idle.set()
        if not self.executing:
            self._kernel.note_state("idle")

    def _hear(self, frames: list[bytes]) -> None:
        self.is_heard.set()
        try:
            _, rest = self._session.feed_identities(frames)
            header, parent = json.loads(bytes(rest[1])), json.loads(bytes(rest[2])) or {}
            self._kernel.session_of_run = str(header["session"])
            kind, request = str(header["msg_type"]), str(parent.get("msg_id") or "")
            state = json.loads(bytes(rest[4])).get("execution_state") if kind == "status" else None
        except (ValueError, KeyError, IndexError, AttributeError, TypeError):
            return  # not a message
        self._note(str(parent.get("msg_type") or ""), request, state)
        self._kernel.publish(Published(header, parent, [bytes(part) for part in rest[1:]]))

    def _note(self, asked: str, request: str, state: str | None) -> None:
        if asked in _UNTRACKED:
            return
        self._kernel.note_activity()
        if state == "busy":
            self.executing.setdefault(request, time.time())
        elif state == "idle":
            self.executing.pop(request, None)
        if state in ("busy", "idle"):
            if asked in _LASTING:
                self._kernel.recorder.hear(request, state)
            self._kernel.execution_state = "busy" if self.executing else "idle"

    def close(self) -> None:
        """Hear no more of it; what has come is heard first, but for a flood that would hold up its end."""
        deadline = time.monotonic() + LAST_WORDS_PATIENCE
        self.iopub.on_recv(None)
        try:
            while time.monotonic() < deadline:
                self._hear(self.iopub.socket.recv_multipart(zmq.NOBLOCK))
        except zmq.ZMQError:
            pass  # nothing is left
        for stream in (self.iopub, self._shell, self._control):
            stream.close(linger=0)
        self.is_heard.set()  # whoever waits to reach it need not
        self.is_idle.set()


class SupervisedKernel(ServerKernelManager):  # type: ignore[misc]
    """One supervised kernel: owns no process, gives its orders to the daemon."""

    def __init__(self, view: Fields, daemon: Daemon, **more: Any) -> None:
        super().__init__(owns_kernel=False, **more)
        self.view: Fields = {}
        self.daemon, self.recorder = daemon, Recorder(view["name"])
        self.kernel_id, self.kernel_name = view["id"], view["name"]
        self.last_activity, self.execution_state = utcnow(), "starting"
        self.ready.set_result(None)
        self.run: Run | None = None
        # A front end drops what it has not handled yet as soon as something comes from another one.
        self.session_of_run = ""
        self.pages: set[Page] = set()
        # When the sessions left that were here; in seconds since the epoch.
        self.left: dict[str, float] = {}
        self.up = asyncio.Event()
        self._attaching: asyncio.Task[None] | None = None
        self.take(view)

    # What Jupyter asks of a kernel manager.

    async def start_kernel(self, *_: Any, **__: Any) -> None:
        """Have it started, if it is not up."""
        if not self.up.is_set() and self.view["phase"] not in ("running", "unknown"):
            await self.order("start")
            await self.wait_up()

    async def interrupt_kernel(self) -> None:
        await self.order("interrupt")

    async def signal_kernel(self, signum: int) -> None:
        await self.order("signal", signal=int(signum))

    async def restart_kernel(self, now: bool = False, **_: Any) -> None:
        """Have it restarted, once, however many ask for that at a time."""
        before = self.view
        try:
            if before["phase"] in ("starting", "backoff") or (
                before["phase"] == "stopping" and before["want"] == "up"
            ):
                await self.order("start")  # it is on its way already
            else:
                await self.order("restart", now=now, if_generation=before["generation"])
        except web.HTTPError as error:
            is_meanwhile = self.view["generation"] != before["generation"]
            is_on_its_way = is_meanwhile or self.view["phase"] in ("starting", "stopping")
            if error.status_code != 409 or not is_on_its_way:
                raise
        await self.wait_up()

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Leave it, or stop it where its file says so."""
        if self.view.get("on_client_shutdown") == "stop" and not restart:
            await self.order("stop", now=now)

    async def order(self, verb: str, **fields: Any) -> None:
        """Give an order to the daemon, and look at what came of it.  Raises tornado's HTTPError."""
        try:
            self.take(await self.daemon.order(self.view["name"], verb, **fields))
        except Refused as refused:
            self.take(refused.view or self.view)
            raise web.HTTPError(refused.status, str(refused)) from refused
        except Away as away:
            raise web.HTTPError(503, str(away)) from away

    async def wait_up(self) -> None:
        """Return once its run is reached, or that takes too long."""
        try:
            await asyncio.wait_for(self.up.wait(), UP_PATIENCE)
        except TimeoutError:
            raise web.HTTPError(504, f"{self.view['name']} is not up after {UP_PATIENCE:g} s") from None

    # What the daemon tells.

    def take(self, view: Fields) -> None:
        """This is how it is now: let go of a run that is over, and reach for the present one."""
        if view.get("id") != self.kernel_id or view["generation"] < self.view.get("generation", 0):
            return
        self.view = view
        phase, present = view["phase"], self.run
        if phase == "unknown":
            return
        if present is not None and (
            present.generation != view["generation"] or phase not in ("running", "stopping")
        ):
            self._let_go(present)
        if self.run is None and phase != "running":
            self._note_down(phase)
        elif self.run is None and self._attaching is None:
            self._attaching = asyncio.get_running_loop().create_task(self._attach(view))

    def _note_down(self, phase: str) -> None:
        state = _state_of(phase)
        if state != self.execution_state:
            self.execution_state = state
            self.reason = self.view.get("reason") or ""
            if state == "dead":
                self._end_pages(f"{self.view['name']} is {phase}. {self.reason}".strip(), state)

    async def _attach(self, view: Fields) -> None:
        """Connect to a run; should it end meanwhile, the next look tells."""
        try:
            await connect(self, view["connection_file"])
            self.run = Run(self, view["generation"])
            await self.run.reach()
        except Exception as error:
            # Out of descriptors, say, or a file that is being written: it is tried again.
            log.warning("cannot connect to kernel %s: %s", view["name"], error)
            self.leave()
            await asyncio.sleep(NUDGE_PATIENCE)
        self._attaching = None
        if (run := self.run) is not None:
            self.execution_state = "idle" if run.is_idle.is_set() and not run.executing else "busy"
            self.reason = ""
            self.up.set()
            self._each(lambda page: page.begin_run())
        self.take(self.view)
        if run is not None and self.execution_state == "busy" and not run.executing:
            run.found = await self._executing_since()

    async def _executing_since(self) -> list[float]:
        """Since when it executes what it was found executing, as far as the daemon knows."""
        try:
            view = (await self.daemon.ask("GET", f"/v1/kernels/{self.view['name']}"))["kernel"]
        except (Away, Refused):
            return []
        cell = view["executing"]
        return [datetime.fromisoformat(cell["since"]).timestamp()] if cell else []

    def _let_go(self, run: Run) -> None:
        """The run is over: every page is told why, and whoever waits for an answer gets one."""
        self.leave()
        self.up.clear()
        for request in run.executing:
            self.recorder.hear(request, "idle")
        died = death_of(self.view, run.generation) is not None
        self.execution_state = state = _state_of(self.view["phase"])
        told = how_it_ended(self.view, run.generation)
        self.reason = told if state == "dead" else ""
        # "restarting" has the front ends say that it died, and connect anew: only where it did.
        status = "dead" if state == "dead" else "restarting" if died else "starting"
        self._end_pages(told, status)

    def _end_pages(self, reason: str, status: str) -> None:
        self._each(lambda page: page.end_run(reason, status))

    def leave(self) -> None:
        """Hear no more of its run, which goes on."""
        if self.run is not None:
            self.run.close()
            self.run = None

    # What the kernel tells.

    async def busy(self, since: float) -> list[tuple[float, float]]:
        """From when to when it executed, of what went on after ``since``; in seconds since the epoch.

        As far as it is known: a server heard it, or the daemon told the cell.  What goes on ends now.
        """
        known = await self.recorder.spans(since)
        if self.run is None or self.execution_state != "busy":
            return known
        return known + [(begun, time.time()) for begun in list(self.run.executing.values()) or self.run.found]

    def note_activity(self) -> None:
        """Somebody uses it."""
        self.last_activity = utcnow()
        if self.parent is not None:
            self.parent.last_kernel_activity = self.last_activity

    def note_state(self, state: str) -> None:
        """It has become known that it is busy or idle."""
        if self.up.is_set() and self.execution_state != state:
            self.execution_state = state
            self._each(lambda page: page.tell(state))

    @property
    def here(self) -> set[str]:
        """The sessions that have a page at this moment."""
        return {page.session_id for page in self.pages if not page.is_away}

    def publish(self, published: Published) -> None:
        """Tell every page, and record it, for the page of the request if that is away."""
        if self.recorder.max_bytes and published.parent.get("msg_id"):
            self.recorder.add(published.message(self.here))
        self._each(lambda page: page.hear(published))

    def _each(self, tell: Callable[[Page], object]) -> None:
        """Tell every page; one that cannot be told is no reason to tell the others nothing."""
        for page in list(self.pages):
            try:
                tell(page)
            except Exception:
                log.exception("a page of %s could not be told", self.kernel_name)


class SupervisedKernels(AsyncMappingKernelManager):  # type: ignore[misc]
    """The server's own kernels as ever, and with them all that the daemon keeps."""

    socket = Unicode("", config=True, help="the control socket of the daemon; default: the usual places")
    configuration = Unicode("", config=True, help="the file of the daemon, instead of its socket")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supervised: dict[str, SupervisedKernel] = {}
        self.remembered = Remembered(self.root_dir, self.socket or self.configuration)
        self.daemon = Daemon(self.socket, self.configuration)
        self._told = ""
        self.kernel_spec_manager.kernels = self

    def follow(self) -> None:
        """Begin to follow the daemon, on the running loop."""
        for view in self.remembered.views:
            self._put(view)
        self.daemon.follow(self._looked, self._lost)

    def _looked(self, status: Fields) -> None:
        if self._told:
            self.log.warning("kernel-supervisor: the daemon answers")
            self._told = ""
        views = status["kernels"]
        for name in self.supervised.keys() - {view["name"] for view in views}:
            self._drop(name)
        for view in views:
            file = file_of(status["state_dir"], view["id"])
            self._put(view).recorder.record_to(file, **view["recorder"])
        self.remembered.keep_views(views)

    def _lost(self, reason: str) -> None:
        if not self._told:
            self._told = reason
            self.log.warning("kernel-supervisor: no daemon answers, its kernels go on: %s", reason)

    def _put(self, view: Fields) -> SupervisedKernel:
        kernel = self.supervised.get(view["name"])
        if kernel is not None and kernel.kernel_id == view["id"]:
            kernel.take(view)
            return kernel
        if kernel is not None:
            self._drop(view["name"])
        file = view["connection_file"]
        kernel = SupervisedKernel(
            view, self.daemon, parent=self, log=self.log, context=self.context, connection_file=file
        )
        self.supervised[view["name"]] = self._kernels[kernel.kernel_id] = kernel
        self._kernel_connections.setdefault(kernel.kernel_id, 0)
        return kernel

    def _drop(self, name: str) -> None:
        """It is declared no more."""
        kernel = self.supervised.pop(name)
        kernel.recorder.remove()
        kernel.take({**kernel.view, "phase": "stopped", "reason": "it has left the file"})
        self._kernels.pop(kernel.kernel_id, None)
        self._kernel_connections.pop(kernel.kernel_id, None)

    def of(self, kernel_id: str) -> SupervisedKernel | None:
        """The supervised kernel of this id, if it is one."""
        kernel = self._kernels.get(kernel_id)
        return kernel if isinstance(kernel, SupervisedKernel) else None

    def of_spec(self, spec_name: str | None) -> SupervisedKernel | None:
        """The supervised kernel that a kernelspec of this server stands for."""
        return self.supervised.get(self.kernel_spec_manager.kernel_of(spec_name))

    # What clients order.

    async def start_kernel(self, *, kernel_id: str | None = None, path: Any = None, **kwargs: Any) -> str:
        """Start a kernel of the server's own, or take up a supervised one."""
        supervised = self.of_spec(kwargs.get("kernel_name")) or (self.of(kernel_id) if kernel_id else None)
        if supervised is None:
            return str(await super().start_kernel(kernel_id=kernel_id, path=path, **kwargs))
        await supervised.start_kernel()
        return str(supervised.kernel_id)

    async def restart_kernel(self, kernel_id: str, now: bool = False) -> None:
        """Restart it."""
        supervised = self.of(kernel_id)
        if supervised is None:
            await super().restart_kernel(kernel_id, now=now)
        else:
            await supervised.restart_kernel(now=now)

    async def shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> None:
        """Shut it down; a supervised one as its file says."""
        supervised = self.of(kernel_id)
        if supervised is None:
            await super().shutdown_kernel(kernel_id, now=now, restart=restart)
        else:
            await supervised.shutdown_kernel(now=now, restart=restart)

    async def shutdown_all(self, now: bool = False) -> None:
        """The server ends: with its own kernels, and without the supervised ones."""
        self.daemon.close()
        for kernel in self.supervised.values():
            kernel.leave()
            self._kernels.pop(kernel.kernel_id, None)
        await asyncio.gather(*(kernel.recorder.flush() for kernel in self.supervised.values()))
        await super().shutdown_all(now=now)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that nobody uses, unless it is supervised."""
        if self.of(kernel_id) is None:
            await super().cull_kernel_if_idle(kernel_id)
