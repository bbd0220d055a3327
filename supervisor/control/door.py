"""The control door: HTTP and JSON on a Unix socket, for processes of our own user, and of groups let in.

Owns who may connect, the bounds of a connection (size, time, number), and the form of an
answer.  What a request means is ``routes``.  tornado.web is not used: it is no shorter
here, and costs the daemon 2 MB.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from http.client import responses
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream, StreamClosedError

from supervisor.control.binding import Bound, Link, bind
from supervisor.control.callers import Caller, Circle, Role
from supervisor.control.openapi import document
from supervisor.control.requests import RequestError
from supervisor.control.routes import DESCRIPTION_PATH, Reply, answer
from supervisor.control.steering import Fields, Steering
from supervisor.disk.off_loop import begin
from supervisor.disk.privacy import UnsafeDirectory, refuse_shared
from supervisor.wording import timestamp

_log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 32
_ACCEPT_PAUSE = 1.0  # seconds
LOOK_INTERVAL = 5.0  # seconds
_PIECE = 1 << 16  # of a stream, in bytes; one line may be longer
_UNBOUNDED = 1 << 62  # tornado would answer a large body without words; we answer it


class Limits(Struct, frozen=True):
    """The bounds of what one client may cost; spans in seconds, sizes in bytes."""

    body_size: int = 1 << 20
    header_size: int = 1 << 14
    idle_timeout: float = 30.0
    body_timeout: float = 10.0
    connections: int = 256
    followers: int = 64
    stalled_timeout: float = 10.0
    """A follower that takes nothing for so long is dropped."""
    parting_timeout: float = 2.0
    """How long the last words to a dropped or closing client may take."""


# How long an exit waits for the removal of the socket file, in seconds.
REMOVAL_PATIENCE = 1.0


class Door(HTTPServerConnectionDelegate):
    """Lets programs of our user steer the daemon through one socket.

    ``link``, usually ``lookup.state_socket(state_dir)``, is a symbolic link to
    the socket: by it the daemon is found.
    """

    def __init__(
        self,
        steering: Steering,
        path: Path,
        *,
        link: Path | None = None,
        limits: Limits | None = None,
        wait_disk: Callable[[Path], object] = lambda _directory: None,
        bound: Bound | None = None,
    ) -> None:
        """``bound``: its socket, where that was bound before the door was to open."""
        self.steering = steering
        self.path = path
        self.limits = limits or Limits()
        self.description = document()
        self.followers = 0
        self.circle = Circle()
        self.exchanges: set[_Exchange] = set()
        # Until the disk of a directory takes changes.
        self._wait_disk = wait_disk
        self._link = None if link in (None, path) else Link(link, path)
        self._bound = bound
        self._server: _Server | None = None

    async def start(self) -> None:
        """Open the door.  Raises DoorError, whose text says why and what to do."""
        if self._bound is None:
            self._bound = await begin(bind, self.path)
        await begin(self._place_link)
        limits = self.limits
        self._server = _Server(
            self,
            max_body_size=_UNBOUNDED,
            max_buffer_size=2 * limits.body_size + limits.header_size,
            max_header_size=limits.header_size,
            idle_connection_timeout=limits.idle_timeout,
            body_timeout=limits.body_timeout,
        )
        self._server.receive(self, self._bound.sock)

    async def keep_open(self) -> None:
        """See to it that the socket is found: where its file was removed, it is bound anew."""
        is_told = False
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            if self._bound is None or await begin(self._look, self._bound):
                continue
            try:
                await begin(refuse_shared, self.path.parent, "socket")
                bound = await begin(bind, self.path)
            except (UnsafeDirectory, OSError) as error:
                if not is_told:
                    _log.error("the control socket was removed, and cannot be opened anew: %s", error)
                is_told = True
            else:
                _log.warning("the control socket was removed, and is open anew: %s", self.path)
                await self._exchange(bound)
                is_told = False

    def _look(self, bound: Bound) -> bool:
        """Place the link again where it was removed; whether the socket is in place."""
        self._place_link()
        return bound.is_in_place()

    def _place_link(self) -> None:
        if self._link is not None and not self._link.is_in_place():
            self._wait_disk(self._link.path.parent)
            self._link.place()

    async def _exchange(self, bound: Bound) -> None:
        await begin(self._place_link)
        # From here to the new reception nothing comes between, such as the end of the door.
        if self._server is None or self._bound is None:
            bound.remove()
            return
        self._server.end_reception()
        self._bound.sock.close()
        self._bound = bound
        self._server.receive(self, bound.sock)
        await self.let_in(self.circle)

    async def let_in(self, circle: Circle) -> str:
        """Let these groups in from now on, and no others; what keeps them from it, or "".  Raises OSError."""
        has_groups = bool(circle.groups or self.circle.groups)
        self.circle = circle
        for exchange in list(self.exchanges):
            exchange.part_unless_welcome()
        if self._bound is None or not has_groups:
            return ""
        return await begin(self._bound.open_to, circle.groups)

    def room_for(self, role: Role, most: int) -> int:
        """Of so many places those that somebody may take: others never shut our own user out."""
        return most if role is Role.OWNER else most // 2

    async def role_of(self, caller: Caller | None) -> Role:
        """What a caller is, at this moment."""
        if (role := self.circle.role(caller)) is None:
            assert caller is not None, "one that is not told has a role"
            role = self.circle.role(await begin(caller.looked_up))
        assert role is not None, "its groups are known"
        return role

    def _remove_files(self, bound: Bound) -> None:
        self._wait_disk(bound.path.parent)
        bound.remove()
        if self._link is not None:
            self._wait_disk(self._link.path.parent)
            self._link.remove()

    async def close(self) -> None:
        """Close the door: no new callers; what is under way gets a moment; the file goes if it is ours.

        That is ``Limits.parting_timeout``, for streams too: end their source
        first, and followers find what was told last.
        """
        server, bound, self._server, self._bound = self._server, self._bound, None, None
        if server is None or bound is None:
            return
        server.end_reception()
        server.stop()
        bound.sock.close()
        removal = begin(self._remove_files, bound)
        await asyncio.wait({removal}, timeout=REMOVAL_PATIENCE)
        tasks = [exchange.task for exchange in self.exchanges if exchange.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=self.limits.parting_timeout)
            for exchange in list(self.exchanges):
                exchange.part()
            await asyncio.gather(*tasks, return_exceptions=True)
        await server.close_all_connections()

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:  # noqa: ARG002 - tornado's signature
        """Receive a request."""
        assert isinstance(request_conn, HTTP1Connection), "tornado speaks HTTP/1 only"
        return _Exchange(self, request_conn)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended; its exchange was told."""


