"""One zmq socket to a kernel, on the running loop.

Owns the socket, its bounds, and when the loop looks at it.  Never interprets a
frame and never queues: what cannot be sent now is not sent, and what is under way is
dropped with the connection (ZMQ_IMMEDIATE), so that nothing meant for one run
of a kernel can reach the next one at the same address.

Plain sockets and ``add_reader`` rather than zmq.asyncio, which keeps a reader on
every socket; here nothing wakes the loop while nobody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

Context = zmq.Context[zmq.Socket[bytes]]

# What a hostile or broken kernel can make us keep: HIGH_WATER messages of at most this size.
_LARGEST_MESSAGE = 1 << 20
_HIGH_WATER = 32
_DRAINED_AT_ONCE = 64
# A connection is noticed this late at most (libzmq adds up to as much again, at random).
_RECONNECT_MILLISECONDS = 8
_REDIAL_AFTER = 0.4


class Line:
    """One DEALER socket: sends when connected, and wakes the loop only while somebody listens.

    Raises ZMQError if none can be opened.
    """

    def __init__(self, context: Context, endpoint: str, receive: Callable[[list[bytes]], None]) -> None:
        self._receive = receive
        self._listeners = 0
        self._loop = asyncio.get_running_loop()
        self._connected: list[asyncio.Future[None]] = []
        self._endpoint = endpoint
        self._dialed = self._loop.time()
        self._socket = context.socket(zmq.DEALER)
        try:
            self._descriptor = self._dial()
        except zmq.ZMQError:
            self._socket.close(linger=0)
            raise

    def _dial(self) -> int:
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.SNDHWM, _HIGH_WATER),
            (zmq.RCVHWM, _HIGH_WATER),
            (zmq.MAXMSGSIZE, _LARGEST_MESSAGE),
            (zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS),
            (zmq.IPV6, int("[" in self._endpoint)),
        ):
            self._socket.setsockopt(option, value)
        self._socket.connect(self._endpoint)
        return self._number(zmq.FD)

    def send(self, frames: list[bytes]) -> bool:
        """Send now, or not at all: False if the kernel is not connected or takes no more."""
        if self._socket.closed:
            return False
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            self._redial()
            return False
        finally:
            # The descriptor is edge-triggered (zmq_getsockopt(3), ZMQ_FD); a send may have used up the edge.
            if self._listeners:
                self._loop.call_soon(self._wake)
        return True

    async def deliver(self, frames: list[bytes]) -> None:
        """Send as soon as the kernel is connected; the caller listens, and sets the deadline.

        Raises ConnectionAbortedError once the line is closed.
        """
        while not self.send(frames):
            if self._socket.closed:
                raise ConnectionAbortedError("the channel is closed")
            connected = self._loop.create_future()
            self._connected.append(connected)
            self._loop.call_soon(self._wake)
            await connected

    def drain(self) -> None:
        """Take in what has arrived, without waiting."""
        for _ in range(_DRAINED_AT_ONCE):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._receive(frames)
        # Others on the loop have their turn first.
        if self._listeners:
            self._loop.call_soon(self._wake)

    def listen(self) -> None:
        """Take in what arrives when it arrives, until as many ``unlisten``."""
        self._listeners += 1
        if self._listeners == 1 and not self._socket.closed:
            self._loop.add_reader(self._descriptor, self._wake)
            self._loop.call_soon(self._wake)

    def unlisten(self) -> None:
        """End one ``listen``."""
        self._listeners -= 1
        if self._listeners == 0 and not self._socket.closed:
            self._loop.remove_reader(self._descriptor)

    def close(self) -> None:
        """Drop the connection and whatever is under way on it; again is no error."""
        if self._socket.closed:
            return
        if self._listeners and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)
        self._tell_connected()

    def _redial(self) -> None:
        # libzmq does not reconnect after what breaks its protocol: a message beyond the
        # bound, or another program that was met at the port.
        now = self._loop.time()
        if now - self._dialed < _REDIAL_AFTER:
            return
        self._dialed = now
        try:
            self._socket.disconnect(self._endpoint)
        except zmq.ZMQError:
            pass  # given up by libzmq already
        self._socket.connect(self._endpoint)

    def _wake(self) -> None:
        self.drain()
        if self._connected and not self._socket.closed and self._number(zmq.EVENTS) & zmq.POLLOUT:
            self._tell_connected()

    def _tell_connected(self) -> None:
        waiting, self._connected = self._connected, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _number(self, option: int) -> int:
        value = self._socket.getsockopt(option)
        assert isinstance(value, int)
        return value
