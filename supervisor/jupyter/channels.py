"""A client's WebSocket to a supervised kernel.

Owns no connection to the kernel: what the client asks goes through the one that
all share, and what the kernel says comes from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import Any

from jupyter_client.session import DELIM
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.websocket import WebSocketClosedError

from supervisor.jupyter.kernels import CHANNELS, SupervisedKernel
from supervisor.jupyter.requests import MALFORMED, Asked

log = logging.getLogger(__name__)

# What may wait for a browser that does not read, in bytes.
MOST_UNSENT = 16 << 20


class SupervisedChannels(ZMQChannelsWebsocketConnection):  # type: ignore[misc]
    """For a supervised kernel; that of one of the server's own is the server's."""

    limit_rate: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("parent"), SupervisedKernel):
            return super().__new__(cls, *args, **kwargs)
        return ZMQChannelsWebsocketConnection(*args, **kwargs)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.session.key = b""  # signed is what goes to the kernel, by its connection
        self.channels = {
            name: SimpleNamespace(channel=name, closed=lambda: False, send_multipart=partial(self._ask, name))
            for name in CHANNELS
        }
        # What came while the client is told what it missed.
        self._heard: list[tuple[str, list[bytes]]] | None = None
        # The sizes of what the browser has not read; the first may be as large as it likes.
        self._unsent: deque[int] = deque()
        self._waiting = 0

    @property
    def kernel(self) -> SupervisedKernel:
        """Whose connection it is."""
        return self.parent  # type: ignore[no-any-return]

    async def prepare(self) -> None:
        """Take the place of a connection of the same session; wait for nothing, as the kernel may be down."""
        await self._register_session()

    async def connect(self) -> None:
        """The client is there: it gets what it missed, then what comes."""
        self.multi_kernel_manager.notify_connect(self.kernel_id)
        ZMQChannelsWebsocketConnection._open_sockets.add(self)
        self.kernel.pages[self.session_id] = self.hear
        self._heard = []
        missed = [(it.channel, it.parts) for it in await self.kernel.recorder.missed(self.session_id)]
        heard, self._heard = self._heard, None
        limit, self.limit_rate = self.limit_rate, False  # what is recorded is bounded already
        for each in [*missed, *heard]:
            self.hear(*each)
        self.limit_rate = limit
        self.kernel.tell_state(self.session_id)
        await self.kernel.requests.resume(self.session_id)
        self.kernel.settle()

    # From the client

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass it on, if it is a message."""
        try:
            if isinstance(incoming_msg, bytes) and self._parts_of(incoming_msg) > len(incoming_msg):
                return
            super().handle_incoming_message(incoming_msg)
        except MALFORMED as error:
            log.debug("what a client of %s sent is no message: %s", self.kernel.kernel_name, error)

    def _parts_of(self, message: bytes) -> int:
        """How many parts a message says that it has; upstream reads so many, and be it until memory ends."""
        return (
            int.from_bytes(message[:8], "little") if self.subprotocol else int.from_bytes(message[:4], "big")
        )

    def _ask(self, channel: str, frames: list[bytes], *_: Any, **__: Any) -> None:
        if channel != "iopub":
            parts = [bytes(frame) for frame in frames[2:]]
            self.kernel.ask(Asked.of(self.session_id, channel, parts), parts)

    # To the client

    def hear(self, channel: str, parts: list[bytes]) -> None:
        """The kernel has said something, or what it cannot say was said in its place."""
        if self._heard is not None:
            self._heard.append((channel, parts))
        else:
            self.handle_outgoing_message(self.channels[channel], [DELIM, b"", *parts])

    @property
    def write_message(self) -> Any:
        """How everything gets to the client."""
        return self._write

    def _write(self, message: Any, binary: bool = False) -> None:
        """Write to the client; one that reads too little is let go of, and finds what it missed later."""
        if self._unsent and self._waiting > MOST_UNSENT + self._unsent[0]:
            log.warning("a client of %s does not read: it is let go of", self.kernel.kernel_name)
            self.websocket_handler.ws_connection.stream.close()
            return
        try:
            written = self.websocket_handler.write_message(message, binary=binary)
        except WebSocketClosedError:
            return
        self._unsent.append(len(message))
        self._waiting += len(message)
        written.add_done_callback(self._note_sent)

    def _note_sent(self, written: asyncio.Future[None]) -> None:
        self._waiting -= self._unsent.popleft()
        if not written.cancelled():
            written.exception()  # a client that has gone

    def disconnect(self) -> None:
        """The client has gone; what it waits for is kept for it."""
        if self._open_sessions.get(self.session_key) is self.websocket_handler:
            self._open_sessions.pop(self.session_key)
        if not self._close_future.done():
            self._close_future.set_result(None)
        if self in self._open_sockets:  # it has connected, and is told once that it has gone
            self._open_sockets.discard(self)
            self.multi_kernel_manager.notify_disconnect(self.kernel_id)
        if self.kernel.pages.get(self.session_id) == self.hear:
            del self.kernel.pages[self.session_id]
