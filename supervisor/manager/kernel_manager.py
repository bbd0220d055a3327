"""``KernelManager``: one kernel across its runs, for programs without a daemon.

Owns the API that IPython's and jupyter_client's managers have.  Every method is an
order, carried out by this process or by a daemon; it has no restart logic of its own.
"""

from __future__ import annotations

import concurrent.futures
import errno
import functools
import inspect
import logging
import os
import re
import signal
import subprocess
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

import msgspec
from jupyter_client.managerabc import KernelManagerABC
from traitlets import TraitType

from supervisor.core.model import Exit, ProcessId
from supervisor.disk.off_loop import begin
from supervisor.kernel.connection import CHANNELS, Address, Connection
from supervisor.manager.attached import Attached
from supervisor.manager.clients import attend
from supervisor.manager.connection_file import ConnectionFileMixin
from supervisor.manager.launch import Launch, words
from supervisor.manager.own import Own
from supervisor.manager.thread import Work, drive
from supervisor.observe.callbacks import Callback, Callbacks
from supervisor.process.identity import is_running
from supervisor.settings.config import NAME_PATTERN, KernelConfig, OutputConfig, PortsConfig
from supervisor.settings.values import convert_table

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient

T = TypeVar("T")
M = TypeVar("M", bound="KernelManager")

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
    "restart",
)
"""The keys of a ``[kernels.NAME]`` table that ``settings=`` takes."""

# Who carries out the orders: this process, or a daemon.
Orders = Own | Attached

_PROPERTIES = ("autorestart", "kernel_id", "connection_file", "ip", "key", *(f"{c}_port" for c in CHANNELS))

# A kernel that comes back may take this long, however little patience there is at the start; in seconds.
_LEAST_PATIENCE = 60.0


