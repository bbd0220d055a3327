"""A client's WebSocket: what is no message, what is large, and who comes again."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import Server, until_there
from tests.jupyter.sockets import PATIENCE, connect, execute, read_until, read_until_ended, request


def in_parts(*parts: bytes, channel: str = "shell") -> bytes:
    return bytes(serialize_msg_to_ws_v1(list(parts), channel))


KIND = {"msg_id": "m", "msg_type": "execute_request", "session": "s", "username": "", "version": "5.3"}
HEADER = json.dumps({**KIND, "date": "2026-01-01T00:00:00Z"}).encode()
CONTENT = {"code": "1", "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
NO_MESSAGES = {
    "empty": b"",
    "noise": b"\xff" * 1000,
    "short": (2**60).to_bytes(8, "little"),
    "no JSON": in_parts(b"{", b"{}", b"{}", b"{}"),
    "no header": in_parts(b"[]", b"[]", b"[]", b"[]"),
    "few parts": in_parts(HEADER),
    "deep": in_parts(HEADER, b"{}", b"{}", b"[" * 100_000),
    "to iopub": in_parts(HEADER, b"{}", b"{}", b"{}", channel="iopub"),
    "nowhere": in_parts(HEADER, b"{}", b"{}", b"{}", channel="nowhere"),
    "text": "not JSON",
}


@pytest.mark.parametrize("sent", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_message_is_dropped_and_the_next_one_counts(serve: Server, sent: bytes | str) -> None:
    async def work() -> list[str]:
        client, older = await connect(serve), await connect(serve, subprotocols=None)
        for each in (client, older):
            await each.write_message(sent, binary=isinstance(sent, bytes))
        told = await execute(client, "print('heard')")
        header = {**json.loads(HEADER), "msg_id": uuid.uuid4().hex}  # a kernel takes a message once
        asked = {"header": header, "parent_header": {}, "metadata": {}, "content": CONTENT}
        await older.write_message(json.dumps({"channel": "shell", **asked}))
        async with asyncio.timeout(PATIENCE):
            while "execute_reply" not in str(await older.read_message()):
                pass
        client.close()
        older.close()
        return [message.text for message in told if message.kind == "stream"]

    assert ["heard\n"] == asyncio.run(work())


def test_a_message_of_fifty_megabytes_comes_whole_on_a_connection_that_stays(serve: Server) -> None:
    async def work() -> tuple[int, list[str]]:
        client = await connect(serve)
        code = "from IPython.display import display\ndisplay({'text/plain': 'x' * 50_000_000}, raw=True)"
        told = await execute(client, code)
        size = max(len(message.content.get("data", {}).get("text/plain", "")) for message in told)
        after = await execute(client, "print('goes on')")
        client.close()
        return size, [message.text for message in after if message.kind == "stream"]

    assert (50_000_000, ["goes on\n"]) == asyncio.run(work())


def test_a_connection_of_the_same_session_takes_the_place_of_one_that_is_half_open(serve: Server) -> None:
    before = serve.kernel("robot")["connections"]
    session = uuid.uuid4().hex

    async def work() -> tuple[Any, list[str], int]:
        first = await connect(serve, session=session)
        await execute(first, "print('here')", session=session)
        second = await connect(serve, session=session)
        told = await execute(second, "print('there')", session=session)
        async with asyncio.timeout(30):
            while (last := await first.read_message()) is not None:
                pass
        count = serve.kernel("robot")["connections"]
        second.close()
        return last, [message.text for message in told if message.kind == "stream"], count

    assert (None, ["there\n"], before + 1) == asyncio.run(work())
    wait_for(lambda: before == serve.kernel("robot")["connections"], "both have gone")


def test_a_client_that_was_cut_off_finds_the_rest_of_its_cell_and_its_answer(
    serve: Server, tmp_path: Path
) -> None:
    session, go_on = uuid.uuid4().hex, tmp_path / "go-on"
    before = serve.kernel("robot")["connections"]
    is_idle = lambda: serve.kernel("robot")["execution_state"] == "idle"  # noqa: E731
    is_cut_off = lambda: serve.kernel("robot")["connections"] == before  # noqa: E731

    async def work() -> tuple[list[str], str]:
        client = await connect(serve, session=session)
        code = f"print('begun', flush=True)\n{until_there(go_on)}for i in range(30): print(i, flush=True)"
        await client.write_message(request(code, session=session), binary=True)
        told = await read_until(client, lambda message: "begun" in message.text)
        client.protocol.stream.close()
        await asyncio.to_thread(wait_for, is_cut_off, "the server has noticed")
        go_on.touch()
        await asyncio.to_thread(wait_for, is_idle, "it ends meanwhile")
        client = await connect(serve, session=session)
        rest = await read_until_ended(client)
        client.close()
        shown = "".join(message.text for message in told + rest if message.kind == "stream")
        return shown.split(), next(m.content["status"] for m in rest if m.kind == "execute_reply")

    assert (["begun", *map(str, range(30))], "ok") == asyncio.run(work())
