"""How clients reach the kernel of a manager: its address, its key, its clients.

Owns what IPython's ``ConnectionFileMixin`` has.  Starts nothing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from supervisor.kernel.connection import CHANNELS, Address, ChannelName

if TYPE_CHECKING:
    import zmq
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.session import Session

_SCHEME = "hmac-sha256"


class Port:
    """An attribute that is the port of a channel: the wished one until an address is chosen; 0: any."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._channel = cast("ChannelName", name.removesuffix("_port"))

    @overload
    def __get__(self, manager: None, owner: type) -> Self: ...
    @overload
    def __get__(self, manager: ConnectionFileMixin, owner: type) -> int: ...
    def __get__(self, manager: ConnectionFileMixin | None, owner: type) -> int | Self:
        if manager is None:
            return self
        address = manager._known_address()
        return manager._wished_ports[self._channel] if address is None else address.port(self._channel)

    def __set__(self, manager: ConnectionFileMixin, port: int) -> None:
        manager._wished_ports[self._channel] = port


class ConnectionFileMixin(ABC):
    """Who has a connection file, as its clients see it."""

    shell_port = Port()
    iopub_port = Port()
    stdin_port = Port()
    control_port = Port()
    hb_port = Port()

    transport: Literal["tcp", "ipc"] = "tcp"
    blocking_class: str | type[BlockingKernelClient] = "jupyter_client.blocking.client.BlockingKernelClient"
    client_class: str | type[Any] = blocking_class
    client_factory: Any = None

    _context_class = "zmq.Context"
    _context: zmq.Context[Any] | None = None
    _wished_ip = "127.0.0.1"
    _session: Session | None = None

    def __init__(self) -> None:
        self._wished_ports: dict[ChannelName, int] = dict.fromkeys(CHANNELS, 0)

    @property
    @abstractmethod
    def connection_file(self) -> str:
        """The path of the connection file."""

    @abstractmethod
    def _known_address(self) -> Address | None:
        """The address, if one is chosen."""

    @abstractmethod
    def _address(self) -> Address:
        """The address, chosen now if need be."""

    @abstractmethod
    def _adopt(self, address: Address) -> None:
        """Have this address, from now on."""

    @property
    def ip(self) -> str:
        """Where the kernel listens; for ipc the path before ``-PORT``, once it is chosen."""
        address = self._known_address()
        return self._wished_ip if address is None else address.ip

    @ip.setter
    def ip(self, ip: str) -> None:
        self._wished_ip = "0.0.0.0" if ip == "*" else ip  # noqa: S104 - as in the originals

    @property
    def ports(self) -> list[int]:
        """The ports of shell, stdin, iopub, hb and control, in this order."""
        return [self.shell_port, self.stdin_port, self.iopub_port, self.hb_port, self.control_port]

    @property
    def key(self) -> bytes:
        """The key that signs messages; the same for as long as this manager is there."""
        return self._address().key.encode()

    @property
    def session(self) -> Session:
        """A ``jupyter_client.session.Session`` with the key."""
        if self._session is None:
            self._session = self._new_session()
        self._session.key = self.key
        return self._session

    def _new_session(self) -> Session:
        from jupyter_client.session import Session

        if self._session is not None:
            made = self._session.clone()
            made.session = Session().session  # each client has an id of its own
            return made
        return Session(key=self.key, signature_scheme=_SCHEME)

    @property
    def context(self) -> zmq.Context[Any]:
        """The zmq context for ``connect_shell`` and the like: that of the process, unless set."""
        if self._context is None:
            self._context = imported(self._context_class).instance()
        return self._context

    @context.setter
    def context(self, context: zmq.Context[Any]) -> None:
        self._context = context

    def get_connection_info(self, session: bool = False) -> dict[str, Any]:
        """Where the kernel is: transport, ip, the five ports, and the key, or a ``session`` with it."""
        address = self._address()
        found: dict[str, Any] = {"transport": address.transport, "ip": address.ip}
        found |= {f"{channel}_port": address.port(channel) for channel in CHANNELS}
        if session:
            return {**found, "session": self._new_session()}
        return {**found, "signature_scheme": address.signature_scheme, "key": self.key}

    def client(self, **kw: Any) -> BlockingKernelClient:
        """A client of the kernel, its channels not started; ``kw`` are further keywords of its class.

        May be had before the start: the address does not change.
        """
        return cast("BlockingKernelClient", self._client(self.client_factory or self.client_class, kw))

    def blocking_client(self) -> BlockingKernelClient:
        """A client of ``blocking_class``."""
        return cast("BlockingKernelClient", self._client(self.blocking_class, {}))

    def _client(self, kind: Any, keywords: Mapping[str, Any]) -> Any:
        made = imported(kind)
        return made(
            **{**self.get_connection_info(session=True), "connection_file": self.connection_file, **keywords}
        )

    def load_connection_file(self, connection_file: str | None = None) -> None:
        """Have the address of a connection file, by default of one's own.  OSError, ValueError."""
        content = Path(connection_file or self.connection_file).read_text(encoding="utf-8")
        self.load_connection_info(json.loads(content))

    def load_connection_info(self, info: Mapping[str, Any]) -> None:
        """Have this address from now on; ports that are missing are chosen.

        ValueError for one that cannot be; RuntimeError while a kernel runs.
        """
        given = {name: value for name, value in info.items() if name in _FIELDS}
        key = given.get("key") or self.key
        given |= {"key": key.decode() if isinstance(key, bytes) else str(key)}
        ports = {name: given.get(name) or getattr(self, name) for name in _PORTS}
        known = {"transport": self.transport, "ip": self.ip, "signature_scheme": _SCHEME}
        if all(ports.values()):
            self._adopt(Address.from_mapping({**known, **given, **ports}))
        else:
            self._adopt(Address(self.transport, self.ip, 0, 0, 0, 0, 0, key=given["key"]))
            self._wished_ports.update((channel, ports[f"{channel}_port"]) for channel in CHANNELS)
        self.transport = given.get("transport", self.transport)
        self.ip = given.get("ip", self.ip)

    def _connect(self, channel: str, identity: bytes | None) -> zmq.Socket[Any]:
        from jupyter_client.connect import ConnectionFileMixin as Original

        original = Original(context=self.context)
        original.load_connection_info(self.get_connection_info())  # type: ignore[arg-type]
        return cast("zmq.Socket[Any]", getattr(original, f"connect_{channel}")(identity=identity))

    def connect_shell(self, identity: bytes | None = None) -> zmq.Socket[Any]:
        """A socket that is connected to the shell channel."""
        return self._connect("shell", identity)

    def connect_iopub(self, identity: bytes | None = None) -> zmq.Socket[Any]:
        """A socket that is connected to the iopub channel, and subscribed to all."""
        return self._connect("iopub", identity)

    def connect_stdin(self, identity: bytes | None = None) -> zmq.Socket[Any]:
        """A socket that is connected to the stdin channel."""
        return self._connect("stdin", identity)

    def connect_control(self, identity: bytes | None = None) -> zmq.Socket[Any]:
        """A socket that is connected to the control channel."""
        return self._connect("control", identity)

    def connect_hb(self, identity: bytes | None = None) -> zmq.Socket[Any]:
        """A socket that is connected to the heartbeat."""
        return self._connect("hb", identity)


_PORTS = tuple(f"{channel}_port" for channel in CHANNELS)
_FIELDS = (*_PORTS, "transport", "ip", "key", "signature_scheme", "kernel_name")


def imported(thing: Any) -> Any:
    """What a dotted name stands for; anything else is itself."""
    if not isinstance(thing, str):
        return thing
    module, _, name = thing.rpartition(".")
    return getattr(import_module(module), name)
