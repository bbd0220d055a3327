"""The control door: HTTP and JSON on a Unix socket, for processes of our own user.

Owns the open door: who may connect, how many at a time, and its closing.  It
decides nothing about kernels; ``Steering`` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerConnectionDelegate
from tornado.iostream import IOStream

from supervisor.control.binding import Bound, DoorError, Link, bind, peer
from supervisor.control.exchange import Exchange, Follows, Limits
from supervisor.control.steering import Steering

__all__ = ["Door", "DoorError", "Limits"]

_log = logging.getLogger(__name__)

_ACCEPTED_AT_ONCE = 32
_ACCEPT_PAUSE = 1.0  # seconds
_UNBOUNDED = 1 << 62  # tornado would answer a large body without words; Exchange answers it


class Door:
    """Lets programs of our user steer the daemon through one socket.

    ``link``, usually ``lookup.state_socket(state_dir)``, is a symbolic link to
    the socket: by it the daemon is found.
    """

    def __init__(
        self, steering: Steering, path: Path, *, link: Path | None = None, limits: Limits | None = None
    ) -> None:
        self._steering = steering
        self.path = path
        self._link_path = link
        self._limits = limits or Limits()
        self._bound: Bound | None = None
        self._link: Link | None = None
        self._server: _Server | None = None
        self._reception: _Reception | None = None
        self._callers = _Callers(steering, self._limits)

    async def start(self) -> None:
        """Open the door.  Raises DoorError, whose text says why and what to do."""
        self._bound = await bind(self.path)
        if self._link_path is not None:
            self._link = Link.place(self._link_path, self.path)
        limits = self._limits
        self._server = _Server(
            self._callers,
            max_body_size=_UNBOUNDED,
            max_buffer_size=2 * limits.body_size + limits.header_size,
            max_header_size=limits.header_size,
            idle_connection_timeout=limits.idle_timeout,
            body_timeout=limits.body_timeout,
        )
        self._server.most = limits.connections
        self._server.instance = self._steering.instance
        self._reception = _Reception(self._bound.sock, self._server)

    async def close(self) -> None:
        """Close the door: no new callers; what is under way gets a moment; the file goes if it is ours.

        That is ``Limits.parting_timeout``, for streams too: end their source
        first, and followers find what was told last.
        """
        server, bound, self._server, self._bound = self._server, self._bound, None, None
        if server is None or bound is None:
            return
        if self._reception is not None:
            self._reception.close()
        server.stop()
        bound.remove()
        if self._link is not None:
            self._link.remove()
        await self._callers.part(self._limits.parting_timeout)
        await server.close_all_connections()


class _Callers(HTTPServerConnectionDelegate):
    """Makes an exchange of each request, and knows those that are not answered yet."""

    def __init__(self, steering: Steering, limits: Limits) -> None:
        self._steering = steering
        self._limits = limits
        self._follows = Follows()
        self._open: dict[asyncio.Task[None], Exchange] = {}

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:  # noqa: ARG002 - tornado's signature
        assert isinstance(request_conn, HTTP1Connection), "tornado speaks HTTP/1 only"
        return Exchange(request_conn, self._steering, self._limits, self._follows, self._spawn)

    def on_close(self, server_conn: object) -> None:
        """A connection has ended; its exchange was told."""

    def _spawn(self, exchange: Exchange) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(exchange.run())
        self._open[task] = exchange
        task.add_done_callback(lambda done: self._open.pop(done, None))
        return task

    async def part(self, timeout: float) -> None:
        """Give answers and streams ``timeout`` seconds to end by themselves, and break off the rest."""
        if not self._open:
            return
        _, late = await asyncio.wait(list(self._open), timeout=timeout)
        for task in late:
            self._open[task].part()
        await asyncio.gather(*late, return_exceptions=True)


class _Server(HTTPServer):
    """Turns away who may not connect, and who is one too many, before a byte is read."""

    most: int
    instance: str

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        """Serve a caller, or tell it why not."""
        try:
            found = peer(stream.socket)
        except OSError:
            stream.close()
            return
        if found is not None and found[1] not in {0, os.geteuid()}:
            _turn_away(stream, "403 Forbidden", "this daemon belongs to another user", self.instance)
        elif len(self._connections) >= self.most:
            _turn_away(stream, "503 Service Unavailable", "too many connections", self.instance)
        else:
            super().handle_stream(stream, address)


class _Reception:
    """Takes callers in; looks away for a while when there is no descriptor left to take one with.

    Tornado's own would be called again and again, since the caller still waits.
    """

    def __init__(self, sock: socket.socket, server: _Server) -> None:
        self._sock = sock
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._is_refused = False
        self._open()

    def _open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

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
            stream = IOStream(connection, max_buffer_size=self._server.max_buffer_size)
            self._server.handle_stream(stream, address)
        self._is_refused = False

    def _look_away(self, error: OSError) -> None:
        if not self._is_refused:
            _log.error("cannot take in callers of the control socket: %s", error)
        self._is_refused = True
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(_ACCEPT_PAUSE, self._open)

    def close(self) -> None:
        """Take in nobody any more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)


def _turn_away(stream: IOStream, status: str, error: str, instance: str) -> None:
    """Answer without having read: one send that fits into the socket's buffer, or nothing."""
    content = f'{{"error":"{error}","hint":"","instance":"{instance}"}}\n'
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Kernel-Supervisor-Instance: {instance}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    try:
        stream.socket.send((head + content).encode(), getattr(socket, "MSG_NOSIGNAL", 0))
    except OSError:
        pass  # it is not owed more
    stream.close()
