"""Stopping the stubborn and the dying, and what is left afterwards."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.kernel.run import Run
from supervisor.manager import KernelManager
from tests.kernels.using import MINI, mini
from tests.manager.managing import Make, make
from tests.waiting import wait_for

__all__ = ["make"]

STUBBORN = mini("--ignore", "SIGINT,SIGTERM,SIGHUP", "--ignore-shutdown")


def living_with(manager: KernelManager) -> list[int]:
    """The processes that were launched with its connection file."""
    found = []
    for process in psutil.process_iter():
        try:
            if manager.connection_file in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    "stop",
    [
        lambda manager: manager.shutdown_kernel(),
        lambda manager: manager.finish_shutdown(waittime=1),
        lambda manager: manager.restart_kernel(),
    ],
)
def test_a_stubborn_kernel_is_gone_within_the_stated_times(
    make: Make, stop: Callable[[KernelManager], None]
) -> None:
    manager = make(kernel_cmd=STUBBORN)
    manager.start_kernel()
    manager.wait_ready()
    pid = manager.pid
    assert pid is not None

    began = time.monotonic()
    stop(manager)
    took = time.monotonic() - began

    assert not psutil.pid_exists(pid)
    assert manager.last_exit is not None
    assert "SIGKILL" == manager.last_exit.signal
    # 1 s to exit, 2 s after SIGTERM; then SIGKILL.  Not sooner, and with room for a slow machine.
    assert 3.0 <= took < 10.0


def test_a_request_lets_a_busy_kernel_finish_what_it_executes(make: Make, tmp_path: Path) -> None:
    manager = make()
    manager.start_kernel()
    manager.wait_ready()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=30)
    go_on, done = tmp_path / "go-on", tmp_path / "done"
    client.execute(
        "import os, time\nprint('begun')\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\nopen({str(done)!r}, 'w').close()"
    )
    wait_for(lambda: client.get_iopub_msg(timeout=30)["content"].get("execution_state") == "busy")

    manager.request_shutdown()
    go_on.touch()

    wait_for(lambda: not manager.has_kernel)
    client.stop_channels()
    assert done.exists()
    assert manager.last_exit is not None
    assert 0 == manager.last_exit.code


def test_a_request_is_on_its_way_when_it_returns(tmp_path: Path) -> None:
    program = f"""
import os
from supervisor.manager import KernelManager
manager = KernelManager(kernel_cmd={MINI!r})
manager.start_kernel(independent=True)
manager.wait_ready()
print(manager.pid, flush=True)
manager.request_shutdown()
os._exit(0)
"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(root)},
    )
    pid = int(done.stdout)

    try:
        wait_for(lambda: not psutil.pid_exists(pid))
    finally:
        kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("answers", "patience"), [(True, 30.0), (False, 0.1)])
def test_a_request_returns_when_it_is_answered_or_takes_too_long(
    make: Make, monkeypatch: pytest.MonkeyPatch, *, answers: bool, patience: float
) -> None:
    ask, asked, go_on = Run.ask_to_exit, list[bool](), threading.Event()

    async def slowly(run: Run, **keywords: Any) -> None:
        await asyncio.to_thread(go_on.wait, 0.1 if answers else 60)
        await ask(run, **keywords)
        asked.append(True)

    monkeypatch.setattr("supervisor.manager.own.REQUEST_PATIENCE", patience)
    monkeypatch.setattr(Run, "ask_to_exit", slowly)
    manager = make()
    manager.start_kernel()
    manager.wait_ready()

    try:
        manager.request_shutdown()
        assert [True] * answers == asked
    finally:
        go_on.set()


@pytest.mark.parametrize("flags", [("--deaf",), ("--start-delay", "0.2")])
def test_a_request_to_a_kernel_that_boots_is_no_error(make: Make, flags: tuple[str, ...]) -> None:
    manager = make(kernel_cmd=mini(*flags))
    manager.start_kernel()

    manager.request_shutdown()
    manager.finish_shutdown(waittime=0.5)

    assert (False, False) == (manager.has_kernel, manager.is_alive())


