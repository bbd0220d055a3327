"""The client of the control door: one request on one connection.

Owns how a program talks to the daemon, as ``docs/api.md`` describes it; never
prints and never decides where the daemon is.  It speaks the little HTTP that
the door needs over a plain socket, because importing ``http.client`` takes
longer than a whole ``status``.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from supervisor.control.places import Lead, PlaceError, is_same_file, short_name

QUICK_TIMEOUT = 10.0
"""Seconds in which a daemon that is well answers what needs no waiting."""

STATUS_PATH = "/v1/status"
INSTANCE_HEADER = "kernel-supervisor-instance"
_MAX_LINE = 1 << 16

Found = TypeVar("Found")
Query = Mapping[str, str | int | float | bool | Sequence[str] | None]


class NoDaemon(Exception):
    """No daemon answers; ``tried`` tells where it was looked for and what was found."""

    headline = "no daemon answers"

    def __init__(self, tried: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(f"{path}: {reason}" for path, reason in tried))
        self.tried = tuple(tried)


class Unresponsive(NoDaemon):
    """A daemon is there, and does not answer in time."""

    headline = "the daemon does not answer"

    @classmethod
    def after(cls, path: Path, timeout: float | None) -> Unresponsive:
        """Say so of the one at this socket."""
        reason = f"accepts connections, but did not answer within {timeout:g} s (is it stopped?)"
        return cls([(path, reason)])


class OtherDaemon(NoDaemon):
    """A daemon answers, but it is not the one of the configuration that was named."""

    headline = "the daemon of this file does not answer"


class Broken(Exception):
    """The connection ended before the answer did, or what came is no answer."""


class Answer(NamedTuple):
    """What the daemon answered: HTTP status, JSON object, and which life of the daemon it was."""

    status: int
    body: dict[str, Any]
    instance: str

    @property
    def is_error(self) -> bool:
        """Whether the status says that it was not done."""
        return self.status >= 400


class Connection:
    """A connection for one request, used as a context manager."""

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self._sock = sock
        self._file: BinaryIO = sock.makefile("rb")

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._file.close()
        self._sock.close()

    def fileno(self) -> int:
        """The descriptor, for ``select``."""
        return self._sock.fileno()

    def listener(self) -> int | None:
        """The pid of the process that listens (SO_PEERCRED, unix(7)), where that can be told."""
        try:
            content = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except (OSError, AttributeError):
            return None
        return struct.unpack("3i", content)[0] or None

    def ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = QUICK_TIMEOUT,
    ) -> Answer:
        """Send the request and read its answer.  Raises Unresponsive and Broken."""
        self.send(method, target, body)
        return self.receive(timeout)

    def send(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> None:
        """Send the request; a door that has answered already and hung up is no error here."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        try:
            self._sock.sendall(head.encode("ascii") + content)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer, if any, is waiting to be read: it refused us early

    def receive(self, timeout: float | None = QUICK_TIMEOUT) -> Answer:
        """Read the answer.  Raises Broken, or Unresponsive when none comes within ``timeout`` seconds."""
        self._sock.settimeout(timeout)
        try:
            status, headers = self._head()
            content = b"".join(self._content(headers))
            body = json.loads(content) if content else {}
        except TimeoutError:
            raise Unresponsive.after(self.path, timeout) from None
        except (OSError, ValueError) as error:
            raise Broken(f"{self.path}: the answer broke off: {error}") from None
        return Answer(status, body if isinstance(body, dict) else {}, headers.get(INSTANCE_HEADER, ""))

    def lines(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Read newline-delimited JSON as it comes.

        Raises Broken when it breaks off, and Unresponsive when nothing comes
        for ``timeout`` seconds; ``None`` waits for as long as it takes.
        """
        self._sock.settimeout(timeout)
        rest = b""
        try:
            for piece in self._content(self._stream_headers):
                *whole, rest = (rest + piece).split(b"\n")
                yield from (json.loads(line) for line in whole if line.strip())
        except TimeoutError:
            raise Unresponsive.after(self.path, timeout) from None
        except (OSError, ValueError) as error:
            raise Broken(f"{self.path}: the stream broke off: {error}") from None

    def open_stream(self, timeout: float | None = QUICK_TIMEOUT) -> Answer | None:
        """Read the head of a stream: ``None`` when ``lines`` may follow, else the error answer."""
        self._sock.settimeout(timeout)
        try:
            status, headers = self._head()
            if status == 200:
                self._stream_headers = headers
                return None
            body = json.loads(b"".join(self._content(headers)) or b"{}")
        except TimeoutError:
            raise Unresponsive.after(self.path, timeout) from None
        except (OSError, ValueError) as error:
            raise Broken(f"{self.path}: {error}") from None
        return Answer(status, body, headers.get(INSTANCE_HEADER, ""))

    @property
    def stream_instance(self) -> str:
        """Which life of the daemon sends the stream."""
        return self._stream_headers.get(INSTANCE_HEADER, "")

    def _head(self) -> tuple[int, dict[str, str]]:
        words = self._line().split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ValueError("not an HTTP answer" if words != [""] else "the connection was closed")
        headers = {}
        while line := self._line():
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _line(self) -> str:
        return self._file.readline(_MAX_LINE).decode("latin-1").rstrip("\r\n")

    def _content(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._line() or "missing", 16):
                yield self._exactly(size)
                self._line()
            self._line()
        elif "content-length" in headers:
            yield self._exactly(int(headers["content-length"]))

    def _exactly(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) < size:
            raise ValueError("the connection was closed")
        return content


class Client:
    """Asks the daemon that is found first behind these sockets.

    At a socket in ``must_run`` only one that runs this file is asked for
    anything but its status.
    """

    def __init__(self, sockets: Sequence[Path], must_run: Mapping[Path, Path] | None = None) -> None:
        self._sockets = tuple(sockets)
        self._must_run = must_run or {}
        self._known: set[tuple[Path, int | None]] = set()

    @classmethod
    def at(cls, found: Lead) -> Client:
        """A client of the daemon to which a lead points."""
        return cls(found.sockets, found.must_run)

    def connect(self) -> Connection:
        """Connect to the first socket behind which the daemon listens.  Raises NoDaemon."""
        return self._first(self._checked)

    def _first(self, attempt: Callable[[Connection], Found]) -> Found:
        """What the attempt comes to at the first socket where it comes to something."""
        missing: list[NoDaemon] = []
        others: set[int] = set()
        for path in self._sockets:
            listener: int | None = None
            try:
                connection = _connect(path)
                listener = connection.listener()
                if listener in others:  # by another way
                    connection.close()
                    continue
                return attempt(connection)
            except NoDaemon as reason:
                if isinstance(reason, Unresponsive) and path not in self._must_run:
                    raise  # it is the one that is meant
                if isinstance(reason, OtherDaemon) and listener is not None:
                    others.add(listener)
                missing.append(reason)
        kinds = {type(reason) for reason in missing}
        kind = next((kind for kind in (OtherDaemon, Unresponsive) if kind in kinds), NoDaemon)
        raise kind([place for reason in missing for place in reason.tried])

    def _checked(self, connection: Connection) -> Connection:
        """A connection to the same socket, once its daemon is known to be the one that is meant."""
        place = (connection.path, connection.listener())
        if connection.path not in self._must_run or place in self._known:
            return connection
        with connection:
            self._check(connection, connection.ask("GET", STATUS_PATH))
        return _connect(connection.path)

    def _check(self, connection: Connection, status: Answer) -> None:
        """See by its status whether a daemon is the one that is meant.  Raises OtherDaemon."""
        path, file = connection.path, self._must_run.get(connection.path)
        runs = str((status.body.get("config") or {}).get("path"))
        if file is not None and status.is_error:
            raise OtherDaemon([(path, f"a daemon answers: {status.body.get('error')}")])
        if file is not None and not is_same_file(runs, file):
            reason = f"a daemon answers, but it runs {runs}, not {file}"
            raise OtherDaemon([(path, f"{reason} (--socket {path} asks it all the same)")])
        if (pid := connection.listener()) is not None:
            self._known.add((path, pid))

    def _status(self, connection: Connection, timeout: float | None) -> Answer:
        """The status of the daemon, which tells by itself whether it is the one that is meant."""
        with connection:
            answer = connection.ask("GET", STATUS_PATH, timeout=timeout)
            if not answer.is_error:
                self._check(connection, answer)
        return answer

    def ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = QUICK_TIMEOUT,
    ) -> Answer:
        """Send one request and read its answer.  Raises NoDaemon and Broken."""
        if (method, target) == ("GET", STATUS_PATH):
            return self._first(lambda connection: self._status(connection, timeout))
        with self.connect() as connection:
            return connection.ask(method, target, body, timeout)


def _connect(path: Path) -> Connection:
    """Connect to whoever listens there.  Raises NoDaemon."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(QUICK_TIMEOUT)
    try:
        with short_name(path) as name:
            sock.connect(name)
    except (OSError, PlaceError) as error:
        sock.close()
        kind = Unresponsive if isinstance(error, TimeoutError) else NoDaemon
        raise kind([(path, _reason(error))]) from None
    return Connection(path, sock)


def target(path: str, query: Query | None = None) -> str:
    """A request target: the path, quoted, and a query without its ``None`` fields."""
    fields = {name: value for name, value in (query or {}).items() if value is not None}
    texts = {name: _text(value) for name, value in fields.items()}
    return quote(path) + ("?" + urlencode(texts, doseq=True) if texts else "")


def _text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _reason(error: OSError | PlaceError) -> str:
    match error:
        case FileNotFoundError():
            return "there is no such socket"
        case ConnectionRefusedError():
            return "nobody answers (left over from a daemon that is gone)"
        case PermissionError():
            return "permission denied (another user's daemon?)"
        case NotADirectoryError():
            return "there is no such directory"
        case TimeoutError():
            return "does not accept connections (is the daemon stopped?)"
        case OSError():
            return error.strerror or str(error)
        case _:
            return str(error)
