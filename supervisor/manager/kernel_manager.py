"""``KernelManager``: one kernel across its runs, for programs without a daemon.

Owns the API that IPython's and jupyter_client's managers have.  Every method is an
order, carried out by this process or by a daemon; it has no restart logic of its own.
"""

from __future__ import annotations

import os
import re
import signal
import time
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import msgspec

from supervisor.core.model import Exit
from supervisor.kernel.connection import CHANNELS, Address, Connection
from supervisor.manager.attached import Attached
from supervisor.manager.connection_file import ConnectionFileMixin
from supervisor.manager.launch import Launch
from supervisor.manager.own import Own
from supervisor.observe.callbacks import Callback, Callbacks
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

# Who carries out the orders: this process, or a daemon.
Orders = Own | Attached

# A kernel that comes back may take this long, however little patience there is at the start; in seconds.
_LEAST_PATIENCE = 60.0


class KernelManager(ConnectionFileMixin):
    """Manages one kernel on this host, and starts it again at the same address when it dies.

    May be used from any thread, also beside a running event loop; not in a
    forked child.  ``settings`` are keys of a ``[kernels.NAME]`` table (see
    ``SETTINGS``).  ``kernel_cmd`` stands in for the command of the kernelspec.
    """

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
        super().__init__()
        self.kernel_name = kernel_name
        self.kernel_cmd = list(kernel_cmd)
        self.extra_arguments = list(extra_arguments)
        self.transport = transport
        self.shutdown_wait_time = shutdown_wait_time
        if client_class is not None:
            self.client_class = client_class
        ports = (shell_port, iopub_port, stdin_port, control_port, hb_port)
        self._wished_ports.update(zip(CHANNELS, ports, strict=True))
        self._wished_ip = ip
        self._autorestart = autorestart
        self._settings = _checked(settings or {})
        self._kernel_id = kernel_id or str(uuid.uuid4())
        connection = _connection(self._kernel_id, connection_file)
        if key:
            connection.adopt(_without_ports(transport, ip, key))
        self._order_by(Own(connection, Callbacks(coroutines=False)), str(connection.path))

    def _order_by(self, orders: Orders, connection_file: str) -> None:
        """Have the orders carried out by these."""
        self._carrier = orders
        self._file = connection_file
        self._pid = os.getpid()
        weakref.finalize(self, orders.abandon).atexit = False

    @classmethod
    def attach(
        cls,
        name: str,
        socket: str | os.PathLike[str] | None = None,
        config: str | os.PathLike[str] | None = None,
    ) -> Self:
        """A manager of a kernel that a running daemon supervises; its methods are orders to the daemon.

        The daemon is found as the command line finds it.  Its file says what is
        launched and how it is restarted: launch keywords, and setting ``autorestart``,
        raise TypeError.  Raises ConnectionError if no daemon answers, as most methods do
        later, and LookupError if it has no such kernel.
        """
        orders = Attached(name, socket, config, Callbacks(coroutines=False))
        made = cls(kernel_id=name)
        made._order_by(orders, orders.connection_file)
        return made

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kernel_id} pid={self.pid}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"cannot pickle {type(self).__name__}: it manages a process of this one; "
            "pass its connection_file, from which clients can be made"
        )

    @property
    def _orders(self) -> Orders:
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this {type(self).__name__} belongs to process {self._pid}, of which this is a fork: "
                "make another one here, or a client from its connection_file"
            )
        return self._carrier

    # What is so

    @property
    def kernel_id(self) -> str:
        """The id of the kernel; part of the default connection file's name."""
        return self._kernel_id

    @property
    def connection_file(self) -> str:
        """The path of the connection file, which never changes."""
        return self._file

    @property
    def autorestart(self) -> bool:
        """Whether a kernel that dies is started again; may be changed at any time."""
        return self._autorestart

    @autorestart.setter
    def autorestart(self, autorestart: bool) -> None:
        former, self._autorestart = self._autorestart, autorestart
        try:
            self._orders.change(self._config())
        except TypeError:
            self._autorestart = former
            raise

    @property
    def has_kernel(self) -> bool:
        """Whether a kernel was started and is managed: not shut down, and not given up."""
        return self._orders.is_managing

    @property
    def pid(self) -> int | None:
        """The pid of the kernel's process, if there is one."""
        process = self._orders.process
        return None if process is None else process.pid

    @property
    def last_exit(self) -> Exit | None:
        """How the last run ended; within a callback, the end that it is called for."""
        return self._orders.last_exit

    def is_alive(self) -> bool:
        """Whether the process is there and has not ended."""
        process = self._orders.process
        return process is not None and is_running(process)

    def _config(self) -> KernelConfig:
        settings = dict(self._settings)
        if not self._autorestart:
            # Nobody is to start it again, so nobody is to end a slow start.
            settings.setdefault("start_timeout", inf)
        return KernelConfig(
            name=_name(self._kernel_id),
            autostart=False,
            restart="always" if self._autorestart else "never",
            stop_timeout=self.shutdown_wait_time,
            transport=self.transport,
            ip=self._wished_ip,
            ports=PortsConfig(**self._wished_ports),
            **{"output": OutputConfig(max_bytes=1_048_576, backups=0), **settings},
        )

    def _launch(self) -> Launch:
        return Launch(self.kernel_name, tuple(self.kernel_cmd), tuple(self.extra_arguments))

    def _known_address(self) -> Address | None:
        return self._carrier.address

    def _address(self) -> Address:
        return self._known_address() or self._orders.choose_address(self._config(), self.kernel_name)

    # Orders

    def start_kernel(self, **kw: Any) -> None:
        """Write the connection file and launch the kernel; returns when the process is there.

        ``kw``: keywords of ``subprocess.Popen``, remembered for restarts, files among
        them held open for those, whoever closes them; ``kernel_name`` and
        ``kernel_cmd``, attributes from then on; ``extra_arguments``; ``independent=True`` for
        a kernel that is to outlive this process; ``newports=True`` for another address
        than before.  Nothing stays of those of an earlier start.  Raises
        RuntimeError if one runs, if the address is not one of this machine, or a
        port is taken; NoSuchKernel; FileNotFoundError or PermissionError if
        the command cannot be executed; TypeError or ValueError for a keyword that is
        of no use.  Nothing is left behind then, nor remembered.
        """
        orders = self._orders
        self._note(orders.block(orders.start(self._launch(), self._config(), kw)))

    def restart_kernel(self, now: bool = False, **kw: Any) -> None:
        """Stop the kernel and launch it again at the same address; returns when the new process is there.

        With the arguments of the start, updated by ``kw``, for good.  ``now``
        kills at once; otherwise it has ``shutdown_wait_time`` seconds to exit.
        ``newports=True`` gives it another address.  Raises RuntimeError if
        none was ever started, and as ``start_kernel`` does.
        """
        orders = self._orders
        self._note(orders.block(orders.restart(self._launch(), self._config(), kw, now=now)))

    def _note(self, launch: Launch) -> None:
        self.kernel_name, self.kernel_cmd = launch.kernel_name, list(launch.kernel_cmd)

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to exit, then signal it: SIGTERM after ``shutdown_wait_time`` s, SIGKILL 2 s later.

        ``now`` kills at once.  With ``restart`` the connection file and the hold
        on the ports stay.  No error if nothing runs; RuntimeError if it
        does not end even so.
        """
        orders = self._orders
        orders.block(orders.shut_down(self.shutdown_wait_time, now=now, restart=restart))

    def request_shutdown(self, restart: bool = False) -> None:
        """Send a ``shutdown_request`` on control, and return; the kernel is not started again.

        What it executes is not interrupted, and no signal follows.  Returns once it
        has answered, after half a second at most.  No error if nothing runs.
        """
        orders = self._orders
        orders.block(orders.request_shutdown(restart=restart))

    def finish_shutdown(self, waittime: float | None = 1, pollinterval: float = 0.1) -> None:  # noqa: ARG002
        """Wait ``waittime`` seconds for the end of the kernel, then signal it; sends no request.

        ``pollinterval`` has no effect: nothing is polled.
        """
        orders = self._orders
        orders.block(orders.finish_shutdown(self.shutdown_wait_time if waittime is None else waittime))

    def cleanup(self, connection_file: bool = True) -> None:
        """Close sockets, let go of the ports, and remove the connection file unless told not to.

        May be repeated.  A kernel that runs goes on, and stays supervised.
        """
        orders = self._orders
        orders.block(orders.clean_up(connection_file=connection_file))

    def interrupt_kernel(self) -> None:
        """Interrupt what the kernel executes, in the way that its kernelspec asks for.

        One that is starting is interrupted once it is ready, at most 5 s
        later.  RuntimeError if nothing runs.
        """
        orders = self._orders
        orders.block(orders.interrupt())

    def signal_kernel(self, signum: int) -> None:
        """Send a signal to the process group; 0 only asks.  RuntimeError if nothing runs."""
        if signum != 0 and signum not in signal.valid_signals():
            raise ValueError(f"signum: {signum} is not a signal")
        orders = self._orders
        orders.block(orders.signal(int(signum)))

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the kernel answers; ``None``: for as long as it takes.

        TimeoutError after ``timeout`` seconds; RuntimeError if nothing runs or it was given up.
        """
        orders = self._orders
        orders.block(orders.wait_ready(timeout))

    def format_kernel_cmd(self, extra_arguments: Sequence[str] | None = None) -> list[str]:
        """The command as it is launched.  Raises NoSuchKernel."""
        extra = None if extra_arguments is None else list(extra_arguments)
        return self._orders.formatted(self._launch(), extra)

    def add_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Have ``callback()`` called at each ``event``.

        "restart" after a death, before the relaunch; "dead" when given up; "restarted"
        when the process of an ordered restart is there.  In a thread of their own, in
        order; what they raise is logged.  ValueError for another event.
        """
        self._orders.add_callback(callback, event)

    def remove_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Undo one ``add_restart_callback``; no error if there was none.  ValueError for another event."""
        self._orders.remove_callback(callback, event)


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


