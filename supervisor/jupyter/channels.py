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
    serialize_binary_message,
    serialize_msg_to_ws_v1,
)
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.websocket import WebSocketClosedError

from supervisor.jupyter.kernels import Published, SupervisedKernel
from supervisor.jupyter.recorder import Message, Request

log = logging.getLogger(__name__)

V1 = "v1.kernel.websocket.jupyter.org"
# What a client may have waiting at a kernel that is not up, and in bytes at a browser that does not read.
MOST_HELD = 1000
MOST_UNSENT = 16 << 20
_NOTHING: tuple[str, dict[str, Any]] = ("", {})


class SupervisedChannels(ZMQChannelsWebsocketConnection):  # type: ignore[misc]
    """For a supervised kernel; that of one of the server's own is the server's."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if isinstance(kwargs.get("parent"), SupervisedKernel):
            return super().__new__(cls, *args, **kwargs)
        return ZMQChannelsWebsocketConnection(*args, **kwargs)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels: dict[str, Any] = {}
        self.is_away = False
        self._is_open = False
        self._held: list[Any] = []
        self._heard: list[Published] | None = []
        self._pending: dict[str, tuple[str, dict[str, Any]]] = {}
        self._unsettled: dict[str, dict[str, Any]] = {}
        self._late: float | None = None
        self._unsent = 0

    @property
    def kernel(self) -> SupervisedKernel:
        """Whose connection it is."""
        return self.parent  # type: ignore[no-any-return]

    async def prepare(self) -> None:
        """Take the place of a connection of the same session; wait for nothing, as the kernel may be down."""
        await self._register_session()

    def connect(self) -> asyncio.Future[None]:
        """The client is there: it gets what it missed, then what comes."""
        self.multi_kernel_manager.notify_connect(self.kernel_id)
        self._is_open = True
        ZMQChannelsWebsocketConnection._open_sockets.add(self)
        self._take_over()
        self.kernel.pages.add(self)
        # Another server may have recorded as missed what this one has sent before the client left.
        since = self.kernel.left.pop(self.session_id, 0.0)
        asyncio.ensure_future(self._begin(since)).add_done_callback(_report)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _take_over(self) -> None:
        """The channels and open requests of this session, from its connection that was lost."""
        for page in list(self.kernel.pages):
            if isinstance(page, SupervisedChannels) and page.is_away and page.session_id == self.session_id:
                self.channels, self._pending = page.channels, page._pending
                page.channels, page._pending = {}, {}
                self.kernel.pages.discard(page)
                self._listen()

    async def _begin(self, since: float) -> None:
        self._late = since
        await self._catch_up()
        if not self._is_open:
            return
        heard, self._heard = self._heard or [], None
        for published in heard:
            self.hear(published)
        if self.kernel.up.is_set():
            self.begin_run()
        else:
            self._send_status_message(
                self.kernel.execution_state if self.kernel.execution_state == "dead" else "starting"
            )
        self._settle()

    async def _catch_up(self) -> None:
        """Send what was missed, and learn what was never answered, as soon as there is a record to ask."""
        recorder, since = self.kernel.recorder, self._late
        if recorder is None or since is None:
            return
        self._late = None
        missed, asked = await recorder.missed(self.session_id), await recorder.open_requests(self.session_id)
        if not self._is_open:
            return
        for message in missed:
            if message.at >= since:
                self._send(message.channel, message.parts)
        known = self._pending.keys()
        self._unsettled |= {request.id: request.header for request in asked if request.id not in known}
        self._settle()

    def _settle(self) -> None:
        """What was asked through a server that is gone: once the kernel is idle, nobody heard the answer."""
        if self._unsettled and self.kernel.up.is_set() and self.kernel.execution_state == "idle":
            unsettled, self._unsettled = self._unsettled, {}
            for asked in unsettled.values():
                self._give_up("shell", asked, "its answer came while no server was there to hear it")

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
        for message in held:
            self.handle_incoming_message(message)
        self._settle()
        if self._late is not None:
            asyncio.ensure_future(self._catch_up()).add_done_callback(_report)

    def _listen(self) -> None:
        for stream in self.channels.values():
            stream.on_recv_stream(self.handle_outgoing_message)

    def end_run(self, reason: str, status: str) -> None:
        """The run is over: nothing reaches the next one unasked, and every open request is answered."""
        self._close_channels()
        pending, self._pending = self._pending, {}
        pending |= {id_: ("shell", asked) for id_, asked in self._unsettled.items()}
        self._unsettled = {}
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
            self._publish("stream", {"name": "stderr", "text": f"{reason}\n"}, {})
        self._send_status_message(status)
        if status == "dead":
            self._refuse_held(reason)

    def _refuse_held(self, reason: str) -> None:
        held, self._held = self._held, []
        for message in held:
            channel, asked = self._read(message)
            if asked is not None:
                self._give_up(channel, asked, reason)

    def _give_up(self, channel: str, asked: dict[str, Any], reason: str) -> None:
        error = {"ename": "KernelDied", "evalue": reason, "traceback": [f"KernelDied: {reason}"]}
        if asked["msg_type"] == "execute_request":
            self._publish("error", error, asked)
        self._answer(
            channel, asked, {"status": "error", "execution_count": 0, "user_expressions": {}, **error}
        )

    def _answer(self, channel: str, asked: dict[str, Any], content: dict[str, Any]) -> None:
        kind = asked["msg_type"].replace("_request", "_reply")
        self._make(channel, kind, content, asked)
        self._publish("status", {"execution_state": "idle"}, asked)
        if self.kernel.recorder is not None:
            self.kernel.recorder.end(asked["msg_id"])

    def _publish(self, kind: str, content: dict[str, Any], asked: dict[str, Any]) -> None:
        self._make("iopub", kind, content, asked)

    def _make(self, channel: str, kind: str, content: dict[str, Any], asked: dict[str, Any]) -> None:
        message = self.session.msg(kind, content, parent={"header": asked} if asked else None)
        message["header"]["session"] = self.kernel.session_of_run or self.session_id
        parts = [
            self.session.pack(message[key]) for key in ("header", "parent_header", "metadata", "content")
        ]
        recorder = self.kernel.recorder
        if recorder is not None and asked:
            whom = (message["msg_id"], channel, self.session_id, asked["msg_id"], kind)
            recorder.add(Message(*whom, self.is_away, parts))
        if not self.is_away:
            self._send(channel, parts)

    def _send_status_message(self, status: str) -> None:
        self._publish("status", {"execution_state": status}, {})

    def tell(self, status: str) -> None:
        """The kernel is busy or idle."""
        if not self.is_away and self._heard is None:
            self._send_status_message(status)

    # From the client

    def _read(self, message: Any) -> tuple[str, dict[str, Any] | None]:
        """The channel of a message, and its header if it asks for an answer; ``""`` if it is none."""
        try:
            channel, header, *_ = self._parts(message)
            asks = channel in ("shell", "control") and str(header["msg_type"]).endswith("_request")
            return channel, {**header, "date": str(header.get("date", ""))} if asks and header[
                "msg_id"
            ] else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return "", None

    def _parts(self, message: Any) -> tuple[Any, ...]:
        """Channel, header, metadata and content."""
        if self.subprotocol == V1:
            channel, parts = deserialize_msg_from_ws_v1(message)
            return channel, *(json.loads(bytes(parts[index])) for index in (0, 2, 3))
        found = deserialize_binary_message(message) if isinstance(message, bytes) else json.loads(message)
        return found.get("channel") or "shell", found["header"], found.get("metadata") or {}, found["content"]

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Pass it on, or keep it until the kernel is up again."""
        if not self.channels:
            if len(self._held) < MOST_HELD:
                self._held.append(incoming_msg)
            if self.kernel.execution_state == "dead":
                self._refuse_held(f"{self.kernel.kernel_name} is not running")
            return
        channel, asked = self._read(incoming_msg)
        if asked is not None:
            if len(self._pending) >= MOST_HELD:
                self._pending.pop(next(iter(self._pending)))  # a kernel that does not answer such
            self._pending[asked["msg_id"]] = (channel, asked)
            if asked["msg_type"] == "execute_request":
                self._record_request(asked, incoming_msg)
        if channel:
            super().handle_incoming_message(incoming_msg)

    def _record_request(self, asked: dict[str, Any], message: Any) -> None:
        _, _, metadata, content = self._parts(message)
        if self.kernel.recorder is not None and not content.get("silent"):
            cell, code = str(metadata.get("cellId") or ""), str(content.get("code"))
            self.kernel.recorder.ask(Request(asked["msg_id"], self.session_id, cell, asked, code))

    # To the client

    def hear(self, published: Published) -> None:
        """The kernel has published something."""
        if self.is_away:
            return
        if self._heard is not None:
            self._heard.append(published)  # what was missed comes first
            return
        if self._unsettled:
            asked = self._unsettled.pop(str(published.parent.get("msg_id")), None)
            if asked is not None:
                self._pending[asked["msg_id"]] = ("shell", asked)  # it goes on
            self._settle()
        if self.subprotocol != V1 or not self.multi_kernel_manager.allow_tracebacks:
            super().handle_outgoing_message(published.stream, published.frames)
        else:
            read = {"header": published.header, "parent_header": published.parent, "content": None}
            if not self._limit_rate("iopub", read, published.parts):
                self._write(published.binary, binary=True)

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """The kernel has answered, or asks for input."""
        _, rest = self.session.feed_identities(outgoing_msg)
        parent = json.loads(bytes(rest[2])) or {}
        request = str(parent.get("msg_id") or "")
        self._unsettled.pop(request, None)
        _, asked = self._pending.pop(request, _NOTHING) if stream.channel != "stdin" else _NOTHING
        if asked.get("msg_type") == "execute_request" and self.kernel.recorder is not None:
            self.kernel.recorder.end(request)  # of the others nothing is on record
        if self.is_away:
            self._record_missed(stream.channel, request, [bytes(part) for part in rest[1:]])
            if not self._pending:
                self._forget()
        else:
            super().handle_outgoing_message(stream, outgoing_msg)

    def _record_missed(self, channel: str, request: str, parts: list[bytes]) -> None:
        header = json.loads(parts[0])
        if self.kernel.recorder is not None:
            who = (str(header["msg_id"]), channel, self.session_id, request, str(header["msg_type"]))
            self.kernel.recorder.add(Message(*who, True, parts))

    def _send(self, channel: str, parts: list[bytes]) -> None:
        """Write a message that is not on its way from a socket."""
        if self.subprotocol == V1:
            self._write(serialize_msg_to_ws_v1(parts, channel), binary=True)
            return
        names = ("header", "parent_header", "metadata", "content")
        message = {name: json.loads(part) for name, part in zip(names, parts, strict=False)}
        message |= {"channel": channel, "buffers": parts[4:]}
        message |= {key: message["header"].get(key) for key in ("msg_id", "msg_type")}
        if message["buffers"]:
            self._write(serialize_binary_message(message), binary=True)
        else:
            self._write(json.dumps(message), binary=False)

    @property
    def write_message(self) -> Any:
        """How everything gets to the client."""
        return self._write

    def _write(self, message: Any, binary: bool = False) -> None:
        """Write to the client; one that reads too little is let go of, and finds what it missed later."""
        if not self._is_open:
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
        if not self._is_open:
            return
        self._is_open, self.is_away, self._held = False, True, []
        self.kernel.left[self.session_id] = time.time()
        self.multi_kernel_manager.notify_disconnect(self.kernel_id)
        ZMQChannelsWebsocketConnection._open_sockets.discard(self)
        if not self._pending:
            self._forget()

    def _forget(self) -> None:
        self.kernel.pages.discard(self)
        self._close_channels()

    def _close_channels(self) -> None:
        for stream in self.channels.values():
            if not stream.closed():
                stream.flush()
                stream.on_recv(None)
                stream.close(linger=0)
        self.channels = {}


def _report(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a connection could not begin", exc_info=error)
