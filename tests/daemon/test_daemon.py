"""How a daemon begins and how it ends: the order of things, its exit codes, and its last words."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.control.client import Client, target
from supervisor.control.watch import FileWatch
from supervisor.daemon import daemon as daemons
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.serving import serving
from supervisor.daemon.settings_file import LAST_GOOD, Rejected, SettingsFile
from supervisor.daemon.steered import SteeredDaemon
from supervisor.disk.lock import StateLock
from supervisor.observe.log import Log, configure
from supervisor.settings.config import Config
from supervisor.supervision.supervision import Supervision
from tests.e2e.conftest import scene
from tests.e2e.daemon import Scene, table
from tests.kernels.using import mini as command
from tests.waiting import DEADLINE, until, wait_for

__all__ = ["scene"]

NEVER_READY = ("--start-delay", "600")


# From outside, as a process


def test_a_door_that_cannot_be_opened_is_told_exits_1_and_starts_nothing(scene: Scene) -> None:
    scene.write(scene.mini("a"), supervisor='socket = "taken"')
    (scene.directory / "taken").write_text("a file of somebody")

    daemon = scene.begin()

    assert 1 == daemon.wait(DEADLINE)
    assert "kernel-supervisor: " in scene.log.read_text()
    assert "is not a socket: remove it, or name another" in scene.log.read_text()
    assert [] == scene.events("kernel.starting")
    assert [] == scene.processes()
    assert "a file of somebody" == (scene.directory / "taken").read_text()


def test_a_door_that_cannot_be_opened_leaves_the_kernels_of_before_alone(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    pids = scene.leaders()
    scene.kill()
    scene.write(scene.mini("a", stop_timeout="3.0"), supervisor='socket = "taken"')
    (scene.directory / "taken").write_text("a file of somebody")
    assert 1 == scene.begin().wait(DEADLINE)
    assert pids == scene.leaders()
    (scene.directory / "taken").unlink()

    scene.write(scene.mini("a", stop_timeout="3.0"))
    scene.start("a")

    assert pids == scene.leaders()


def test_sigterm_right_after_the_start_ends_it_and_leaves_nothing(scene: Scene) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    for pause in (0.0, 0.1, 0.2, 0.3, 0.4):
        daemon = scene.begin()
        # From the first moment on: what comes before it listens is carried out then.
        wait_for(lambda n=pause, pid=daemon.pid: n == 0.0 or _minds_sigterm(pid), "it begins")  # type: ignore[misc]
        threading.Event().wait(pause)
        daemon.send_signal(signal.SIGTERM)
        code = daemon.wait(DEADLINE)

        # Before the interpreter has come to our first line nobody can help it.
        assert code == 0 or (pause == 0.0 and code == -signal.SIGTERM), scene.log_end()
        assert [] == scene.processes()


def _minds_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line[:7] in ("SigBlk:", "SigCgt:")]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def test_detach_during_a_start_leaves_a_kernel_that_the_next_daemon_takes_up(scene: Scene) -> None:
    scene.write(scene.mini("a", *NEVER_READY))
    scene.begin()
    wait_for(lambda: scene.processes("a"), "it is launched")
    scene.stop(signal.SIGUSR2)
    pids = scene.leaders("a")
    assert [scene.record("a")["process"]["pid"]] == pids

    scene.start()

    assert pids == [scene.kernel("a")["pid"]]
    assert pids == scene.leaders("a")


def test_an_order_to_leave_is_not_undone_by_a_later_one(scene: Scene) -> None:
    scene.write(scene.mini("a", "--ignore", "SIGTERM", "--ignore-shutdown", stop_timeout="0.5"))
    daemon = scene.start("a")
    daemon.send_signal(signal.SIGTERM)
    scene.wait_event("daemon.stopping")

    for signum in (signal.SIGUSR2, signal.SIGHUP, signal.SIGUSR2):
        daemon.send_signal(signum)
    assert 422 == scene.ask("POST", "/v1/reload").status

    assert 0 == daemon.wait(DEADLINE)
    assert [] == scene.processes()
    assert [] == scene.events("daemon.detached")


@pytest.mark.parametrize(
    ("signum", "last"), [(signal.SIGTERM, "daemon.stopped"), (signal.SIGUSR2, "daemon.detached")]
)
def test_those_who_follow_find_its_last_words_and_then_an_orderly_end(
    scene: Scene, signum: int, last: str
) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    with Client([scene.socket]).connect() as connection:
        connection.send("GET", target("/v1/events", {"follow": True, "last": 0}))
        assert connection.open_stream() is None

        scene.stop(signum)

        assert last == [line["event"] for line in connection.lines(DEADLINE)][-1]


def test_a_last_good_file_is_gone_after_an_orderly_stop_and_kept_otherwise(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    wait_for((scene.state_dir / LAST_GOOD).exists, "it is kept")
    scene.stop(signal.SIGUSR2)
    assert (scene.state_dir / LAST_GOOD).exists()
    scene.config.write_text(scene.toml(scene.mini("a")) + "[")
    scene.start("a")
    assert scene.status()["config"]["last_good_in_use"]
    rejected = wait_for(lambda: scene.events("config.rejected"))  # told a moment after the first answer
    assert "the last good configuration" in rejected[-1]["in_force"]

    scene.stop()

    assert not (scene.state_dir / LAST_GOOD).exists()
    assert 78 == scene.begin().wait(DEADLINE)


def test_every_module_can_be_imported_where_there_is_no_linux() -> None:
    program = (
        "import watchdog.observers, psutil, zmq, tornado.httpserver, structlog, jupyter_core.paths\n"
        "import prometheus_client, jupyter_client.multikernelmanager\n"
        "import os, signal, socket, sys\n"
        "sys.platform = 'darwin'\n"
        "for module, names in ((os, 'pidfd_open O_PATH'), (signal, 'pidfd_send_signal SIGRTMIN SIGRTMAX'),\n"
        "                      (socket, 'SO_PEERCRED SOCK_NONBLOCK SOCK_CLOEXEC MSG_NOSIGNAL')):\n"
        "    for name in names.split():\n"
        "        delattr(module, name)\n"
        "import importlib, pkgutil, supervisor\n"
        "for found in pkgutil.walk_packages(supervisor.__path__, 'supervisor.'):\n"
        "    of_jupyter = found.name.startswith(('supervisor.jupyter.', 'supervisor.page.handlers'))\n"
        "    if not found.name.endswith('__main__') and not of_jupyter:\n"
        "        importlib.import_module(found.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE, check=False
    )

    assert ("", 0) == (done.stderr, done.returncode)


# From inside, where the moment counts


class Bench:
    """A daemon in this process, whose signals are method calls."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "kernels.toml"
        self.directory = directory
        self.logs: list[Log] = []
        self.running: list[asyncio.Task[int]] = []

    def write(self, *tables: str, head: str = "") -> None:
        self.path.write_text("\n".join([head, "[supervisor]", 'runtime_dir = "runtime"', *tables, ""]))

    def daemon(self) -> Daemon:
        file = SettingsFile(self.path)
        config = file.load_first(lambda: self.directory / "state")
        logs = configure("info", "json", io.StringIO())
        self.logs.append(logs)
        supervision = Supervision(config, self.directory / "state", self.directory / "runtime")
        return Daemon(file, config, supervision, logs)

    def begin(self, made: Daemon) -> asyncio.Task[int]:
        task = asyncio.create_task(made.run(self.directory / "control.sock", serving))
        self.running.append(task)
        return task

    async def start(self) -> tuple[Daemon, asyncio.Task[int]]:
        made = self.daemon()
        task = self.begin(made)
        await until(lambda: task.done() or self.told("config.loaded"))
        assert not task.done(), task.exception()
        return made, task

    def told(self, event: str) -> list[dict[str, Any]]:
        file = self.directory / "state/events.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line for line in lines if line["event"] == event]

    async def end(self, task: asyncio.Task[int]) -> int:
        return await asyncio.wait_for(task, DEADLINE)


