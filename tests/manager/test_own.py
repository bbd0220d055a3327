"""A manager that owns its kernel: stops that end what they should, deaths that are told."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from supervisor.core.model import Cause, Exit
from supervisor.disk import off_loop
from supervisor.manager import KernelManager
from tests.kernels.using import mini
from tests.manager.managing import Make, descriptors, die, ready
from tests.waiting import DEADLINE, wait_for

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
    manager = ready(make(kernel_cmd=STUBBORN))
    pid = manager.pid
    assert pid is not None

    began = time.monotonic()
    stop(manager)
    took = time.monotonic() - began

    assert not psutil.pid_exists(pid)
    assert manager.last_exit is not None
    assert "SIGKILL" == manager.last_exit.signal
    # 1 s to exit, 1 s after SIGTERM; then SIGKILL.  Not sooner, and with room for a slow machine.
    assert 2.0 <= took < 10.0


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
    manager = ready(make(shutdown_wait_time=0.2))
    manager.signal_kernel(signal.SIGSTOP)

    manager.shutdown_kernel()

    assert manager.is_alive() is False


def test_a_kernel_that_is_shut_down_while_it_dies_is_not_resurrected(make: Make) -> None:
    chance = random.Random(7)
    manager = make(settings={"max_restarts": 0, "backoff": {"next": 0.0}}, shutdown_wait_time=0.3)
    for _ in range(20):
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


def test_a_hundred_cycles_leave_nothing(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    gc.collect()
    me = psutil.Process()
    # The threads of the operating system: those of zmq are none of Python's.
    threads, before, children = me.num_threads(), descriptors(), me.children()

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

    # What was looked for beside the last end is over in a moment, as is its thread.
    wait_for(lambda: before == descriptors() and threads == me.num_threads())
    assert [] == list(temporary.iterdir())
    assert [] == [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert children == me.children()


def test_each_death_is_told_once_and_the_end_once_with_the_reason(make: Make) -> None:
    manager = make(settings={"max_restarts": 2, "backoff": {"next": 0.0}})
    told: list[tuple[str, Exit | None]] = []
    # Before the first start.
    manager.add_restart_callback(lambda: told.append(("restart", manager.last_exit)))
    manager.add_restart_callback(lambda: told.append(("dead", manager.last_exit)), "dead")
    ready(manager, extra_arguments=["--say", "last words"])
    assert manager.last_exit is None

    die(manager, signal.SIGKILL)
    manager.wait_ready()
    die(manager, signal.SIGSEGV)
    manager.wait_ready()
    die(manager, signal.SIGTERM)

    wait_for(lambda: len(told) == 3)
    assert [
        ("restart", Exit(Cause.KILLED, signal="SIGKILL", output_tail=("last words",))),
        ("restart", Exit(Cause.CRASHED, signal="SIGSEGV", output_tail=("last words",))),
        ("dead", Exit(Cause.KILLED, signal="SIGTERM", output_tail=("last words",))),
    ] == told


def test_autorestart_may_be_turned_off_and_on_while_it_runs(make: Make) -> None:
    manager = ready(make())
    pid = manager.pid

    manager.autorestart = False
    manager.autorestart = True
    assert pid == manager.pid
    die(manager)
    wait_for(manager.is_alive)
    manager.autorestart = False
    die(manager)

    assert manager.has_kernel is False


def test_an_ordered_restart_is_told_as_one_and_not_as_a_death(make: Make) -> None:
    manager = make()
    told: list[tuple[str, Exit | None, int | None]] = []
    for event in ("restart", "dead", "restarted"):
        manager.add_restart_callback(
            lambda event=event: told.append((event, manager.last_exit, manager.pid)),
            event,  # type: ignore[misc]
        )
    ready(manager)

    manager.restart_kernel()

    wait_for(lambda: told)
    assert [("restarted", Exit(Cause.EXITED, code=0), manager.pid)] == told


def test_what_is_no_callback_or_no_event_is_refused_and_an_unknown_callback_is_not(make: Make) -> None:
    async def coroutine() -> None: ...

    manager = make()

    for change in (manager.add_restart_callback, manager.remove_restart_callback):
        with pytest.raises(ValueError, match="'reborn' is not one of 'restart', 'dead'"):
            change(print, "reborn")
    with pytest.raises(TypeError, match="coroutine function"):
        manager.add_restart_callback(coroutine)
    with pytest.raises(TypeError, match="not callable"):
        manager.add_restart_callback(3)  # type: ignore[arg-type]
    manager.remove_restart_callback(print, "dead")


def test_a_callback_may_give_orders(make: Make) -> None:
    manager = make()
    done = threading.Event()

    def give_up() -> None:
        manager.shutdown_kernel(now=True)
        done.set()

    manager.add_restart_callback(give_up)
    ready(manager)
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert done.wait(30)
    assert (False, False) == (manager.is_alive(), manager.has_kernel)


def test_a_disk_that_hangs_does_not_keep_a_stop_from_ending(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, waits = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        waits.set()
        assert goes_on.wait(DEADLINE)

    manager = ready(make())
    pid = manager.pid
    assert pid is not None
    monkeypatch.setattr(off_loop, "PATIENCE", 0.2)
    monkeypatch.setattr("supervisor.manager.own.PATIENCE", 0.2)
    monkeypatch.setattr("supervisor.output.file.OutputFile.tail_since", hang)
    monkeypatch.setattr("supervisor.manager.own.shutil.rmtree", hang)
    stopping = threading.Thread(target=manager.shutdown_kernel, daemon=True)
    try:
        stopping.start()
        stopping.join(DEADLINE)
        assert waits.is_set()
        assert not stopping.is_alive()
    finally:
        goes_on.set()
    assert not psutil.pid_exists(pid)
