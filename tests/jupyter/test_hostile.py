"""Clients, daemons and files that do what they should not: it costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from typing import Any

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import Server
from tests.jupyter.sockets import PATIENCE, connect, execute, read_until, read_until_ended, request

EVERY_CHARACTER = "Z.a_9-" * 10 + "Long"


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


def test_a_request_whose_id_is_no_text_hinders_no_record(serve: Server) -> None:
    async def work() -> None:
        client = await connect(serve)
        await client.write_message(request("1", id_="\ud800"), binary=True)
        await execute(client, "print('after' + 'wards')")
        client.close()

    asyncio.run(work())

    wait_for(lambda: "afterwards\n" in serve.command("replay", "robot", *at(serve)), "it is recorded")


def at(served: Server) -> tuple[str, str]:
    return "--socket", str(served.scene.socket)


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


def test_a_client_that_was_cut_off_finds_the_rest_of_its_cell_and_its_answer(serve: Server) -> None:
    session = uuid.uuid4().hex

    async def work() -> tuple[list[str], str]:
        client = await connect(serve, session=session)
        code = "import time\nfor i in range(30): print(i, flush=True); time.sleep(0.1)"
        await client.write_message(request(code, session=session), binary=True)
        told = await read_until(client, lambda message: "3\n" in message.text)
        client.protocol.stream.close()
        is_idle = lambda: serve.kernel("robot")["execution_state"] == "idle"  # noqa: E731
        await asyncio.to_thread(wait_for, is_idle, "it ends meanwhile")
        client = await connect(serve, session=session)
        rest = await read_until_ended(client)
        client.close()
        shown = "".join(message.text for message in told + rest if message.kind == "stream")
        return shown.split(), next(m.content["status"] for m in rest if m.kind == "execute_reply")

    assert ([str(i) for i in range(30)], "ok") == asyncio.run(work())


def test_a_kernel_that_leaves_the_file_while_a_cell_runs_ends_it(serve: Server) -> None:
    scene, text = serve.scene, serve.scene.config.read_text()
    scene.config.write_text(text + scene.ipykernel("brief") + "\n")
    scene.wait_running("brief")
    serve.wait_listed("brief")

    async def work() -> list[Any]:
        client = await connect(serve, "brief")
        await client.write_message(request("import time; print('in it'); time.sleep(60)"), binary=True)
        await read_until(client, lambda message: "in it" in message.text)
        scene.config.write_text(text)
        return await read_until(client, lambda message: message.kind == "execute_reply")

    told = asyncio.run(work())

    assert "error" == told[-1].content["status"]
    assert "brief was stopped. it has left the file" in told[-1].content["evalue"]
    wait_for(lambda: not serve.kernel("brief"), "it is not listed")


def test_a_session_that_is_moved_to_another_kernel_leaves_both(serve: Server) -> None:
    kernels = {name: serve.scene.kernel(name) for name in ("analysis", "robot")}
    model = {"path": "moved.ipynb", "name": "", "type": "notebook", "kernel": {"name": "analysis"}}
    status, session = serve.ask("POST", "/api/sessions", model)
    assert 201 == status

    for kernel in ({"name": "robot"}, {"id": kernels["analysis"]["id"]}, {"id": kernels["robot"]["id"]}):
        status, moved = serve.ask("PATCH", f"/api/sessions/{session['id']}", {"kernel": kernel})

        assert 200 == status
        wanted = kernels["analysis"] if kernel.get("id") == kernels["analysis"]["id"] else kernels["robot"]
        assert wanted["id"] == moved["kernel"]["id"]
    after = {name: serve.scene.kernel(name) for name in kernels}
    assert {name: view["generation"] for name, view in kernels.items()} == {
        name: view["generation"] for name, view in after.items()
    }


def test_a_kernel_of_every_allowed_character_is_reached_by_its_name(serve: Server) -> None:
    scene, text, name = serve.scene, serve.scene.config.read_text(), EVERY_CHARACTER
    scene.config.write_text("\n".join([text, scene.ipykernel(f'"{name}"'), ""]))
    scene.wait_running(name)
    serve.wait_listed(name)

    serve.command("jupyter", "kernelspecs", "--user", *at(serve))
    program = (
        "import sys\nfrom jupyter_client.manager import start_new_kernel\n"
        "m, c = start_new_kernel(kernel_name=sys.argv[1])\n"
        "c.execute_interactive('import os; print(os.getpid())', timeout=30)\nm.shutdown_kernel()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        env=serve.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert scene.kernel(name)["id"] == serve.ask("POST", "/api/kernels", {"name": name})[1]["id"]
    assert str(scene.kernel(name)["pid"]) == done.stdout.strip()
    scene.config.write_text(text)
    wait_for(lambda: not serve.kernel(name), "it is not listed")
    serve.command("jupyter", "kernelspecs", "--user", *at(serve))


def test_a_daemon_that_hangs_is_told_and_holds_up_no_cell(serve: Server) -> None:
    assert serve.scene.daemon is not None
    daemon, path = serve.scene.daemon.pid, f"/api/kernels/{serve.kernel('robot')['id']}/interrupt"

    async def work() -> tuple[list[str], int]:
        client = await connect(serve)
        os.kill(daemon, signal.SIGSTOP)
        try:
            asked = asyncio.create_task(asyncio.to_thread(serve.ask, "POST", path))
            told = await execute(client, "print('goes on')")
            return [message.text for message in told if message.kind == "stream"], (await asked)[0]
        finally:
            os.kill(daemon, signal.SIGCONT)
            client.close()

    assert (["goes on\n"], 503) == asyncio.run(work())
    wait_for(lambda: 204 == serve.ask("POST", path)[0], "it answers again")
