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
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import zmq
from jupyter_client.session import Session
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from tornado import web
from traitlets import Type, Unicode

from supervisor.jupyter.clients import SupervisedClient
from supervisor.jupyter.daemon import Away, Daemon, Refused
from supervisor.jupyter.provisioner import connect
from supervisor.jupyter.recorder import Message, Recorder, file_of
from supervisor.jupyter.remembered import Remembered
from supervisor.jupyter.requests import MALFORMED, Requests
from supervisor.wording import death_of, how_it_ended

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

CHANNELS = ("iopub", "shell", "control", "stdin")
_LASTING = ("execute_request", "comm_msg")  # those that may take long are on record
_UNTRACKED = ("kernel_info_request", "comm_info_request", "interrupt_request", "")


def _state_of(phase: str) -> str:
    """What the front ends call a phase in which no run can be reached."""
    if phase in ("stopped", "failed"):
        return "dead"
    return "restarting" if phase in ("stopping", "backoff") else "starting"


class Page(Protocol):
    """A client's connection."""

    def hear(self, channel: str, parts: list[bytes]) -> None:
        """The kernel has said something, or what it cannot say was said in its place."""


class Run:
    """The server's connection to one run of a kernel, for all pages."""

    def __init__(self, kernel: SupervisedKernel, generation: int) -> None:
        self.generation = generation
        self.is_heard, self.is_idle = asyncio.Event(), asyncio.Event()
        # Has the reason, for people.
        self.is_over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # The requests that it executes, and since when, in seconds since the epoch; and since when
        # what it was found executing, if that is known.
        self.executing: dict[str, float] = {}
        self.found: list[float] = []
        # One of its own: a client inside the server has the session, and the identity, of the kernel's.
        signed = {name: getattr(kernel.session, name) for name in ("key", "signature_scheme")}
        self._kernel = kernel
        self._session: Any = Session(parent=kernel, **signed)
        # One identity, by which a kernel finds the stdin of whoever asked.
        identity = self._session.bsession
        self._streams = {name: getattr(kernel, f"connect_{name}")(identity=identity) for name in CHANNELS}
        for name, stream in self._streams.items():
            stream.on_recv(partial(self._hear, name))
        self._session.send(self._streams["shell"], "kernel_info_request")

    def send(self, channel: str, parts: list[bytes]) -> None:
        """Send a message of a client."""
        self._session.send_raw(self._streams[channel], parts)

    async def reach(self) -> None:
        """Return once it is heard on iopub: a subscription takes a moment, and what comes before is lost."""
        deadline = time.monotonic() + NUDGE_PATIENCE
        while not self.is_heard.is_set() and time.monotonic() < deadline:
            self._session.send(self._streams["control"], "kernel_info_request")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_heard.wait(), NUDGE_INTERVAL)
        self.is_heard.set()
        with suppress(TimeoutError):  # it executes
            await asyncio.wait_for(self.is_idle.wait(), IDLE_PATIENCE)

    def _hear(self, channel: str, frames: list[bytes]) -> None:
        try:
            _, (_, *parts) = self._session.feed_identities(frames)
            header, parent = json.loads(parts[0]), json.loads(parts[1]) or {}
            state = json.loads(parts[3]).get("execution_state") if header["msg_type"] == "status" else None
            is_ours = parent.get("session") == self._session.session
        except MALFORMED:
            return  # not a message
        if channel == "iopub":
            self.is_heard.set()
            self._kernel.session_of_run = str(header.get("session") or "")
        if not is_ours:
            self._note(str(parent.get("msg_type") or ""), str(parent.get("msg_id") or ""), state)
            self._kernel.hear(channel, header, parent, parts)
        elif channel == "shell":
            self.is_idle.set()
            if not self.executing:
                self._kernel.note_state("idle")

    def _note(self, asked: str, request: str, state: str | None) -> None:
        if asked in _UNTRACKED:
            return
        self._kernel.note_activity()
        if state == "busy":
            self.executing.setdefault(request, time.time())
        elif state == "idle":
            self.executing.pop(request, None)
            self._kernel.requests.settle()
        if state in ("busy", "idle"):
            if asked in _LASTING:
                self._kernel.recorder.hear(request, state)
            self._kernel.execution_state = "busy" if self.executing else "idle"

    def close(self) -> None:
        """Hear no more of it; what has come is heard first, but for a flood that would hold up its end."""
        deadline = time.monotonic() + LAST_WORDS_PATIENCE
        for name, stream in self._streams.items():
            stream.on_recv(None)
            with suppress(zmq.ZMQError):  # nothing is left
                while time.monotonic() < deadline:
                    self._hear(name, stream.socket.recv_multipart(zmq.NOBLOCK))
            stream.close(linger=0)
        self.is_heard.set()  # whoever waits to reach it need not
        self.is_idle.set()


