"""Talking to kernels: real ones, and one that lies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client import AsyncKernelClient

from supervisor.config import HeartbeatConfig, ProbeConfig
from supervisor.core.model import Check
from supervisor.kernel.channel import Channel, Monitor
from supervisor.kernel.connection import Connection
from tests.kernel.kernels import (
    BASH_KERNEL,
    DENO,
    IPYKERNEL,
    FakeKernel,
    Frames,
    connection,
    running,
    signed_reply,
)
from tests.kernel.programs import TIMEOUT

SHORT = 0.2  # what a wait for an answer that does not come lasts
EVER = "import time\nwhile True: time.sleep(0.001)"
# The kernels that the design was tried on, how they wait 0.5 seconds, and what they are called.
KERNELS = {
    "ipykernel": (IPYKERNEL, "import time; time.sleep(0.5)"),
    "bash_kernel": (BASH_KERNEL, "sleep 0.5"),
    "deno": (DENO, "await new Promise(done => setTimeout(done, 500))"),
}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  conditions of other threads and processes
            await asyncio.sleep(0.01)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Returns once it stands still."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Connection]:
    kept = connection(tmp_path)
    yield kept
    kept.close()


@pytest.fixture
def fake(at: Connection) -> FakeKernel:
    assert at.address is not None
    return FakeKernel(at.address)


class Talk:
    """A channel that is closed in the end, and a client of jupyter_client."""

    def __init__(self, at: Connection) -> None:
        assert at.address is not None
        self.channel = Channel(at.address)
        self.client = AsyncKernelClient()
        self.client.load_connection_file(str(at.path))

    async def ready(self) -> Channel:
        async with asyncio.timeout(TIMEOUT):
            await self.channel.wait_ready()
        return self.channel

    async def start_client(self) -> AsyncKernelClient:
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=TIMEOUT)
        return self.client


@pytest.fixture
def talk(at: Connection) -> Iterator[Talk]:
    both = Talk(at)
    yield both
    both.channel.close()
    if both.client.channels_running:
        both.client.stop_channels()


# Real kernels


@pytest.mark.parametrize("kind", KERNELS)
async def test_a_kernel_is_ready_then_busy_then_idle(kind: str, at: Connection, talk: Talk) -> None:
    argv, half_a_second = KERNELS[kind]
    with running(argv, at):
        channel = await talk.ready()
        assert channel.control_is_served
        assert await channel.ping(TIMEOUT)
        assert not await channel.is_busy(TIMEOUT)

        client = await talk.start_client()
        for _ in range(3):
            client.execute(half_a_second)
        # All of the client's requests have been sent; its queue is what is waited for.
        await client.get_iopub_msg(timeout=TIMEOUT)
        assert await channel.is_busy(SHORT)
        assert await channel.kernel_info(TIMEOUT) is not None
        async with asyncio.timeout(TIMEOUT):
            await channel.wait_idle()

        replies = [await client.get_shell_msg(timeout=SHORT) for _ in range(3)]
        assert ["execute_reply"] * 3 == [reply["msg_type"] for reply in replies]


async def test_a_kernel_on_ipc_is_ready(tmp_path: Path) -> None:
    at = connection(tmp_path, transport="ipc")
    assert at.address is not None
    channel = Channel(at.address)
    for _ in range(2):
        at.remove_stale_sockets()
        with running(IPYKERNEL, at) as process:
            async with asyncio.timeout(TIMEOUT):
                await channel.wait_ready()
            process.kill()
    channel.close()
    at.close()


async def test_an_idle_kernel_exits_when_it_is_asked_to(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at) as process:
        channel = await talk.ready()

        assert await channel.shutdown_request(restart=False)

        assert 0 == await asyncio.to_thread(process.wait, TIMEOUT)


async def test_a_busy_kernel_is_interrupted_by_message(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at):
        channel = await talk.ready()
        client = await talk.start_client()
        client.execute(EVER)
        await client.get_iopub_msg(timeout=TIMEOUT)
        assert await channel.is_busy(SHORT)

        assert await channel.interrupt_request()

        async with asyncio.timeout(TIMEOUT):
            await channel.wait_idle()


async def test_a_client_after_us_still_gets_its_welcome_on_iopub(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at):
        channel = await talk.ready()
        assert not await channel.is_busy(TIMEOUT)
        await channel.wait_idle()

        talk.client.start_channels()
        first = await talk.client.get_iopub_msg(timeout=TIMEOUT)

        assert "iopub_welcome" == first["msg_type"]


async def test_a_kernel_that_is_stopped_answers_nothing_and_its_checks_miss(
    at: Connection, talk: Talk
) -> None:
    missed: list[Check] = []
    answered: list[Check] = []
    with running(IPYKERNEL, at) as process:
        channel = await talk.ready()
        monitor = Monitor(
            channel,
            HeartbeatConfig(interval=SHORT),
            ProbeConfig(interval=SHORT),
            missed.append,
            answered.append,
        )
        stop(process)
        monitor.start()

        assert not await channel.ping(SHORT)
        assert await channel.is_busy(SHORT)
        await until(lambda: missed.count(Check.HEARTBEAT) >= 2 <= missed.count(Check.PROBE))
        assert [] == answered

        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: set(Check) <= set(answered))
        monitor.stop()


async def test_one_channel_serves_two_runs_at_an_address(at: Connection, talk: Talk) -> None:
    for _ in range(2):
        with running(IPYKERNEL, at):
            channel = await talk.ready()
            assert await channel.ping(TIMEOUT)
        assert not await channel.ping(SHORT)


async def test_a_shutdown_request_to_a_dying_kernel_does_not_reach_its_successor(
    at: Connection, talk: Talk
) -> None:
    with running(IPYKERNEL, at) as first:
        channel = await talk.ready()
        stop(first)
        assert not await channel.shutdown_request(restart=False, timeout=SHORT)
    assert not await channel.shutdown_request(restart=False, timeout=SHORT)
    with running(IPYKERNEL, at) as second:
        await talk.ready()
        client = await talk.start_client()
        reply = await client.execute("1", reply=True, timeout=TIMEOUT)
        assert "ok" == reply["content"]["status"]

        assert await channel.kernel_info(TIMEOUT) is not None
        assert second.poll() is None


# A fake kernel


async def test_nothing_asked_before_a_run_reaches_it(fake: FakeKernel, talk: Talk) -> None:
    channel = talk.channel
    with fake.serving():
        await talk.ready()
    fake.seen.clear()
    for _ in range(3):
        assert not await channel.shutdown_request(restart=False, timeout=SHORT)
        assert channel.send_ping(lambda _: None) is None
        assert channel.send_probe(lambda _: None) is None

    with fake.serving():
        assert await channel.kernel_info(TIMEOUT) is not None
        assert await channel.ping(TIMEOUT)

    assert {"hb": 1, "control": 1, "kernel_info_request": 1} == fake.seen


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
        await until(lambda: channel.line("control").drain() or channel.ignored >= 200)

        fake.answer = lambda name, request: [lie(fake, request), *fake.honest(name, request)]
        assert await channel.kernel_info(TIMEOUT) == {"status": "ok"}


async def test_a_replayed_answer_counts_once(fake: FakeKernel, talk: Talk) -> None:
    channel = talk.channel
    kept: list[Frames] = []

    def replay(name: str, request: Frames) -> list[Frames]:
        kept.extend(kept[:1] or fake.honest(name, request))
        return kept[-1:]

    fake.answer = replay
    with fake.serving():
        assert await channel.kernel_info(TIMEOUT) is not None
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

        assert await talk.channel.kernel_info(TIMEOUT) == {"status": "ok"}


async def test_another_program_met_at_the_port_is_got_over(fake: FakeKernel, talk: Talk) -> None:
    with socket.create_server(("127.0.0.1", fake.address.hb_port)) as server:
        ping = asyncio.create_task(talk.channel.ping(1.0))
        caller, _ = await asyncio.to_thread(server.accept)
        caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
        assert not await ping
        caller.close()

    with fake.serving():
        assert await talk.channel.ping(TIMEOUT)


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
            channel, HeartbeatConfig(interval=0.05), ProbeConfig(interval=0.05), missed.append, missed.append
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


async def test_an_ipv6_kernel_is_reached(tmp_path: Path) -> None:
    try:
        at = connection(tmp_path, ip="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert at.address is not None
    channel = Channel(at.address)
    with FakeKernel(at.address).serving():
        async with asyncio.timeout(TIMEOUT):
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
                channel.ping(TIMEOUT),
                channel.kernel_info(TIMEOUT),
                channel.kernel_info(TIMEOUT, "shell"),
                channel.wait_ready(),
                channel.wait_idle(),
            )
        ]
        await until(lambda: fake.seen["hb"] and fake.seen["control"] and fake.seen["shell"])
        channel.close()
        channel.close()
        async with asyncio.timeout(TIMEOUT):
            ended = await asyncio.gather(*waits, return_exceptions=True)

    assert [False, None, None] == ended[:3]
    assert [ConnectionAbortedError] * 2 == [type(error) for error in ended[3:]]
    assert not await channel.ping(TIMEOUT)
    assert not await channel.shutdown_request(restart=False)


async def test_a_renewed_address_is_the_one_that_is_asked(
    fake: FakeKernel, talk: Talk, tmp_path: Path
) -> None:
    other = connection(tmp_path, "other")
    assert other.address is not None
    talk.channel.renew(other.address)
    with fake.serving(), FakeKernel(other.address).serving() as second:
        assert await talk.channel.kernel_info(TIMEOUT) is not None

        assert 1 == second.seen["control"]
        assert 0 == fake.seen["control"]
    other.close()


async def test_a_closed_channel_leaves_nothing_open(fake: FakeKernel) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with fake.serving():
        counts = []
        for _ in range(5):
            channel = Channel(fake.address)
            await channel.wait_ready()
            await channel.wait_idle()
            channel.close()
            await until(lambda: not counts or descriptors() <= counts[0])
            counts.append(descriptors())

    assert counts[-1] <= counts[0]


# The checks


class Told:
    """What a monitor told, in order."""

    def __init__(self, channel: Channel, heartbeat: float = 0.05, probe: float = 0.05) -> None:
        self.facts: list[tuple[str, Check]] = []
        self.heartbeat, self.probe = HeartbeatConfig(interval=heartbeat), ProbeConfig(interval=probe)
        self.monitor = Monitor(
            channel,
            self.heartbeat,
            self.probe,
            lambda check: self.facts.append(("missed", check)),
            lambda check: self.facts.append(("answered", check)),
        )


async def test_a_stuck_kernel_is_asked_ever_more_seldom_and_one_answer_is_told(
    fake: FakeKernel, talk: Talk
) -> None:
    with fake.serving():
        told = Told(await talk.ready())
        told.monitor.configure(told.heartbeat, ProbeConfig(action="off"))
        fake.answer = lambda *_: []
        before = fake.seen["hb"]
        told.monitor.start()
        await until(lambda: len(told.facts) >= 9)
        assert {("missed", Check.HEARTBEAT)} == set(told.facts)
        # The first, and after 1, 2, 4 and 8 misses (16, if the machine is slow).
        assert 5 <= fake.seen["hb"] - before <= 6

        fake.answer = None
        await until(lambda: ("answered", Check.HEARTBEAT) in told.facts)
        settled, beats = len(told.facts), fake.seen["hb"]
        await until(lambda: fake.seen["hb"] >= beats + 5)
        told.monitor.stop()

    assert 1 == told.facts[:settled].count(("answered", Check.HEARTBEAT))


async def test_a_kernel_that_answers_is_not_spoken_of(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        told = Told(await talk.ready(), heartbeat=1.0, probe=1.0)
        before = fake.seen.copy()
        told.monitor.start()
        await until(
            lambda: fake.seen["hb"] >= before["hb"] + 3 and fake.seen["control"] >= before["control"] + 3
        )
        told.monitor.stop()

    assert [] == told.facts


async def test_a_check_that_is_off_asks_nothing_and_can_be_put_on_again(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        told = Told(await talk.ready())
        told.monitor.start()
        told.monitor.configure(HeartbeatConfig(action="off"), told.probe)
        # One more may be on its way.
        before = fake.seen.copy()
        await until(lambda: fake.seen["control"] >= before["control"] + 5)
        assert fake.seen["hb"] <= before["hb"] + 1

        told.monitor.configure(told.heartbeat, told.probe)
        await until(lambda: fake.seen["hb"] >= before["hb"] + 5)
        told.monitor.stop()


async def test_a_shorter_interval_is_in_force_at_once(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        told = Told(await talk.ready(), heartbeat=3600.0, probe=3600.0)
        told.monitor.start()
        told.monitor.configure(HeartbeatConfig(interval=0.05), told.probe)
        before = fake.seen["hb"]

        await until(lambda: fake.seen["hb"] >= before + 3)
        told.monitor.stop()


async def test_a_supervisor_that_was_kept_from_running_does_not_blame_the_kernel(
    fake: FakeKernel, talk: Talk
) -> None:
    with fake.serving():
        told = Told(await talk.ready(), heartbeat=1.0, probe=1.0)
        before = fake.seen["hb"]
        told.monitor.start()
        await until(lambda: fake.seen["hb"] > before)
        time.sleep(2.5)  # noqa: ASYNC251  the loop stands still for several intervals
        await until(lambda: fake.seen["hb"] >= before + 3)
        told.monitor.stop()

    assert [] == told.facts


async def test_nothing_is_told_after_stop_nor_after_close(
    fake: FakeKernel, talk: Talk, tmp_path: Path
) -> None:
    clock_at = connection(tmp_path, "clock")
    assert clock_at.address is not None
    clock = Told(Channel(clock_at.address))
    stopped, closed = Told(talk.channel), Told(Channel(fake.address))
    for told in (stopped, closed, clock):
        told.monitor.start()
    await until(lambda: stopped.facts and closed.facts)
    stopped.monitor.stop()
    stopped.monitor.stop()
    closed.monitor._routines[Check.PROBE]._channel.close()
    stopped.facts.clear()
    closed.facts.clear()
    clock.facts.clear()

    await until(lambda: len(clock.facts) >= 6)

    assert [] == stopped.facts == closed.facts
    clock.monitor.stop()
    clock.monitor._routines[Check.PROBE]._channel.close()
    clock_at.close()


async def test_the_checks_of_all_kernels_fall_together(
    fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    alarms: list[tuple[float, float]] = []
    call_at = loop.call_at
    channels = [Channel(fake.address) for _ in range(3)]
    monitors = [Told(channel, heartbeat=5.0, probe=10.0).monitor for channel in channels]
    for now in (12.3, 14.9, 13.0):
        monkeypatch.setattr(loop, "time", lambda now=now: now)
        monkeypatch.setattr(loop, "call_at", lambda at, f: alarms.append((now, at)) or call_at(1e9, f))  # noqa: B023
        monitors.pop().start()

    # 5 s: at 20 as 15 is too near for a whole interval; 10 s: at 20, or the one after.
    assert {20.0, 30.0} == {at for _, at in alarms}
    assert all(at - now >= 0.75 * 5.0 for now, at in alarms)
    for channel in channels:
        channel.close()
