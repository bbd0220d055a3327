"""``kernel-supervisor serve``: who may use it, what it costs, what it leaves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.e2e.daemon import wait_for
from tests.jupyter.lab import Server
from tests.jupyter.sockets import V1, channels, request


def status(served: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
    """The status of a request without the token."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(
            Request(served.url + path, method=method, data=body, headers=named), timeout=30
        ) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_nobody_gets_in_without_the_token(serve: Server) -> None:
    kernel = serve.scene.kernel("robot")["id"]
    good = f"token {serve.token}"

    assert 200 == status(serve, "GET", "/api/kernels", Authorization=good)
    assert 403 == status(serve, "GET", "/api/kernels")
    assert 403 == status(serve, "GET", "/api/kernels", Authorization="token wrong")
    assert 403 == status(serve, "GET", "/api/kernels", Authorization=good, Host="evil.example")
    for origin in ("https://evil.example", "null"):
        assert 403 == status(serve, "GET", "/api/kernels", Origin=origin)
        assert 403 == status(serve, "POST", f"/api/kernels/{kernel}/restart", b"{}", Origin=origin)
    assert 404 == status(serve, "GET", "/terminals/websocket/1", Authorization=good)


def test_a_post_by_cookie_without_xsrf_is_refused(serve: Server) -> None:
    kernel = serve.scene.kernel("robot")
    with urlopen(f"{serve.url}/api/status?token={serve.token}", timeout=30) as answer:
        cookies = "; ".join(value.split(";")[0] for value in answer.headers.get_all("Set-Cookie") or [])
    path = f"/api/kernels/{kernel['id']}/restart"

    assert 200 == status(serve, "GET", "/api/kernels", Cookie=cookies)
    assert 200 == status(serve, "GET", "/api/kernels", Cookie=cookies, Origin=serve.url)
    assert 403 == status(serve, "GET", "/api/kernels", Cookie=cookies, Origin="https://evil.example")
    assert 403 == status(serve, "POST", path, b"{}", Cookie=cookies)
    assert kernel["generation"] == serve.scene.kernel("robot")["generation"]

    async def by_cookie(origin: str) -> int:
        try:
            (await websocket_connect(channels(serve, Cookie=cookies, Origin=origin))).close()
        except HTTPClientError as refused:
            return refused.code
        return 101

    assert 403 == asyncio.run(by_cookie("https://evil.example"))
    assert 101 == asyncio.run(by_cookie(serve.url))


def test_a_websocket_without_the_token_is_refused(serve: Server) -> None:
    async def connect(**headers: str) -> int:
        try:
            (await websocket_connect(channels(serve, **headers))).close()
        except HTTPClientError as refused:
            return refused.code
        return 101

    assert 403 == asyncio.run(connect())
    assert 403 == asyncio.run(connect(Authorization="token wrong"))
    assert 101 == asyncio.run(connect(Authorization=f"token {serve.token}"))


def test_the_token_and_the_keys_are_in_no_log_no_argv_and_no_page(serve: Server) -> None:
    assert serve.process is not None
    file = serve.scene.directory / "jupyter" / "data" / "kernel-supervisor" / "token"
    keys = [json.loads(path.read_bytes())["key"] for path in serve.scene.runtime_dir.glob("kernel-*.json")]
    with urlopen(f"{serve.url}/login?token={serve.token}", timeout=30) as answer:
        page = answer.read().decode()
    told = serve.log.read_text() + " ".join(psutil.Process(serve.process.pid).cmdline()) + page
    told += serve.scene.log.read_text()

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert keys
    assert [] == [secret for secret in (serve.token, *keys) if secret in told]
    assert f"?token=$(cat {file})" in told


def test_a_token_that_others_may_read_is_not_used(serve: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 40)
    token.chmod(0o644)
    other = Server(serve.scene, "-m", "supervisor", "serve", "--token-file", str(token))
    other.start(wait=False)
    assert other.process is not None

    assert 1 == other.process.wait(30)
    assert f"{token} can be read by others: chmod 600 it" in other.log.read_text()


# What it costs


async def told(client: WebSocketClientConnection, word: bytes) -> bytes:
    async with asyncio.timeout(60):
        while True:
            message = await client.read_message()
            assert message is not None
            if word in (content := message if isinstance(message, bytes) else message.encode()):
                return content


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


async def flood(served: Server, count: int, megabytes: int) -> dict[str, Any]:
    """So much output to so many clients, of which a few do not read, and then a death."""
    assert served.scene.daemon is not None
    assert served.process is not None
    daemon, server = served.scene.daemon.pid, psutil.Process(served.process.pid)
    headers = {"Authorization": f"token {served.token}"}
    asked = [websocket_connect(channels(served, **headers), subprotocols=[V1]) for _ in range(count)]
    clients = await asyncio.gather(*asked)
    for client in clients:
        await told(client, b"execution_state")
    spent, memory, most = cpu(daemon), server.memory_info().rss, 0
    code = f"import sys\nfor i in range({megabytes * 100}): print('x' * 10_000); sys.stdout.flush()"
    readers = [asyncio.create_task(told(client, b"execute_reply")) for client in clients[:1]]
    readers += [asyncio.create_task(told(client, b"rate exceeded")) for client in clients[1 : count - 5]]
    await clients[0].write_message(request(code), binary=True)
    while not readers[0].done():
        await asyncio.sleep(0.1)
        most = max(most, server.memory_info().rss)
    spent = cpu(daemon) - spent
    deaths = [asyncio.create_task(told(client, b"restarting")) for client in clients[: count - 5]]
    for reader in readers[1:]:
        reader.cancel()
    killed = time.monotonic()
    os.kill(served.scene.kernel("robot")["pid"], signal.SIGKILL)
    await deaths[0]
    seconds = time.monotonic() - killed
    await asyncio.gather(*deaths)
    for client in clients:
        client.close()
    return {"daemon": spent, "growth": most - memory, "death": seconds}


def test_a_flood_of_output_costs_the_daemon_nothing_and_the_server_no_memory(
    serve: Server, record_property: Callable[[str, object], None]
) -> None:
    found = asyncio.run(flood(serve, count=50, megabytes=100))

    assert 0.1 > found["daemon"], found
    record_property("death", found["death"])
    assert 200 << 20 > found["growth"]
    file = next((serve.scene.state_dir / "recorder").glob(f"{serve.scene.kernel('robot')['id']}.sqlite"))
    assert 2 * 10_485_760 > file.stat().st_size


def test_what_cells_gave_is_replayed(serve: Server) -> None:
    async def work() -> None:
        headers = {"Authorization": f"token {serve.token}"}
        client = await websocket_connect(channels(serve, "analysis", **headers), subprotocols=[V1])
        await told(client, b"execution_state")
        await client.write_message(
            request("import time; time.sleep(1); print('made mean' + 'while'); 6 * 7"), binary=True
        )
        await told(client, b"execute_input")
        client.close()

    asyncio.run(work())

    wait_for(
        lambda: "42" in serve.command("replay", "analysis", "--socket", str(serve.scene.socket)),
        "it is recorded",
    )
    text = serve.command("replay", "analysis", "--socket", str(serve.scene.socket))
    assert "made meanwhile\n42\n" in text
    assert ">>> import time" in text
