"""The channels to a kernel: readiness, questions and answers, with real kernels and with ones that lie."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.model import Check
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Connection
from supervisor.kernel.monitor import Monitor
from supervisor.settings.config import HeartbeatConfig, ProbeConfig
from tests.kernel.kernels import (
    BASH_KERNEL,
    DENO,
    IPYKERNEL,
    FakeKernel,
    Frames,
    Talk,
    channel_to,
    connection,
    running,
    signed_reply,
    stop,
)
from tests.kernel.test_monitor import checks
from tests.waiting import DEADLINE, until

SHORT = 0.2  # what a wait for an answer that does not come lasts


# The kernels that the design was tried on, how they wait 0.5 seconds, and what they are called.
KERNELS = {
    "ipykernel": (IPYKERNEL, "import time; time.sleep(0.5)"),
    "bash_kernel": (BASH_KERNEL, "sleep 0.5"),
    "deno": (DENO, "await new Promise(done => setTimeout(done, 500))"),
}


@pytest.mark.parametrize("kind", KERNELS)
async def test_a_kernel_is_ready_then_busy_then_idle(kind: str, at: Connection, talk: Talk) -> None:
    argv, half_a_second = KERNELS[kind]
    with running(argv, at):
        channel = await talk.ready()
        assert channel.control_is_served
        assert await channel.ping(DEADLINE)
        assert not await channel.is_busy(DEADLINE)

        client = await talk.start_client()
        for _ in range(3):
            client.execute(half_a_second)
        # All of the client's requests have been sent; its queue is what is waited for.
        await client.get_iopub_msg(timeout=DEADLINE)
        assert await channel.is_busy(SHORT)
        assert await channel.kernel_info(DEADLINE) is not None
        async with asyncio.timeout(DEADLINE):
            await channel.wait_idle()

        replies = [await client.get_shell_msg(timeout=SHORT) for _ in range(3)]
        assert ["execute_reply"] * 3 == [reply["msg_type"] for reply in replies]


async def test_a_client_after_us_still_gets_its_welcome_on_iopub(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at):
        channel = await talk.ready()
        assert not await channel.is_busy(DEADLINE)
        await channel.wait_idle()

        talk.client.start_channels()
        # The end of our last question may still be told to whoever comes.
        told = ""
        async with asyncio.timeout(DEADLINE):
            while told != "iopub_welcome":
                told = (await talk.client.get_iopub_msg(timeout=DEADLINE))["msg_type"]


async def test_a_shutdown_request_to_a_dying_kernel_does_not_reach_its_successor(
    at: Connection, talk: Talk
) -> None:
    with running(IPYKERNEL, at) as first:
        channel = await talk.ready()
        stop(first)
        assert not await channel.shutdown_request(restart=False, timeout=SHORT)
        question = channel.begin("control", lambda: None)
        assert question is not None
        assert question.put()
    assert not await channel.shutdown_request(restart=False, timeout=SHORT)
    channel.close()
    with running(IPYKERNEL, at) as second:
        channel = talk.channel = channel_to(at)
        await talk.ready()
        client = await talk.start_client()
        reply = await client.execute("1", reply=True, timeout=DEADLINE)
        assert "ok" == reply["content"]["status"]

        assert await channel.kernel_info(DEADLINE) is not None
        assert second.poll() is None


async def test_what_is_asked_before_a_kernel_listens_is_answered_once_it_does(
    fake: FakeKernel, talk: Talk
) -> None:
    shutdown = asyncio.create_task(talk.channel.shutdown_request(restart=False, timeout=DEADLINE))
    ping = asyncio.create_task(talk.channel.ping(DEADLINE))
    await asyncio.sleep(0)
    with fake.serving():
        assert await shutdown
        assert await ping

    assert {"hb": 1, "control": 1, "shutdown_request": 1} == fake.seen


async def test_an_order_to_a_kernel_that_boots_outlives_the_questions_about_its_readiness(
    fake: FakeKernel, talk: Talk
) -> None:
    ready = asyncio.create_task(talk.channel.wait_ready())
    assert not await talk.channel.shutdown_request(restart=False, timeout=SHORT)
    # Longer than the first questions are waited for.
    assert not await talk.channel.ping(1.0)
    with fake.serving():
        await until(lambda: fake.seen["shutdown_request"] == 1)
        await ready


async def test_an_answer_to_any_of_the_questions_is_readiness(fake: FakeKernel, talk: Talk) -> None:
    first: dict[str, Frames] = {}

    def answer_the_first_at_the_third(name: str, request: Frames) -> list[Frames]:
        first.setdefault(name, request)
        return fake.honest(name, first[name]) if fake.seen[name] == 3 else []

    fake.answer = answer_the_first_at_the_third
    with fake.serving():
        await talk.ready()

    assert 3 == fake.seen["hb"]


async def test_a_kernel_that_is_silent_for_long_costs_a_few_questions_only(
    fake: FakeKernel, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.kernel.channel._FIRST_PATIENCE", 0.001)
    fake.answer = lambda *_: []
    with fake.serving():
        ready = asyncio.create_task(talk.channel.wait_ready(0.001))
        await until(lambda: fake.seen["hb"] >= 50)
        assert len(talk.channel._open) < 30

        fake.answer = None
        await ready


def _wrongly_signed(fake: FakeKernel, request: Frames) -> Frames:
    return signed_reply("another key", request)


def _truncated(fake: FakeKernel, request: Frames) -> Frames:
    return signed_reply(fake.address.key, request)[:4]


def _not_json(fake: FakeKernel, request: Frames) -> Frames:
    return signed_reply(fake.address.key, request, b"{not json")


def _for_another(fake: FakeKernel, request: Frames) -> Frames:
    return signed_reply(fake.address.key, [b"", b"", b'{"msg_id": "another"}'])


def _without_frames(fake: FakeKernel, request: Frames) -> Frames:
    return [b""]


@pytest.mark.parametrize("lie", [_wrongly_signed, _truncated, _not_json, _for_another, _without_frames])
async def test_a_lie_is_no_answer_and_does_not_hide_one(
    lie: Callable[[FakeKernel, Frames], Frames], fake: FakeKernel, talk: Talk
) -> None:
    channel = talk.channel
    with fake.serving():
        fake.answer = lambda _, request: [lie(fake, request)] * 200
        assert await channel.kernel_info(SHORT) is None
        await until(lambda: channel._lines["control"].drain() or channel.ignored >= 200)

        fake.answer = lambda name, request: [lie(fake, request), *fake.honest(name, request)]
        assert await channel.kernel_info(DEADLINE) == {"status": "ok"}


async def test_a_replayed_answer_counts_once(fake: FakeKernel, talk: Talk) -> None:
    channel = talk.channel
    kept: list[Frames] = []

    def replay(name: str, request: Frames) -> list[Frames]:
        kept.extend(kept[:1] or fake.honest(name, request))
        return kept[-1:]

    fake.answer = replay
    with fake.serving():
        assert await channel.kernel_info(DEADLINE) is not None
        assert await channel.kernel_info(SHORT) is None
        assert not await channel.shutdown_request(restart=False, timeout=SHORT)

    assert 2 == channel.ignored


async def test_an_old_echo_is_no_heartbeat(fake: FakeKernel, talk: Talk) -> None:
    channel = talk.channel
    late: list[Frames] = []

    def one_behind(_: str, request: Frames) -> list[Frames]:
        late.append(request)
        return late[-2:-1]

    fake.answer = one_behind
    with fake.serving():
        for _ in range(3):
            assert not await channel.ping(SHORT)

    assert 2 == channel.ignored


async def test_a_huge_answer_is_dropped_and_the_next_one_is_heard(fake: FakeKernel, talk: Talk) -> None:
    huge = b'{"banner": "' + b"x" * (2 << 20) + b'"}'
    fake.answer = lambda _, request: [signed_reply(fake.address.key, request, huge)]
    with fake.serving():
        assert await talk.channel.kernel_info(1.0) is None
        assert 1 == fake.seen["control"]
        fake.answer = None

        assert await talk.channel.kernel_info(DEADLINE) == {"status": "ok"}


async def test_another_program_met_at_the_port_is_got_over(fake: FakeKernel, talk: Talk) -> None:
    with socket.create_server(("127.0.0.1", fake.address.hb_port)) as server:
        ping = asyncio.create_task(talk.channel.ping(1.0))
        caller, _ = await asyncio.to_thread(server.accept)
        caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        assert not await ping
        caller.close()

    with fake.serving():
        assert await talk.channel.ping(DEADLINE)


async def test_a_kernel_that_serves_kernel_info_on_shell_only_is_ready_and_is_asked_there(
    fake: FakeKernel, talk: Talk
) -> None:
    fake.answer = lambda name, request: [] if name == "control" else fake.honest(name, request)
    with fake.serving():
        channel = await talk.ready()
        assert False is channel.control_is_served
        asked_on_control = fake.seen["control"]

        assert await channel.shutdown_request(restart=False)

        missed: list[Check] = []
        monitor = Monitor(
            channel,
            checks(HeartbeatConfig(interval=0.05), ProbeConfig(interval=0.05)),
            missed.append,
            missed.append,
        )
        beats = fake.seen["hb"]
        monitor.start()
        await until(lambda: fake.seen["hb"] >= beats + 5)
        monitor.stop()
        # One more may have been on its way.
        assert fake.seen["control"] <= asked_on_control + 1
        assert Check.PROBE not in missed


async def test_a_kernel_without_a_heartbeat_is_never_ready(fake: FakeKernel, talk: Talk) -> None:
    fake.answer = lambda name, request: [] if name == "hb" else fake.honest(name, request)
    with fake.serving():
        ready = asyncio.create_task(talk.channel.wait_ready())
        await until(lambda: fake.seen["hb"] >= 2 <= fake.seen["control"] + 1)

        assert not ready.done()
        ready.cancel()


async def test_an_answer_between_two_of_another_client_is_not_idleness(fake: FakeKernel, talk: Talk) -> None:
    def busy_at_the_second_question(name: str, request: Frames) -> list[Frames]:
        return [] if name == "shell" and fake.seen["shell"] in {2, 3} else fake.honest(name, request)

    fake.answer = busy_at_the_second_question
    with fake.serving():
        async with asyncio.timeout(DEADLINE):
            await talk.channel.wait_idle()

    assert fake.seen["shell"] >= 5


async def test_an_answer_that_arrives_just_before_a_send_is_heard(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        channel = await talk.ready()
        last, go_on = fake.seen["hb"] + 1, threading.Event()

        def answer_one_when_told(_: str, request: Frames) -> list[Frames]:
            return [request] if go_on.wait(DEADLINE) and fake.seen["hb"] <= last else []

        fake.answer = answer_one_when_told
        waiting = asyncio.create_task(channel.ping(DEADLINE))
        await until(lambda: fake.seen["hb"] == last)
        go_on.set()
        # The loop stands still until the answer is there; the send then takes note of it in its place.
        assert select.select([channel._lines["hb"]._descriptor], [], [], DEADLINE)[0]
        time.sleep(0.01)  # noqa: ASYNC251  libzmq looks again only after some milliseconds
        question = channel.begin("hb", lambda: None)
        assert question is not None
        assert question.put()

        assert await waiting


async def test_an_ipv6_kernel_is_reached(tmp_path: Path) -> None:
    try:
        at = connection(tmp_path, ip="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert at.address is not None
    channel = Channel(at.address)
    with FakeKernel(at.address).serving():
        async with asyncio.timeout(DEADLINE):
            await channel.wait_ready()
    channel.close()
    at.close()


async def test_closing_ends_what_is_waited_for(fake: FakeKernel, talk: Talk) -> None:
    channel = talk.channel
    fake.answer = lambda *_: []
    with fake.serving():
        waits = [
            asyncio.create_task(wait)
            for wait in (
                channel.ping(DEADLINE),
                channel.kernel_info(DEADLINE),
                channel.kernel_info(DEADLINE, "shell"),
                channel.wait_ready(),
                channel.wait_idle(),
            )
        ]
        await until(lambda: fake.seen["hb"] and fake.seen["control"] and fake.seen["shell"])
        channel.close()
        channel.close()
        async with asyncio.timeout(DEADLINE):
            ended = await asyncio.gather(*waits, return_exceptions=True)

    assert [False, None, None] == ended[:3]
    assert [ConnectionAbortedError] * 2 == [type(error) for error in ended[3:]]
    assert not await channel.ping(DEADLINE)
    assert not await channel.shutdown_request(restart=False)