class KernelManager(ConnectionFileMixin):
    """Manages one kernel on this host, and starts it again at the same address when it dies.

    May be used from any thread, also beside a running event loop; not in a
    forked child.  ``settings`` are keys of a ``[kernels.NAME]`` table (see
    ``SETTINGS``).  ``kernel_cmd`` stands in for the command of the kernelspec.
    """

    kernel_name: str = "python3"
    kernel_cmd: Sequence[str] = ()
    extra_arguments: Sequence[str] = ()
    shutdown_wait_time: float = 1.0
    settings: Mapping[str, Any] = {}
    log: Any = logging.getLogger(__name__)
    shutting_down = False
    kernel_spec_manager: Any = None
    data_dir: str = ""

    # What a subclass says of the attributes that are properties here.
    _wishes: Mapping[str, Any] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, value in list(vars(cls).items()):
            plain = value.default() if isinstance(value, TraitType) else value
            if name in _PROPERTIES and not hasattr(plain, "__get__"):
                cls._wishes = {**cls._wishes, name: plain}
                delattr(cls, name)
            elif plain is not value:
                setattr(cls, name, plain)

    def __init__(self, **keywords: Any) -> None:
        super().__init__()
        given = {**self._wishes, **_configured(type(self), keywords), **keywords}
        self._autorestart = bool(given.pop("autorestart", True))
        self._has_id = given.get("kernel_id") is not None
        self._kernel_id = given.pop("kernel_id", None) or str(uuid.uuid4())
        connection = _connection(self._kernel_id, given.pop("connection_file", ""))
        self._order_by(Own(connection, self._new_callbacks()))
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        session, key = given.pop("session", None), given.pop("key", b"")
        for name, value in given.items():
            self._take(name, value)
        for name in ("kernel_cmd", "extra_arguments"):
            setattr(self, name, list(words(name, getattr(self, name))))
        self.settings = _checked(self.settings)
        if session is not None:
            self._session, key = session, session.key
        if key:
            text = key.decode() if isinstance(key, bytes) else key
            connection.adopt(Address(self.transport, self.ip, 0, 0, 0, 0, 0, key=text))

    def _take(self, name: str, value: Any) -> None:
        if name in ("config", "parent"):
            return  # read already
        if name == "cache_ports":
            self.log.debug("%s: is of no use to a %s", name, type(self).__name__)
        elif name.startswith("_") or not hasattr(type(self), name):
            raise TypeError(f"{type(self).__name__}: {name}: no such keyword")
        else:
            setattr(self, name, value)

    @classmethod
    def _new_callbacks(cls) -> Callbacks:
        return Callbacks(coroutines=False)

    def _order_by(self, orders: Orders) -> None:
        """Have the orders carried out by these."""
        self._carrier = orders
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
        orders = Attached(name, socket, config, cls._new_callbacks())
        made = cls(kernel_id=name)
        made._order_by(orders)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown_kernel()

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
        """The path of the connection file; may be set before the start."""
        return self._carrier.connection_file

    @connection_file.setter
    def connection_file(self, path: str | os.PathLike[str]) -> None:
        self._own("connection_file").connection.path = Path(path).expanduser().absolute()

    def _own(self, what: str) -> Own:
        """The supervision by this process, where nothing runs yet."""
        orders = self._orders
        if not isinstance(orders, Own):
            raise TypeError(f"{what}: is the daemon's")
        if orders.is_managing:
            raise RuntimeError(f"{what}: a kernel runs")
        return orders

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

    @property
    def owns_kernel(self) -> bool:
        """Whether the kernel is this process's; False for one of a daemon."""
        return isinstance(self._carrier, Own)

    @property
    def kernel(self) -> subprocess.Popen[bytes] | None:
        """The process that was launched last; ``None`` before, and for a kernel of a daemon."""
        return self._carrier.launcher.popen if isinstance(self._carrier, Own) else None

    @property
    def ready(self) -> concurrent.futures.Future[None]:
        """Done when a process has been started for the first time, or could not be."""
        return self._ready

    @property
    def kernel_spec(self) -> Any:
        """The ``jupyter_client`` KernelSpec of ``kernel_name``.  NoSuchKernel."""
        if self.kernel_spec_manager is None:
            from jupyter_client.kernelspec import KernelSpecManager

            where = {"data_dir": self.data_dir} if self.data_dir else {}
            self.kernel_spec_manager = KernelSpecManager(**where)
        return self.kernel_spec_manager.get_kernel_spec(self.kernel_name)

    @property
    def ipykernel(self) -> bool:
        """Whether the kernel's name says that it is an ipykernel."""
        return self.kernel_name in ("python", "python2", "python3")

    def is_alive(self) -> bool:
        """Whether the process is there and has not ended."""
        process = self._orders.process
        return process is not None and is_running(process)

    def _hearer(self) -> ProcessId | None:
        return self._carrier.hearer

    def _is_kept(self) -> bool | None:
        """Whether the kernel runs or is to come back, as far as is known; ``None`` before the first start."""
        if not self._ready.done() and self.owns_kernel:
            return None
        try:
            return self._carrier.is_managing
        except ConnectionError:
            return self._carrier.process is not None

    async def _ask(self, question: Callable[[], T]) -> T:
        return await begin(question) if isinstance(self._carrier, Attached) else question()

    def _client(self, kind: Any, keywords: Mapping[str, Any]) -> Any:
        client = super()._client(kind, keywords)
        attend(client, self)
        return client

    def _config(self) -> KernelConfig:
        if self.transport not in ("tcp", "ipc"):
            raise ValueError(f"transport: {self.transport!r} is not one of 'tcp', 'ipc'")
        settings = dict(self.settings)
        restart = settings.pop("restart", "on-failure")
        if not self._autorestart:
            # Nobody is to start it again, so nobody is to end a slow start.
            restart = "never"
            settings.setdefault("start_timeout", inf)
        ip = self._wished_ip
        if self.transport == "ipc" and ip != ConnectionFileMixin._wished_ip:
            ip = str(Path(ip).absolute())
        return KernelConfig(
            name=self._carrier.name,
            autostart=False,
            restart=restart,
            stop_timeout=self.shutdown_wait_time,
            transport=self.transport,
            ip=ip,
            ports=PortsConfig(**self._wished_ports),
            **{"output": OutputConfig(max_bytes=1_048_576, backups=0), **settings},
        )

    def _launch(self) -> Launch:
        return Launch(self.kernel_name, tuple(self.kernel_cmd), tuple(self.extra_arguments))

    def _known_address(self) -> Address | None:
        return self._carrier.address

    def _address(self) -> Address:
        return self._known_address() or self._orders.choose_address(self._config(), self.kernel_name)

    def _adopt(self, address: Address) -> None:
        self._own("the address").connection.adopt(address)

    # Orders

    def _wait(self, work: Work[T]) -> T:
        """Carry out an order, in the way of this class of managers."""
        return self._carrier.block(work)

    def start_kernel(self, /, **kw: Any) -> None:
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
        if (kernel_id := kw.pop("kernel_id", None)) is not None and not self._has_id:
            self._kernel_id = str(kernel_id)
        return self._wait(self._launched(self._orders.start, self._launch(), self._config(), kw))

    def restart_kernel(self, /, now: bool = False, **kw: Any) -> None:
        """Stop the kernel and launch it again at the same address; returns when the new process is there.

        With the arguments of the start, updated by ``kw``, for good.  ``now``
        kills at once; otherwise it has ``shutdown_wait_time`` seconds to exit.
        ``newports=True`` gives it another address.  Raises RuntimeError if
        none was ever started, and as ``start_kernel`` does.
        """
        restart = functools.partial(self._orders.restart, now=now)
        return self._wait(self._launched(restart, self._launch(), self._config(), kw))

    async def _launched(self, order: Callable[..., Work[Launch]], *arguments: Any) -> None:
        self.shutting_down = False
        if self._ready.done():
            self._ready = concurrent.futures.Future()
        ready, error = self._ready, None
        try:
            launch = await order(*arguments)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if not ready.done():  # by another order, meanwhile
                ready.set_exception(error) if error else ready.set_result(None)
        self.kernel_name, self.kernel_cmd = launch.kernel_name, list(launch.kernel_cmd)

    def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
        """Ask the kernel to exit, then signal: SIGTERM after ``shutdown_wait_time`` s, SIGKILL 1 s later.

        ``now`` kills at once.  With ``restart`` the connection file and the hold
        on the ports stay.  No error if nothing runs; RuntimeError if it
        does not end even so.
        """
        return self._end(self._orders.shut_down(self.shutdown_wait_time, now=now, restart=restart))

    def _end(self, work: Work[None]) -> None:
        """Carry out an order to end what runs and is left."""
        self.shutting_down = True
        try:
            return self._wait(work)
        except OSError as error:
            # When the interpreter ends there are no new threads, and no need of one for nothing.
            if error.errno not in (errno.EAGAIN, errno.EMFILE) or not self._carrier.is_idle:
                raise

    def request_shutdown(self, restart: bool = False) -> None:
        """Send a ``shutdown_request`` on control, and return; the kernel is not started again.

        What it executes is not interrupted, and no signal follows.  Returns once it
        has answered, after half a second at most.  No error if nothing runs.
        """
        return self._end(self._orders.request_shutdown(restart=restart))

    def finish_shutdown(
        self,
        waittime: float | None = 1,
        pollinterval: float = 0.1,  # noqa: ARG002
        restart: bool = False,  # noqa: ARG002
    ) -> None:
        """Wait ``waittime`` seconds for the end of the kernel, then signal it; sends no request.

        The others have no effect: nothing is polled, and the connection file stays in any case.
        """
        return self._end(
            self._orders.finish_shutdown(self.shutdown_wait_time if waittime is None else waittime)
        )

    def cleanup(self, connection_file: bool = True) -> None:
        """Close sockets, let go of the ports, and remove the connection file unless told not to.

        May be repeated.  A kernel that runs goes on, and stays supervised.
        """
        return self._end(self._orders.clean_up(connection_file=connection_file))

    def cleanup_resources(self, restart: bool = False) -> None:
        """As ``cleanup``; and a kernel that has died does not come back, unless it is for a ``restart``."""
        if not restart and self.owns_kernel and not KernelManager.is_alive(self):
            return self.shutdown_kernel(now=True)
        return self.cleanup(connection_file=not restart)

    def interrupt_kernel(self) -> None:
        """Interrupt what the kernel executes, in the way that its kernelspec asks for.

        One that is starting is interrupted once it is ready, at most 5 s
        later.  RuntimeError if nothing runs.
        """
        return self._wait(self._orders.interrupt())

    def signal_kernel(self, signum: int) -> None:
        """Send a signal to the process group; 0 only asks.  RuntimeError if nothing runs."""
        if signum != 0 and signum not in signal.valid_signals():
            raise ValueError(f"signum: {signum} is not a signal")
        return self._wait(self._orders.signal(int(signum)))

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """Wait until the kernel answers; ``None``: for as long as it takes.

        TimeoutError after ``timeout`` seconds; RuntimeError if nothing runs or it was given up.
        """
        return self._wait(self._orders.wait_ready(timeout))

    def update_env(self, *, env: Mapping[str, str]) -> None:
        """Have these variables in the environment of the kernel from its next launch on."""
        if isinstance(orders := self._orders, Own):
            orders.update_env(env)

    def format_kernel_cmd(self, extra_arguments: Sequence[str] | None = None) -> list[str]:
        """The command as it is launched.  Raises NoSuchKernel."""
        extra = None if extra_arguments is None else list(extra_arguments)
        return self._orders.formatted(self._launch(), extra)

    def write_connection_file(self, **_: Any) -> None:
        """Choose the address and write the connection file now; the start has the same."""
        self._address()
        own = self._own("the connection file")
        own.connection.write()
        own.owns_file = True

    def cleanup_connection_file(self) -> None:
        """Remove the connection file if it was written by this manager."""
        if isinstance(orders := self._orders, Own) and orders.owns_file:
            orders.connection.remove()

    def cleanup_ipc_files(self) -> None:
        """Remove the sockets of an ipc kernel that has ended."""
        if isinstance(orders := self._orders, Own):
            orders.remove_sockets()

    def cleanup_random_ports(self) -> None:
        """Have other ports at the next start, but those that were given."""
        self._own("the ports").connection.renew()

    def add_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Have ``callback()`` called at each ``event``.

        "restart" after a death, before the relaunch; "dead" when given up; "restarted"
        when the process of an ordered restart is there.  In a thread of their own, in
        order; what they raise is logged.  ValueError for another event.
        """
        self._orders.callbacks.add(None, callback, event)
        self._carrier.listen()

    def remove_restart_callback(self, callback: Callback, event: str = "restart") -> None:
        """Undo one ``add_restart_callback``; no error if there was none.  ValueError for another event."""
        self._orders.callbacks.remove(None, callback, event)


KernelManagerABC.register(KernelManager)


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"settings: {name!r} is not one of {', '.join(SETTINGS)}")
    plain: dict[str, Any] = msgspec.to_builtins(dict(settings))
    # Where nobody waits, the start may take for ever; in a file it may not.
    endless = {"start_timeout": inf} if plain.get("start_timeout") == inf else {}
    given = {name: value for name, value in plain.items() if name not in endless}
    mistakes: list[str] = []
    values = convert_table(
        KernelConfig,
        given,
        ("settings",),
        lambda path, what: mistakes.append(f"{'.'.join(map(str, path))}: {what}"),
    )
    if mistakes:
        raise ValueError("; ".join(mistakes))
    whole = msgspec.convert({"name": "checked", **values}, KernelConfig)
    return {**endless, **{name: getattr(whole, name) for name in given}}


def _configured(kind: type, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration of traitlets says of the attributes of a manager."""
    parent = keywords.get("parent")
    config = keywords.get("config") or getattr(parent, "config", None) or {}
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        section = config.get(base.__name__, {})
        found |= {name: section[name] for name in section if hasattr(kind, name) or name in _PROPERTIES}
    return found


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


