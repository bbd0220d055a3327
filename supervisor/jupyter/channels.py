"""A client's WebSocket to a supervised kernel.

Owns what this client has asked and was not answered: it gets the answer when
it comes back, or learns why none will come.  What the kernel publishes is
heard by the kernel's one connection and passed on here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.ioloop import IOLoop
from tornado.websocket import WebSocketClosedError

from supervisor.jupyter.kernels import Published, SupervisedKernel
from supervisor.jupyter.recorder import Message, Request

log = logging.getLogger(__name__)

V1 = "v1.kernel.websocket.jupyter.org"
# What a client may have waiting at a kernel that is not up, and in bytes at a browser that does not read.
MOST_HELD = 1000
MOST_UNSENT = 16 << 20

Fields = dict[str, Any]


class SupervisedChannels(ZMQChannelsWebsocketConnection):  # type: ignore[misc]
    """For a supervised kernel; that of one of the server's own is the server's."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("parent"), SupervisedKernel):
            return super().__new__(cls, *args, **kwargs)
        return ZMQChannelsWebsocketConnection(*args, **kwargs)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels: Fields = {}
        self.is_away = True
        # What came while there was no run: channel, header if it asks for an answer, the whole.
        self._held: list[tuple[str, Fields | None, Any]] = []
        self._heard: list[Published] | None = []
        # What has no answer yet; of that, what was asked through a server that is gone.
        self._pending: dict[str, tuple[str, Fields]] = {}
        self._unsettled: set[str] = set()
        self._late: float | None = None
        self._unsent = 0

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
        self.is_away = False
        ZMQChannelsWebsocketConnection._open_sockets.add(self)
        self._take_over()
        self.kernel.pages.add(self)
        # Another server may have recorded as missed what this one has sent before the client left.
        self._late = self.kernel.left.pop(self.session_id, 0.0)
        IOLoop.current().spawn_callback(self._begin)

    def _take_over(self) -> None:
        """The channels and open requests of this session, from its connection that was lost."""
        for page in list(self.kernel.pages):
            if isinstance(page, SupervisedChannels) and page.is_away and page.session_id == self.session_id:
                self.channels, page.channels = page.channels, {}
                self._pending, self._unsettled = page._pending, page._unsettled
                self.kernel.pages.discard(page)
                self._listen()

    async def _begin(self) -> None:
        await self._catch_up()
        if self.is_away:
            return
        heard, self._heard = self._heard or [], None
        for published in heard:
            self.hear(published)
        if self.kernel.up.is_set():
            self.begin_run()
        else:
            self._send_status_message("dead" if self.kernel.execution_state == "dead" else "starting")
        self._settle()

    async def _catch_up(self) -> None:
        """Send what was missed, and learn what was never answered, as soon as there is a record to ask."""
        recorder, since = self.kernel.recorder, self._late
        if not recorder.max_bytes or since is None:
            return
        self._late = None
        missed, asked = await recorder.missed(self.session_id), await recorder.open_requests(self.session_id)
        if self.is_away:
            return
        for message in missed:
            if message.at >= since:
                self._send(message.frames)
        for request in asked:
            if request.id not in self._pending:
                self._pending[request.id] = ("shell", json.loads(request.header))
                self._unsettled.add(request.id)
        self._settle()

    def _settle(self) -> None:
        """What was asked through a server that is gone: once the kernel is idle, nobody heard the answer."""
        lost = "its answer came while no server was there to hear it"
        if self._unsettled and self.kernel.up.is_set() and self.kernel.execution_state == "idle":
            unsettled, self._unsettled = self._unsettled, set()
            for request in unsettled & self._pending.keys():
                self._give_up(*self._pending.pop(request), lost)

    # The run

    def begin_run(self) -> None:
        """A run can be reached: what the client has asked meanwhile is asked."""
        if self.is_away or self._heard is not None:
            return
        self.session.key = self.kernel.session.key
        if not self.channels:
            for channel in ("shell", "control", "stdin"):
                stream = getattr(self.kernel, f"connect_{channel}")(identity=self.session.bsession)
                stream.channel = channel
                self.channels[channel] = stream
        self._listen()
        self._send_status_message(self.kernel.execution_state)
        held, self._held = self._held, []
        for _, _, message in held:
            self.handle_incoming_message(message)
        self._settle()
        IOLoop.current().spawn_callback(self._catch_up)

    def _listen(self) -> None:
        for stream in self.channels.values():
            stream.on_recv_stream(self.handle_outgoing_message)

    def end_run(self, reason: str, status: str) -> None:
        """The run is over: nothing reaches the next one unasked, and every open request is answered."""
        self._close_channels()
        pending, self._pending = self._pending, {}
        self._unsettled = set()
        executing = next(
            (asked for channel, asked in pending.values() if asked["msg_type"] == "execute_request"), None
        )
        for channel, asked in pending.values():
            if asked is executing or asked["msg_type"] != "execute_request":
                self._give_up(channel, asked, reason)
            else:
                self._answer(channel, asked, {"status": "aborted"})
        if self.is_away:
            self.kernel.pages.discard(self)
            return
        if executing is None:
            self._make("iopub", "stream", {"name": "stderr", "text": f"{reason}\n"})
        self._send_status_message(status)
        if status == "dead":
            self._refuse_held(reason)

    def _refuse_held(self, reason: str) -> None:
        held, self._held = self._held, []
        for channel, asked, _ in held:
            if asked is not None:
                self._give_up(channel, asked, reason)

    def _give_up(self, channel: str, asked: Fields, reason: str) -> None:
        error = {"ename": "KernelDied", "evalue": reason, "traceback": [f"KernelDied: {reason}"]}
        if asked["msg_type"] == "execute_request":
            self._make("iopub", "error", error, asked)
        self._answer(
            channel, asked, {"status": "error", "execution_count": 0, "user_expressions": {}, **error}
        )

    def _answer(self, channel: str, asked: Fields, content: Fields) -> None:
        kind = asked["msg_type"].replace("_request", "_reply")
        self._make(channel, kind, content, asked)
        self._make("iopub", "status", {"execution_state": "idle"}, asked)
        self.kernel.recorder.end(asked["msg_id"])

    def _make(self, channel: str, kind: str, content: Fields, asked: Fields | None = None) -> None:
        """Say in the kernel's place what it cannot say, to the client or for it."""
        message = self.session.msg(kind, content, parent={"header": asked} if asked else None)
        message["header"]["session"] = self.kernel.session_of_run or self.session_id
        frames = serialize_msg_to_ws_v1(message, channel, self.session.pack)
        if asked:
            self._record(channel, message["header"], asked, frames)
        self._send(frames)

    def _record(self, channel: str, header: Fields, asked: Fields, frames: bytes) -> None:
        message = Message.of(channel, self.session_id, header, asked, frames)
        self.kernel.recorder.add(message._replace(missed=self.is_away))

    def _send_status_message(self, status: str) -> None:
        self._make("iopub", "status", {"execution_state": status})

    def tell(self, status: str) -> None:
        """The kernel is busy or idle."""
        if not self.is_away and self._heard is None:
            self._send_status_message(status)

    # From the client

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass it on, or keep it until the kernel is up again."""
        try:
            channel, header, metadata, content = self._parts(incoming_msg)
            asks = channel in ("shell", "control") and str(header["msg_type"]).endswith("_request")
            asked = header if asks and header["msg_id"] else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return  # not a message
        if not self.channels:
            if len(self._held) < MOST_HELD:
                self._held.append((channel, asked, incoming_msg))
            if self.kernel.execution_state == "dead":
                self._refuse_held(f"{self.kernel.kernel_name} is not running")
            return
        if asked is not None:
            self._note_asked(channel, asked, metadata, content)
        super().handle_incoming_message(incoming_msg)

    def _parts(self, message: Any) -> tuple[Any, ...]:
        """Channel, header, metadata and content."""
        if self.subprotocol == V1:
            channel, parts = deserialize_msg_from_ws_v1(message)
            return channel, *(json.loads(bytes(parts[index])) for index in (0, 2, 3))
        found = deserialize_binary_message(message) if isinstance(message, bytes) else json.loads(message)
        return found.get("channel") or "shell", found["header"], found.get("metadata") or {}, found["content"]

    def _note_asked(self, channel: str, asked: Fields, metadata: Fields, content: Fields) -> None:
        if len(self._pending) >= MOST_HELD:
            self._pending.pop(next(iter(self._pending)))  # a kernel that does not answer such
        self._pending[asked["msg_id"]] = (channel, asked)
        if asked["msg_type"] == "execute_request" and not content.get("silent"):
            cell, code, header = metadata.get("cellId"), content.get("code"), json.dumps(asked, default=str)
            request = Request(asked["msg_id"], self.session_id, str(cell or ""), header, str(code))
            self.kernel.recorder.ask(request)

    # To the client

    def hear(self, published: Published) -> None:
        """The kernel has published something."""
        if self.is_away:
            return
        if self._heard is not None:
            self._heard.append(published)  # what was missed comes first
            return
        if self._unsettled:
            self._unsettled.discard(str(published.parent.get("msg_id")))  # it goes on
            self._settle()
        read = {"header": published.header, "parent_header": published.parent, "content": None}
        parts = list(published.parts)
        self._on_error("iopub", read, parts)
        frames = published.binary
        if read["content"] is not None:  # a traceback that the client is not to see
            parts[3] = self.session.pack(read["content"])
            frames = serialize_msg_to_ws_v1(parts, "iopub")
        if not self._limit_rate("iopub", read, parts):
            self._send(frames)

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """The kernel has answered, or asks for input."""
        _, rest = self.session.feed_identities(outgoing_msg)
        parent = json.loads(bytes(rest[2])) or {}
        request = str(parent.get("msg_id") or "")
        if stream.channel != "stdin":
            self._unsettled.discard(request)
            _, asked = self._pending.pop(request, ("", {}))
            if asked.get("msg_type") == "execute_request":
                self.kernel.recorder.end(request)  # of the others nothing is on record
        if self.is_away:
            frames = serialize_msg_to_ws_v1([bytes(part) for part in rest[1:]], stream.channel)
            self._record(stream.channel, json.loads(bytes(rest[1])), parent, frames)
            self._forget_if_answered()
        else:
            super().handle_outgoing_message(stream, outgoing_msg)

    def _send(self, frames: bytes) -> None:
        """Write a message that is not on its way from a socket."""
        if self.subprotocol == V1:
            self._write(frames, binary=True)
        else:
            channel, parts = deserialize_msg_from_ws_v1(frames)
            names = ("header", "parent_header", "metadata", "content")
            message = {name: json.loads(part) for name, part in zip(names, parts, strict=False)}
            message |= {key: message["header"].get(key) for key in ("msg_id", "msg_type")}
            told = self._reserialize_reply(message | {"buffers": parts[4:]}, channel)
            self._write(told, binary=isinstance(told, bytes))

    @property
    def write_message(self) -> Any:
        """How everything gets to the client."""
        return self._write

    def _write(self, message: Any, binary: bool = False) -> None:
        """Write to the client; one that reads too little is let go of, and finds what it missed later."""
        if self.is_away:
            return
        try:
            written = self.websocket_handler.write_message(message, binary=binary)
        except WebSocketClosedError:
            return
        size = len(message)
        self._unsent += size
        written.add_done_callback(lambda done: self._note_sent(size, done))
        if self._unsent > MOST_UNSENT:
            log.warning("a client of %s does not read: it is let go of", self.kernel.kernel_name)
            self.websocket_handler.ws_connection.stream.close()

    def _note_sent(self, size: int, written: asyncio.Future[None]) -> None:
        self._unsent -= size
        if not written.cancelled():
            written.exception()  # a client that has gone

    # The end

    def disconnect(self) -> None:
        """The client has gone; what it waits for is kept for it."""
        if self._open_sessions.get(self.session_key) is self.websocket_handler:
            self._open_sessions.pop(self.session_key)
        if not self._close_future.done():
            self._close_future.set_result(None)
        if self.is_away:
            return
        self.is_away, self._held = True, []
        self.kernel.left[self.session_id] = time.time()
        self.multi_kernel_manager.notify_disconnect(self.kernel_id)
        ZMQChannelsWebsocketConnection._open_sockets.discard(self)
        self._forget_if_answered()

    def _forget_if_answered(self) -> None:
        if not self._pending.keys() - self._unsettled:
            self.kernel.pages.discard(self)
            self._close_channels()

    def _close_channels(self) -> None:
        for stream in self.channels.values():
            if not stream.closed():
                stream.flush()
                stream.on_recv(None)
                stream.close(linger=0)
        self.channels = {}
