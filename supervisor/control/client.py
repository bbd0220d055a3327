"""The client of the control door: one request on one connection.

Owns how a program talks to the daemon, as ``docs/api.md`` describes it; never
prints and never decides where the daemon is.  It speaks the little HTTP that
the door needs over a plain socket, because importing ``http.client`` takes
longer than a whole ``status``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode

from supervisor.control.lookup import (
    BadPath,
    Lead,
    NoConfig,
    is_of_a_service,
    is_same_file,
    lead,
    short_name,
)

QUICK_TIMEOUT = 10.0
"""Seconds in which a daemon that is well answers what needs no waiting."""

STATUS_PATH = "/v1/status"
INSTANCE_HEADER = "kernel-supervisor-instance"
_MAX_LINE = 1 << 16
_CALLS, _CALL_PAUSE = 20, 0.05

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

    def hang_up(self) -> None:
        """End what another thread does with it; that thread closes it.  From any thread."""
        with suppress(OSError):  # the other side was quicker
            self._sock.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        """The descriptor, for ``select``."""
        return self._sock.fileno()

    def listener(self) -> tuple[int | None, int | None]:
        """The pid and uid of the process that listens (SO_PEERCRED, unix(7)), where that can be told."""
        try:
            content = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        except (OSError, AttributeError):
            return None, None
        pid, uid, _ = struct.unpack("3i", content)
        return pid or None, uid

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

    @contextmanager
    def _reading(self, what: str, timeout: float | None) -> Iterator[None]:
        self._sock.settimeout(timeout)
        try:
            yield
        except TimeoutError:
            raise Unresponsive.after(self.path, timeout) from None
        except (OSError, ValueError) as error:
            raise Broken(f"{self.path}: {what} broke off: {error}") from None

    def receive(self, timeout: float | None = QUICK_TIMEOUT) -> Answer:
        """Read the answer.  Raises Broken, or Unresponsive when none comes within ``timeout`` seconds."""
        with self._reading("the answer", timeout):
            return self._answer(*self._head())

    def open_stream(self, timeout: float | None = QUICK_TIMEOUT) -> Answer | None:
        """Read the head of a stream: ``None`` when ``lines`` may follow, else the error answer."""
        with self._reading("the stream", timeout):
            status, headers = self._head()
            if status == 200:
                self._stream_headers = headers
                return None
            return self._answer(status, headers)

    def _answer(self, status: int, headers: Mapping[str, str]) -> Answer:
        body = json.loads(b"".join(self._content(headers)) or b"{}")
        return Answer(status, body if isinstance(body, dict) else {}, headers.get(INSTANCE_HEADER, ""))

    def lines(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Read newline-delimited JSON as it comes.

        Raises Broken when it breaks off, and Unresponsive when nothing comes
        for ``timeout`` seconds; ``None`` waits for as long as it takes.
        """
        with self._reading("the stream", timeout):
            for line in _lines(self._content(self._stream_headers)):
                yield json.loads(line)

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


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines that are whole, in time that grows with their length and no faster."""
    rest: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        rest.append(first)
        if others:
            yield from filter(bytes.strip, (b"".join(rest), *others[:-1]))
            rest = others[-1:]


class Client:
    """Asks the daemon to which a lead points: the first behind its sockets.

    Where the lead leaves doubt, only one that runs the file that is meant is asked for anything
    but its status.  Nothing is sent to another user's process, unless its socket was named.
    """

    def __init__(self, sockets: Sequence[Path] = (), *, found: Lead | None = None) -> None:
        self._lead = found or Lead(tuple(sockets), named=True)
        self._known: int | None = None
        self.uid: int | None = None
        """The user of the daemon that was reached last, where that can be told."""

    def connect(self) -> Connection:
        """Connect to the daemon.  Raises NoDaemon."""
        connection = self._reach()
        if not self._is_in_doubt(connection):
            return connection
        with connection:
            self._check(connection, connection.ask("GET", STATUS_PATH))
        return self._reach()

    def _reach(self) -> Connection:
        """Connect to the first socket at which one listens who is asked."""
        missing: list[tuple[Path, str]] = []
        for path in self._lead.sockets:
            try:
                connection = _connect(path)
            except Unresponsive:
                raise
            except NoDaemon as reason:
                missing += reason.tried
                continue
            if (stranger := self._stranger(connection)) is None:
                self.uid = connection.listener()[1]
                return connection
            connection.close()
            missing.append((path, stranger))
        raise NoDaemon(missing)

    def _stranger(self, connection: Connection) -> str | None:
        """Who listens there though it is not for them to, in words."""
        pid, uid = connection.listener()
        path, own = connection.path, getattr(os, "geteuid", lambda: uid)()
        if self._lead.named or uid in (None, 0, own) or (own == 0 and is_of_a_service(path)):
            return None
        who = f"process {pid} of another user (uid {uid})"
        return f"nothing is sent to {who}, which listens there (--socket {path} asks it all the same)"

    def _is_in_doubt(self, connection: Connection) -> bool:
        found, pid = self._lead, connection.listener()[0]
        in_doubt = found.runs is not None and connection.path != found.certain
        return in_doubt and (pid is None or pid != self._known)

    def _check(self, connection: Connection, status: Answer) -> None:
        """See by its status whether a daemon is the one that is meant.  Raises OtherDaemon."""
        path, file = connection.path, self._lead.runs
        runs = str((status.body.get("config") or {}).get("path"))
        if status.is_error:
            raise OtherDaemon([(path, f"a daemon answers: {status.body.get('error')}")])
        if file is not None and not is_same_file(runs, file):
            reason = f"a daemon answers, but it runs {runs}, not {file}"
            raise OtherDaemon([(path, f"{reason} (--socket {path} asks it all the same)")])
        self._known = connection.listener()[0]

    def ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = QUICK_TIMEOUT,
    ) -> Answer:
        """Send one request and read its answer.  Raises NoDaemon and Broken."""
        if (method, target) != ("GET", STATUS_PATH):
            with self.connect() as connection:
                return connection.ask(method, target, body, timeout)
        with self._reach() as connection:
            # It tells by itself whether it is the one that is meant.
            answer = connection.ask(method, target, body, timeout)
            if self._is_in_doubt(connection):
                self._check(connection, answer)
            return answer


def _connect(path: Path) -> Connection:
    """Connect to whoever listens there.  Raises NoDaemon."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(QUICK_TIMEOUT)
    try:
        with short_name(path) as name:
            _call(sock, name)
    except (OSError, BadPath) as error:
        sock.close()
        kind = Unresponsive if isinstance(error, TimeoutError | BlockingIOError) else NoDaemon
        raise kind([(path, _reason(error))]) from None
    return Connection(path, sock)


