"""Talking to kernels of three kinds: when they are ready, busy, idle, stopped, dead."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Connection
from tests.kernel.kernels import (
    BASH_KERNEL,
    DENO,
    IPYKERNEL,
    Talk,
    channel_to,
    connection,
    output_of,
    running,
    stop,
)
from tests.waiting import DEADLINE

SHORT = 0.2  # what a wait for an answer that does not come lasts
EVER = "import time\nwhile True: time.sleep(0.001)"
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


async def test_a_kernel_on_ipc_is_ready(tmp_path: Path) -> None:
    at = connection(tmp_path, transport="ipc")
    assert at.address is not None
    channel = Channel(at.address)
    for _ in range(2):
        at.remove_stale_sockets()
        with running(IPYKERNEL, at) as process:
            async with asyncio.timeout(DEADLINE):
                await channel.wait_ready()
            process.kill()
    channel.close()
    at.close()


async def test_an_idle_kernel_exits_when_it_is_asked_to(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at) as process:
        channel = await talk.ready()

        assert await channel.shutdown_request(restart=False)

        assert 0 <= await asyncio.to_thread(process.wait, DEADLINE), output_of(at).read_text()


async def test_a_busy_kernel_is_interrupted_by_message(at: Connection, talk: Talk) -> None:
    with running(IPYKERNEL, at):
        channel = await talk.ready()
        client = await talk.start_client()
        client.execute(EVER)
        await client.get_iopub_msg(timeout=DEADLINE)
        assert await channel.is_busy(SHORT)

        assert await channel.interrupt_request()

        async with asyncio.timeout(DEADLINE):
            await channel.wait_idle()


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


async def test_two_runs_at_an_address_are_each_ready(at: Connection, talk: Talk) -> None:
    for _ in range(2):
        with running(IPYKERNEL, at):
            channel = await talk.ready()
            assert await channel.ping(DEADLINE)
        assert not await channel.ping(SHORT)
        channel.close()
        talk.channel = channel_to(at)


async def test_a_shutdown_request_to_a_dying_kernel_does_not_reach_its_successor(
    at: Connection, talk: Talk
) -> None:
    with running(IPYKERNEL, at) as first:
        channel = await talk.ready()
        stop(first)
        assert not await channel.shutdown_request(restart=False, timeout=SHORT)
        channel.send_probe(lambda _: None)
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