def _name(kernel_id: str) -> str:
    """The name of the kernel within: its id where that is one."""
    return (
        kernel_id if re.fullmatch(NAME_PATTERN, kernel_id) else str(uuid.uuid5(uuid.NAMESPACE_OID, kernel_id))
    )


def _connection(kernel_id: str, connection_file: str | os.PathLike[str]) -> Connection:
    from jupyter_core.paths import jupyter_runtime_dir

    name = _name(kernel_id)
    runtime_dir = Path(jupyter_runtime_dir())
    path = Path(connection_file).expanduser() if connection_file else runtime_dir / f"kernel-{name}.json"
    return Connection(name, path.absolute(), runtime_dir / "ipc")


def start_new_kernel(
    startup_timeout: float | None = 60, kernel_name: str = "python", **kw: Any
) -> tuple[KernelManager, BlockingKernelClient]:
    """Start a kernel, and return its manager and a client that is connected and ready.

    ``kw`` are those of ``start_kernel``.  RuntimeError if it is not ready
    within ``startup_timeout`` seconds (``None``: no limit); it is shut down then.
    For so long, and for a minute at least, it may also boot when it comes back.
    """
    patience = inf if startup_timeout is None else startup_timeout
    deadline = time.monotonic() + patience
    manager = KernelManager(
        kernel_name=kernel_name, settings={"start_timeout": max(_LEAST_PATIENCE, patience)}
    )
    client = None
    try:
        # Whatever ends this, Ctrl-C as well: a kernel that nobody can reach must not stay.
        manager.start_kernel(**kw)
        manager.wait_ready(patience)
        client = manager.client()
        client.start_channels()
        left = max(0.0, deadline - time.monotonic())
        client.wait_for_ready(timeout=None if left == inf else left)
    except BaseException as error:
        if client is not None:
            client.stop_channels()
        manager.shutdown_kernel(now=True)
        if isinstance(error, TimeoutError):
            raise RuntimeError(f"the kernel was not ready within {patience:g} s") from None
        raise
    return manager, client


@contextmanager
def run_kernel(**kw: Any) -> Iterator[BlockingKernelClient]:
    """A kernel for the length of a ``with`` block: gives its client, and shuts it down in any case.

    ``kw`` are those of ``start_new_kernel``.
    """
    manager, client = start_new_kernel(**kw)
    try:
        yield client
    finally:
        try:
            client.stop_channels()
        finally:
            manager.shutdown_kernel(now=True)
