"""Lock, records, machine, host and observers together, in one asyncio program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.events import Restart, Start, Stop
from supervisor.core.model import (
    Cause,
    Death,
    Exit,
    Failed,
    Kernel,
    Running,
    Stopped,
    Want,
    process_of,
)
from supervisor.kernel import handle as handles
from supervisor.kernel.handle import LocalHandle
from supervisor.kernel.subproc import KernelManager
from supervisor.settings.config import Config, KernelConfig
from supervisor.supervision.supervision import Supervision, outcome
from tests.kernel.hosting import config
from tests.waiting import DEADLINE, until

# The child is of another session and outlives the kernel.
WITH_CHILD = (
    sys.executable,
    "-c",
    "import subprocess, time; c = subprocess.Popen(['sleep', '600'], start_new_session=True);"
    "print(c.pid, flush=True); time.sleep(600)",
    "{connection_file}",
)


class Bench:
    """Supervisions on one state directory, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[dict[str, Any]] = []
        self.supervision: Supervision | None = None
        self.pids: set[int] = set()
        self.left: list[Any] = []

    async def open(self, *kernels: KernelConfig) -> Supervision:
        declared = Config(kernels={kernel.name: kernel for kernel in kernels})
        made = Supervision(declared, self.directory / "state", self.directory / "runtime")
        made.add_observer(self._hear)
        made.lock()
        made.open()
        await made.look_back()
        made.take_up()
        made.load(declared)
        self.supervision = made
        return made

    def _hear(self, line: Any) -> None:
        self.lines.append(dict(line))
        if line.get("pid"):
            self.pids.add(line["pid"])

    async def close(self) -> None:
        assert self.supervision is not None
        entries = list(self.supervision.host._entries.values())
        await asyncio.wait_for(self.supervision.close(), DEADLINE)
        self.supervision.unlock()
        # What it leaves running is reaped by the test.
        handles = [entry.run.handle for entry in entries if entry.run is not None]
        self.left += [handle.kernel for handle in handles if isinstance(handle, LocalHandle)]
        self.supervision = None

    async def running(self, name: str = "a") -> Kernel:
        assert self.supervision is not None
        kernel = await self.supervision.runner.wait_settled(name, DEADLINE)
        assert kernel is not None
        assert isinstance(kernel.phase, Running), kernel
        return kernel

    def told(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def record(self, name: str = "a") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / f"state/kernels/{name}.json").read_bytes())
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    if made.supervision is not None:
        await asyncio.wait_for(made.supervision.stop_all(now=True), DEADLINE)
        await made.close()
    for pid in made.pids:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    for handle in made.left:
        if isinstance(handle, KernelManager) and isinstance(handle.kernel, subprocess.Popen):
            handle.kernel.wait(DEADLINE)


def pid_of(kernel: Kernel) -> int:
    process = process_of(kernel)
    assert process is not None
    return process.pid


async def test_an_orderly_stop_ends_all_and_the_file_decides_at_the_next_start(bench: Bench) -> None:
    supervision = await bench.open(config(), config(name="b"))
    pids = [pid_of(await bench.running(name)) for name in ("a", "b")]

    await supervision.stop_all()
    await bench.close()

    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert (None, None, None) == (
        bench.record()["want"],
        bench.record()["process"],
        bench.record()["spawned_at"],
    )
    assert [] == list((bench.directory / "runtime").glob("*.json"))


async def test_the_address_is_the_same_after_an_orderly_stop_and_a_start(bench: Bench) -> None:
    supervision = await bench.open(config())
    await bench.running()
    before = supervision.places.connection_file("a").read_bytes()
    await supervision.stop_all()
    await bench.close()

    supervision = await bench.open(config())
    await bench.running()

    assert before == supervision.places.connection_file("a").read_bytes()


async def test_what_was_stopped_or_had_failed_stays_so_after_a_detach(bench: Bench) -> None:
    failing = KernelConfig(name="failed", argv=("/nowhere", "{connection_file}"))
    supervision = await bench.open(config(), config(name="stopped"), failing)
    before = pid_of(await bench.running())
    await bench.running("stopped")
    await supervision.order(Stop("stopped"))
    await supervision.runner.wait_settled("failed", DEADLINE)
    await bench.close()

    supervision = await bench.open(config(), config(name="stopped"), failing)

    assert before == pid_of(await bench.running())
    assert isinstance(supervision.kernel("stopped").phase, Stopped)
    assert isinstance(supervision.kernel("failed").phase, Failed)


async def test_a_launch_under_way_at_the_end_is_on_record_before_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from supervisor.kernel import launch

    launching, go_on, spawn = threading.Event(), threading.Event(), launch.spawn

    def slow(*arguments: Any) -> Any:
        launching.set()
        go_on.wait(DEADLINE)
        return spawn(*arguments)

    monkeypatch.setattr(launch, "spawn", slow)
    supervision = await bench.open(config())
    await until(launching.is_set)
    closing = asyncio.create_task(bench.close())
    await until(lambda: supervision.runner.order(Start("a")) is not None)
    assert not closing.done()
    go_on.set()
    await closing

    process = bench.record()["process"]
    assert process is not None
    os.kill(process["pid"], 0)


