"""Several kernels under supervision inside an asyncio program."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor import KernelConfig, Supervisor
from supervisor.core.model import Cause
from supervisor.disk.lock import AlreadyLocked
from supervisor.settings.config import BackoffConfig
from supervisor.settings.file import ConfigError
from supervisor.supervision.embedded import OrderRefused, SupervisedKernel
from tests.cli.tools import ROOT
from tests.kernels.using import MINI, mini
from tests.waiting import DEADLINE, until


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path


def kernel(name: str, *flags: str, **settings: Any) -> KernelConfig:
    settings = {"backoff": BackoffConfig(next=0.0), "stop_timeout": 1.0, **settings}
    return KernelConfig(name=name, argv=tuple(mini(*flags)), **settings)


async def new_run(of: SupervisedKernel, generation: int) -> None:
    await until(lambda: of.generation > generation and of.pid is not None)
    await of.wait_ready(DEADLINE)


async def test_kernels_are_had_by_name_and_gone_afterwards(places: Path) -> None:
    async with Supervisor(kernel("a"), kernel("b"), kernel("idle", autostart=False)) as supervisor:
        assert ["a", "b", "idle"] == list(supervisor)
        assert 3 == len(supervisor)
        with pytest.raises(KeyError):
            supervisor["c"]
        for name in ("a", "b"):
            await supervisor[name].wait_ready(DEADLINE)
        a = supervisor["a"]
        pids = [supervisor["a"].pid, supervisor["b"].pid]
        assert ("running", "up", 1, 0, None) == (a.phase, a.want, a.generation, a.restarts, a.last_death)
        assert a.connection_file.exists()
        assert ("stopped", "down", None) == tuple(
            getattr(supervisor["idle"], each) for each in ("phase", "want", "pid")
        )
        assert "a" == a.status()["name"]

    assert not any(psutil.pid_exists(pid or 0) for pid in pids)
    assert [] == list((places / "runtime").glob("*.json"))
    assert [] == list((places / "temporary").iterdir())
    with pytest.raises(RuntimeError, match="enter the supervisor first"):
        list(supervisor)


async def test_orders_return_when_they_are_carried_out() -> None:
    async with Supervisor(kernel("a", autostart=False)) as supervisor:
        a = supervisor["a"]
        with pytest.raises(OrderRefused, match="not running"):
            await a.interrupt()
        with pytest.raises(OrderRefused, match="stopped"):
            await a.wait_ready()

        await a.start()
        first = a.pid
        await a.restart(now=True)
        assert ("running", 2) == (a.phase, a.generation)
        assert first != a.pid
        before = a.connection_file.read_bytes()
        await a.interrupt()
        await a.signal(0)
        await a.restart(new_ports=True)
        assert before != a.connection_file.read_bytes()
        await a.stop()
        assert "stopped" == a.phase
        await a.reset()
        assert "running" == a.phase
        await a.kill()
        assert ("stopped", "down") == (a.phase, a.want)


async def test_a_death_is_told_by_event_and_callback(places: Path) -> None:
    supervisor = Supervisor(kernel("a"), kernel("b"))
    told: list[Any] = []

    async def note(event: Any) -> None:
        told.append(event["event"])

    def gone() -> None:
        told.append("never")

    supervisor.add_restart_callback("a", note)
    supervisor.add_restart_callback("a", gone)
    supervisor.remove_restart_callback("a", gone)
    supervisor.add_restart_callback("b", gone)
    with pytest.raises(ValueError, match="reborn"):
        supervisor.add_restart_callback("a", note, "reborn")
    async with supervisor:
        a = supervisor["a"]
        await a.wait_ready(DEADLINE)
        seen = []
        async with supervisor.events("a") as events:
            os.kill(a.pid or 0, signal.SIGSEGV)
            async for event in events:
                seen.append(event["event"])
                if event["event"] == "kernel.ready":
                    break
        assert ["kernel.died", "kernel.restarting", "kernel.starting", "kernel.ready"] == seen
        await until(lambda: told)
        assert a.last_death is not None
        assert (Cause.CRASHED, "SIGSEGV") == (a.last_death.exit.cause, a.last_death.exit.signal)
        assert (2, 1) == (a.generation, a.restarts)
    assert ["kernel.restarting"] == told


async def test_a_death_calls_restart_once_and_giving_up_calls_dead_once() -> None:
    called: list[str] = []
    async with Supervisor(kernel("a", max_restarts=1)) as supervisor:
        supervisor.add_restart_callback("a", lambda: called.append("restart"), "restart")
        supervisor.add_restart_callback("a", lambda: called.append("dead"), "dead")
        await supervisor["a"].wait_ready(DEADLINE)
        os.kill(supervisor["a"].pid or 0, signal.SIGKILL)
        await new_run(supervisor["a"], 1)
        assert ["restart"] == called

        os.kill(supervisor["a"].pid or 0, signal.SIGKILL)
        await until(lambda: called[1:])
        assert ("failed", None) == (supervisor["a"].phase, supervisor["a"].pid)
    assert ["restart", "dead"] == called


def _raise() -> None:
    raise ValueError("a mistake of the program")


def _exit() -> None:
    sys.exit("a callback that wants to end the program")


@pytest.mark.parametrize("callback", [_raise, _exit])
async def test_a_callback_that_raises_delays_no_restart_and_the_next_one_is_called(
    callback: Callable[[], object],
) -> None:
    called = threading.Event()
    await _dies_twice(callback, called.set)

    assert called.is_set()


async def test_a_callback_that_hangs_delays_no_restart_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.supervision.supervision.CALLBACK_PATIENCE", 0.05)
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(DEADLINE)

    try:
        await _dies_twice(hang)
        assert begun.is_set()
    finally:
        release.set()


async def _dies_twice(*callbacks: Callable[[], object]) -> None:
    supervisor = Supervisor(kernel("a"))
    for callback in callbacks:
        supervisor.add_restart_callback("a", callback)
    async with asyncio.timeout(DEADLINE), supervisor:
        await supervisor["a"].wait_ready(DEADLINE)
        for generation in (1, 2):
            os.kill(supervisor["a"].pid or 0, signal.SIGKILL)
            await new_run(supervisor["a"], generation)


async def test_events_end_with_the_supervisor() -> None:
    async with Supervisor(kernel("a")) as supervisor:
        events = supervisor.events()
        await supervisor["a"].wait_ready(DEADLINE)

    async with asyncio.timeout(DEADLINE):
        seen = [event["event"] async for event in events]
    assert "kernel.stopped" == seen[-1]


async def test_a_kernel_that_is_given_up_refuses_an_order_with_the_reason() -> None:
    async with Supervisor(kernel("a", autostart=False)) as supervisor:
        await supervisor.reload(KernelConfig(name="a", argv=("/no/such/{connection_file}",)))
        with pytest.raises(OrderRefused, match="/no/such"):
            await supervisor["a"].start()
        assert "failed" == supervisor["a"].phase
        assert "/no/such" in supervisor["a"].reason


async def test_clients_reach_a_kernel() -> None:
    async with Supervisor(kernel("a")) as supervisor:
        await supervisor["a"].wait_ready(DEADLINE)
        client = supervisor["a"].client()
        client.start_channels()
        await client.wait_for_ready(timeout=DEADLINE)
        reply = await client.execute_interactive("1 + 1", timeout=DEADLINE, output_hook=lambda _: None)
        client.stop_channels()

    assert "ok" == reply["content"]["status"]


async def test_a_reload_touches_only_what_has_changed() -> None:
    async with Supervisor(kernel("a"), kernel("b")) as supervisor:
        for each in supervisor.values():
            await each.wait_ready(DEADLINE)
        before = supervisor["a"].pid, supervisor["b"].pid

        await supervisor.reload(kernel("a", max_restarts=9), kernel("b", "--exit-code", "1"), kernel("c"))
        await new_run(supervisor["b"], 1)
        await supervisor["c"].wait_ready(DEADLINE)
        assert before[0] == supervisor["a"].pid
        assert before[1] != supervisor["b"].pid

        with pytest.raises(ConfigError):
            await supervisor.reload(kernel("a", max_restarts=-1))
        assert ["a", "b", "c"] == list(supervisor)
        with pytest.raises(ValueError, match="no file"):
            await supervisor.reload()
        await supervisor.reload(kernel("c"))
        await until(lambda: ["c"] == list(supervisor))


KEEPS = """
import asyncio, sys
from supervisor import Supervisor

