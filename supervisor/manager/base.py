"""What a ``KernelManager`` keeps, and how its orders reach the supervision.

Owns the settings of the kernel, its address, and the session that supervises it
while there is something to supervise.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from supervisor.core.model import Exit, ProcessId, process_of
from supervisor.kernel.connection import CHANNELS, Address, Connection, PortTaken
from supervisor.kernel.ports import bind
from supervisor.manager.address import Addressed
from supervisor.manager.callbacks import RestartCallbacks
from supervisor.manager.launch import Launch, ManagerLauncher
from supervisor.manager.session import LADDER_PATIENCE, Farewell, Session
from supervisor.manager.thread import Gone, acquire
from supervisor.process.identity import is_running
from supervisor.settings.config import NAME_PATTERN, KernelConfig, OutputConfig, PortsConfig

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

SETTINGS = (
    "max_restarts",
    "restart_window",
    "backoff",
    "start_timeout",
    "heartbeat",
    "probe",
    "interrupt_mode",
    "hold_ports",
    "output",
)
"""The keys of a ``[kernels.NAME]`` table that ``settings=`` takes."""


class ManagerBase(Addressed):
    """One kernel, what is known of it, and its supervision."""

    _launcher: ManagerLauncher | None = None
    _session: Session | None = None
    _finalizer: weakref.finalize[[], ManagerBase] | None = None
    _owns_file = False

    def __init__(
        self,
        *,
        kernel_name: str = "python3",
        kernel_cmd: Sequence[str] = (),
        extra_arguments: Sequence[str] = (),
        connection_file: str | os.PathLike[str] = "",
        kernel_id: str | None = None,
        ip: str = "127.0.0.1",
        transport: Literal["tcp", "ipc"] = "tcp",
        shell_port: int = 0,
        iopub_port: int = 0,
        stdin_port: int = 0,
        control_port: int = 0,
        hb_port: int = 0,
        key: bytes | str = b"",
        autorestart: bool = True,
        shutdown_wait_time: float = 1.0,
        client_class: str | type[BlockingKernelClient] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(client_class)
        self.kernel_name = kernel_name
        self.kernel_cmd = list(kernel_cmd)
        self.extra_arguments = list(extra_arguments)
        self.transport: Literal["tcp", "ipc"] = transport
        self.shutdown_wait_time = shutdown_wait_time
        ports = (shell_port, iopub_port, stdin_port, control_port, hb_port)
        self._wished_ports.update(zip(CHANNELS, ports, strict=True))
        self._wished_ip = ip
        self._autorestart = autorestart
        self._settings = _checked(settings or {})
        self._kernel_id = kernel_id or str(uuid.uuid4())
        self._connection = _connection(self._kernel_id, connection_file)
        if key:
            self._connection.adopt(_without_ports(transport, ip, key))
        self._callbacks = RestartCallbacks()
        self._lock = threading.RLock()
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kernel_id} pid={self.pid}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot pickle {type(self).__name__}: it manages a process of this one; "
            "pass its connection_file, from which clients can be made"
        )

    # What is so

    @property
    def kernel_id(self) -> str:
        """The id of the kernel; part of the default connection file's name."""
        return self._kernel_id

    @property
    def connection_file(self) -> str:
        """The path of the connection file, which never changes."""
        return str(self._connection.path)

    @property
    def ip(self) -> str:
        """Where the kernel listens; for ipc the path before ``-PORT``, once it is chosen."""
        address = self._known_address()
        return self._wished_ip if address is None else address.ip

    @ip.setter
    def ip(self, ip: str) -> None:
        self._wished_ip = ip

    @property
    def autorestart(self) -> bool:
        """Whether a kernel that dies is started again; may be changed at any time."""
        return self._autorestart

    @autorestart.setter
    def autorestart(self, autorestart: bool) -> None:
        self._autorestart = autorestart
        if (session := self._here()) is not None:
            config = self._config()
            session.thread.call(
                immediately(session.change, restart=config.restart, start_timeout=config.start_timeout)
            )

    @property
    def has_kernel(self) -> bool:
        """Whether a kernel was started and is managed: not shut down, and not given up."""
        session = self._here()
        return session is not None and session.is_managing

    @property
    def pid(self) -> int | None:
        """The pid of the kernel's process, if there is one."""
        process = self._process()
        return None if process is None else process.pid

    @property
    def last_exit(self) -> Exit | None:
        """How the last run ended; within a callback, the end that it is called for."""
        return self._callbacks.last_exit

    def is_alive(self) -> bool:
        """Whether the process is there and has not ended."""
        process = self._process()
        return process is not None and is_running(process)

    def _process(self) -> ProcessId | None:
        session = self._here()
        kernel = session.kernel if session is not None else None
        return None if kernel is None else process_of(kernel)

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the kernel answers; ``None``: for as long as it takes.

        TimeoutError after ``timeout`` seconds; RuntimeError if nothing runs or it was given up.
        """
        if (session := self._here()) is None:
            raise RuntimeError("no kernel is running")
        session.thread.call(session.wait_ready(timeout))

    # Inside

    def _here(self) -> Session | None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this {type(self).__name__} belongs to process {self._pid}, of which this is a fork: "
                "make another one here, or a client from its connection_file"
            )
        return self._session

    def _running(self) -> Session:
        session = self._here()
        if session is None or not self.is_alive():
            raise RuntimeError("no kernel is running")
        return session

    def _config(self) -> KernelConfig:
        settings = dict(self._settings)
        if not self._autorestart:
            # Nobody is to start it again, so nobody is to end a slow start.
            settings.setdefault("start_timeout", inf)
        return KernelConfig(
            name=self._connection.name,
            autostart=False,
            restart="always" if self._autorestart else "never",
            stop_timeout=self.shutdown_wait_time,
            transport=self.transport,
            ip=self._wished_ip,
            ports=PortsConfig(**self._wished_ports),
            **{"output": OutputConfig(max_bytes=1_048_576, backups=0), **settings},
        )

    def _known_address(self) -> Address | None:
        address = self._connection.address
        return address if address is not None and address.shell_port else None

    def _address(self) -> Address:
        if (known := self._known_address()) is not None:
            return known
        self._here()
        # In the connection's own order: a launch may be choosing one at this moment.
        return self._connection.choose_once(self._config(), self.kernel_name)

    def _refuse_elsewhere(self) -> None:
        if self.transport != "tcp":
            return
        try:
            bind(self._wished_ip, 0, reuse=True).close()
        except OSError as error:
            if not isinstance(error, PortTaken):
                raise RuntimeError(f"{self._wished_ip!r} is not an address of this machine") from None

    def _own(self) -> dict[str, Any]:
        return {"kernel_name": self.kernel_name, "kernel_cmd": self.kernel_cmd}

    def _launch(self) -> Launch:
        return Launch(self.kernel_name, tuple(self.kernel_cmd), tuple(self.extra_arguments))

    def _remember(self, launch: Launch) -> Callable[[], None]:
        """Launch this from now on; returns what forgets it again, unless another order came since."""
        held = launch.holding()
        named, launcher = (self.kernel_name, self.kernel_cmd), self._launcher
        former = None if launcher is None else launcher.launch
        if launcher is None:
            self._launcher = ManagerLauncher(held)
        else:
            launcher.launch = held
        self.kernel_name, self.kernel_cmd = held.kernel_name, list(held.kernel_cmd)

        def forget() -> None:
            if self._launcher is None or self._launcher.launch is not held:
                return
            self.kernel_name, self.kernel_cmd = named
            if former is None:
                self._launcher = None
            else:
                self._launcher.launch = former

        return forget

    def _order_launch(self, launch: Launch, *, now: bool, new_ports: bool) -> Callable[[], None]:
        """Have this launched instead of what runs; returns what waits for it, without the lock."""
        forget = self._remember(launch)
        try:
            session = self._begin_session()
            before = session.thread.call(
                immediately(session.restart, self._config(), now=now, new_ports=new_ports)
            )
        except Exception:
            forget()
            raise
        return lambda: self._wait_launched(session, before, forget)

    def _begin_session(self) -> Session:
        if self._session is None:
            assert self._launcher is not None, "what to launch is known first"
            thread = acquire()
            try:
                session = Session(thread, self._connection, self._launcher, self._callbacks)
                thread.call(session.open())
            except BaseException:
                thread.release()
                raise
            self._session = session
            self._finalizer = weakref.finalize(self, session.abandon)
            self._finalizer.atexit = False
        self._owns_file = True
        return self._session

    def _wait_launched(self, session: Session, before: int, forget: Callable[[], None]) -> None:
        try:
            session.thread.call(session.wait_launched(before))
        except Gone:
            raise RuntimeError("the kernel was shut down before it had started") from None
        except Exception:
            with self._lock:
                forget()
            self._retire(keep_streams=True)
            raise

    def _stop(self, session: Session, farewell: Farewell, patience: float, *, now: bool = False) -> None:
        try:
            session.thread.call(immediately(session.stop, farewell, patience, now=now))
        except Gone:
            pass  # shut down by another thread meanwhile

    def _wait_stopped(self, session: Session, patience: float) -> None:
        try:
            session.thread.call(session.wait_stopped(patience + LADDER_PATIENCE))
        except Gone:
            pass

    def _retire(self, *, keep_file: bool = False, keep_streams: bool = False) -> None:
        """End the supervision, unless a kernel is managed (again).

        With ``keep_streams`` a later restart has the streams of the start again.
        """
        with self._lock:
            session = self._session
            if session is not None:
                if session.is_managing:
                    return
                self._session = None
                if self._finalizer is not None:
                    self._finalizer.detach()
                session.thread.call(session.close())
                session.thread.release()
                if self._launcher is not None and not keep_streams:
                    self._launcher.let_go()
            if self._owns_file and not keep_file:
                self._owns_file = False
                self._connection.remove()
                try:
                    self._connection.remove_stale_sockets()
                except PortTaken:
                    pass  # somebody else's by now


async def immediately(function: Any, *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"settings: {name!r} is not one of {', '.join(SETTINGS)}")
    try:
        whole = msgspec.convert({"name": "checked", **settings}, KernelConfig, from_attributes=True)
    except msgspec.ValidationError as error:
        raise ValueError(f"settings: {error}") from None
    return {name: getattr(whole, name) for name in settings}


def _without_ports(transport: Literal["tcp", "ipc"], ip: str, key: bytes | str) -> Address:
    text = key.decode() if isinstance(key, bytes) else key
    return Address(transport, ip, 0, 0, 0, 0, 0, key=text)


def _connection(kernel_id: str, connection_file: str | os.PathLike[str]) -> Connection:
    from jupyter_core.paths import jupyter_runtime_dir

    name = kernel_id if re.fullmatch(NAME_PATTERN, kernel_id) else str(uuid.uuid4())
    runtime_dir = Path(jupyter_runtime_dir())
    path = Path(connection_file).expanduser() if connection_file else runtime_dir / f"kernel-{name}.json"
    return Connection(name, path.absolute(), runtime_dir / "ipc")
