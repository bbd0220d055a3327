"""The address of one kernel: its ports, its key, its connection file; made once, kept, or renewed.

Owns the connection file, the address in it, the holds on its ports, and the
socket files of ipc kernels.  Never starts anything, never connects to a live
kernel, and never replaces a port that somebody else has taken: clients rely on
the address, so that is reported (PortTaken).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import socket
import stat
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from supervisor.disk.files import read_own, write_atomically
from supervisor.disk.privacy import is_ours, let_in
from supervisor.kernel.ports import CLAIMS, Holds, Place, PortTaken, bound_ip, is_listened_on, reachable_ip
from supervisor.process.account import Account, acting, may
from supervisor.settings.config import KernelConfig

ChannelName = Literal["shell", "iopub", "stdin", "control", "hb"]
CHANNELS: tuple[ChannelName, ...] = ("shell", "iopub", "stdin", "control", "hb")

_KEY_BYTES = 32
_LARGEST_PORT = 65_535
# sun_path has 108 bytes (unix(7)), one of them the final zero; the port and some room come on top.
_IPC_PREFIX_LIMIT = 100
_SIGNATURE_SCHEME = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how clients reach a kernel: the content of its connection file.

    For ``ipc``, ``ip`` is the path to which ``-PORT`` is appended.
    """

    transport: Literal["tcp", "ipc"]
    ip: str
    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int
    key: str = field(repr=False)
    signature_scheme: str = _SIGNATURE_SCHEME
    kernel_name: str = ""

    def port(self, channel: ChannelName) -> int:
        """The port of a channel."""
        port: int = getattr(self, f"{channel}_port")
        return port

    def endpoint(self, channel: ChannelName) -> str:
        """What a zmq socket of ours connects to; loopback for a kernel that listens everywhere."""
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{self.port(channel)}"
        ip = reachable_ip(self.ip)
        return f"tcp://[{ip}]:{self.port(channel)}" if ":" in ip else f"tcp://{ip}:{self.port(channel)}"

    def ipc_path(self, channel: ChannelName) -> Path:
        """The socket file of a channel of an ipc kernel."""
        return Path(f"{self.ip}-{self.port(channel)}")

    def places(self) -> list[Place]:
        """The addresses and ports that the kernel listens on."""
        return [(bound_ip(self.ip), self.port(channel)) for channel in CHANNELS]

    def tcp_places(self) -> list[Place]:
        """Those of them that are TCP ports: all or none."""
        return self.places() if self.transport == "tcp" else []

    def to_mapping(self) -> dict[str, Any]:
        """The nine standard fields and ``kernel_name``; holds the key."""
        return asdict(self)

    def to_json(self) -> bytes:
        """The bytes of the connection file: the same address, the same bytes."""
        return json.dumps(self.to_mapping(), indent=2).encode() + b"\n"

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Self:
        """Read what ``to_mapping`` gave, or a connection file of another program.

        Raises ValueError naming the field that is missing or of the wrong kind, never its value.
        """
        ports: dict[str, Any] = {f"{channel}_port": mapping.get(f"{channel}_port") for channel in CHANNELS}
        words: dict[str, Any] = {
            name: mapping.get(name, default)
            for name, default in (
                ("transport", "tcp"),
                ("ip", None),
                ("key", None),
                ("signature_scheme", _SIGNATURE_SCHEME),
                ("kernel_name", ""),
            )
        }
        for name, value in (ports | words).items():
            if type(value) is not (int if name in ports else str):
                raise ValueError(f"connection: {name} is missing or of the wrong kind")
        for name, port in ports.items():
            if not 0 < port <= _LARGEST_PORT:
                raise ValueError(f"connection: {name} is not a port")
        if not _is_usable(words["ip"], words["transport"]):
            raise ValueError("connection: ip is none that a socket takes")
        if words["transport"] not in ("tcp", "ipc") or words["signature_scheme"] != _SIGNATURE_SCHEME:
            raise ValueError("connection: transport or signature_scheme is not supported")
        return cls(**ports, **words)


class PortOfAnother(PortTaken):
    """It belongs to another kernel of this process, which may be about to let go of it."""

    def __init__(self, port: int, where: str, kernel: str) -> None:
        super().__init__(port, where, f"belongs to kernel {kernel}: restart that one, or choose another port")


class FileOfAnother(PortTaken):
    """The connection file is of a kernel that is none of this process, and lives."""


