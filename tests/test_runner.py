"""The loop: what is submitted is decided, what is decided is begun, and nothing is lost at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from supervisor import runner as runners
from supervisor.core.actions import AskToExit, Effect, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Exited, Load, Ready, Shutdown, Spawned, SpawnFailed, Start, Stop
from supervisor.core.model import (
    Backoff,
    Cause,
    Exit,
    Failed,
    Kernel,
    ProcessId,
    Running,
    Starting,
    State,
    Stopped,
    Stopping,
)
from supervisor.runner import Runner, RunnerClosed
from supervisor.settings.config import KernelConfig
from tests.waiting import DEADLINE, outlast, until

PROCESS = ProcessId(4242, 1, "boot")
DIED = Exit(Cause.CRASHED, signal="SIGSEGV")


class FakeHost:
    """Carries nothing out; a test answers."""

    def __init__(self) -> None:
        self.begun: list[Effect] = []
        self.remembered: list[Kernel] = []
        self.dismissed: list[str] = []
        self.report: Callable[[Any], object] = lambda fact: None
        self.gate: asyncio.Event | None = None

    def remember(self, kernel: Kernel, state: State) -> None:
        self.remembered.append(kernel)

    def dismiss(self, kernel: str) -> None:
        self.dismissed.append(kernel)

    async def perform(self, effect: Effect, report: Callable[[Any], object]) -> None:
        self.begun.append(effect)
        self.report = report
        if self.gate is not None and isinstance(effect, Spawn):
            await self.gate.wait()
            report(Spawned(effect.kernel, effect.generation, PROCESS))


class Bench:
    def __init__(self) -> None:
        self.host = FakeHost()
        self.runner = Runner(self.host)
        self.lines: list[Mapping[str, object]] = []
        self.runner.add_observer(self.lines.append)

    @property
    def kernel(self) -> Kernel:
        return self.runner.state.kernels["a"]

    def load(self, **settings: Any) -> None:
        self.runner.submit(Load({"a": KernelConfig(name="a", argv=("x",), **settings)}))

    async def run(self, **settings: Any) -> None:
        self.load(**settings)
        await asyncio.sleep(0)
        self.runner.submit(Spawned("a", 1, PROCESS))
        self.runner.submit(Ready("a", 1))

    def told(self) -> list[object]:
        return [line["event"] for line in self.lines]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_an_event_becomes_effects_lines_and_records(bench: Bench) -> None:
    await bench.run()

    assert [Spawn("a", 1, bench.kernel.declared)] == bench.host.begun
    assert isinstance(bench.kernel.phase, Running)
    assert ["kernel.starting", "kernel.ready"] == bench.told()
    assert bench.kernel is bench.host.remembered[-1]
    assert {"kernel": "a", "generation": 1, "pid": 4242, "level": "info"}.items() <= bench.lines[0].items()


async def test_a_kernel_that_leaves_the_state_is_dismissed(bench: Bench) -> None:
    bench.load(autostart=False)

    bench.runner.submit(Load({}))

    assert ["a"] == bench.host.dismissed


async def test_an_order_that_is_refused_says_why(bench: Bench) -> None:
    assert 'no kernel "a" is declared' == bench.runner.order(Start("a"))


async def test_what_is_submitted_within_a_decision_waits_for_its_turn(bench: Bench) -> None:
    bench.load(autostart=False)
    refused: list[object] = []
    bench.runner.add_observer(lambda line: refused.append(bench.runner.submit(Stop("nobody"))))

    assert bench.runner.order(Start("a")) is None
    await asyncio.sleep(0)
    bench.runner.submit(Spawned("a", 1, PROCESS))

    assert [[]] == refused


async def test_the_alarm_goes_off_at_the_deadline(bench: Bench) -> None:
    await bench.run(start_timeout=60.0, stop_timeout=0.02)

    bench.runner.order(Stop("a"))
    await until(lambda: any(isinstance(effect, SignalGroup) for effect in bench.host.begun))

    assert isinstance(bench.kernel.phase, Stopping)
    assert AskToExit("a", 1) in bench.host.begun


async def test_a_supervisor_that_was_stopped_itself_does_not_end_what_became_ready_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runners, "LOOK_INTERVAL", 0.05)
    bench.load(start_timeout=0.3)
    bench.runner.submit(Spawned("a", 1, PROCESS))
    loop = asyncio.get_running_loop()

    time.sleep(1.0)  # noqa: ASYNC251  the loop stands still
    # In the turn after that in which the alarm went off.
    loop.call_soon(loop.call_soon, bench.runner.submit, Ready("a", 1))
    await until(lambda: isinstance(bench.kernel.phase, Running | Stopping))

    assert isinstance(bench.kernel.phase, Running)


async def test_an_effect_that_raises_ends_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def perform(effect: Effect, report: object) -> None:
        raise RuntimeError("a mistake of ours")

    bench.host.perform = perform  # type: ignore[method-assign]
    bench.load()
    await bench.runner.wait_effects()

    bench.runner.submit(SpawnFailed("a", 1, DIED))

    assert "Spawn failed for kernel a" in caplog.text
    assert 2 == bench.kernel.generation


async def test_an_observer_that_fails_is_told_once_and_keeps_nobody_from_hearing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(line: Mapping[str, object]) -> None:
        raise ValueError("no")

    bench.runner.add_observer(fail)
    heard: list[object] = []
    bench.runner.add_observer(heard.append)

    await bench.run()

    assert 2 == len(heard)
    assert 1 == len([record for record in caplog.records if record.levelno == logging.ERROR])


async def test_settled_is_stopped_running_or_failed_and_gone_is_none(bench: Bench) -> None:
    bench.load(restart="never")
    waiting = asyncio.create_task(bench.runner.wait_settled("a", DEADLINE))
    await asyncio.sleep(0)
    bench.runner.submit(Spawned("a", 1, PROCESS))
    bench.runner.submit(Exited("a", 1, DIED))

    kernel = await waiting

    assert kernel is not None
    assert isinstance(kernel.phase, Failed)
    assert await bench.runner.wait_settled("nobody") is None


async def test_a_wait_ends_at_its_timeout(bench: Bench) -> None:
    bench.load()

    with pytest.raises(TimeoutError):
        await bench.runner.wait_settled("a", 0.01)


async def test_all_gone_is_when_no_process_and_no_effect_is_left(bench: Bench) -> None:
    await bench.run()
    bench.runner.submit(Shutdown())
    waiting = asyncio.create_task(bench.runner.wait_all_gone())
    await asyncio.sleep(0)
    assert not waiting.done()

    bench.runner.submit(Exited("a", 1, Exit(Cause.EXITED, code=0)))
    await asyncio.wait_for(waiting, DEADLINE)

    assert Stopped() == bench.kernel.phase
    assert Withdraw("a") == bench.host.begun[-1]


# The end


async def test_a_launch_under_way_at_the_end_is_put_on_record(bench: Bench) -> None:
    bench.host.gate = asyncio.Event()
    bench.load()
    await asyncio.sleep(0)

    bench.runner.close()
    bench.host.gate.set()
    await bench.runner.wait_effects()

    assert PROCESS == getattr(bench.host.remembered[-1].phase, "process", None)


async def test_a_stop_that_waits_for_a_launch_is_on_record_and_not_begun(bench: Bench) -> None:
    bench.host.gate = asyncio.Event()
    bench.load()
    bench.runner.order(Stop("a"))
    await asyncio.sleep(0)

    bench.runner.close()
    bench.host.gate.set()
    await bench.runner.wait_effects()

    assert isinstance(bench.host.remembered[-1].phase, Stopping)
    assert 1 == len(bench.host.begun)


async def test_after_the_end_nothing_is_begun(bench: Bench) -> None:
    bench.load()
    bench.runner.close()

    bench.runner.submit(SpawnFailed("a", 1, DIED))
    bench.runner.submit(Stop("a"))
    await bench.runner.wait_effects()

    assert isinstance(bench.kernel.phase, Starting | Backoff)
    assert [1] == [effect.generation for effect in bench.host.begun if isinstance(effect, Spawn)]
    assert "the supervisor has left" == bench.runner.order(Start("a"))


async def test_a_death_after_the_end_is_left_for_the_next_supervisor_to_find(bench: Bench) -> None:
    await bench.run()
    bench.runner.close()

    bench.runner.submit(Exited("a", 1, DIED))

    assert isinstance(bench.host.remembered[-1].phase, Running)


async def test_nobody_waits_beyond_the_end(bench: Bench) -> None:
    bench.load()
    waiting = asyncio.create_task(bench.runner.wait_settled("a"))
    await asyncio.sleep(0)

    bench.runner.close()

    with pytest.raises(RunnerClosed):
        await asyncio.wait_for(waiting, DEADLINE)
    with pytest.raises(RunnerClosed):
        await bench.runner.wait_for_change()


async def test_an_effect_that_never_ends_is_given_up_when_it_is_cancelled(bench: Bench) -> None:
    bench.host.gate = asyncio.Event()
    bench.load()

    bench.runner.cancel_effects()
    await asyncio.wait_for(bench.runner.wait_effects(), DEADLINE)


async def test_a_mistake_in_what_is_remembered_does_not_cost_a_decision_its_effect(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bench.host, "remember", lambda *_: 1 / 0)

    await bench.run()

    assert isinstance(bench.runner.state.kernels["a"].phase, Running)
    assert "cannot be" in caplog.text


async def test_no_alarm_is_left_behind(bench: Bench) -> None:
    await bench.run(stop_timeout=0.01)
    bench.runner.order(Stop("a"))
    bench.runner.close()

    await outlast(0.01)

    assert [AskToExit] == [type(effect) for effect in bench.host.begun if not isinstance(effect, Spawn)]
