"""One zmq socket to a kernel, on the running loop.

Owns the socket, its bounds, and when the loop looks at it.  Never interprets a
frame.  One line belongs to one run of a kernel: what waits to be sent goes with
it, so that nothing meant for one run can reach the next one at the same address.

Never ZMQ_IMMEDIATE: with it, libzmq 4.3.5 drops a lost connection's queue while a
message of several frames is being read from it, and then aborts the whole process
(fq.cpp, ``!_more``).  Nor ``disconnect``, which ends in the same place: a line that
has lost its connection for good gets a new socket.

Plain sockets and ``add_reader`` rather than zmq.asyncio, which keeps a reader on
every socket; here nothing wakes the loop while nobody listens.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable

import zmq

from supervisor.disk.off_loop import no_thread
from supervisor.process.descriptors import limit

Context = zmq.Context[zmq.Socket[bytes]]

# What a hostile or broken kernel can make us keep: HIGH_WATER messages of at most this size.
_LARGEST_MESSAGE = 1 << 20
_HIGH_WATER = 32
_DRAINED_AT_ONCE = 64
# A kernel that begins to listen is met this late at most (libzmq adds up to as much again, at random).
_RECONNECT_MILLISECONDS = 8
_REDIAL_AFTER = 0.4


# One for the sockets, and one that closes them (zmq_ctx_set(3), ZMQ_IO_THREADS).
_ZMQ_THREADS = 2
_GONE_PATIENCE = 1.0  # seconds


def make_threads(context: Context | None) -> None:
    """Have libzmq make its threads now, while no kernel depends on us; ``None``: the process' own context.

    It does so for the first socket of a context, and aborts the whole process if
    it cannot; later ones need none.  Raises OSError where that would happen.
    """
    enough, made = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(_ZMQ_THREADS):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            made.append(thread)
    except RuntimeError as error:
        raise no_thread() from error
    finally:
        enough.set()
    _wait_gone(made)
    try:
        ours = context or zmq.Context.instance()
        # As many sockets as there may be descriptors for; by default it is 1,023, a few for each kernel.
        ours.set(zmq.MAX_SOCKETS, min(limit() // 2, ours.get(zmq.SOCKET_LIMIT)))
        ours.socket(zmq.DEALER).close(linger=0)
    except zmq.ZMQError:
        pass  # no descriptor is left, say: whoever needs a socket tells


def _wait_gone(threads: list[threading.Thread]) -> None:
    """Return once the system counts them no more, which is a moment after their end."""
    deadline = time.monotonic() + _GONE_PATIENCE
    for thread in threads:
        thread.join()
        while os.path.exists(f"/proc/self/task/{thread.native_id}") and time.monotonic() < deadline:  # noqa: PTH110
            time.sleep(0.001)


class Line:
    """One DEALER socket: queues a little until connected, and wakes the loop only while somebody listens.

    Raises ZMQError if none can be opened.
    """

    def __init__(self, context: Context, endpoint: str, receive: Callable[[list[bytes]], object]) -> None:
        self._receive = receive
        self._context = context
        self._endpoint = endpoint
        self._listeners = 0
        self._loop = asyncio.get_running_loop()
        self._writable: list[asyncio.Future[None]] = []
        self._dial()

    def _dial(self) -> None:
        fresh = self._context.socket(zmq.DEALER)
        try:
            for option, value in (
                (zmq.LINGER, 0),
                (zmq.SNDHWM, _HIGH_WATER),
                (zmq.RCVHWM, _HIGH_WATER),
                (zmq.MAXMSGSIZE, _LARGEST_MESSAGE),
                (zmq.RECONNECT_IVL, _RECONNECT_MILLISECONDS),
                (zmq.IPV6, int("[" in self._endpoint)),
            ):
                fresh.setsockopt(option, value)
            fresh.connect(self._endpoint)
            self._descriptor = _number(fresh, zmq.FD)
        except zmq.ZMQError:
            fresh.close(linger=0)
            raise
        self._socket = fresh
        self._dialed = self._loop.time()

    def send(self, frames: list[bytes]) -> bool:
        """Send as soon as the kernel is connected; False, and not at all, if too much waits already."""
        if self._socket.closed:
            return False
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            # libzmq does not reconnect after what breaks its protocol: a message beyond the
            # bound, or another program that was met at the port.
            if self._loop.time() - self._dialed >= _REDIAL_AFTER:
                self._redial()
            return False
        finally:
            # The descriptor is edge-triggered (zmq_getsockopt(3), ZMQ_FD); a send may have used up the edge.
            if self._listeners:
                self._loop.call_soon(self._wake)
        return True

    async def deliver(self, frames: list[bytes]) -> None:
        """Send, if need be once there is room; the caller listens, and sets the deadline.

        Raises ConnectionAbortedError once the line is closed.
        """
        while not self.send(frames):
            if self._socket.closed:
                raise ConnectionAbortedError("the channel is closed")
            writable = self._loop.create_future()
            self._writable.append(writable)
            self._loop.call_soon(self._wake)
            await writable

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
        self._tell_writable()

    def _redial(self) -> None:
        old, descriptor = self._socket, self._descriptor
        try:
            self._dial()
        except zmq.ZMQError:
            return  # no descriptor is left, say: the old socket does until the next try
        if self._listeners:
            self._loop.remove_reader(descriptor)
            self._loop.add_reader(self._descriptor, self._wake)
            self._loop.call_soon(self._wake)
        old.close(linger=0)

    def _wake(self) -> None:
        self.drain()
        if self._writable and not self._socket.closed and _number(self._socket, zmq.EVENTS) & zmq.POLLOUT:
            self._tell_writable()

    def _tell_writable(self) -> None:
        waiting, self._writable = self._writable, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _number(socket: zmq.Socket[bytes], option: int) -> int:
    value = socket.getsockopt(option)
    assert isinstance(value, int)
    return value