class SupervisedKernel(ServerKernelManager):  # type: ignore[misc]
    """One supervised kernel: owns no process, gives its orders to the daemon."""

    client_factory = Type(SupervisedClient)

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
        # By their sessions.
        self.pages: dict[str, Page] = {}
        self.requests = Requests(self)
        # Its run is reached; the daemon has told how it is.
        self.up, self.is_known = asyncio.Event(), asyncio.Event()
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

    async def wait_up(self) -> Run:
        """Its run, once that is reached.  Raises tornado's HTTPError if it takes too long."""
        try:
            await asyncio.wait_for(self.up.wait(), UP_PATIENCE)
        except TimeoutError:
            raise web.HTTPError(504, f"{self.view['name']} is not up after {UP_PATIENCE:g} s") from None
        assert self.run is not None, "it is up"
        return self.run

    async def is_alive(self) -> bool:
        """Whether its run is reached."""
        return self.up.is_set()

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
            self._tell_states()
            self.requests.release()
            self.requests.settle()
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
        run.is_over.set_result(told)
        self.reason = told if state == "dead" else ""
        # "restarting" has the front ends say that it died, and connect anew: only where it did.
        status = "dead" if state == "dead" else "restarting" if died else "starting"
        self._end_pages(told, status)

    def _end_pages(self, reason: str, status: str) -> None:
        told = self.requests.end(reason)
        for session in list(self.pages):
            if session not in told:
                self.tell(session, "stream", {"name": "stderr", "text": f"{reason}\n"})
            self.tell(session, "status", {"execution_state": status})
        if status == "dead":
            self.requests.release()

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
            self._tell_states()
            self.requests.settle()

    def hear(self, channel: str, header: Fields, parent: Fields, parts: list[bytes]) -> None:
        """The kernel has said something."""
        session = self.requests.hear(channel, parent)
        self._record(channel, session, header, parent, parts)
        for name in list(self.pages) if channel == "iopub" else [session]:
            self._pass_on(name, channel, parts)

    def tell(
        self, session: str, kind: str, content: Fields, asked: Fields | None = None, channel: str = "iopub"
    ) -> None:
        """Say in the kernel's place what it cannot say, to the page of a session, or for it."""
        message = self.session.msg(kind, content, parent={"header": asked} if asked else None)
        message["header"]["session"] = self.session_of_run or session
        _, _, *parts = self.session.serialize(message)
        self._record(channel, session, message["header"], asked or {}, parts)
        self._pass_on(session, channel, parts)

    def tell_state(self, session: str) -> None:
        """Say how it is; "restarting" would have a front end connect anew, each time."""
        is_so = self.up.is_set() or self.execution_state == "dead"
        self.tell(session, "status", {"execution_state": self.execution_state if is_so else "starting"})

    def _tell_states(self) -> None:
        for session in list(self.pages):
            self.tell_state(session)

    def _record(self, channel: str, session: str, header: Fields, parent: Fields, parts: list[bytes]) -> None:
        """Record what it published, and what the page of this session misses."""
        is_missed = bool(session) and session not in self.pages
        if self.recorder.max_bytes and parent.get("msg_id") and (is_missed or channel == "iopub"):
            frames = serialize_msg_to_ws_v1(parts, channel)
            self.recorder.add(Message.of(channel, session, header, parent, frames)._replace(missed=is_missed))

    def _pass_on(self, session: str, channel: str, parts: list[bytes]) -> None:
        """Tell a page; that it cannot be told is no reason to tell the others nothing."""
        try:
            if page := self.pages.get(session):
                page.hear(channel, parts)
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
        self._following: asyncio.Task[None] | None = None
        self.kernel_spec_manager.supervised = self.supervised

    async def follow(self) -> None:
        """Begin to follow the daemon, on the running loop."""
        for view in self.remembered["views"]:
            self._put({**view, "phase": "unknown", "generation": 0, "want": "up"})
        self._following = asyncio.create_task(self.daemon.follow(self._looked, self._lost))

    def _looked(self, status: Fields) -> None:
        if self._told:
            self.log.warning("kernel-supervisor: the daemon answers")
            self._told = ""
        views = status["kernels"]
        for name in self.supervised.keys() - {view["name"] for view in views}:
            self._drop(name)
        for view in views:
            file = file_of(status["state_dir"], view["id"])
            kernel = self._put(view)
            kernel.recorder.record_to(file, **view["recorder"])
            kernel.is_known.set()
        self.remembered.keep("views", views)

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
        if self._following is not None:
            self._following.cancel()
        for kernel in self.supervised.values():
            kernel.leave()
            self._kernels.pop(kernel.kernel_id, None)
        await asyncio.gather(*(kernel.recorder.flush() for kernel in self.supervised.values()))
        await super().shutdown_all(now=now)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End a kernel that nobody uses, unless it is supervised."""
        if self.of(kernel_id) is None:
            await super().cull_kernel_if_idle(kernel_id)
