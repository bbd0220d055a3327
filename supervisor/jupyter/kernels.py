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
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager, ServerKernelManager
from tornado import web
from tornado.ioloop import IOLoop
from traitlets import Type, Unicode

from supervisor.jupyter.clients import SupervisedClient
from supervisor.jupyter.daemon import Daemon, Refused
from supervisor.jupyter.provisioner import connect
from supervisor.jupyter.recorder import Recorder, file_of
from supervisor.jupyter.remembered import Remembered
from supervisor.jupyter.requests import MALFORMED, Asked, Requests
from supervisor.wording import death_of, how_it_ended

log = logging.getLogger(__name__)

Fields = dict[str, Any]

# How often a new run is asked at most until it is heard on iopub; then, in seconds, between these,
# until one that cannot be connected to is tried again, for which an order waits for the connection,
# for which the end of a run waits until all that it has published is passed on, and after which
# all is heard that it has published.
MOST_NUDGES = 15
NUDGE_INTERVAL = 0.2
RETRY_INTERVAL = 3.0
UP_PATIENCE = 30.0
LAST_WORDS_PATIENCE = 0.5
SETTLE_DELAY = 0.5
# What may wait for a kernel that is not up.
MOST_HELD = 1000
MOST_HELD_BYTES = 64 << 20

CHANNELS = ("iopub", "shell", "control", "stdin")
_LASTING = ("execute_request", "comm_msg")  # those that may take long are on record
# What the front ends call the phases in which no run can be reached; the others are "starting".
_STATES = {"stopped": "dead", "failed": "dead", "stopping": "restarting", "backoff": "restarting"}
_UNTRACKED = ("kernel_info_request", "comm_info_request", "interrupt_request", "")


