"""The checks of a running kernel: what they ask, and what they tell."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.model import Check
from supervisor.kernel import monitor as monitors
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Connection
from supervisor.kernel.monitor import Monitor
from supervisor.process.identity import LINUX, identify
from supervisor.process.pulse import Pulse
from supervisor.settings.config import HeartbeatConfig, KernelConfig, ProbeConfig
from tests.kernel.kernels import IPYKERNEL, FakeKernel, Talk, connection, running, stop
from tests.waiting import DEADLINE, until

SHORT = 0.2  # what a wait for an answer that does not come lasts


def checks(heartbeat: HeartbeatConfig, probe: ProbeConfig) -> KernelConfig:
    return KernelConfig(name="a", heartbeat=heartbeat, probe=probe)


class Told:
    """What a monitor told, in order."""

    def __init__(self, channel: Channel, heartbeat: float = 0.05, probe: float = 0.05) -> None:
        self.facts: list[tuple[str, Check]] = []
        self.heartbeat, self.probe = HeartbeatConfig(interval=heartbeat), ProbeConfig(interval=probe)
        self.monitor = Monitor(
            channel,
            checks(self.heartbeat, self.probe),
            lambda check: self.facts.append(("missed", check)),
            lambda check: self.facts.append(("answered", check)),
        )


async def test_a_stuck_kernel_is_asked_ever_more_seldom_and_one_answer_is_told(
    fake: FakeKernel, talk: Talk
) -> None:
    with fake.serving():
        told = Told(await talk.ready())
        told.monitor.configure(checks(told.heartbeat, ProbeConfig(action="off")))
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


async def test_a_check_that_is_off_asks_nothing_and_can_be_put_on_again(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        told = Told(await talk.ready())
        told.monitor.start()
        told.monitor.configure(checks(HeartbeatConfig(action="off"), told.probe))
        # One more may be on its way.
        before = fake.seen.copy()
        await until(lambda: fake.seen["control"] >= before["control"] + 5)
        assert fake.seen["hb"] <= before["hb"] + 1

        told.monitor.configure(checks(told.heartbeat, told.probe))
        await until(lambda: fake.seen["hb"] >= before["hb"] + 5)
        told.monitor.stop()


async def test_a_shorter_interval_is_in_force_at_once(fake: FakeKernel, talk: Talk) -> None:
    with fake.serving():
        told = Told(await talk.ready(), heartbeat=3600.0, probe=3600.0)
        told.monitor.start()
        told.monitor.configure(checks(HeartbeatConfig(interval=0.05), told.probe))
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
        time.sleep(2.5 * told.heartbeat.interval)  # noqa: ASYNC251  the loop stands still for several
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
        monkeypatch.setattr(loop, "call_at", lambda at, *f: alarms.append((now, at)) or call_at(1e9, *f))  # noqa: B023
        monitors.pop().start()

    # 5 s: at 20 as 15 is too near for a whole interval; 10 s: at 20, or the one after.
    assert {20.0, 30.0} == {at for _, at in alarms}
    assert all(at - now >= 0.75 * 5.0 for now, at in alarms)
    for channel in channels:
        channel.close()


# What the system tells without waking the kernel


class Watched(Told):
    """The checks of a real kernel; ``asked`` are their questions."""

    def __init__(self, channel: Channel, pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(channel)
        self.asked: list[str] = []
        begin = channel.begin
        monkeypatch.setattr(
            channel, "begin", lambda name, heard: self.asked.append(name) or begin(name, heard)
        )
        self.looks = 0
        for routine in self.monitor._routines.values():
            routine._pulse = pulse = Pulse(identify(pid))
            monkeypatch.setattr(pulse, "is_doubtful", lambda look=pulse.is_doubtful: self._look(look))
        self.monitor.start()

    def _look(self, look: Callable[[], bool]) -> bool:
        self.looks += 1
        return look()

    async def calm(self) -> None:
        """Return once nothing is asked for eight looks."""
        looks, asked = self.looks, len(self.asked)
        async with asyncio.timeout(DEADLINE):
            while self.looks < looks + 8:
                if len(self.asked) > asked:
                    looks, asked = self.looks, len(self.asked)
                await asyncio.sleep(0.01)


@pytest.mark.skipif(not LINUX, reason="elsewhere it is asked at every interval")
async def test_a_kernel_that_does_nothing_is_not_asked_and_one_that_works_or_stands_still_is(
    at: Connection, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(IPYKERNEL, at) as process:
        told = Watched(await talk.ready(), process.pid, monkeypatch)
        client = await talk.start_client()
        await told.calm()
        before = len(told.asked)

        await client.execute("sum(range(100_000))", reply=True, timeout=DEADLINE)
        await until(lambda: {"hb", "control"} <= set(told.asked[before:]))
        await told.calm()
        stop(process)
        await until(lambda: {("missed", check) for check in Check} <= set(told.facts))
        os.kill(process.pid, signal.SIGCONT)
        await until(lambda: {("answered", check) for check in Check} <= set(told.facts))
        await told.calm()
        told.facts.clear()
        # Holds the interpreter, and sleeps.
        client.execute("import ctypes; ctypes.PyDLL(None).sleep(600)")
        await until(lambda: 3 <= told.facts.count(("missed", Check.PROBE)))
        told.monitor.stop()


@pytest.mark.skipif(not LINUX, reason="elsewhere it is asked at every interval")
async def test_of_a_kernel_behind_another_process_nothing_is_taken_for_granted(
    at: Connection, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = '"$@" & wait'
    with running(("sh", "-c", script, "sh", *IPYKERNEL), at) as process:
        told = Watched(await talk.ready(), process.pid, monkeypatch)

        await until(lambda: min(told.asked.count("hb"), told.asked.count("control")) >= 8)
        told.monitor.stop()


async def test_now_and_then_a_kernel_is_asked_without_a_reason(
    fake: FakeKernel, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitors, "_SELDOM", 0.2)
    monkeypatch.setattr(Pulse, "is_doubtful", lambda _: False)
    with fake.serving():
        channel = await talk.ready()
        monitor = Monitor(
            channel,
            checks(HeartbeatConfig(interval=0.05), ProbeConfig(action="off")),
            lambda _: None,
            lambda _: None,
            identify(os.getpid()),
        )
        before, began = fake.seen["hb"], time.monotonic()
        monitor.start()

        await until(lambda: fake.seen["hb"] >= before + 4)
        monitor.stop()

    assert time.monotonic() - began >= 2 * 0.2
