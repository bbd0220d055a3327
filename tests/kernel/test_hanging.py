"""What hangs or is wanting around a kernel: it keeps nobody unwatched, and no other kernel waiting."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from supervisor.core.actions import Apply, Spawn, Withdraw
from supervisor.core.events import Exited, Spawned, SpawnFailed
from supervisor.core.model import Cause, Kernel, Running, State, Want
from supervisor.disk import off_loop
from supervisor.kernel import entry as entries
from supervisor.kernel import line as lines
from supervisor.kernel import run as runs
from supervisor.kernel.connection import CHANNELS
from supervisor.process.exit import OomWatch
from supervisor.settings.config import KernelConfig, OutputConfig, PortsConfig
from tests.kernel.hosting import Hosting, config, take_over
from tests.kernels.using import mini
from tests.waiting import DEADLINE, until, wait_for


class Gate:
    """Something that hangs until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def hanging(*arguments: Any, **keywords: Any) -> Any:
            self.reached.set()
            self.opened.wait(DEADLINE)
            return work(*arguments, **keywords)

        return hanging

    async def wait_reached(self) -> None:
        await until(self.reached.is_set)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.opened.set()


class NoThread(threading.Thread):
    """Where the system makes no more threads (pthread_create(3), EAGAIN)."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


# Launches


async def failed(hosting: Hosting, generation: int = 1, settings: KernelConfig | None = None) -> SpawnFailed:
    await hosting.perform(Spawn("a", generation, settings or config()))
    return hosting.of(SpawnFailed)[-1]


@pytest.mark.parametrize("step", ["resolve", "choose", "remove_stale_sockets", "write"])
async def test_a_launch_that_hangs_is_given_up_and_tried_again_once_nothing_hangs(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate, step: str
) -> None:
    entry = hosting.entry()
    owner: Any = entry._launcher if step == "resolve" else entry.connection
    monkeypatch.setattr(owner, step, gate.before(getattr(owner, step)))
    monkeypatch.setattr(off_loop, "PATIENCE", 0.05)

    first = await failed(hosting)
    assert (1, Cause.UNKNOWN, True) == (first.generation, first.exit.cause, first.exit.is_passing)
    assert "no answer from the system within" in first.exit.detail
    second = await failed(hosting, 2)
    assert (2, True) == (second.generation, second.exit.is_passing)
    assert "an earlier attempt still waits" in second.exit.detail
    monkeypatch.setattr(off_loop, "PATIENCE", DEADLINE)
    gate.opened.set()
    await until(lambda: not entry._launching.busy_for)

    spawned = await hosting.run_again(config(), 3)

    assert [spawned] == hosting.of(Spawned)


async def test_a_file_that_is_written_too_late_does_not_outlive_the_withdrawal(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    from supervisor.kernel import connection

    monkeypatch.setattr(connection, "write_atomically", gate.before(connection.write_atomically))
    monkeypatch.setattr(off_loop, "PATIENCE", 0.05)
    await failed(hosting)

    withdrawal = hosting.begin(Withdraw("a"))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.wait_for(withdrawal, DEADLINE)

    assert not hosting.places.connection_file("a").exists()


@pytest.mark.parametrize("step", ["leave", "remove"])
async def test_a_launch_does_not_wait_for_ever_for_what_was_to_be_done_before(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate, step: str
) -> None:
    entry = hosting.entry()
    owner: Any = entry.connection if step == "remove" else entry._equipment.warmth
    monkeypatch.setattr(owner, step, gate.before(getattr(owner, step)))
    withdrawal = hosting.begin(Withdraw("a"))
    await gate.wait_reached()
    with monkeypatch.context() as impatient:
        impatient.setattr(entries, "TURN_PATIENCE", 0.05)
        impatient.setattr(off_loop, "PATIENCE", 0.05)
        told = await failed(hosting)

    assert told.exit.is_passing
    gate.opened.set()
    await asyncio.wait_for(withdrawal, DEADLINE)
    await hosting.run_again(config(), 2)


async def test_a_machine_that_makes_no_threads_is_asked_again(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        scarce.setattr(off_loop, "THREADS", off_loop.Threads())
        told = await failed(hosting)

    assert told.exit.is_passing
    assert "no thread is to be had" in told.exit.detail
    await hosting.run_again(config(), 2)


async def test_a_disk_of_the_output_that_hangs_keeps_no_kernel_from_coming_back_and_no_death_from_being_told(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    output = hosting.entry().output
    monkeypatch.setattr(output, "rotate", gate.before(output.rotate))
    monkeypatch.setattr(output, "tail_since", gate.before(output.tail_since))
    monkeypatch.setattr(entries, "OUTPUT_PATIENCE", 0.05)
    monkeypatch.setattr(runs, "TAIL_PATIENCE", 0.05)

    exited = await hosting.kill(await hosting.run(config("--say", "lost")))

    assert "SIGKILL" == exited.exit.signal
    assert (
        "(the output cannot be read: last words of kernel a: no answer from the system within 0.05 s"
        in (exited.exit.output_tail[0])
    )
    assert "what kernel a writes is lost until its next launch" in str(hosting.troubles)
    gate.opened.set()
    await until(lambda: not hosting.entry()._writing.busy_for)
    again = await hosting.kill(await hosting.run(config("--say", "kept"), 2), 2)
    assert ("kept",) == again.exit.output_tail
    assert dict(hosting.troubles)["output of kernel a"] is None


async def test_output_that_cannot_be_rotated_does_not_keep_a_kernel_from_coming_back(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hosting.entry().output, "rotate", refuse)
    monkeypatch.setattr(hosting.entry().output, "position", refuse)
    settings = config("--say", "hello", output=OutputConfig(backups=0))
    await hosting.kill(await hosting.run(settings))

    exited = await hosting.kill(await hosting.run(settings, 2), 2)

    assert "hello" == exited.exit.output_tail[-1]
    assert "cannot rotate the output of kernel a: [Errno 5] Input/output error" in caplog.text


async def test_output_that_has_no_place_keeps_no_kernel_from_coming_back_and_is_told(
    hosting: Hosting,
) -> None:
    directory = hosting.entry().output.path.parent
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_text("somebody else's")

    lost = await hosting.kill(await hosting.run(config("--say", "lost")))

    assert "SIGKILL" == lost.exit.signal
    assert "(the output cannot be read: [Errno 20]" in lost.exit.output_tail[0]
    told = [text for what, text in hosting.troubles if what == "output of kernel a"]
    assert "what kernel a writes is lost until its next launch" in str(told[-1])
    directory.unlink()
    kept = await hosting.kill(await hosting.run(config("--say", "kept"), 2), 2)
    assert ("kept",) == kept.exit.output_tail
    assert ("output of kernel a", None) in hosting.troubles


async def test_kernels_that_exchange_their_ports_come_back_at_once_where_no_run_needs_them(
    hosting: Hosting,
) -> None:
    spawned = [await hosting.run(config(name=name)) for name in "ab"]
    was = {name: hosting.entry(name).connection.address for name in "ab"}
    for count, one in enumerate(spawned, 1):
        await hosting.kill(one, count)

    def at(name: str, other: str) -> KernelConfig:
        its = was[other]
        assert its is not None
        given = {channel: its.port(channel) for channel in CHANNELS}
        return config(name=name, ports=PortsConfig(**given))

    await hosting.run_again(at("a", "b"), 2)
    await hosting.run_again(at("b", "a"), 2)

    for name, other in ("ab", "ba"):
        now, before = hosting.entry(name).connection.address, was[other]
        assert now is not None
        assert before is not None
        assert before.tcp_places() == now.tcp_places()


# Adoptions


async def test_an_adopted_kernel_is_watched_though_no_thread_is_to_be_had(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = await take_over(hosting, next_host, config())
    hosting.places.connection_file("a").unlink()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        await next_host.adopt(spawned, config(kernelspec="python3"))

    await next_host.kill(spawned)

    assert 1 == len(next_host.of(Exited))


async def test_the_end_of_an_adopted_kernel_is_told_though_everything_else_about_it_hangs(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    spawned = await take_over(hosting, next_host, config())
    entry = next_host.entry()
    monkeypatch.setattr(entries, "interrupt_mode", gate.before(entries.interrupt_mode))
    entry.spec_mode = ""  # as an older version has recorded it
    monkeypatch.setattr(entry.connection, "write", gate.before(entry.connection.write))
    adoption = next_host.begin_adoption(spawned, config())
    await gate.wait_reached()

    await next_host.kill(spawned)

    assert not adoption.done()
    gate.opened.set()
    await asyncio.wait_for(adoption, DEADLINE)


async def test_hanging_adoptions_do_not_hold_up_the_deaths_of_others(
    next_host: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    # As many as the loop's own executor has threads at most.
    launcher = next_host.entry()._launcher
    hanging = gate.before(launcher.resolve)
    monkeypatch.setattr(launcher, "resolve", lambda c: launcher_resolve(c) if c.name == "a" else hanging(c))
    launcher_resolve = type(launcher).resolve.__get__(launcher)
    launches = [next_host.begin(Spawn(f"k{n}", 1, config(name=f"k{n}"))) for n in range(40)]
    await gate.wait_reached()

    await next_host.kill(await next_host.run(config()))

    gate.opened.set()
    await asyncio.wait(launches, timeout=DEADLINE)


async def test_a_kernel_of_which_nobody_knows_where_it_listens_is_watched_all_the_same(
    hosting: Hosting, next_host: Hosting
) -> None:
    spawned = await hosting.run(config())
    address = hosting.entry().connection.address
    assert address is not None
    await hosting.leave()
    pinned = config(ports=PortsConfig(**{channel: address.port(channel) for channel in CHANNELS}))

    await next_host.adopt(spawned, pinned)
    running = Running(pinned, spawned.process, 0.5)
    next_host.host.remember(Kernel("a", pinned, Want.UP, running, 1), State())
    await next_host.host.flush()
    record = next_host.record()
    assert record is not None
    assert (spawned.process, None) == (record.process, record.address)
    await next_host.kill(spawned)

    assert 1 == len(next_host.of(Exited))
    assert address.to_json() == hosting.places.connection_file("a").read_bytes()


# How an adopted kernel is interrupted


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernelspec with interrupt_mode "message"."""
    path = tmp_path / "jupyter" / "kernels" / "by-message" / "kernel.json"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path.write_text(json.dumps({"argv": mini(), "interrupt_mode": "message"}))
    return path