def test_a_kernel_that_is_interrupted_by_messages_gets_no_signal_before_it_hears_them(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.manager.own.READY_PATIENCE", 0.1)
    # As a JVM, it dies of SIGINT.
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)", "{connection_file}"]
    manager = make(kernel_cmd=sleeper, settings={"interrupt_mode": "message"})
    manager.start_kernel()
    pid = manager.pid
    told: list[bool] = []
    manager.add_restart_callback(lambda: told.append(True))

    with pytest.raises(RuntimeError, match="takes interrupts as messages"):
        manager.interrupt_kernel()
    manager.request_shutdown()
    with pytest.raises(RuntimeError, match="takes interrupts as messages"):
        manager.interrupt_kernel()

    assert (pid, []) == (manager.pid, told)
    assert manager.is_alive() is True


def test_a_stopped_kernel_can_be_shut_down(make: Make) -> None:
    manager = make(shutdown_wait_time=0.2)
    manager.start_kernel()
    manager.wait_ready()
    manager.signal_kernel(signal.SIGSTOP)

    manager.shutdown_kernel()

    assert manager.is_alive() is False


def test_a_kernel_that_is_shut_down_while_it_dies_is_not_resurrected(make: Make) -> None:
    chance = random.Random(7)
    manager = make(settings={"max_restarts": 0, "backoff": {"next": 0.0}}, shutdown_wait_time=0.3)
    for _ in range(50):
        manager.start_kernel()
        if chance.random() < 0.5:
            manager.wait_ready()
        pid = manager.pid
        assert pid is not None
        killer = threading.Timer(chance.random() * 0.01, kill, [pid, chance.choice([9, 15, 11])])
        killer.start()
        time.sleep(chance.random() * 0.01)  # one of many interleavings, not a wait

        try:
            manager.shutdown_kernel(now=chance.random() < 0.3)
            assert (False, False, None) == (manager.is_alive(), manager.has_kernel, manager.pid)
        finally:
            killer.join()
    assert [] == living_with(manager)
    assert not Path(manager.connection_file).exists()


def test_orders_from_many_threads_end_in_at_most_one_process(make: Make) -> None:
    manager = make(shutdown_wait_time=0.3)
    manager.start_kernel()
    refused: list[Exception] = []

    def order(number: int) -> None:
        chance = random.Random(number)
        for _ in range(4):
            act = chance.choice(
                [
                    manager.start_kernel,
                    manager.restart_kernel,
                    lambda: manager.restart_kernel(now=True),
                    manager.shutdown_kernel,
                    manager.cleanup,
                    lambda: manager.signal_kernel(0),
                ]
            )
            try:
                act()
            except RuntimeError as error:
                refused.append(error)
            assert len(living_with(manager)) <= 1

    threads = [threading.Thread(target=order, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()

    manager.shutdown_kernel()
    assert [] == living_with(manager)


def kill(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # the shutdown was quicker


def descriptors() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{fd.name} {fd.readlink()}")
        except OSError:
            continue  # the one that lists
    return found


def test_a_hundred_cycles_leave_nothing(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    gc.collect()
    me = psutil.Process()
    # The threads of the operating system: those of zmq are none of Python's.
    threads, before = me.num_threads(), descriptors()

    manager = make()
    for cycle in range(100):
        each = manager if cycle % 2 else make(transport="ipc" if cycle % 10 == 4 else "tcp")
        # Between its runs the ports of a manager are anybody's.
        each.start_kernel(newports=each is manager)
        if cycle % 10 == 0:
            each.wait_ready()
            each.restart_kernel(now=True)
        each.shutdown_kernel(now=cycle % 4 != 0)
        each.cleanup()

    assert before == descriptors()
    # The last one has been joined, and is gone in a moment.
    wait_for(lambda: threads == me.num_threads())
    assert [] == list(temporary.iterdir())
    assert [] == [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert [] == [child.pid for child in me.children()]
