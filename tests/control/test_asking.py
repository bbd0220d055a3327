"""A daemon, asked from an event loop."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from pathlib import Path

import pytest

from supervisor.control.asking import UNREACHED, ask, listen
from supervisor.control.client import STATUS_PATH, Client, Unresponsive
from supervisor.control.follow import Refused
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import DEADLINE, until


def client(path: Path) -> Client:
    return Client((path,))


async def test_it_answers_and_refuses(tmp_path: Path) -> None:
    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s") as daemon:
        make = partial(client, daemon.path)
        assert {} != (await ask(make, "GET", STATUS_PATH)).body
        assert 404 == (await ask(make, "GET", "/v1/kernels/nobody")).status
        stream = await listen(make, "/v1/events")
        assert await stream.next(DEADLINE) is None
        stream.close()
        with pytest.raises(Refused):
            await listen(make, "/v1/events?nonsense=1")


async def test_where_no_daemon_is_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(UNREACHED):
        await ask(partial(client, tmp_path / "nowhere"), "GET", STATUS_PATH)


async def test_one_that_hangs_holds_up_nothing(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        task = asyncio.ensure_future(ask(partial(client, tmp_path / "s"), "GET", STATUS_PATH, timeout=0.5))
        turn = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, turn.set)
        await turn.wait()
        assert not task.done()
        await until(task.done)
        with pytest.raises(Unresponsive):
            await task