BY_SPEC = KernelConfig(name="a", kernelspec="by-message")


def rewrite(spec: Path, *, has_spec: bool) -> None:
    spec.write_text(json.dumps({"argv": mini()}))
    if not has_spec:
        spec.unlink()


def mode(hosting: Hosting) -> str:
    run = hosting.entry().run
    assert run is not None
    return run.interrupt_mode


@pytest.mark.parametrize("settings", [config(), BY_SPEC], ids=["signal", "message"])
async def test_an_adopted_kernel_is_interrupted_as_its_kernelspec_said_at_its_launch(
    hosting: Hosting, next_host: Hosting, spec: Path, settings: KernelConfig
) -> None:
    spawned = await take_over(hosting, next_host, settings)
    os.unlink(spec)  # noqa: PTH108 - ASYNC240 refuses the other way

    await next_host.adopt(spawned, settings)

    assert ("message" if settings is BY_SPEC else "signal") == mode(next_host)


@pytest.mark.parametrize("has_spec", [True, False])
async def test_one_that_an_older_version_recorded_is_interrupted_by_message_unless_its_kernelspec_says_so(
    hosting: Hosting, next_host: Hosting, spec: Path, caplog: pytest.LogCaptureFixture, *, has_spec: bool
) -> None:
    spawned = await take_over(hosting, next_host, BY_SPEC)
    next_host.entry().spec_mode = ""
    rewrite(spec, has_spec=has_spec)

    await next_host.adopt(spawned, BY_SPEC)

    assert ("signal" if has_spec else "message") == mode(next_host)
    assert ("cannot tell how kernel a is interrupted" in caplog.text) is not has_spec