async def test_children_that_left_are_named_before_an_orderly_stop_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = handles.marked_processes
    # As on a machine with very many processes.
    monkeypatch.setattr(handles, "marked_processes", lambda *a: (time.sleep(0.2), marked(*a))[1])
    supervision = await bench.open(KernelConfig(name="a", argv=WITH_CHILD, stop_timeout=0.0))
    output = supervision.places.output_file("a")
    await until(lambda: output.exists() and output.read_text().endswith("\n"))
    child = int(output.read_text())
    try:
        await asyncio.wait_for(supervision.stop_all(now=True), DEADLINE)

        assert [[child]] == [line["pids"] for line in bench.told("kernel.escaped")]
    finally:
        os.kill(child, signal.SIGKILL)


# Orders


async def test_an_order_waits_for_what_comes_of_it(bench: Bench) -> None:
    supervision = await bench.open(config(autostart=False))

    ok, message, kernel = await supervision.order(Start("a"), timeout=DEADLINE)
    assert kernel is not None
    assert (True, f"running (pid {pid_of(kernel)})") == (ok, message)
    assert (True, "stopped") == (await supervision.order(Stop("a"), timeout=DEADLINE))[:2]


async def test_an_order_that_takes_longer_stands(bench: Bench) -> None:
    supervision = await bench.open(config("--start-delay", "60", autostart=False))

    ok, message, kernel = await supervision.order(Start("a"), timeout=0.05)

    assert (False, "not done after 0.05 s; the order stands") == (ok, message)
    assert kernel is not None
    assert Want.UP is kernel.want


async def test_an_order_that_a_later_one_undoes_says_so(bench: Bench) -> None:
    supervision = await bench.open(config())
    await bench.running()

    restart = asyncio.create_task(supervision.order(Restart("a"), timeout=DEADLINE))
    await asyncio.sleep(0)
    await supervision.order(Stop("a"), timeout=DEADLINE)

    assert (False, "stopped by a later order") == (await restart)[:2]


async def test_who_waits_for_an_order_at_the_end_is_told(bench: Bench) -> None:
    supervision = await bench.open(config("--start-delay", "60"))
    waiting = asyncio.create_task(supervision.order(Start("a")))
    await until(lambda: process_of(supervision.kernel("a")))

    await bench.close()

    assert (False, "the supervisor has left; the order stands") == (await waiting)[:2]


@pytest.mark.parametrize(
    ("order", "phase", "expected"),
    [
        (Stop("a"), Failed("x"), (True, "failed: x")),
        (Start("a"), Failed("x"), (False, "failed: x")),
        (Stop("a"), Stopped(), (True, "stopped")),
        (Start("a"), Stopped(), (False, "stopped by a later order")),
    ],
)
def test_what_came_of_an_order(order: Any, phase: Any, expected: tuple[bool, str]) -> None:
    assert expected == outcome(order, Kernel("a", config(), Want.UP, phase))
    assert (isinstance(order, Stop), "removed") == outcome(order, None)


CLEAN, CRASHED = Exit(Cause.EXITED, code=0), Exit(Cause.CRASHED, code=7)


@pytest.mark.parametrize(
    ("restart", "exit", "generation", "is_known", "expected"),
    [
        ("on-failure", CLEAN, 3, False, "ended by itself: exit code 0"),
        ("never", CLEAN, 3, False, "ended by itself: exit code 0"),
        # These would have come back, or were told of before: an order ended it.
        ("always", CLEAN, 3, False, "stopped by a later order"),
        ("on-failure", CRASHED, 3, False, "stopped by a later order"),
        ("never", CLEAN, 2, False, "stopped by a later order"),
        ("never", CLEAN, 3, True, "stopped by a later order"),
    ],
)
def test_who_orders_a_start_is_told_that_the_program_ended_by_itself(
    restart: Any, exit: Exit, generation: int, is_known: bool, expected: str
) -> None:
    death = Death(generation, 7, 10.0, 2.0, exit)
    kernel = Kernel("a", config(restart=restart), Want.DOWN, Stopped(), 3, deaths=(death,) if death else ())

    assert (False, expected) == outcome(Start("a"), kernel, death if is_known else None)
    assert (True, "stopped") == outcome(Stop("a"), kernel, None)


async def test_a_start_of_a_program_that_ends_before_it_is_ready_tells_how_it_ended(bench: Bench) -> None:
    argv = (sys.executable, "-c", "pass", "{connection_file}")
    settings = KernelConfig(name="a", argv=argv, restart="on-failure", autostart=False)
    supervision = await bench.open(settings)

    for _ in range(2):
        assert (False, "ended by itself: exit code 0") == (await supervision.order(Start("a")))[:2]


# What is wrong


async def test_a_trouble_is_told_once_and_gone_when_it_is_over(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    supervision = await bench.open()

    for _ in range(3):
        supervision.note_trouble("a", "the disk is full")
    assert ["the disk is full"] == supervision.degraded()
    for _ in range(3):
        supervision.note_trouble("a", None)

    assert [] == supervision.degraded()
    assert (1, 1) == (caplog.text.count("the disk is full"), caplog.text.count("recovered: a"))


async def test_a_kernel_of_a_newer_version_is_left_alone(bench: Bench) -> None:
    records = bench.directory / "state" / "kernels"
    records.mkdir(mode=0o700, parents=True)
    for directory in (records, records.parent):
        directory.chmod(0o700)
    (records / "a.json").write_text('{"version": 99, "name": "a"}')

    supervision = await bench.open(config(), config(name="b"))
    await bench.running("b")

    assert ["b"] == supervision.names()
    assert ["b"] == [planned.kernel for planned in supervision.plan(supervision.config)]
    assert "the kernel is left alone" in supervision.degraded()[0]
    assert '{"version": 99, "name": "a"}' == (records / "a.json").read_text()