async def new_kernel(
    kind: type[M], startup_timeout: float | None, kernel_name: str, keywords: Mapping[str, Any]
) -> tuple[M, Any]:
    """Start a kernel, and return its manager and a client that is connected and ready.

    Of managers and clients whose methods return nothing to be awaited, it waits for nothing.
    """
    patience = inf if startup_timeout is None else startup_timeout
    deadline = time.monotonic() + patience
    manager = kind(kernel_name=kernel_name, settings={"start_timeout": max(_LEAST_PATIENCE, patience)})
    client = None
    try:
        # Whatever ends this, Ctrl-C as well: a kernel that nobody can reach must not stay.
        await done(manager.start_kernel(**keywords))
        await done(manager.wait_ready(patience))
        client = manager.client()
        client.start_channels()
        left = max(0.0, deadline - time.monotonic())
        await done(client.wait_for_ready(timeout=None if left == inf else left))
    except BaseException as error:
        if client is not None:
            client.stop_channels()
        await done(manager.shutdown_kernel(now=True))
        if isinstance(error, TimeoutError):
            raise RuntimeError(f"the kernel was not ready within {patience:g} s") from None
        raise
    return manager, client


async def done(answer: Any) -> Any:
    """What comes of it, be it to be awaited or not."""
    return await answer if inspect.isawaitable(answer) else answer


def start_new_kernel(
    startup_timeout: float | None = 60, kernel_name: str = "python", **kw: Any
) -> tuple[KernelManager, BlockingKernelClient]:
    """Start a kernel, and return its manager and a client that is connected and ready.

    ``kw`` are those of ``start_kernel``.  RuntimeError if it is not ready
    within ``startup_timeout`` seconds (``None``: no limit); it is shut down then.
    For so long, and for a minute at least, it may also boot when it comes back.
    """
    return drive(new_kernel(KernelManager, startup_timeout, kernel_name, kw))