async def main():
    async with Supervisor.from_toml(sys.argv[1]) as supervisor:
        await supervisor["a"].wait_ready(30)
        print(supervisor["a"].pid, supervisor["a"].connection_file)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_file_is_taken_as_the_daemon_takes_it(places: Path) -> None:
    argv = ", ".join(f'"{element}"' for element in MINI)
    file = places / "kernels.toml"
    text = (
        '[supervisor]\nstate_dir = "state"\nruntime_dir = "files"\non_exit = "keep"\n'
        f"[kernels.a]\nargv = [{argv}]\n"
    )
    file.write_text(text)
    first = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KEEPS, str(file)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    told, _ = await first.communicate()
    pid, connection_file = told.decode().split()
    assert str(places / "files" / "kernel-a.json") == connection_file
    assert is_running(int(pid))

    file.write_text(text.replace('"keep"', '"stop"'))
    async with Supervisor.from_toml(file) as second:
        assert int(pid) == second["a"].pid
        with pytest.raises(AlreadyLocked):
            async with Supervisor.from_toml(file):
                pass
        file.write_text(f"{text}[kernels.b]\nargv = [{argv}]\n".replace('"keep"', '"stop"'))
        await second.reload()
        await second["b"].wait_ready(DEADLINE)
        assert (int(pid), ["a", "b"]) == (second["a"].pid, list(second))
    assert not is_running(int(pid))


