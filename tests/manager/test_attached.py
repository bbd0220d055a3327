"""A manager of a kernel that a daemon supervises."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.model import Cause, Exit
from supervisor.manager import AsyncKernelManager, KernelManager
from tests.e2e.daemon import Scene, table
from tests.kernels.using import MINI, is_ready
from tests.manager.managing import die
from tests.waiting import DEADLINE, until, wait_for


class Daemon(Scene):
    def attach(self, name: str = "analysis") -> KernelManager:
        return KernelManager.attach(name, socket=self.socket)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    made = Daemon(tmp_path_factory.mktemp("d"))
    argv = json.dumps(MINI)
    made.write(
        table("analysis", argv=argv, backoff="{ next = 0.0 }", max_restarts="20"),
        table("leaving", argv=argv),
        table("spare", argv='["false", "{connection_file}"]', autostart="false", max_restarts="1"),
    )
    made.start()
    yield made
    made.clean_up()


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[KernelManager]:
    made = daemon.attach()
    if not made.has_kernel:
        made.start_kernel()
    made.wait_ready(30)
    yield made
    made.cleanup()


def pid_in(client: Any) -> int:
    wait_for(lambda: is_ready(client))
    told: list[Any] = []
    client.execute_interactive("import os; print(os.getpid())", timeout=30, output_hook=told.append)
    return int("".join(message["content"]["text"] for message in told if message["msg_type"] == "stream"))


def test_it_is_a_kernel_manager_of_that_kernel(manager: KernelManager) -> None:
    assert isinstance(manager, KernelManager)
    assert "analysis" == manager.kernel_id
    assert manager.connection_file.endswith("/runtime/kernel-analysis.json")
    assert (True, True) == (manager.is_alive(), manager.has_kernel)
    assert 0 != manager.shell_port
    assert manager.key == manager.session.key


def test_its_clients_survive_a_restart(manager: KernelManager) -> None:
    client = manager.client()
    client.start_channels()
    before = pid_in(client)
    assert before == manager.pid

    manager.restart_kernel(now=True)

    assert before != manager.pid
    assert manager.pid == pid_in(client)
    client.stop_channels()


def test_its_clients_ask_the_daemon(manager: KernelManager, daemon: Daemon) -> None:
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    client.execute("import time; time.sleep(600)")
    assert client.is_alive()
    _kill(manager, signal.SIGKILL)
    assert not client.is_alive()  # what it waits for will never come
    client.wait_for_ready(timeout=30)
    assert client.is_alive()
    client.stop_channels()

    daemon.kill()
    assert client.is_alive()  # the kernel lives, and waits for the next daemon
    daemon.start()
    manager.wait_ready(30)
    assert (False, None) == (manager.owns_kernel, manager.kernel)
    for theirs in (
        manager.write_connection_file,
        manager.cleanup_random_ports,
        lambda: setattr(manager, "connection_file", "x.json"),
    ):
        with pytest.raises(TypeError, match="is the daemon's"):
            theirs()
    manager.shutdown_kernel()
    assert not client.is_alive()


async def test_orders_to_the_daemon_may_be_awaited(daemon: Daemon) -> None:
    manager = AsyncKernelManager.attach("analysis", socket=daemon.socket)
    told: list[str] = []
    if not manager.has_kernel:
        await manager.start_kernel()
    await manager.wait_ready(30)
    manager.add_restart_callback(lambda: told.append(threading.current_thread().name), "restarted")
    client = manager.client()
    client.start_channels()
    await client.wait_for_ready(timeout=30)

    await manager.restart_kernel(now=True)

    assert (True, True) == (await manager.is_alive(), await client.is_alive())
    client.stop_channels()
    await until(lambda: told)
    assert ["MainThread"] == told
    with pytest.raises(TypeError, match="cwd"):
        await manager.restart_kernel(cwd="/")
    await manager.cleanup_resources()
    assert manager.has_kernel


def test_orders_reach_the_daemon(manager: KernelManager, daemon: Daemon) -> None:
    manager.interrupt_kernel()
    manager.signal_kernel(0)
    with pytest.raises(RuntimeError, match="runs already"):
        manager.start_kernel()

    manager.shutdown_kernel()
    assert (False, False) == (manager.is_alive(), manager.has_kernel)
    manager.shutdown_kernel()
    with pytest.raises(RuntimeError):
        manager.interrupt_kernel()
    with pytest.raises(RuntimeError):
        manager.signal_kernel(0)
    with pytest.raises(RuntimeError):
        manager.wait_ready()

    manager.start_kernel()
    assert (True, True) == (manager.is_alive(), manager.has_kernel)
    manager.request_shutdown()
    manager.finish_shutdown(waittime=20)
    assert daemon.attach().is_alive() is False


def test_what_the_file_says_is_not_to_be_said_again(manager: KernelManager) -> None:
    with pytest.raises(TypeError, match="cwd: what is launched"):
        manager.restart_kernel(cwd="/")
    with pytest.raises(RuntimeError, match="daemon's file"):
        manager.format_kernel_cmd()


def test_deaths_are_told_through_a_crash_of_the_daemon(manager: KernelManager, daemon: Daemon) -> None:
    told: list[str | None] = []
    manager.add_restart_callback(lambda: told.append(manager.last_exit.signal if manager.last_exit else None))
    _kill(manager, signal.SIGSEGV)
    wait_for(lambda: told == ["SIGSEGV"])

    daemon.kill()
    assert manager.is_alive() is True  # the kernel is; the daemon is not
    with pytest.raises(ConnectionError, match="no daemon answers"):
        manager.restart_kernel()
    daemon.start()
    manager.wait_ready(30)
    _kill(manager, signal.SIGKILL)

    wait_for(lambda: len(told) == 2)
    assert ["SIGSEGV", "SIGKILL"] == told
    manager.cleanup()
    assert all(thread.name != "events of analysis" for thread in threading.enumerate())


def _kill(manager: KernelManager, signum: int) -> None:
    die(manager, signum)
    manager.wait_ready(DEADLINE)


def test_an_ordered_restart_tells_how_the_run_that_it_ended_did(manager: KernelManager) -> None:
    _kill(manager, signal.SIGSEGV)
    told: list[Exit | None] = []
    manager.add_restart_callback(lambda: told.append(None))
    manager.add_restart_callback(lambda: told.append(manager.last_exit), "restarted")

    manager.restart_kernel()

    wait_for(lambda: told)
    assert [(Cause.EXITED, 0, None)] == [(e.cause, e.code, e.signal) for e in told if e is not None]


def test_a_death_between_two_daemons_is_told_also_if_nothing_was_told_before(
    manager: KernelManager, daemon: Daemon
) -> None:
    told: list[bool] = []
    manager.add_restart_callback(lambda: told.append(True))
    pid = manager.pid
    assert pid is not None

    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    manager.wait_ready(30)

    wait_for(lambda: told)
    assert [True] == told


def test_a_kernel_that_has_left_the_file_is_not_alive(daemon: Daemon) -> None:
    leaving = daemon.attach("leaving")
    leaving.wait_ready(30)
    assert leaving.is_alive() is True

    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[kernels.leaving]", "[kernels.come]"))

    wait_for(lambda: not leaving.is_alive())

    def is_unknown() -> bool:
        try:
            leaving.wait_ready(0)
        except LookupError:
            return True
        except (RuntimeError, TimeoutError):
            pass  # it has ended, and is about to leave
        return False

    wait_for(is_unknown)
    assert (False, False, None) == (leaving.is_alive(), leaving.has_kernel, leaving.pid)


def test_whether_it_is_started_again_is_in_the_file(manager: KernelManager) -> None:
    with pytest.raises(TypeError, match="whether it is started again is in the daemon"):
        manager.autorestart = False

    assert manager.autorestart is True


def test_a_kernel_that_is_given_up_is_told_dead(daemon: Daemon) -> None:
    spare = daemon.attach("spare")
    dead = threading.Event()
    spare.add_restart_callback(dead.set, "dead")

    with pytest.raises(RuntimeError, match="failed"):
        spare.start_kernel()

    assert dead.wait(30)
    assert spare.has_kernel is False
    assert spare.last_exit is not None
    assert 1 == spare.last_exit.code
    spare.cleanup()


def test_unknown_kernels_and_absent_daemons_are_told_apart(daemon: Daemon, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="analysys"):
        daemon.attach("analysys")
    with pytest.raises(ConnectionError, match="no daemon answers"):
        KernelManager.attach("analysis", socket=tmp_path / "none")
    with pytest.raises(ConnectionError, match=r"none\.toml"):
        KernelManager.attach("analysis", config=tmp_path / "none.toml")


def test_the_daemon_is_found_by_its_file(daemon: Daemon) -> None:
    assert daemon.attach().pid == KernelManager.attach("analysis", config=daemon.config).pid