def mini(name: str, *flags: str, **keys: str) -> str:
    return table(name, argv=json.dumps(command(*flags)), **keys)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for task in made.running:
        task.cancel()
    await asyncio.gather(*made.running, return_exceptions=True)
    for logs in made.logs:
        logs.close()


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is read when the test has it read, and not otherwise."""

    class Blind(FileWatch):
        async def run(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("supervisor.daemon.serving.FileWatch", Blind)


def stopped(bench: Bench) -> list[str]:
    return [line["event"] for line in map(dict, bench.told("daemon.stopped"))]


async def test_a_daemon_that_is_told_to_stop_before_it_serves_starts_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(mini("a"))
    made = bench.daemon()
    look_back = Supervision.look_back

    async def while_looking(supervision: Supervision) -> None:
        made.stop()
        await look_back(supervision)

    monkeypatch.setattr(Supervision, "look_back", while_looking)

    assert 0 == await bench.end(bench.begin(made))
    assert [] == bench.told("kernel.starting")
    assert [] == bench.told("config.loaded")
    assert ["daemon.stopped"] == stopped(bench)


async def test_a_third_sigterm_after_the_end_is_no_error(bench: Bench) -> None:
    bench.write(mini("a"))
    made, task = await bench.start()
    for _ in range(3):
        made.stop()
    await bench.end(task)

    made.stop()
    made.shutdown(now=True)
    made.reload_soon()

    assert ["daemon.stopped"] == stopped(bench)


async def test_a_shutdown_that_comes_after_a_detach_kills_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    submitted: list[object] = []
    monkeypatch.setattr(made.supervision.runner, "submit", submitted.append)

    made.detach()
    made.shutdown(now=True)
    made.stop()

    assert [] == submitted
    await bench.end(task)


async def test_what_cannot_be_ended_does_not_hold_up_the_exit_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(mini("a", stop_timeout="0.0"))
    made, task = await bench.start()
    kernels = made.supervision.runner.state.kernels
    await until(lambda: type(made.supervision.kernel("a").phase).__name__ == "Running")
    pid = made.supervision.kernel("a").phase.process.pid  # type: ignore[union-attr]
    kernel = made.supervision.host.entry("a").run.handle.kernel  # type: ignore[union-attr]
    monkeypatch.setattr("supervisor.supervision.supervision.LAST_PATIENCE", 0.1)
    # As of a process in an uninterruptible wait: no signal has an effect.
    for name in ("signal_group", "continue_group"):
        monkeypatch.setattr(f"supervisor.kernel.handle.{name}", lambda *_: None)
    monkeypatch.setattr("supervisor.kernel.channel.Channel.shutdown_request", _never)

    made.stop()
    assert 1 == await bench.end(task)

    assert ["a"] == list(kernels)
    os.kill(pid, signal.SIGKILL)
    kernel.kernel.wait(DEADLINE)  # type: ignore[attr-defined]
    record = json.loads((bench.directory / "state/kernels/a.json").read_bytes())
    assert pid == record["process"]["pid"]
    assert (bench.directory / "state" / LAST_GOOD).exists()


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(("launched", "edited"), [("10.0", "120.0"), ("120.0", "10.0")])
async def test_an_orderly_exit_waits_as_long_as_the_edited_stop_timeout_lets_a_kernel_take(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, launched: str, edited: str
) -> None:
    bench.write(mini("a", stop_timeout=launched))
    made, task = await bench.start()
    await until(lambda: type(made.supervision.kernel("a").phase).__name__ == "Running")
    bench.write(mini("a", stop_timeout=edited))
    assert None is await made.reload()
    monkeypatch.setattr("supervisor.supervision.supervision.LAST_PATIENCE", 1.0)

    assert float(edited) + 1.0 == made.supervision.longest_stop
    made.stop()
    assert 0 == await bench.end(task)


async def _never(*_: object, **__: object) -> bool:
    return False


@pytest.mark.usefixtures("unwatched")
async def test_a_reload_that_comes_too_late_is_not_accepted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    look, reading, go_on = made.file.look, threading.Event(), threading.Event()

    def slow() -> Config | Rejected | None:
        reading.set()
        go_on.wait(DEADLINE)
        return look()

    bench.write(mini("b"))
    monkeypatch.setattr(made.file, "look", slow)
    reload = asyncio.create_task(made.reload())
    await until(reading.is_set)
    made.stop()
    await bench.end(task)
    go_on.set()

    rejected = await reload

    assert isinstance(rejected, Rejected)
    assert "the daemon is leaving" in rejected.mistakes[0]
    assert [["a"]] == [line["kernels"] for line in bench.told("config.loaded")]
    assert not (bench.directory / "state" / LAST_GOOD).exists()


@pytest.mark.usefixtures("unwatched")
async def test_a_reload_whose_caller_has_gone_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    look, read, go_on = made.file.look, threading.Event(), threading.Event()

    def slow() -> Config | Rejected | None:
        seen = look()
        read.set()
        go_on.wait(DEADLINE)
        return seen

    monkeypatch.setattr(made.file, "look", slow)
    bench.write(mini("b", autostart="false"))
    reload = asyncio.create_task(made.reload())
    await until(read.is_set)
    reload.cancel()
    go_on.set()
    await asyncio.gather(reload, return_exceptions=True)

    assert await made.reload() is None

    assert ["b"] == made.supervision.names()
    made.stop()
    await bench.end(task)


@pytest.mark.usefixtures("unwatched")
async def test_a_reading_that_fails_ends_no_later_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    look, failures = made.file.look, [RuntimeError("can't start new thread")] * 2

    def failing() -> Config | Rejected | None:
        if failures:
            raise failures.pop()
        return look()

    monkeypatch.setattr(made.file, "look", failing)
    bench.write(mini("b", autostart="false"))

    async def until_read(count: int) -> None:
        made.reload_soon()
        await until(lambda: len(failures) <= count)

    await until_read(1)
    await until_read(0)
    made.reload_soon()
    await until(lambda: made.supervision.names() == ["b"])
    made.stop()
    await bench.end(task)


async def test_an_edit_between_the_first_reading_and_the_watch_is_not_missed(bench: Bench) -> None:
    bench.write(mini("a", autostart="false"))
    made = bench.daemon()
    bench.write(mini("b", autostart="false"))

    task = bench.begin(made)

    await until(lambda: made.supervision.is_open and made.supervision.names() == ["b"])
    made.stop()
    await bench.end(task)


@pytest.mark.usefixtures("unwatched")
async def test_a_disk_that_hangs_on_the_last_good_file_holds_up_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    keep: Callable[..., None] = daemons.keep_last_good
    monkeypatch.setattr(daemons, "keep_last_good", lambda *a: (go_on.wait(DEADLINE), keep(*a)))
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    bench.write(mini("b", autostart="false"))

    assert await made.reload() is None

    assert ["b"] == made.supervision.names()
    go_on.set()
    made.stop()
    await bench.end(task)


async def test_a_disk_that_hangs_when_the_lock_is_looked_at_holds_up_no_exit(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Supervision, "keep_lock", lambda _: go_on.wait())
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    try:
        made.stop()
        assert 0 == await bench.end(task)
    finally:
        go_on.set()

    assert ["daemon.stopped"] == stopped(bench)


async def test_a_daemon_that_is_told_to_stop_while_it_locks_anew_does_not_take_itself_for_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, look = threading.Barrier(2, timeout=0.5), StateLock.is_in_place

    def looked(lock: StateLock) -> bool:
        found = look(lock)
        with suppress(threading.BrokenBarrierError):
            both.wait()
        return found

    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    (bench.directory / "state/lock").unlink()
    monkeypatch.setattr(StateLock, "is_in_place", looked)

    assert [False, False] == await asyncio.gather(made._is_dispossessed(), made._is_dispossessed())

    made.stop()
    await bench.end(task)


@pytest.mark.usefixtures("unwatched")
async def test_a_plan_of_the_daemons_own_file_by_another_name_is_the_same(bench: Bench) -> None:
    bench.write(mini("a", autostart="false", cwd='"."'))
    made, task = await bench.start()
    link = made.file.path.parent / "link"
    link.symlink_to(made.file.path.parent)

    for path in (link / made.file.path.name, made.file.path):
        assert [] == [
            line["keys"] for line in (await SteeredDaemon(made).plan(str(path)))["kernels"] if line["keys"]
        ]

    made.detach()
    await bench.end(task)


@pytest.mark.usefixtures("unwatched")
async def test_reload_and_plan_tell_each_edited_key_of_the_daemon_itself(bench: Bench) -> None:
    bench.write(mini("a", autostart="false"))
    made, task = await bench.start()
    steered = SteeredDaemon(made)
    edited = 'on_exit = "keep"\nlog_format = "json"\n' + mini("a", autostart="false")
    both = [{"key": "log_format", "action": "pending"}, {"key": "on_exit", "action": "apply"}]
    bench.write(edited)

    assert both == (await steered.plan(None))["supervisor"]
    assert (both, []) == ((told := await steered.reload())["supervisor"], told["changes"])
    assert both[:1] == (await steered.reload())["supervisor"], "it still waits for the next daemon"
    bench.write(edited.replace("json", "auto"))
    assert [] == (await steered.reload())["supervisor"], "as the daemon has it from its begin on"
    made.detach()
    await bench.end(task)