async def test_mistakes_are_told_before_anything_is_started(places: Path) -> None:
    with pytest.raises(ConfigError, match="max_restarts"):
        Supervisor(kernel("a", max_restarts=-1))
    with pytest.raises(ValueError, match="twice: a"):
        Supervisor(kernel("a"), kernel("a"))
    with pytest.raises(ValueError, match="needs a state_dir"):
        Supervisor(kernel("a"), on_exit="keep")
    with pytest.raises(TypeError, match=r"'kernels\.toml' is no KernelConfig; .*from_toml"):
        Supervisor("kernels.toml")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="argv: TOML has no bytes"):
        Supervisor(KernelConfig(name="a", argv=(b"sh", "{connection_file}")))  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        Supervisor.from_toml(places / "none.toml")


async def test_kernels_are_gone_after_an_exception_and_after_a_cancellation() -> None:
    pids: list[int | None] = []

    async def work() -> None:
        async with Supervisor(kernel("a", "--ignore", "SIGINT,SIGTERM", "--ignore-shutdown")) as supervisor:
            await supervisor["a"].wait_ready(DEADLINE)
            pids.append(supervisor["a"].pid)
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await until(lambda: pids)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def fail() -> None:
        async with Supervisor(kernel("a")) as supervisor:
            await supervisor["a"].wait_ready(DEADLINE)
            pids.append(supervisor["a"].pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not any(psutil.pid_exists(pid or 0) for pid in pids)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the process that is left
async def test_leaving_ends_although_a_kernel_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for patience in ("LAST_PATIENCE", "EFFECT_PATIENCE"):
        monkeypatch.setattr(f"supervisor.supervision.supervision.{patience}", 0.1)
    # As of a process in an uninterruptible wait: no signal has an effect.
    for name in ("signal_group", "continue_group"):
        monkeypatch.setattr(f"supervisor.kernel.handle.{name}", lambda *_: None)
    monkeypatch.setattr("supervisor.kernel.channel.Channel.shutdown_request", _never)
    stubborn = KernelConfig(name="a", argv=tuple(MINI), stop_timeout=0.0)

    async with Supervisor(stubborn, runtime_dir=tmp_path) as supervisor:
        await until(lambda: supervisor["a"].pid)  # noqa: F821  deleted further down
        pid = supervisor["a"].pid

    assert "cannot be ended, and are left: a" in caplog.text
    os.kill(pid or 0, signal.SIGKILL)
    del supervisor
    gc.collect()  # here, and not in the test of somebody else
    with suppress(ChildProcessError):
        os.waitpid(pid or 0, 0)  # noqa: ASYNC222  it is dead


async def _never(*_: object, **__: object) -> None:
    await asyncio.Event().wait()
