"""A client's WebSocket to a kernel of a Jupyter server, message by message."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.jupyter.lab import Server

V1 = "v1.kernel.websocket.jupyter.org"
PATIENCE = 60.0
LARGEST = 200 << 20


def channels(served: Server, kernel: str = "robot", session: str = "", **headers: str) -> HTTPRequest:
    """What opens a WebSocket to a kernel; without the token."""
    id_ = served.scene.kernel(kernel)["id"]
    url = f"{served.url.replace('http', 'ws')}/api/kernels/{id_}/channels"
    return HTTPRequest(
        f"{url}?session_id={session or uuid.uuid4().hex}",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def connect(
    served: Server, kernel: str = "robot", session: str = "", subprotocols: Sequence[str] | None = (V1,)
) -> WebSocketClientConnection:
    """A WebSocket to a kernel, with the token; without ``subprotocols`` it speaks the older one."""
    asked = channels(served, kernel, session, Authorization=f"token {served.token}")
    return await websocket_connect(
        asked, subprotocols=list(subprotocols or ()) or None, max_message_size=LARGEST
    )


def request(code: str, *, session: str = "s", id_: str = "", channel: str = "shell", **content: Any) -> bytes:
    """A request to execute ``code``."""
    header = {"msg_id": id_ or uuid.uuid4().hex, "msg_type": "execute_request", "username": ""}
    header |= {"session": session, "date": "2026-01-01T00:00:00Z", "version": "5.3"}
    asked = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
    parts = (header, {}, {}, {**asked, "allow_stdin": False, **content})
    return bytes(serialize_msg_to_ws_v1([json.dumps(part).encode() for part in parts], channel))


class Told(NamedTuple):
    """A message that a client got."""

    channel: str
    kind: str
    content: dict[str, Any]
    parent: dict[str, Any]

    @property
    def text(self) -> str:
        """What it shows."""
        return str(self.content.get("text") or self.content.get("evalue") or "")


async def read(client: WebSocketClientConnection) -> Told:
    """The next message."""
    message = await client.read_message()
    assert isinstance(message, bytes), message
    channel, parts = deserialize_msg_from_ws_v1(message)
    header, parent, _, content = map(json.loads, parts[:4])
    return Told(channel, header["msg_type"], content, parent)


async def read_until(client: WebSocketClientConnection, is_last: Callable[[Told], object]) -> list[Told]:
    """All messages up to one."""
    found: list[Told] = []
    async with asyncio.timeout(PATIENCE):
        while not found or not is_last(found[-1]):
            found.append(await read(client))
    return found


async def execute(client: WebSocketClientConnection, code: str, **more: Any) -> list[Told]:
    """What the client is told until its request to execute ``code`` is answered, and idle."""
    await client.write_message(request(code, **more), binary=True)
    return await read_until_ended(client)


async def read_until_ended(client: WebSocketClientConnection) -> list[Told]:
    """What the client is told until a request to execute is answered, and idle."""
    ends: set[str] = set()

    def is_last(told: Told) -> bool:
        if told.parent.get("msg_type") == "execute_request":
            ends.update([told.kind] if told.kind == "execute_reply" else [])
            ends.update(["idle"] if told.content.get("execution_state") == "idle" else [])
        return {"idle", "execute_reply"} == ends

    return await read_until(client, is_last)