async def test_an_edit_that_comes_while_a_kernel_cannot_be_watched_yet_counts(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "ADOPT_INTERVAL", 0.01)
    spawned = await take_over(hosting, next_host, config())
    adopted, edited = entries.AdoptedKernel, asyncio.Event()

    def scarce(*arguments: Any, **keywords: Any) -> Any:
        if not edited.is_set():
            raise OSError(24, "Too many open files")
        return adopted(*arguments, **keywords)

    monkeypatch.setattr(entries, "AdoptedKernel", scarce)
    adoption = next_host.begin_adoption(spawned, config())
    await next_host.perform(Apply("a", config(interrupt_mode="message")))
    edited.set()
    await asyncio.wait_for(adoption, DEADLINE)

    assert "message" == mode(next_host)


# What libzmq needs


def zmq_threads() -> set[str]:
    names = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            names[task.name] = (task / "comm").read_text()
        except OSError:
            continue
    return {task for task, name in names.items() if name.startswith("ZMQbg")}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_the_threads_of_libzmq_are_there_before_the_first_kernel() -> None:
    with zmq.Context() as context:
        before = zmq_threads()

        lines.make_threads(context)

        # Each takes its name when it begins.
        wait_for(lambda: len(zmq_threads() - before) == 2)
        opened = zmq_threads()
        context.socket(zmq.DEALER).close()
        assert opened == zmq_threads()


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_when_libzmq_makes_its_threads_those_that_showed_that_it_can_count_no_more() -> None:
    class Seeing(zmq.Context[zmq.Socket[bytes]]):
        def socket(self, *arguments: Any, **options: Any) -> Any:
            seen.append({task.name for task in Path("/proc/self/task").iterdir()})
            return super().socket(*arguments, **options)

    seen: list[set[str]] = []
    before = {task.name for task in Path("/proc/self/task").iterdir()}
    with Seeing() as context:
        lines.make_threads(context)

    assert set() == seen[0] - before


def test_where_no_threads_are_to_be_had_is_told_and_libzmq_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines.threading, "Thread", NoThread)

    with zmq.Context() as context:
        before = zmq_threads()
        with pytest.raises(BlockingIOError, match="no thread is to be had"):
            lines.make_threads(context)
        assert before == zmq_threads()


# The count of the OOM killer


async def test_what_the_oom_killer_did_to_a_run_that_is_over_is_not_taken_for_its_past(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = await hosting.spawn(config())
    run = hosting.entry().run
    assert run is not None
    asked: list[bool] = []
    monkeypatch.setattr(OomWatch, "renew", lambda _, is_alive: asked.append(is_alive()))

    run.look()
    os.kill(spawned.process.pid, 9)
    os.waitid(os.P_PID, spawned.process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it is as good as dead
    run.look()

    assert [True, False] == asked
