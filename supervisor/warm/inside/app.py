"""The ipykernel that a supervised kernel is: as ``ipykernel_launcher`` has it, with a door and a beginning.

Owns what is done between its initialisation and its first request: the start-up code, the binding of a
kernel that was held, the way from what the supervisor ordered to what the clients see.
"""

from __future__ import annotations

import asyncio
import faulthandler
import io
import os
import signal
import sys
import time
import traceback
from concurrent.futures import Future
from typing import Any, NoReturn

import zmq
from ipykernel.kernelapp import IPKernelApp
from tornado.ioloop import IOLoop

from .door import InOwnThread, InShellThread
from .pending import IDLE, Pending

# Exit codes (sysexits.h): the start-up code failed.
EX_STARTUP = 70
# How long a thread of the kernel may take to bind its socket, in seconds.
BIND_PATIENCE = 10.0


class _Noting:
    """What is executed goes on record; before the kernel class that is asked for."""

    door: Any = None

    def shell_channel_thread_main(self, frames: Any) -> Any:
        return self._take_in(self.door.received(frames))

    async def _take_in(self, requests: list[Any]) -> None:
        for frames in requests:
            await super().shell_channel_thread_main(frames)  # type: ignore[misc]

    def _publish_status(self: Any, status: str, channel: str, parent: Any = None) -> None:
        super()._publish_status(status, channel, parent)  # type: ignore[misc]
        pending = self.door.pending if self.door else None
        if channel != "shell" or pending is None:
            return
        header = (parent or self.get_parent(channel) or {}).get("header")
        try:
            if header and status == "busy":
                pending.start(header["msg_id"], self.execution_count)
            elif header and status == "idle":
                pending.mark(header["msg_id"], IDLE)
        except Exception:
            pass  # an odd header; never keep the kernel from it


class _Context:
    """Makes an XPUB of iopub (ipykernel 6), so that subscriptions are seen."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def socket(self, kind: int) -> Any:
        return self._context.socket(zmq.XPUB if kind == zmq.PUB else kind)


class SupervisedKernelApp(IPKernelApp):  # type: ignore[misc]
    """Binds at once, or, if it is ``held``, when it is told to."""

    door: Any = None
    kernel_class: Any
    record_fd = 2
    held = False
    _waiting: Any = ()

    def _bind_socket(self, s: Any, port: int) -> Any:
        if not self.held:
            return super()._bind_socket(s, port)
        self._waiting = [*self._waiting, (s, port)]
        return port

    def init_heartbeat(self) -> None:
        if not self.held:
            super().init_heartbeat()

    def init_iopub(self, context: Any) -> None:
        super().init_iopub(_Context(context))

    def init_sockets(self) -> None:
        super().init_sockets()
        has_thread = getattr(self, "shell_channel_thread", None) is not None
        self.door = (InShellThread if has_thread else InOwnThread)(self, self.record_fd)

    def init_kernel(self) -> None:
        base = self.kernel_class
        self.kernel_class = type(base.__name__, (_Noting, base), {"door": self.door})
        super().init_kernel()

    def release(self) -> None:
        """Bind each socket in the thread that owns it; raises ZMQError as the ordinary start does."""
        self.held = False
        control, iopub = self.control_thread.io_loop, self.iopub_thread
        owners = {id(self.control_socket): control, id(iopub.socket): iopub.io_loop}
        for bound in [self._bind(owners.get(id(s)), s, port) for s, port in self._waiting]:
            bound.result(BIND_PATIENCE)
        self.door.bound = time.time()
        endpoint = self.door.outer.getsockopt(zmq.LAST_ENDPOINT)
        if endpoint and self.debug_shell_socket is not None:
            self.debug_shell_socket.connect(endpoint)
        self.init_heartbeat()

    def _bind(self, loop: Any, s: Any, port: int) -> Future[None]:
        done: Future[None] = Future()

        def bind() -> None:
            try:
                done.set_result(self._bind_socket(s, port))
            except BaseException as error:
                done.set_exception(error)

        bind() if loop is None else loop.add_callback(bind)
        return done

    def close(self) -> None:
        if self.door:
            self.door.stop()
        super().close()


# As its log and its configuration name it.
SupervisedKernelApp.__name__ = SupervisedKernelApp.__qualname__ = IPKernelApp.__name__


def record_crashes() -> int:
    """A descriptor of stderr that ipykernel does not capture: where the stacks of a crash or a hang go."""
    record_fd = os.dup(2)
    os.set_inheritable(record_fd, False)
    faulthandler.enable(file=record_fd)
    if hasattr(signal, "SIGRTMIN"):
        faulthandler.register(signal.SIGRTMIN + 7, file=record_fd, all_threads=True)
    return record_fd


class StartupFailed(Exception):
    """The start-up code raised something; its traceback."""


def boot(
    argv: list[str], order: dict[str, Any], record_fd: int, *, held: bool = False
) -> SupervisedKernelApp:
    """Initialise the kernel and run its start-up code.  Raises StartupFailed."""
    SupervisedKernelApp.record_fd, SupervisedKernelApp.held = record_fd, held
    app: SupervisedKernelApp = SupervisedKernelApp.instance()
    # Imported before there was a shell, it has not asked to be told of the end of a cell.
    inline = sys.modules.get("matplotlib_inline.backend_inline")
    app.initialize(argv)
    if inline is not None:
        inline._enable_matplotlib_integration()
    if order["startup"] and (reason := _run_startup(app, order, record_fd)) is not None:
        os.write(record_fd, reason.encode("utf-8", "backslashreplace"))
        raise StartupFailed(reason)
    return app


def give_up(order: dict[str, Any], record_fd: int, error: StartupFailed) -> NoReturn:
    """Leave on record why there is no kernel."""
    _open(order, record_fd).fail(str(error))
    os._exit(EX_STARTUP)


def serve(app: SupervisedKernelApp, order: dict[str, Any], record_fd: int) -> None:
    """Let the clients in and run until the end."""
    pending = _open(order, record_fd)
    # ipykernel 6 makes it in a task, which the first control request may overtake, and loses that.
    if hasattr(type(app.kernel), "_control_lock") and sys.version_info >= (3, 10):
        app.kernel._control_lock = asyncio.Lock()
    IOLoop.current().add_callback(lambda: app.door.start(order, pending))
    app.start()


def _open(order: dict[str, Any], record_fd: int) -> Pending:
    try:
        return Pending(order["pending"], order["run"])
    except (OSError, ValueError) as error:
        text = f"kernel-supervisor: requests are not kept over a crash: {error}\n"
        os.write(record_fd, text.encode("utf-8", "backslashreplace"))
        return Pending(None, order["run"])


def _run_startup(app: Any, order: dict[str, Any], record_fd: int) -> str | None:
    """Run the start-up code to its end; what it prints goes to the output file, its traceback is returned."""
    shell, compiler, kept = app.shell, app.shell.compile, {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        kept[stream] = stream.echo
        file = io.FileIO(os.dup(record_fd), "w")
        stream.echo = io.TextIOWrapper(file, write_through=True, errors="backslashreplace")
    compiler.get_code_name = lambda *words: order["startup_name"]
    shell.showtraceback = shell.showsyntaxerror = lambda *words, **more: None
    try:
        result = shell.run_cell(order["startup"], store_history=False)
    finally:
        for stream, echo in kept.items():
            stream.flush()
            stream.echo = echo
        del compiler.get_code_name, shell.showtraceback, shell.showsyntaxerror
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return None
    while (at := error.__traceback__) is not None and at.tb_frame.f_code.co_filename != order["startup_name"]:
        error.__traceback__ = at.tb_next
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
