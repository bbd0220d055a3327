"""Who is told of restarts and of the end, when, and why."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest

from supervisor.core.model import Cause, Exit
from supervisor.manager import KernelManager
from tests.kernels.using import mini
from tests.manager.managing import Make, make
from tests.waiting import wait_for

__all__ = ["make"]


def kill(manager: KernelManager, signum: int = signal.SIGKILL) -> None:
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signum)
    wait_for(lambda: manager.pid not in (pid, None) or not manager.has_kernel)


def test_each_death_is_told_once_and_the_end_once_with_the_reason(make: Make) -> None:
    manager = make(settings={"max_restarts": 2, "backoff": {"next": 0.0}})
    told: list[tuple[str, Exit | None]] = []
    # Before the first start.
    manager.add_restart_callback(lambda: told.append(("restart", manager.last_exit)))
    manager.add_restart_callback(lambda: told.append(("dead", manager.last_exit)), "dead")
    manager.start_kernel(extra_arguments=["--say", "last words"])
    manager.wait_ready()
    assert manager.last_exit is None

    kill(manager, signal.SIGKILL)
    manager.wait_ready()
    kill(manager, signal.SIGSEGV)
    manager.wait_ready()
    kill(manager, signal.SIGTERM)

    wait_for(lambda: len(told) == 3)
    assert [
        ("restart", Exit(Cause.KILLED, signal="SIGKILL", output_tail=("last words",))),
        ("restart", Exit(Cause.CRASHED, signal="SIGSEGV", output_tail=("last words",))),
        ("dead", Exit(Cause.KILLED, signal="SIGTERM", output_tail=("last words",))),
    ] == told


def test_an_exit_code_is_told(make: Make) -> None:
    manager = make(kernel_cmd=mini("--exit-after", "0.05", "--exit-code", "7"), settings={"max_restarts": 1})
    codes: list[int | None] = []
    dead = threading.Event()
    manager.add_restart_callback(lambda: codes.append(manager.last_exit.code if manager.last_exit else None))
    manager.add_restart_callback(dead.set, "dead")

    manager.start_kernel()

    assert dead.wait(30)
    assert [7] == codes


def test_without_autorestart_a_death_is_the_end(make: Make) -> None:
    manager = make(autorestart=False)
    told: list[str] = []
    manager.add_restart_callback(lambda: told.append("restart"))
    manager.add_restart_callback(lambda: told.append("dead"), "dead")
    manager.start_kernel()
    manager.wait_ready()

    kill(manager)

    wait_for(lambda: told)
    assert ["dead"] == told
    assert manager.is_alive() is False


def test_autorestart_may_be_turned_off_and_on_while_it_runs(make: Make) -> None:
    manager = make()
    manager.start_kernel()
    manager.wait_ready()
    pid = manager.pid

    manager.autorestart = False
    manager.autorestart = True
    assert pid == manager.pid
    kill(manager)
    wait_for(manager.is_alive)
    manager.autorestart = False
    kill(manager)

    assert manager.has_kernel is False


def test_an_ordered_restart_is_told_as_one_and_not_as_a_death(make: Make) -> None:
    manager = make()
    told: list[tuple[str, Exit | None, int | None]] = []
    for event in ("restart", "dead", "restarted"):
        manager.add_restart_callback(
            lambda event=event: told.append((event, manager.last_exit, manager.pid)),
            event,  # type: ignore[misc]
        )
    manager.start_kernel()
    manager.wait_ready()

    manager.restart_kernel()

    wait_for(lambda: told)
    assert [("restarted", Exit(Cause.EXITED, code=0), manager.pid)] == told


def test_callbacks_are_called_in_order_and_what_they_raise_is_logged(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    manager = make()
    told: list[int] = []

    def fail() -> None:
        told.append(2)
        raise SystemExit(3)

    for callback in (lambda: told.append(1), fail, lambda: told.append(3)):
        manager.add_restart_callback(callback)
    manager.start_kernel()
    with caplog.at_level(logging.ERROR):
        kill(manager)
        wait_for(lambda: len(told) == 3)

    assert [1, 2, 3] == told
    assert "fail of kernel" in caplog.text


def test_one_that_is_removed_while_they_are_called_is_called_this_once(make: Make) -> None:
    manager = make()
    told: list[str] = []

    def second() -> None:
        told.append("second")

    def first() -> None:
        told.append("first")
        manager.remove_restart_callback(second)

    manager.add_restart_callback(first)
    manager.add_restart_callback(second)
    manager.start_kernel()
    kill(manager)
    wait_for(lambda: len(told) == 2)
    kill(manager)
    wait_for(lambda: len(told) == 3)

    assert ["first", "second", "first"] == told


def test_unknown_events_are_refused_and_unknown_callbacks_are_not(make: Make) -> None:
    manager = make()

    with pytest.raises(ValueError, match="'reborn' is not one of 'restart', 'dead', 'restarted'"):
        manager.add_restart_callback(print, "reborn")
    with pytest.raises(ValueError, match="'reborn'"):
        manager.remove_restart_callback(print, "reborn")
    manager.remove_restart_callback(print)
    manager.remove_restart_callback(print, "dead")


def test_what_cannot_be_called_is_refused(make: Make) -> None:
    async def coroutine() -> None: ...

    with pytest.raises(TypeError, match="coroutine function"):
        make().add_restart_callback(coroutine)
    with pytest.raises(TypeError, match="not callable"):
        make().add_restart_callback(3)  # type: ignore[arg-type]


def test_a_slow_callback_delays_neither_the_restart_nor_other_managers(make: Make) -> None:
    manager, other = make(settings={"backoff": {"next": 0.0}}), make()
    go_on = threading.Event()
    entered = threading.Event()
    ends: list[str | None] = []

    def slow() -> None:
        entered.set()
        go_on.wait(60)
        ends.append(manager.last_exit.signal if manager.last_exit else None)

    told = threading.Event()
    other.add_restart_callback(told.set)
    manager.add_restart_callback(slow)
    for each in (manager, other):
        each.start_kernel()
    kill(manager)
    assert entered.wait(30)
    kill(manager, signal.SIGTERM)
    manager.wait_ready()
    kill(other)

    assert told.wait(30)
    assert [] == ends
    go_on.set()
    wait_for(lambda: len(ends) == 2)
    # Each is told of the end that it is called for, however late.
    assert ["SIGKILL", "SIGTERM"] == ends


def test_a_callback_may_give_orders(make: Make) -> None:
    manager = make()
    done = threading.Event()

    def give_up() -> None:
        manager.shutdown_kernel(now=True)
        done.set()

    manager.add_restart_callback(give_up)
    manager.start_kernel()
    manager.wait_ready()
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    assert done.wait(30)
    assert (False, False) == (manager.is_alive(), manager.has_kernel)