class Connection:
    """One kernel's connection file, its current address, and what keeps that address for it.

    ``path`` is the connection file; the socket files of an ipc kernel go to
    ``ipc_dir``.  Both directories are made when needed, mode 0700.  Choosing an
    address, and the file, may be asked for in several threads at a time.
    """

    def __init__(self, name: str, path: Path, ipc_dir: Path) -> None:
        self.name = name
        self.path = path
        self.ipc_dir = ipc_dir
        self.address: Address | None = None
        self._holds = Holds()
        # Whose it is, if not ours, and who has the key (``Record.uid``): that is known earlier.
        self.owner: Account | None = None
        self.uid: int | None = None
        # Nobody knows where it listens: this address is for nobody's eyes.
        self.is_presumed = False
        self._renew_ports = False
        self._choosing = threading.RLock()
        # Of a write that hangs and the removal that follows, the removal is to be the last.
        self._file = threading.Lock()

    def adopt(self, address: Address) -> None:
        """Keep an address that was chosen earlier (by this or an earlier supervisor)."""
        self.address = address
        self.is_presumed = self._renew_ports = False
        CLAIMS.claim(self, address.places())
        self._holds.keep_only(address.tcp_places())

    def presume(self, config: KernelConfig) -> None:
        """Take an address for a kernel that lives and of which nobody knows where it listens.

        Never fails and asks nobody: the kernel may itself listen there, and is to be
        watched whatever else is wrong.  The next ``choose`` gives it a real one.
        """
        ports = {f"{channel}_port": getattr(config.ports, channel) for channel in CHANNELS}
        key = secrets.token_hex(_KEY_BYTES)
        if config.transport == "tcp" and all(ports.values()):
            self.adopt(Address("tcp", config.ip, **ports, key=key))
        else:
            self.adopt(Address("ipc", str(self.ipc_dir.absolute() / self.name), 1, 2, 3, 4, 5, key))
        self.is_presumed = True

    def renew(self) -> None:
        """Let the next ``choose`` give other ports, except the configured ones."""
        self._renew_ports = True

    def choose(self, config: KernelConfig, kernel_name: str, owner: Account | None = None) -> Address:
        """The address for the next run, the ``owner``'s (ours): made the first time, kept ever after.

        Only what the settings demand is changed: transport, ip, and ports given
        there as other than 0, or those of another kernel (``fix``); and the key, where
        another account had it.  To be called while no run of the kernel lives.

        Raises PortTaken if another program listens on a port of the address, which
        then stays as it is, and PortOfAnother if another kernel has the port; of the
        ports that it had, those that it is not to have any more are the others' then, or
        two kernels that exchange theirs would wait for each other for ever.  OSError if
        the ip is none of this machine's.
        """
        with self._choosing:
            old, uid = self.address, None if owner is None else owner.uid
            key = secrets.token_hex(_KEY_BYTES) if old is None or uid != self.uid else old.key
            ip = config.ip if config.transport == "tcp" else self._ipc_prefix(config.ip, owner)
            kept = places = _places_of(old)
            try:
                ports = self._choose_ports(config, ip)
                address = Address(config.transport, ip, **ports, key=key, kernel_name=kernel_name)
                kept = [place for place in places if place in address.places()]
                self._refuse_taken(address)
            except PortOfAnother:
                CLAIMS.claim(self, kept)
                self._holds.keep_only(kept)
                raise
            except OSError:
                # The address stays the kernel's own until there is another.
                CLAIMS.claim(self, places)
                self._holds.keep_only(places)
                raise
            self.adopt(address)
            # Not before: an address that is kept is known to whoever had it.
            self.owner, self.uid = owner, uid
            return address

    def fix(self, config: KernelConfig) -> None:
        """Let no other kernel keep a port that these settings ask for, once it is launched again."""
        CLAIMS.fix(self, fixed_places(config))

    def give_way(self, places: Collection[Place]) -> None:
        """Leave the ports that the settings of another kernel ask for; while no run of this one lives."""
        CLAIMS.give_up(self, places)

    def choose_once(self, config: KernelConfig, kernel_name: str) -> Address:
        """The present address if it has ports, else as ``choose``; one and the same for all threads."""
        with self._choosing:
            if self.address is not None and self.address.shell_port:
                return self.address
            return self.choose(config, kernel_name)

    @property
    def is_written(self) -> bool:
        """Whether the connection file is there and right."""
        return self.address is not None and self._is_as_written(self.address.to_json())

    def write(self) -> bool:
        """Put the address into the connection file, whole or not at all; tells whether that was needed.

        A file that is right already is not touched, one that was deleted or altered is repaired.
        """
        assert self.address is not None, "choose or adopt comes first"
        content = self.address.to_json()
        with self._file:
            if self._is_as_written(content) or self.is_strange:
                return False
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                owner = None if self.owner is None else (self.owner.uid, self.owner.gid)
                write_atomically(self.path, content, 0o600, owner=owner)
            except PermissionError:
                if is_ours(self.path):
                    raise
                what = "another user put a file there: remove it, or choose another runtime_dir"
                raise PermissionError(errno.EPERM, what, str(self.path)) from None
            return True

    def refuse_file_of_another(self) -> None:
        """Raises FileOfAnother if the file that is there is of a kernel that lives and is not this one.

        As where another supervisor has a kernel of the same name and the same directory: each
        would replace the file of the other, and a kernel that begins might read the wrong one.
        """
        if (taken := self._place_of_another()) is not None:
            raise FileOfAnother(*taken, f"is of a kernel of another program, in {self.path}")

    def _place_of_another(self) -> tuple[int, str] | None:
        try:
            there = read_address(self.path)
        except (OSError, ValueError):
            return None
        if self.address is not None and there.key == self.address.key:
            return None
        if (taken := listened_port(there)) is None:
            return None
        channel, port = taken
        return port, str(there.ipc_path(channel)) if there.transport == "ipc" else there.ip

    @property
    def is_strange(self) -> bool:
        """Whether it is an account's of which no more than its number is known yet."""
        return self.uid is not None and self.owner is None

    def _is_as_written(self, content: bytes) -> bool:
        return _is_as_written(self.path, content, self.uid)

    def open_way(self) -> None:
        """See that the owner gets to the file.  Raises PermissionError, OSError."""
        if self.owner is None:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        let_in(self.path.parent, os.X_OK, users=[self.owner.uid])
        with acting(self.owner):
            closed = next((part for part in reversed(self.path.parents) if not may(part, os.X_OK)), None)
        if closed is not None:
            what = f"{self.owner.name} may not enter it: chmod o+x it, or choose another runtime_dir"
            raise PermissionError(errno.EACCES, what, str(closed))

    def remove(self) -> None:
        """Remove the connection file, if there is one and no other living kernel has it."""
        with self._file:
            if self._place_of_another() is None:
                self.path.unlink(missing_ok=True)

    def hold(self) -> None:
        """Keep the ports from other programs, from now until ``release``; again is no error.

        An ipc kernel has none.  Raises PortTaken if somebody listens on one, which
        may be the kernel itself; the others are held all the same.
        """
        if self.address is not None:
            self._holds.take(self.address.tcp_places())

    def release(self) -> None:
        """Let go of the ports; the address stays ours."""
        self._holds.keep_only(())

    def close(self) -> None:
        """Let go of the ports and of the address; again is no error."""
        self.release()
        CLAIMS.release(self)
        self.address = None

    @property
    def is_held(self) -> bool:
        """Whether each port is held."""
        return self.address is not None and self._holds.covers(self.address.tcp_places())

    def taken_port(self) -> tuple[ChannelName, int] | None:
        """The first channel, and its port, on which somebody listens, while no run of the kernel lives."""
        return None if self.address is None else listened_port(self.address)

    def taken_place(self) -> int | str | None:
        """The same as the port alone, or the path of the socket."""
        if self.address is None or (taken := self.taken_port()) is None:
            return None
        return str(self.address.ipc_path(taken[0])) if self.address.transport == "ipc" else taken[1]

    def remove_stale_sockets(self) -> None:
        """Remove the socket files that a dead ipc kernel left behind.

        A kernel that binds such a file takes it from whoever listens there, and nobody
        is told.  Hence raises PortTaken if somebody does, or if it is not a socket.
        """
        if self.address is None or self.address.transport != "ipc" or self.is_strange:
            return
        # Perhaps in a directory of its own: what is there, and what leads there, is its business.
        with acting(self.owner):
            self._remove_stale_sockets(self.address)

    def _remove_stale_sockets(self, address: Address) -> None:
        for channel in CHANNELS:
            path, port = address.ipc_path(channel), address.port(channel)
            if not os.path.lexists(path):
                continue
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise PortTaken(port, str(path), "is a file that is not a socket")
            if _is_served(path):
                raise PortTaken(port, str(path))
            path.unlink(missing_ok=True)

    def _choose_ports(self, config: KernelConfig, ip: str) -> dict[str, Any]:
        asked = {channel: getattr(config.ports, channel) for channel in CHANNELS}
        kept = self._kept_ports(config.transport)
        given = {channel: port for channel, port in asked.items() if port}
        for channel, port in given.items():
            if list(given.values()).count(port) > 1:
                raise PortTaken(port, ip, f"is configured twice, for {channel} and another channel")
        for channel, port in kept.items():
            if channel in given or port in {0, *given.values()}:
                continue
            if config.transport == "ipc" or not CLAIMS.is_fixed(ip, port, by_other_than=self):
                given[channel] = port
        missing = [channel for channel in CHANNELS if channel not in given]
        avoid = {*given.values(), *(port for _, port in _places_of(self.address))}
        if config.transport == "ipc":
            found = [number for number in range(1, 11) if number not in given.values()]
        else:
            holds = self._holds if config.hold_ports else None
            found = CLAIMS.pick(self, ip, len(missing), avoid, holds)
        given.update(zip(missing, found, strict=False))
        return {f"{channel}_port": given[channel] for channel in CHANNELS}

    def _kept_ports(self, transport: str) -> dict[ChannelName, int]:
        if self.address is None or self.address.transport != transport or self._renew_ports:
            return {}
        return {channel: self.address.port(channel) for channel in CHANNELS}

    def _refuse_taken(self, address: Address) -> None:
        for ip, port in address.places():
            if (other := CLAIMS.other_owner(ip, port, than=self)) is not None:
                raise PortOfAnother(port, ip, getattr(other, "name", "?"))
            if address.transport == "tcp" and is_listened_on(ip, port):
                raise PortTaken(port, ip)

    def _make_ipc_dir(self, owner: Account | None) -> Path:
        """A directory of the owner's alone, beside the connection files."""
        directory = self.ipc_dir if owner is None else self.ipc_dir.with_name(f"ipc-{owner.uid}")
        # One by one: of several at once, only the last gets the mode (mkdir(2)).
        if not directory.is_dir():
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        if stat.S_IMODE(directory.stat().st_mode) != 0o700:
            directory.chmod(0o700)
        if owner is not None:
            os.chown(directory, owner.uid, owner.gid)
        return directory.absolute()

    def _ipc_prefix(self, ip: str, owner: Account | None) -> str:
        """The path before ``-PORT``: the configured one, else one in our own directory."""
        if ip.startswith("/"):
            prefix = ip
            with acting(owner):
                Path(ip).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            directory = self._make_ipc_dir(owner)
            prefix = str(directory / self.name)
            if len(os.fsencode(prefix)) > _IPC_PREFIX_LIMIT:
                short = hashlib.sha256(self.name.encode()).hexdigest()[:16]
                prefix = str(directory / short)
        if len(os.fsencode(prefix)) > _IPC_PREFIX_LIMIT:
            raise OSError(
                errno.ENAMETOOLONG,
                f"the ipc path has more than {_IPC_PREFIX_LIMIT} bytes: choose a shorter one",
            )
        return prefix


