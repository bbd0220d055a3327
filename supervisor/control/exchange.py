"""One request and its answer over HTTP: read within bounds, answered, streamed to who reads.

Owns the bounds of a connection (size, time, number) and the form of an
answer.  What a request means is ``routes``; who may connect is ``api``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http.client import responses
from urllib.parse import parse_qs, urlsplit

import msgspec
from tornado.http1connection import HTTP1Connection
from tornado.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import StreamClosedError

from supervisor.control.requests import RequestError
from supervisor.control.routes import Reply, answer
from supervisor.control.steering import Fields, Steering
from supervisor.wording import timestamp

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
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


class Follows:
    """How many clients follow events at the moment."""

    def __init__(self) -> None:
        self.count = 0


class Exchange(HTTPMessageDelegate):
    """Receives one request and answers it."""

    def __init__(
        self,
        connection: HTTP1Connection,
        steering: Steering,
        limits: Limits,
        follows: Follows,
        spawn: Callable[[Exchange], asyncio.Task[None]],
    ) -> None:
        self._connection = connection
        self._steering = steering
        self._limits = limits
        self._follows = follows
        self._spawn = spawn
        self._line = RequestStartLine("", "", "")
        self._body = bytearray()
        self._answered = False
        self._task: asyncio.Task[None] | None = None
        self._streaming = False

    # What tornado tells, in this order.

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Refuse a body that is announced as too large before it is read."""
        assert isinstance(start_line, RequestStartLine), "a server receives requests"
        self._line = start_line
        announced = headers.get("Content-Length", "0")
        if announced.isdecimal() and int(announced[:20]) > self._limits.body_size:
            self._refuse_body()

    def data_received(self, chunk: bytes) -> None:
        """Collect the body while it is small enough."""
        if self._answered:
            return
        self._body += chunk
        if len(self._body) > self._limits.body_size:
            self._body.clear()
            self._refuse_body()

    def finish(self) -> None:
        """Carry out the request, now that it is whole."""
        if not self._answered:
            self._connection.set_close_callback(self._hung_up)
            self._task = self._spawn(self)

    def on_connection_close(self) -> None:
        """Forget a request that never became whole."""
        self._answered = True

    # What we do.

    async def run(self) -> None:
        """Answer; whatever goes wrong is told to the client and never leaves here."""
        try:
            reply = await self._reply()
            if reply.stream is not None:
                await self._tell(reply.stream)
            elif (sent := self.send(reply.status, reply.fields or {})) is not None:
                await self._written(sent)
        except StreamClosedError:
            pass  # the client has gone; its order stands
        except TimeoutError:
            self._connection.close()  # it asked, and does not read the answer
        except Exception:
            _log.exception("an answer broke off: %s", self._line.path)
            self._connection.close()

    async def _reply(self) -> Reply:
        parts = urlsplit(self._line.path)
        try:
            if parts.path == "/v1/events" and self._follows.count >= self._limits.followers:
                raise RequestError(503, "too many clients follow already", "end one of them")
            return await answer(
                self._steering, self._line.method, parts.path, _query(parts.query), bytes(self._body)
            )
        except RequestError as error:
            return Reply(error.status, {"error": error.message, "hint": error.hint})
        except Exception:
            _log.exception("a request failed: %s %s", self._line.method, parts.path)
            hint = "this is a mistake of the program; its log tells more"
            return Reply(500, {"error": "the request failed", "hint": hint})

    def _refuse_body(self) -> None:
        size = self._limits.body_size
        self.send(413, {"error": f"the body is larger than {size} bytes", "hint": "no request needs that"})

    def send(self, status: int, fields: Fields) -> asyncio.Future[None] | None:
        """Send a whole answer, once; the future tells when it has left."""
        if self._answered:
            return None
        self._answered = True
        content = _encode({**fields, "instance": self._steering.instance}) + b"\n"
        headers = self._headers("application/json")
        headers["Content-Length"] = str(len(content))
        sent = self._connection.write_headers(_status_line(status), headers, content)
        self._connection.finish()
        return sent

    def _headers(self, kind: str) -> HTTPHeaders:
        instance = self._steering.instance
        return HTTPHeaders({"Content-Type": kind, "Kernel-Supervisor-Instance": instance})

    async def _tell(self, stream: AsyncIterator[Fields]) -> None:
        """Send a stream as fast as it is read, and no faster: what waits is one batch."""
        self._answered = self._streaming = True
        self._follows.count += 1
        try:
            await self._written(
                self._connection.write_headers(_status_line(200), self._headers("application/x-ndjson"))
            )
            async for fields in stream:
                await self._written(self._connection.write(_encode(fields) + b"\n"))
            self._connection.finish()
        except TimeoutError:
            await self._drop()
        finally:
            self._follows.count -= 1
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _written(self, written: asyncio.Future[None]) -> None:
        async with asyncio.timeout(self._limits.stalled_timeout):
            await written

    async def _drop(self) -> None:
        """Tell a follower that reads too little that it misses events, and hang up."""
        seconds = self._limits.stalled_timeout
        gap = {
            "timestamp": timestamp(),
            "level": "warning",
            "event": "stream.gap",
            "reason": f"nothing was read for {seconds:g} s, so this stream ends here: ask again with since=",
        }
        last = self._connection.write(_encode(gap) + b"\n")
        self._connection.finish()
        try:
            async with asyncio.timeout(self._limits.parting_timeout):
                await last
        except (TimeoutError, StreamClosedError):
            pass
        self._connection.close()

    def _hung_up(self) -> None:
        """The client has gone: a stream ends with it, an order is carried out all the same."""
        if self._streaming and self._task is not None:
            self._task.cancel()

    def part(self) -> None:
        """Break off what has not ended by itself, because the door closes."""
        if self._task is not None:
            self._task.cancel()
        if self._streaming:
            self._connection.close()


def _query(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError as error:
        raise RequestError(400, f"the query is not valid: {error}") from None


def _encode(fields: Fields) -> bytes:
    return msgspec.json.encode(fields, enc_hook=str)


def _status_line(status: int) -> ResponseStartLine:
    return ResponseStartLine("HTTP/1.1", status, responses.get(status, "Unknown"))
