"""One run: whatever happens to it or to us, it is told exactly once that it ended, and how."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import pytest

from supervisor.core.actions import Apply, SignalGroup
from supervisor.core.events import Answered, Exited, Missed, Ready, Spawned
from supervisor.core.model import Cause, Check
from supervisor.kernel import local
from supervisor.kernel import run as runs
from supervisor.kernel.connection import Address
from supervisor.process.exit import wait_exit_alone
from supervisor.settings.config import HeartbeatConfig, ProbeConfig
from tests.kernel.hosting import Hosting, config
from tests.waiting import DEADLINE, until

QUICK = HeartbeatConfig(interval=0.05, misses=1)
OFF = ProbeConfig(action="off")


async def test_the_last_words_are_those_of_this_run(hosting: Hosting) -> None:
    await hosting.kill(await hosting.run(config("--say", "first")))

    exited = await hosting.kill(await hosting.run(config("--say", "second"), 2), 2)

    assert ("second",) == exited.exit.output_tail


async def test_checks_are_those_of_the_edit_that_came_while_it_started(hosting: Hosting) -> None:
    settings = config("--start-delay", "0.2", heartbeat=HeartbeatConfig(action="off"), probe=OFF)
    spawned = await hosting.spawn(settings)
    await hosting.perform(Apply("a", config("--start-delay", "0.2", heartbeat=QUICK, probe=OFF)))
    await hosting.first(Ready)

    os.kill(spawned.process.pid, signal.SIGSTOP)
    missed = await hosting.first(Missed)
    os.kill(spawned.process.pid, signal.SIGCONT)
    await hosting.first(Answered)

    assert Check.HEARTBEAT is missed.check


async def test_an_end_is_told_though_it_cannot_be_watched_for_a_while(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "WATCH_INTERVAL", 0.01)
    failures = [OSError(28, "No space left on device"), OSError(12, "Cannot allocate memory")]

    async def scarce(pidfd: int) -> None:
        if failures:
            raise failures.pop()
        await wait_exit_alone(pidfd)

    monkeypatch.setattr(local, "wait_exit_alone", scarce)
    spawned = await hosting.spawn(config())
    await hosting.kill(spawned)

    assert [] == failures
    assert 1 == len(hosting.of(Exited))


async def test_an_end_is_told_though_its_output_cannot_be_read(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> tuple[str, ...]:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(runs.OutputOfRun, "tail", fail)

    exited = await hosting.kill(await hosting.spawn(config()))

    assert "SIGKILL" == exited.exit.signal
    assert "cannot tell how kernel a ended" in caplog.text


async def test_a_reader_that_locks_the_output_does_not_hold_up_the_loop(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> tuple[str, ...]:
        reading.set()
        go_on.wait(DEADLINE)
        return ("at last",)

    monkeypatch.setattr(runs.OutputOfRun, "tail", slow)
    spawned = await hosting.spawn(config())
    os.kill(spawned.process.pid, signal.SIGKILL)
    # The loop goes on: else this would never be seen.
    await until(reading.is_set)
    assert [] == hosting.of(Exited)
    go_on.set()

    assert ("at last",) == (await hosting.first(Exited)).exit.output_tail


async def test_a_kernel_whose_port_is_taken_ends_with_that_cause_and_a_signal_by_its_name(
    hosting: Hosting,
) -> None:
    spawned = await hosting.spawn(config("--deaf", hold_ports=False))
    address = hosting.entry().connection.address
    assert isinstance(address, Address)
    with socket.create_server(("127.0.0.1", address.iopub_port)):
        exited = await hosting.kill(spawned)

    assert (Cause.PORT_TAKEN, None, "SIGKILL") == (exited.exit.cause, exited.exit.code, exited.exit.signal)
    assert (
        f"port {address.iopub_port} (iopub) is used by another program: pid {os.getpid()} ("
        in exited.exit.detail
    )


async def test_signals_to_a_run_that_has_ended_are_no_error(hosting: Hosting) -> None:
    spawned = await hosting.spawn(config())
    await hosting.kill(spawned)

    await hosting.perform(SignalGroup("a", 1, signal.SIGTERM))

    run = hosting.entry().run
    assert run is not None
    assert run.is_over
    await run.ask_to_exit(restart=False)
    run.watch_idle()
    await asyncio.wait_for(run.wait_told(), DEADLINE)
    assert 1 == len(hosting.of(Exited))
    assert isinstance(spawned, Spawned)