class Run:
    """The server's connection to one run of a kernel, for all pages."""

    def __init__(self, kernel: SupervisedKernel, generation: int) -> None:
        self.generation = generation
        self.is_heard = asyncio.Event()
        # Has the reason, for people.
        self.is_over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        # The requests that it executes, and since when, in seconds since the epoch.
        self.executing: dict[str, float] = {}
        # One of its own: a client inside the server has the session, and the identity, of the kernel's.
        key, scheme = kernel.session.key, kernel.session.signature_scheme
        self._session: Any = Session(parent=kernel, key=key, signature_scheme=scheme)
        self._kernel = kernel
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
        for _ in range(MOST_NUDGES):
            self._session.send(self._streams["control"], "kernel_info_request")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.is_heard.wait(), NUDGE_INTERVAL)
                return

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
        elif channel == "shell" and not self.executing:
            self._kernel.note_state("idle")

    def _note(self, asked: str, request: str, state: str | None) -> None:
        if asked in _UNTRACKED:
            return
        self._kernel.last_activity = self._kernel.parent.last_kernel_activity = utcnow()
        if state == "busy":
            self.executing.setdefault(request, time.time())
        elif state == "idle":
            self.executing.pop(request, None)
            self._kernel.settle()
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
        # How to tell each, by their sessions.
        self.pages: dict[str, Callable[[str, list[bytes]], None]] = {}
        self.requests = Requests(self.recorder, self.tell)
        # What came while there was no run.
        self._held: list[tuple[Asked, list[bytes]]] = []
        self.up = asyncio.Event()  # its run is reached
        self._attaching: asyncio.Task[None] | None = None

    # What Jupyter asks of a kernel manager.

    async def start_kernel(self, *_: Any, **__: Any) -> None:
        """Have it started, if it is not up."""
        if not self.up.is_set() and self.view["phase"] not in ("running", "unknown"):
            await self.order("start")
            await self.wait_up()

    async def interrupt_kernel(self) -> None:
        await self.order("interrupt")

    async def restart_kernel(self, now: bool = False, **_: Any) -> None:
        """Have it restarted, once, however many ask for that at a time."""
        view = self.view
        try:
            if view["phase"] == "running":
                await self.order("restart", now=now, if_generation=view["generation"])
            else:
                await self.order("start")  # be it on its way already
        except Refused as refused:
            if refused.status_code == 409:
                self.take(await self.daemon.look(self.kernel_name))  # somebody else was faster
            if refused.status_code != 409 or self.view["phase"] == "failed":
                raise
        await self.wait_up()

    async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Leave it, or stop it where its file says so."""
        if self.view.get("on_client_shutdown") == "stop" and not restart:
            await self.order("stop", now=now)

    async def order(self, verb: str, **fields: Any) -> None:
        """Give an order to the daemon, and look at what came of it.  Raises Refused."""
        self.take(await self.daemon.order(self.kernel_name, verb, **fields))

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
        phase, run = view["phase"], self.run
        if run is not None and (run.generation != view["generation"] or phase not in ("running", "stopping")):
            self._end(run)
        if self.run is None and phase != "unknown":
            self._note_phase(phase)

    def _note_phase(self, phase: str) -> None:
        """There is no run to be heard yet, or any more."""
        state = _STATES.get(phase, "starting")
        if phase == "running" and self._attaching is None:
            self._attaching = asyncio.get_running_loop().create_task(self._attach(self.view))
        elif phase != "running" and state != self.execution_state:
            self.execution_state = state
            if state == "dead":
                self._tell_end(how_it_ended(self.view, self.view["generation"]), state)

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
            await asyncio.sleep(RETRY_INTERVAL)
        self._attaching = None
        if self.run is not None:
            self.up.set()
            self.reason = ""
            self.execution_state = "idle" if self.execution_state == "idle" else "busy"  # it does not answer
            self.tell_state()
            self._release()
            self.settle()
        self.take(self.view)

    def _end(self, run: Run) -> None:
        """The run is over: every page is told why, and whoever waits for an answer gets one."""
        self.leave()
        for request in run.executing:
            self.recorder.hear(request, "idle")
        self.execution_state = state = _STATES.get(self.view["phase"], "starting")
        told = how_it_ended(self.view, run.generation)
        run.is_over.set_result(told)
        # "restarting" has the front ends say that it died, and connect anew: only where it did.
        has_died = death_of(self.view, run.generation) is not None
        self._tell_end(told, "dead" if state == "dead" else "restarting" if has_died else "starting")

    def _tell_end(self, reason: str, status: str) -> None:
        self.reason = reason if status == "dead" else ""
        told = self.requests.end(reason)
        for session in list(self.pages):
            if session not in told:
                self.tell(session, "stream", {"name": "stderr", "text": f"{reason}\n"})
            self.tell(session, "status", {"execution_state": status})
        if status == "dead":
            self._release()

    def leave(self) -> None:
        """Hear no more of its run, which goes on."""
        self.up.clear()
        if self.run is not None:
            self.run.close()
            self.run = None

    # What clients ask.

    def ask(self, asked: Asked, parts: list[bytes]) -> None:
        """Pass it on, or keep it until the kernel is up again."""
        if self.run is not None and self.up.is_set():
            if asked.is_request:
                self.requests.note(asked, parts)
            self.run.send(asked.channel, parts)
        elif self.execution_state != "dead" and self._has_room(parts):
            self._held.append((asked, parts))
        elif asked.is_request:
            self.requests.give_up(asked, self.reason or f"{self.kernel_name} is not running")

    def _has_room(self, parts: list[bytes]) -> bool:
        held = [parts, *(parts for _, parts in self._held)]
        return (
            len(held) <= MOST_HELD and sum(len(part) for parts in held for part in parts) <= MOST_HELD_BYTES
        )

    def _release(self) -> None:
        """What was kept is asked, or refused."""
        held, self._held = self._held, []
        for each in held:
            self.ask(*each)

    def settle(self) -> None:
        """See to what was asked through a server that is gone; what is published may come after an answer."""
        IOLoop.current().call_later(SETTLE_DELAY, self.requests.settle, lambda: self.execution_state)

    # What the kernel tells.

    async def busy(self, since: float) -> list[tuple[float, float]]:
        """From when to when it executed, of what went on after ``since``; in seconds since the epoch.

        As far as a server has heard it.  What goes on ends now.
        """
        known = await self.recorder.spans(since)
        going_on = self.run.executing.values() if self.run else ()
        return known + [(begun, time.time()) for begun in going_on]

    def note_state(self, state: str) -> None:
        """It has become known that it is busy or idle."""
        if self.execution_state != state:
            self.execution_state = state
            self.tell_state()
            self.settle()

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

    def tell_state(self, *sessions: str) -> None:
        """Say how it is, to these or to all; "restarting" would have a front end connect anew, each time."""
        is_so = self.up.is_set() or self.execution_state == "dead"
        content = {"execution_state": self.execution_state if is_so else "starting"}
        for session in sessions or list(self.pages):
            self.tell(session, "status", content)

    def _record(self, channel: str, session: str, header: Fields, parent: Fields, parts: list[bytes]) -> None:
        """Record what it published, what it answered, and what the page of this session misses."""
        is_missed = bool(session) and session not in self.pages
        is_asked = channel == "iopub" or header.get("msg_type") == "execute_reply"
        if parent.get("msg_id") and (is_missed or is_asked):
            self.recorder.add(channel, session, header, parent, parts, missed=is_missed)

    def _pass_on(self, session: str, channel: str, parts: list[bytes]) -> None:
        """Tell a page; that it cannot be told is no reason to tell the others nothing."""
        try:
            if hear := self.pages.get(session):
                hear(channel, parts)
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
        self._away = ""
        self._following: asyncio.Task[None] | None = None
        self.kernel_spec_manager.supervised = self.supervised

    async def follow(self) -> None:
        """Begin to follow the daemon, on the running loop."""
        for view in self.remembered["views"]:
            self._put({**view, "phase": "unknown", "generation": 0})
        self._following = asyncio.create_task(self.daemon.follow(self._looked, self._note_away))

    def _looked(self, status: Fields) -> None:
        self._note_away("")
        views = [{**it, "record": file_of(status["state_dir"], it["id"])} for it in status["kernels"]]
        ids = {view["id"] for view in views}
        for kernel in [kernel for kernel in self.supervised.values() if kernel.kernel_id not in ids]:
            self._drop(kernel)
        for view in views:
            self._put(view)
        self.remembered.keep("views", views)

    def _note_away(self, reason: str) -> None:
        if bool(reason) != bool(self._away):
            told = f"no daemon answers, its kernels go on: {reason}" if reason else "the daemon answers"
            self.log.warning("kernel-supervisor: %s", told)
        self._away = reason

    def _put(self, view: Fields) -> None:
        if (kernel := self.of(view["id"])) is None:
            given = {"parent": self, "log": self.log, "context": self.context}
            kernel = SupervisedKernel(view, self.daemon, connection_file=view["connection_file"], **given)
            self.supervised[view["name"]] = self._kernels[kernel.kernel_id] = kernel
            self._kernel_connections.setdefault(kernel.kernel_id, 0)
        kernel.recorder.record_to(Path(view["record"]), **view["recorder"])
        kernel.take(view)

    def _drop(self, kernel: SupervisedKernel) -> None:
        """It is declared no more."""
        self.supervised.pop(kernel.kernel_name)
        kernel.recorder.remove()
        kernel.take({**kernel.view, "phase": "stopped", "reason": "it has left the file"})
        self._kernels.pop(kernel.kernel_id, None)
        self._kernel_connections.pop(kernel.kernel_id, None)

    def of(self, kernel_id: str | None) -> SupervisedKernel | None:
        """The supervised kernel of this id, if it is one."""
        kernel = self._kernels.get(kernel_id)
        return kernel if isinstance(kernel, SupervisedKernel) else None

    # What clients order.

    async def start_kernel(self, *, kernel_id: str | None = None, path: Any = None, **kwargs: Any) -> str:
        """Start a kernel of the server's own, or take up a supervised one."""
        named = self.kernel_spec_manager.kernel_of(kwargs.get("kernel_name"))
        if (supervised := self.supervised.get(named) or self.of(kernel_id)) is None:
            return str(await super().start_kernel(kernel_id=kernel_id, path=path, **kwargs))
        await supervised.start_kernel()
        return str(supervised.kernel_id)

    async def restart_kernel(self, kernel_id: str, now: bool = False) -> None:
        """Restart it."""
        if (supervised := self.of(kernel_id)) is None:
            await super().restart_kernel(kernel_id, now=now)
        else:
            await supervised.restart_kernel(now=now)

    async def shutdown_kernel(self, kernel_id: str, now: bool = False, restart: bool = False) -> None:
        """Shut it down; a supervised one as its file says."""
        if (supervised := self.of(kernel_id)) is None:
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