def listened_port(address: Address) -> tuple[ChannelName, int] | None:
    """The first channel of an address, and its port, on which somebody listens."""
    for channel in CHANNELS:
        port = address.port(channel)
        try:
            if address.transport == "ipc":
                is_taken = _is_served(address.ipc_path(channel))
            else:
                is_taken = is_listened_on(address.ip, port)
        except OSError:
            is_taken = False  # not even an address of this machine any more
        if is_taken:
            return channel, port
    return None


def _is_usable(ip: str, transport: str) -> bool:
    """Whether it can be given to a socket at all, which raises more than OSError for some texts."""
    try:
        encoded = ip.encode() if transport == "ipc" else ip.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in ip and (transport != "ipc" or len(encoded) <= _IPC_PREFIX_LIMIT)


def read_address(path: Path) -> Address:
    """The address in a connection file.  Raises ValueError, and OSError, also for another user's file."""
    if not is_ours(path):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    try:
        return Address.from_mapping(json.loads(read_own(path)))
    except (RecursionError, AttributeError) as error:
        raise ValueError("connection: not an object") from error


def fixed_places(config: KernelConfig) -> list[Place]:
    """The TCP ports that settings ask for by their number."""
    if config.transport != "tcp":
        return []
    asked = (getattr(config.ports, channel) for channel in CHANNELS)
    return [(bound_ip(config.ip), port) for port in asked if port]


def _places_of(address: Address | None) -> list[Place]:
    return [] if address is None else address.places()


def _is_as_written(path: Path, content: bytes, uid: int | None) -> bool:
    try:
        status = path.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and stat.S_IMODE(status.st_mode) == 0o600
            and uid in (None, status.st_uid)
            and status.st_size == len(content)
            and read_own(path) == content
        )
    except OSError:
        return False


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            pass  # as EAGAIN: its backlog is full, so somebody is there
    return True
