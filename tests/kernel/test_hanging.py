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

from supervisor.core.actions import Adopt, Apply, InterruptKernel, Spawn, Withdraw
from supervisor.core.events import Exited, Spawned, SpawnFailed
from supervisor.core.model import Cause, Kernel, Running, State, Want
from supervisor.disk import errand as errands
from supervisor.disk.errand import begin
from supervisor.kernel import entry as entries
from supervisor.kernel import equipment as equipments
from supervisor.kernel import mode as modes
from supervisor.kernel import run as runs
from supervisor.kernel.connection import CHANNELS
from supervisor.kernel.equipment import Equipment
from supervisor.settings.config import KernelConfig, OutputConfig, PortsConfig
from tests.kernel.hosting import Hosting, config, take_over, until
from tests.kernels.using import TIMEOUT, mini
from tests.kernels.using import until as wait_until


class Gate:
    """Something that hangs until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def hanging(*arguments: Any) -> Any:
            self.reached.set()
            self.opened.wait(TIMEOUT)
            return work(*arguments)

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


@pytest.mark.parametrize("step", ["resolve", "choose", "remove_stale_sockets", "write", "rotate"])
async def test_a_launch_that_hangs_is_given_up_and_tried_again_once_nothing_hangs(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate, step: str
) -> None:
    entry = hosting.entry()
    owner: Any = {"resolve": entry._launcher, "rotate": entry.output}.get(step, entry.connection)
    monkeypatch.setattr(owner, step, gate.before(getattr(owner, step)))
    monkeypatch.setattr(errands, "STEP_PATIENCE", 0.05)

    first = await failed(hosting)
    assert (1, Cause.UNKNOWN, True) == (first.generation, first.exit.cause, first.exit.is_passing)
    assert "has not answered within" in first.exit.detail
    second = await failed(hosting, 2)
    assert (2, True) == (second.generation, second.exit.is_passing)
    assert "an earlier attempt still waits" in second.exit.detail
    monkeypatch.setattr(errands, "STEP_PATIENCE", TIMEOUT)
    gate.opened.set()
    begun = entry._steps._begun
    assert begun is not None
    await asyncio.wait({begun}, timeout=TIMEOUT)

    spawned = await hosting.run_again(config(), 3)

    assert [spawned] == hosting.of(Spawned)


async def test_a_file_that_is_written_too_late_does_not_outlive_the_withdrawal(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    from supervisor.kernel import connection

    monkeypatch.setattr(connection, "write_atomically", gate.before(connection.write_atomically))
    monkeypatch.setattr(errands, "STEP_PATIENCE", 0.05)
    await failed(hosting)

    withdrawal = hosting.begin(Withdraw("a"))
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.wait_for(withdrawal, TIMEOUT)

    assert not hosting.places.connection_file("a").exists()


async def test_a_launch_does_not_wait_for_ever_for_what_was_to_be_done_before(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    remove = hosting.entry().connection.remove
    monkeypatch.setattr(hosting.entry().connection, "remove", gate.before(remove))
    monkeypatch.setattr(entries, "TURN_PATIENCE", 0.05)
    withdrawal = hosting.begin(Withdraw("a"))
    await gate.wait_reached()

    told = await failed(hosting)

    assert told.exit.is_passing
    gate.opened.set()
    await asyncio.wait_for(withdrawal, TIMEOUT)
    await hosting.run_again(config(), 2)


async def test_a_machine_that_makes_no_threads_is_asked_again(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        told = await failed(hosting)

    assert told.exit.is_passing
    assert "no thread is to be had" in told.exit.detail
    await hosting.run_again(config(), 2)


async def test_what_a_pool_without_threads_has_queued_is_not_done_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    done: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as scarce:
            scarce.setattr(threading, "Thread", NoThread)
            with pytest.raises(BlockingIOError, match="no thread is to be had"):
                begin(done.append, "called off", pool=pool)
        await asyncio.wait_for(begin(done.append, "later", pool=pool), TIMEOUT)

    assert ["later"] == done


async def test_output_that_cannot_be_rotated_does_not_keep_a_kernel_from_coming_back(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hosting.entry().output, "rotate", refuse)
    monkeypatch.setattr(hosting.entry().output, "position", refuse)
    settings = config("--say", "hello", output=OutputConfig(max_bytes=1, backups=0))
    await hosting.kill(await hosting.run(settings))

    exited = await hosting.kill(await hosting.run(settings, 2), 2)

    assert "hello" == exited.exit.output_tail[-1]
    assert "cannot rotate the output of kernel a: [Errno 5] Input/output error" in caplog.text


async def test_kernels_that_exchange_their_ports_wait_for_each_other_and_come_back(hosting: Hosting) -> None:
    spawned = [await hosting.run(config(name=name)) for name in "ab"]
    was = {name: hosting.entry(name).connection.address for name in "ab"}
    for count, one in enumerate(spawned, 1):
        await hosting.kill(one, count)

    def at(name: str, other: str) -> KernelConfig:
        its = was[other]
        assert its is not None
        given = {channel: its.port(channel) for channel in CHANNELS}
        return config(name=name, ports=PortsConfig(**given))

    await hosting.perform(Spawn("a", 2, at("a", "b")))
    told = hosting.of(SpawnFailed)[-1]
    assert (Cause.PORT_TAKEN, True) == (told.exit.cause, told.exit.is_passing)
    await hosting.run_again(at("b", "a"), 2)
    await hosting.run_again(at("a", "b"), 3)

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
    monkeypatch.setattr(entry._launcher, "interrupt_mode", gate.before(entry._launcher.interrupt_mode))
    monkeypatch.setattr(entry.connection, "write", gate.before(entry.connection.write))
    adoption = next_host.begin_adoption(spawned, config())
    await gate.wait_reached()

    await next_host.kill(spawned)

    assert not adoption.done()
    gate.opened.set()
    await asyncio.wait_for(adoption, TIMEOUT)


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
    await asyncio.wait(launches, timeout=TIMEOUT)


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
    directory = tmp_path / "jupyter" / "kernels" / "by-message"
    directory.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    spec_of(directory / "kernel.json", *mini())
    return directory / "kernel.json"


def spec_of(path: Path, *argv: str) -> None:
    content = {"argv": argv, "interrupt_mode": "message", "display_name": "", "language": "python"}
    path.write_text(json.dumps(content))


def mode(hosting: Hosting) -> str:
    run = hosting.entry().run
    assert run is not None
    return run.interrupt_mode


async def test_a_kernel_whose_directory_and_program_are_gone_is_interrupted_as_its_kernelspec_says(
    hosting: Hosting, next_host: Hosting, spec: Path, tmp_path: Path
) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    settings = KernelConfig(name="a", kernelspec="by-message", cwd=str(place))
    spawned = await take_over(hosting, next_host, settings)
    spec_of(spec, "/nowhere/at/all", "{connection_file}")
    place.rmdir()

    await next_host.adopt(spawned, settings)

    assert "message" == mode(next_host)


@pytest.mark.usefixtures("spec")
@pytest.mark.parametrize(
    "edited", [config(kernelspec="by-message"), config(interrupt_mode="message")], ids=["spec", "key"]
)
async def test_an_edit_of_how_it_is_interrupted_that_comes_with_the_adoption_counts(
    hosting: Hosting, next_host: Hosting, edited: KernelConfig
) -> None:
    settings = config(kernelspec="by-message", interrupt_mode="signal")
    spawned = await take_over(hosting, next_host, settings)

    adoption = next_host.begin_adoption(spawned, settings)
    apply = next_host.begin(Apply("a", edited))
    await asyncio.wait_for(asyncio.gather(adoption, apply), TIMEOUT)

    assert "message" == mode(next_host)


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
    await asyncio.wait_for(adoption, TIMEOUT)

    assert "message" == mode(next_host)


@pytest.mark.usefixtures("spec")
async def test_an_interrupt_waits_until_it_is_known_how(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    settings = KernelConfig(name="a", kernelspec="by-message")
    spawned = await take_over(hosting, next_host, settings)
    launcher, used = next_host.entry()._launcher, []

    async def note(run: runs.Run) -> None:
        used.append(run.interrupt_mode)

    monkeypatch.setattr(runs.Run, "interrupt", note)
    monkeypatch.setattr(modes, "MODE_PATIENCE", TIMEOUT)
    monkeypatch.setattr(launcher, "interrupt_mode", gate.before(launcher.interrupt_mode))
    adoption = next_host.begin(Adopt("a", 1, spawned.process, settings, ready=True))
    next_host.pids.append(spawned.process.pid)
    interrupt = next_host.begin(InterruptKernel("a", 1))
    await gate.wait_reached()
    assert [] == used
    gate.opened.set()
    await asyncio.wait_for(asyncio.gather(adoption, interrupt), TIMEOUT)

    assert ["message"] == used


BY_SPEC = KernelConfig(name="a", kernelspec="by-message")
BY_SIGNAL = KernelConfig(name="a", kernelspec="by-signal")


@pytest.fixture
def signal_spec(spec: Path) -> Path:
    """A kernelspec with interrupt_mode "signal", beside the other."""
    directory = spec.parent.with_name("by-signal")
    directory.mkdir()
    content = {"argv": mini(), "display_name": "", "language": "python"}
    (directory / "kernel.json").write_text(json.dumps(content))
    return directory / "kernel.json"


@pytest.mark.usefixtures("signal_spec")
@pytest.mark.parametrize("passing", [OSError(11, "no thread"), OSError(5, "Input/output error")])
async def test_a_mode_that_cannot_be_looked_up_yet_is_the_harmless_one_and_looked_up_again(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch, passing: OSError
) -> None:
    spawned = await take_over(hosting, next_host, BY_SIGNAL)
    launcher, failing = next_host.entry()._launcher, threading.Event()
    look = launcher.interrupt_mode
    failing.set()

    def scarce(config: KernelConfig) -> str:
        if failing.is_set():
            raise passing
        return look(config)

    monkeypatch.setattr(launcher, "interrupt_mode", scarce)
    monkeypatch.setattr(modes, "MODE_INTERVAL", 0.01)
    await next_host.adopt(spawned, BY_SIGNAL)
    assert "message" == mode(next_host)
    failing.clear()

    await until(lambda: "signal" == mode(next_host))


@pytest.mark.usefixtures("signal_spec")
async def test_a_mode_whose_look_up_hangs_is_the_harmless_one_until_nothing_hangs(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    spawned = await take_over(hosting, next_host, BY_SIGNAL)
    launcher, used = next_host.entry()._launcher, []

    async def note(run: runs.Run) -> None:
        used.append(run.interrupt_mode)

    monkeypatch.setattr(runs.Run, "interrupt", note)
    monkeypatch.setattr(launcher, "interrupt_mode", gate.before(launcher.interrupt_mode))
    monkeypatch.setattr(modes, "MODE_PATIENCE", 0.01)
    monkeypatch.setattr(modes, "MODE_INTERVAL", 0.01)
    adoption = next_host.begin_adoption(spawned, BY_SIGNAL)
    await gate.wait_reached()
    await next_host.perform(InterruptKernel("a", 1))
    monkeypatch.setattr(errands, "STEP_PATIENCE", 0.01)
    gate.opened.set()
    await asyncio.wait_for(adoption, TIMEOUT)
    await until(lambda: "signal" == mode(next_host))
    await next_host.perform(InterruptKernel("a", 1))

    assert ["message", "signal"] == used


@pytest.mark.usefixtures("signal_spec")
async def test_a_look_up_that_was_given_up_is_not_begun_a_second_time_and_takes_up_an_edit(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch, gate: Gate
) -> None:
    spawned = await take_over(hosting, next_host, BY_SPEC)
    launcher, looks = next_host.entry()._launcher, []
    hanging = gate.before(launcher.interrupt_mode)

    def look(config: KernelConfig) -> str:
        looks.append(config)
        answer: str = hanging(config)
        return answer

    monkeypatch.setattr(launcher, "interrupt_mode", look)
    monkeypatch.setattr(errands, "STEP_PATIENCE", 0.01)
    monkeypatch.setattr(modes, "MODE_INTERVAL", 0.001)
    tries = count_tries(next_host, monkeypatch)
    await next_host.adopt(spawned, BY_SPEC)
    await until(lambda: len(tries) > 3)
    assert ([BY_SPEC], "message") == (looks, mode(next_host))

    await next_host.perform(Apply("a", config(interrupt_mode="signal")))

    assert "signal" == mode(next_host)
    trying = next_host.entry()._mode._trying
    assert trying is None


def count_tries(hosting: Hosting, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    tries: list[object] = []
    do = errands.Steps.do

    async def counted(steps: errands.Steps, work: Any, *arguments: object) -> Any:
        if work == hosting.entry()._launcher.interrupt_mode:
            tries.append(work)
        return await do(steps, work, *arguments)

    monkeypatch.setattr(errands.Steps, "do", counted)
    return tries


@pytest.mark.usefixtures("spec")
async def test_a_mode_is_not_looked_up_any_more_once_the_run_is_over(
    hosting: Hosting, next_host: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = await take_over(hosting, next_host, BY_SPEC)

    def fail(_: KernelConfig) -> str:
        raise OSError(11, "no thread")

    monkeypatch.setattr(next_host.entry()._launcher, "interrupt_mode", fail)
    monkeypatch.setattr(modes, "MODE_INTERVAL", 0.01)
    await next_host.adopt(spawned, BY_SPEC)
    trying = next_host.entry()._mode._trying
    assert trying is not None
    assert not trying.done()

    await next_host.kill(spawned)

    await asyncio.wait_for(trying, TIMEOUT)


@pytest.mark.parametrize(
    ("scarce", "taken"), [(OSError(24, "Too many open files"), "message"), (None, "signal")]
)
async def test_a_kernelspec_that_is_gone_is_told_from_one_that_cannot_be_looked_for(
    hosting: Hosting,
    next_host: Hosting,
    spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    scarce: OSError | None,
    taken: str,
) -> None:
    spawned = await take_over(hosting, next_host, BY_SPEC)
    os.unlink(spec)  # noqa: PTH108 - ASYNC240 refuses the other way

    def refuse(_: Path) -> Iterator[Path]:
        assert scarce is not None
        raise scarce

    with monkeypatch.context() as patched:
        if scarce is not None:
            patched.setattr(Path, "iterdir", refuse)
        await next_host.adopt(spawned, BY_SPEC)

    assert taken == mode(next_host)
    assert ("SIGINT is taken" in caplog.text) is (taken == "signal")


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

        Equipment(context=context).open()

        # Each takes its name when it begins.
        wait_until(lambda: len(zmq_threads() - before) == 2)
        opened = zmq_threads()
        context.socket(zmq.DEALER).close()
        assert opened == zmq_threads()


def test_where_no_threads_are_to_be_had_is_told_and_libzmq_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(equipments.threading, "Thread", NoThread)

    with zmq.Context() as context:
        before = zmq_threads()
        with pytest.raises(BlockingIOError, match="no more threads"):
            Equipment(context=context).open()
        assert before == zmq_threads()


# The count of the OOM killer


async def test_what_the_oom_killer_did_to_a_run_that_is_over_is_not_taken_for_its_past(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = await hosting.spawn(config())
    run = hosting.entry().run
    assert run is not None
    asked: list[bool] = []
    monkeypatch.setattr(run._oom, "renew", lambda is_alive: asked.append(is_alive()))

    run.note_well()
    os.kill(spawned.process.pid, 9)
    os.waitid(os.P_PID, spawned.process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it is as good as dead
    run.note_well()

    assert [True, False] == asked