class _Server(HTTPServer):
    """Takes callers in, and turns away who may not connect or is one too many, before a byte is read.

    Looks away for a while when there is no descriptor left to take one in with: tornado's own
    reception would be called again and again, since the caller still waits.
    """

    def receive(self, door: Door, sock: socket.socket) -> None:
        """Take in whoever calls at this socket."""
        self._door = door
        self._sock = sock
        self._pause: asyncio.TimerHandle | None = None
        self._is_refused = False
        self._open()

    def _open(self) -> None:
        self._pause = None
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            except OSError as error:
                self._look_away(error)
                return
            connection.setblocking(False)
            self.handle_stream(IOStream(connection, max_buffer_size=self.max_buffer_size), address)
        self._is_refused = False

    def _look_away(self, error: OSError) -> None:
        if not self._is_refused:
            _log.error("cannot take in callers of the control socket: %s", error)
        self._is_refused = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        self._pause = loop.call_later(_ACCEPT_PAUSE, self._open)

    def end_reception(self) -> None:
        """Take in nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._sock)

    def handle_stream(self, stream: IOStream, address: Any) -> None:  # noqa: ARG002 - tornado's signature
        """Serve a caller, or tell it why not."""
        try:
            caller = Caller.at(stream.socket)
        except OSError:
            stream.close()
            return
        if (role := self._door.circle.role(caller)) is Role.STRANGER:
            self._turn_away(stream, 403, "this daemon belongs to another user")
        elif len(self._connections) >= self._door.room_for(
            role or Role.READER, self._door.limits.connections
        ):
            self._turn_away(stream, 503, "too many connections")
        else:
            # In the place of an address, which nobody has who calls at a socket file.
            super().handle_stream(stream, caller)  # type: ignore[arg-type]

    def _turn_away(self, stream: IOStream, status: int, error: str) -> None:
        """Answer without having read: one send that fits into the socket's buffer, or nothing."""
        instance = self._door.steering.instance
        content = f'{{"error":"{error}","hint":"","instance":"{instance}"}}\n'
        head = (
            f"HTTP/1.1 {status} {responses[status]}\r\nContent-Type: application/json\r\n"
            "Connection: close\r\n"
            f"Kernel-Supervisor-Instance: {instance}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        try:
            stream.socket.send((head + content).encode(), getattr(socket, "MSG_NOSIGNAL", 0))
        except OSError:
            pass  # it is not owed more
        stream.close()


class _Exchange(HTTPMessageDelegate):
    """One request and its answer: read within bounds, answered, streamed to who reads."""

    def __init__(self, door: Door, connection: HTTP1Connection) -> None:
        self._door = door
        self._connection = connection
        self._caller: Caller | None = getattr(connection.context, "address", None)
        self._role = Role.STRANGER
        self._line = RequestStartLine("", "", "")
        self._body = bytearray()
        self._answered = False
        self._streaming = False
        self.task: asyncio.Task[None] | None = None

    # What tornado tells, in this order.

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Refuse a body that is announced as too large before it is read."""
        assert isinstance(start_line, RequestStartLine), "a server receives requests"
        self._line = start_line
        announced = headers.get("Content-Length", "0")
        if announced.isdecimal() and int(announced[:20]) > self._door.limits.body_size:
            self._refuse_body()

    def data_received(self, chunk: bytes) -> None:
        """Collect the body while it is small enough."""
        if not self._answered:
            self._body += chunk
            if len(self._body) > self._door.limits.body_size:
                self._body.clear()
                self._refuse_body()

    def _refuse_body(self) -> None:
        size = self._door.limits.body_size
        self._send(413, {"error": f"the body is larger than {size} bytes", "hint": "no request needs that"})

    def finish(self) -> None:
        """Carry out the request, now that it is whole."""
        if not self._answered:
            self._connection.set_close_callback(self._hung_up)
            self._door.exchanges.add(self)
            self.task = asyncio.get_running_loop().create_task(self._run())
            self.task.add_done_callback(lambda _: self._door.exchanges.discard(self))

    def on_connection_close(self) -> None:
        """Forget a request that never became whole."""
        self._answered = True

    # What we do.

    async def _run(self) -> None:
        """Answer; whatever goes wrong is told to the client and never leaves here."""
        try:
            reply = await self._reply()
            if reply.stream is not None:
                await self._stream(reply.stream)
            elif (sent := self._send(reply.status, reply.fields or {})) is not None:
                await self._written(sent)
        except StreamClosedError:
            pass  # the client has gone; its order stands
        except TimeoutError:
            self._connection.close()  # it asked, and does not read the answer
        except Exception:
            _log.exception("an answer broke off: %s", self._line.path)
            self._connection.close()

    async def _reply(self) -> Reply:
        door, method, target = self._door, self._line.method, self._line.path
        try:
            if (method, target) == ("GET", DESCRIPTION_PATH):
                return Reply(200, door.description)
            self._role = await door.role_of(self._caller)
            room = door.room_for(self._role, door.limits.followers)
            if target.startswith("/v1/events") and door.followers >= room:
                raise RequestError(503, "too many clients follow already", "end one of them")
            return await answer(door.steering, method, target, bytes(self._body), self._role)
        except RequestError as error:
            return Reply(error.status, {"error": error.message, "hint": error.hint})
        except Exception:
            _log.exception("a request failed: %s %s", method, target)
            hint = "this is a mistake of the program; its log tells more"
            return Reply(500, {"error": "the request failed", "hint": hint})

    def _send(self, status: int, fields: Fields) -> asyncio.Future[None] | None:
        """Send a whole answer, once; the future tells when it has left."""
        if self._answered:
            return None
        self._answered = True
        content = _encode({**fields, "instance": self._door.steering.instance})
        sent = self._begin(status, "application/json", content)
        self._connection.finish()
        return sent

    def _begin(self, status: int, kind: str, content: bytes | None = None) -> asyncio.Future[None]:
        """Send the head, and a whole answer's content: of one to HEAD, none (RFC 9110, 9.3.2)."""
        head = HTTPHeaders({"Content-Type": kind, "Kernel-Supervisor-Instance": self._door.steering.instance})
        if content is not None:
            head["Content-Length"] = str(len(content))
        line = ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))
        return self._connection.write_headers(line, head, None if self._line.method == "HEAD" else content)

    async def _stream(self, stream: AsyncIterator[Sequence[Fields]]) -> None:
        """Send a stream as fast as it is read, and no faster: what waits is one batch."""
        self._answered = self._streaming = True
        self._door.followers += 1
        try:
            await self._written(self._begin(200, "application/x-ndjson"))
            async for batch in stream:
                for piece in _pieces(batch):
                    await self._written(self._connection.write(piece))
            self._connection.finish()
        except TimeoutError:
            await self._drop()
        finally:
            self._door.followers -= 1
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _written(self, written: asyncio.Future[None]) -> None:
        async with asyncio.timeout(self._door.limits.stalled_timeout):
            await written

    async def _drop(self) -> None:
        """Tell a follower that reads too little that it misses events, and hang up."""
        limits = self._door.limits
        why = f"nothing was read for {limits.stalled_timeout:g} s, so this stream ends here"
        reason = f"{why}: ask again with since="
        gap = {"timestamp": timestamp(), "level": "warning", "event": "stream.gap", "reason": reason}
        last = self._connection.write(_encode(gap))
        self._connection.finish()
        try:
            async with asyncio.timeout(limits.parting_timeout):
                await last
        except (TimeoutError, StreamClosedError):
            pass
        self._connection.close()

    def _hung_up(self) -> None:
        """The client has gone: a stream ends with it, an order is carried out all the same."""
        if self._streaming:
            self.part()

    def part_unless_welcome(self) -> None:
        """End a stream to somebody who is less than when it began."""
        role = self._door.circle.role(self._caller)
        if self._streaming and role is not None and role < self._role:
            self.part()

    def part(self) -> None:
        """Break off what has not ended by itself."""
        if self.task is not None:
            self.task.cancel()
        if self._streaming:
            self._connection.close()


def _pieces(batch: Sequence[Fields]) -> Iterator[bytes]:
    """The lines of a batch, many in a piece: to write and to read one costs far more than a line in it."""
    piece = bytearray()
    for fields in batch:
        piece += _encode(fields)
        if len(piece) >= _PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _encode(fields: Fields) -> bytes:
    try:
        return msgspec.json.encode(fields, enc_hook=str) + b"\n"
    except UnicodeEncodeError:
        # The name of a file that is no UTF-8, say: told as its JSON escape, and nobody else's trouble.
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"), default=str)
        return text.encode("utf-8", "backslashreplace") + b"\n"
