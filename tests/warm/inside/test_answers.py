"""Stock clients get an answer to the cell that dies with its kernel, and go on."""

from __future__ import annotations

import asyncio
import collections
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from jupyter_client import AsyncKernelClient, BlockingKernelClient

from supervisor.warm.inside.pending import read
from tests.waiting import wait_for
from tests.warm.kept import How, Kept
from tests.warm.test_same_kernel import PYTHONS

# Further rounds and interpreters: make test-warm.
ROUNDS = int(os.environ.get("WARM_ROUNDS", "1"))
HOWS: list[How] = ["prepared", "fork", "standby"]
PATIENCE = 30.0
KILLED = ["import time; time.sleep(600)", "while True: pass", "import asyncio; await asyncio.sleep(600)"]
DIES = ["import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"]
CODES = [*KILLED, *DIES]

# A client that is given up leaves its sockets to the collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


class Dying:
    """Kills a kernel while it executes, and starts it again, however it died."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.thread: threading.Thread | None = None
        # So many requests have to be read before it is killed.
        self.least = 1

    def soon(self, code: str) -> None:
        self.thread = threading.Thread(target=self._die, args=(code,))
        self.thread.start()

    def _die(self, code: str) -> None:
        if code in KILLED:
            wait_for(lambda: self._is_executed(code), "it is executed")
            self.kept.kill()
        else:
            self.kept.wait()
        self.kept.start()
        self.kept.park_if_wished()

    def _is_executed(self, code: str) -> bool:
        found = [one for one in read(str(self.kept.pending)).requests if not one.replied]
        return len(found) >= self.least and any(one.started and one.code == code for one in found)

    def wait(self) -> None:
        assert self.thread is not None
        self.thread.join()


@pytest.fixture(params=PYTHONS)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=HOWS)
def dying(tmp_path: Path, python: str, request: pytest.FixtureRequest) -> Iterator[Dying]:
    kept = Kept(tmp_path, python, request.param)
    kept.start()
    kept.park_if_wished()
    yield Dying(kept)
    kept.close()


def check(content: dict[str, Any]) -> None:
    assert "KernelDied" == content["ename"], content
    assert "started again as run" in content["evalue"]


def each(dying: Dying, ask: Callable[[str], None]) -> None:
    for _ in range(ROUNDS):
        for code in CODES:
            dying.soon(code)
            ask(code)
            dying.wait()


def test_execute_interactive_without_a_time_out_returns_an_error(dying: Dying) -> None:
    client = dying.kept.client()

    def ask(code: str) -> None:
        heard: list[dict[str, Any]] = []
        check(client.execute_interactive(code, output_hook=heard.append)["content"])
        check(next(m["content"] for m in heard if m["msg_type"] == "error"))

    each(dying, ask)
    client.stop_channels()


async def test_the_asynchronous_client_too(dying: Dying) -> None:
    dying.kept.client().stop_channels()
    client = AsyncKernelClient(connection_file=str(dying.kept.file))
    client.load_connection_file()
    client.start_channels(hb=False)
    for code in CODES * ROUNDS:
        dying.soon(code)
        async with asyncio.timeout(PATIENCE):
            check((await client.execute_interactive(code, output_hook=lambda m: None))["content"])
        await asyncio.to_thread(dying.wait)
    client.stop_channels()


async def test_nbclient_puts_the_error_into_the_notebook(dying: Dying) -> None:
    import nbformat
    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    dying.kept.client().stop_channels()
    manager = AsyncKernelManager(connection_file=str(dying.kept.file), owns_kernel=False)
    manager.load_connection_file()

    async def is_alive(*_: Any, **__: Any) -> bool:
        return True

    manager._async_is_alive = manager.is_alive = is_alive
    client = manager.client()
    client.start_channels(hb=False)
    for code in CODES * ROUNDS:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        runner = NotebookClient(notebook, km=manager, timeout=None, store_widget_state=False)
        runner.kc = client
        dying.soon(code)
        with pytest.raises(CellExecutionError, match="KernelDied"):
            async with asyncio.timeout(PATIENCE):
                await runner.async_execute_cell(notebook.cells[0], 0)
        assert "KernelDied" == notebook.cells[0].outputs[-1]["ename"]
        await asyncio.to_thread(dying.wait)
    client.stop_channels()


def test_jupyter_console_prints_the_error_and_goes_on(dying: Dying) -> None:
    if dying.kept.how == "prepared":
        pytest.skip("it gives up by itself after a second without a heartbeat")
    dying.kept.client().stop_channels()
    jupyter = str(Path(sys.executable).with_name("jupyter"))
    words = ["console", "--existing", str(dying.kept.file), "--simple-prompt"]
    environ = {**os.environ, "TERM": "dumb", "PYTHONWARNINGS": "ignore"}
    console = pexpect.spawn(jupyter, words, encoding="utf8", timeout=PATIENCE, env=environ)
    console.expect(r"In \[\d*\]: ")

    def ask(code: str) -> None:
        console.sendline(code)
        console.expect(r"KernelDied[\s\S]*?In \[\d*\]: ")
        console.sendline("print(6 * 7)")
        console.expect(r"42[\s\S]*?In \[\d*\]: ")

    each(dying, ask)
    console.close(force=True)


def test_what_was_queued_is_answered_in_its_order_and_once(dying: Dying) -> None:
    client = dying.kept.client()
    dying.least = 24

    def ask(code: str) -> None:
        # So that the queue is read before the kernel dies by itself.
        first = client.execute(code if code in KILLED else f"import time; time.sleep(0.3)\n{code}")
        asked = [first, *(client.execute(f"print({i})") for i in range(20))]
        asked += [client.complete("pri"), client.inspect("print"), client.is_complete("x")]
        assert dying.least == len(asked)
        replies, idle = listen(client, asked)
        assert asked == list(replies)
        assert {1} == set(replies.values())
        assert set(asked) <= idle

    each(dying, ask)
    client.stop_channels()


def listen(client: BlockingKernelClient, asked: list[str]) -> tuple[dict[str, int], set[str]]:
    """How many replies came for each request, in their order, and of which the end was published."""
    replies: dict[str, int] = collections.Counter()
    idle: set[str] = set()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not (set(asked) <= replies.keys() and set(asked) <= idle):
        for get, note in ((client.get_shell_msg, replies), (client.get_iopub_msg, idle)):
            try:
                message = get(timeout=0.02)
            except queue.Empty:
                continue
            parent = message["parent_header"].get("msg_id")
            if note is replies and parent in asked:
                replies[parent] += 1
            elif message["content"].get("execution_state") == "idle":
                idle.add(parent)
    return replies, idle


def test_everybody_hears_the_whole_output_and_of_the_restart_once(dying: Dying) -> None:
    clients = [dying.kept.client() for _ in range(4)]
    for _ in range(ROUNDS):
        hear(clients)
        dying.kept.kill()
        asked = clients[0].execute("print('hello')")
        dying.kept.start()
        for messages in hear(clients, asked):
            own = [m for m in messages if m["parent_header"].get("msg_id") == asked]
            assert ["hello\n"] == [m["content"]["text"] for m in own if m["msg_type"] == "stream"]
            states = [m["content"].get("execution_state") for m in messages]
            assert 1 == states.count("restarting"), states
            told = [m["content"]["text"] for m in messages if m["content"].get("name") == "stderr"]
            assert 1 == len([text for text in told if "its variables are lost" in text]), told
        dying.kept.park_if_wished()
    for client in clients:
        client.stop_channels()


def hear(clients: list[BlockingKernelClient], until_idle: str = "") -> list[list[dict[str, Any]]]:
    """What each has heard, or hears until a request has ended; by turns, as each has its own thread."""
    heard: list[list[dict[str, Any]]] = [[] for _ in clients]
    deadline = time.monotonic() + (PATIENCE if until_idle else 0.3)
    waiting = set(range(len(clients)))
    while waiting and time.monotonic() < deadline:
        for number in sorted(waiting):
            try:
                message = clients[number].get_iopub_msg(timeout=0.002)
            except queue.Empty:
                continue
            heard[number].append(message)
            ended = message["content"].get("execution_state") == "idle"
            if until_idle and ended and message["parent_header"].get("msg_id") == until_idle:
                waiting.discard(number)
    return heard