def _call(sock: socket.socket, name: str) -> None:
    """Connect, also where so many call that one more has to wait a moment."""
    for _ in range(_CALLS - 1):
        try:
            sock.connect(name)
        except BlockingIOError:
            time.sleep(_CALL_PAUSE)
        else:
            return
    sock.connect(name)


def target(path: str, query: Query | None = None) -> str:
    """A request target: the path, quoted, and a query without its ``None`` fields."""
    fields = {name: value for name, value in (query or {}).items() if value is not None}
    texts = {name: _text(value) for name, value in fields.items()}
    return quote(path) + ("?" + urlencode(texts, doseq=True) if texts else "")


def _text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


_REASONS: Mapping[type[OSError], str] = {
    FileNotFoundError: "there is no such socket",
    NotADirectoryError: "there is no such directory",
    ConnectionRefusedError: "nobody answers (left over from a daemon that is gone)",
    PermissionError: "permission denied (another user's daemon?)",
    TimeoutError: "does not accept connections (is the daemon stopped?)",
    BlockingIOError: "does not accept connections (is the daemon stopped?)",
}


def _reason(error: OSError | BadPath) -> str:
    return _REASONS.get(type(error), "") or getattr(error, "strerror", None) or str(error)  # type: ignore[arg-type]


def connection_file(name: str, *, socket: str | None = None, config: str | None = None) -> Path:
    """The connection file of a supervised kernel, by its whole name, for ``load_connection_file``.

    The daemon is the one that ``socket`` or ``config`` names, else the usual one.  Raises
    LookupError for a kernel that it does not know, and ConnectionError where none answers.
    """
    try:
        answer = Client(found=lead(os.environ, socket=socket, config=config)).ask(
            "GET", target(f"/v1/kernels/{name}/connection")
        )
    except (NoDaemon, Broken, BadPath, NoConfig) as error:
        raise ConnectionError(str(error)) from None
    if answer.is_error:
        raise LookupError(f"{answer.body.get('error')}: {answer.body.get('hint')}")
    return Path(answer.body["path"])
