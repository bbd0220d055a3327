"""The daemon, as a program of Jupyter follows it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from supervisor.jupyter.daemon import Daemon
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import until


class Older(FakeSteering):
    """A daemon that does not tell which events are in its state."""

    def status(self, names: Any) -> dict[str, Any]:
        return {key: value for key, value in super().status(names).items() if key != "seq"}


@pytest.mark.parametrize(("kind", "most"), [(FakeSteering, 10), (Older, 51)])
async def test_the_state_is_looked_at_after_events_and_once_for_many(
    tmp_path: Path, kind: type[FakeSteering], most: int
) -> None:
    steering, daemon = kind(tmp_path), Daemon(socket=str(tmp_path / "s"))
    looks: list[dict[str, Any]] = []

    async def tell() -> None:
        steering.views["robot"]["phase"] = "stopped"
        for number in range(50):
            await steering.tell(event="kernel.stopped", number=number)

    with FakeDaemon(steering, tmp_path / "s") as fake:
        following = asyncio.create_task(daemon.follow(looks.append, print))
        await until(lambda: looks and steering.followers)
        fake.run(tell())
        await until(lambda: "stopped" == looks[-1]["kernels"][1]["phase"])
        following.cancel()

    assert 2 <= len(looks) <= most


GARBAGE = [b"", b"noise", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"]
GARBAGE += [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + end for end in (b"3\r\n[]\n\r\n", b"zz\r\n")
]


@pytest.mark.parametrize("answer", GARBAGE)
async def test_a_daemon_that_answers_garbage_is_told_and_followed_once_it_does_not(
    tmp_path: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.jupyter.daemon.RETRY_INTERVAL", 0.05)
    looks: list[dict[str, Any]] = []
    told: list[str] = []

    async def answer_so(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(answer_so, tmp_path / "s")
    following = asyncio.create_task(Daemon(socket=str(tmp_path / "s")).follow(looks.append, told.append))
    await until(lambda: len(told) > 1)
    server.close()
    (tmp_path / "s").unlink(missing_ok=True)

    with FakeDaemon(FakeSteering(tmp_path), tmp_path / "s"):
        await until(lambda: looks and "kernels" in looks[-1])
        following.cancel()

    assert "robot" == looks[-1]["kernels"][1]["name"]
