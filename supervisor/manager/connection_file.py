"""How clients reach the kernel of a manager: its address, its key, its clients.

Owns what IPython's ``ConnectionFileMixin`` has.  Starts nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self, cast, overload

from supervisor.kernel.connection import CHANNELS, Address, ChannelName

if TYPE_CHECKING:
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.session import Session


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
    client_class: str | type[BlockingKernelClient] = "jupyter_client.blocking.client.BlockingKernelClient"

    _wished_ip = "127.0.0.1"
    _jupyter_session: Session | None = None

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

    @property
    def ip(self) -> str:
        """Where the kernel listens; for ipc the path before ``-PORT``, once it is chosen."""
        address = self._known_address()
        return self._wished_ip if address is None else address.ip

    @ip.setter
    def ip(self, ip: str) -> None:
        self._wished_ip = ip

    @property
    def key(self) -> bytes:
        """The key that signs messages; the same for as long as this manager is there."""
        return self._address().key.encode()

    @property
    def session(self) -> Session:
        """A ``jupyter_client.session.Session`` with the key."""
        if self._jupyter_session is None or self._jupyter_session.key != self.key:
            self._jupyter_session = self._new_session()
        return self._jupyter_session

    def _new_session(self) -> Session:
        from jupyter_client.session import Session

        return Session(key=self.key, signature_scheme=self._address().signature_scheme)

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
        made = self._client_factory()
        given = {**self.get_connection_info(session=True), "connection_file": self.connection_file, **kw}
        return cast("BlockingKernelClient", made(**given))

    def _client_factory(self) -> Any:
        if not isinstance(self.client_class, str):
            return self.client_class
        module, _, name = self.client_class.rpartition(".")
        return getattr(import_module(module), name)
