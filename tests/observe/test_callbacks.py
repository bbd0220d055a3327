"""Callbacks: who is called, in which order, and what a bad one costs."""

import asyncio
import functools
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from supervisor.observe.callbacks import Callbacks
from tests.waiting import until


def restarting(kernel: str = "a", number: int = 0) -> dict[str, object]:
    return {"event": "kernel.restarting", "kernel": kernel, "number": number}


def failed(kernel: str = "a") -> dict[str, object]:
    return {"event": "kernel.failed", "kernel": kernel}


class Calls(list[Any]):
    """Makes callbacks that note when they are called."""

    def note(self, name: object) -> Callable[[], None]:
        return lambda: self.append(name)


async def test_callbacks_are_called_in_the_order_of_registration() -> None:
    calls, callbacks = Calls(), Callbacks()
    callbacks.add("a", calls.note(1))

    async def coroutine() -> None:
        await asyncio.sleep(0)
        calls.append(2)

    callbacks.add("a", coroutine)
    callbacks.add(None, calls.note(3))
    callbacks.add("b", calls.note("other"))
    callbacks.add("a", calls.note("dead"), "dead")
    callbacks.add("a", lambda: coroutine())  # noqa: PLW0108 - a function that returns an awaitable

    callbacks(restarting())

    assert await callbacks.drain(30)
    assert [1, 2, 3, 2] == calls


async def test_only_restarting_and_failed_are_told() -> None:
    calls, callbacks = Calls(), Callbacks()
    callbacks.add(None, calls.note("restart"))
    callbacks.add(None, calls.note("dead"), "dead")

    for name in ("kernel.died", "kernel.restarting", "kernel.ready", "kernel.failed", "daemon.stopped"):
        callbacks({"event": name, "kernel": "a"})

    assert await callbacks.drain(30)
    assert ["restart", "dead"] == calls


async def test_a_callback_that_needs_an_argument_gets_the_event() -> None:
    calls, callbacks = Calls(), Callbacks()

    async def coroutine(event: Mapping[str, object]) -> None:
        calls.append(event)

    class Listener:
        def method(self, event: Mapping[str, object]) -> None:
            calls.append(event)

        async def __call__(self) -> None:
            calls.append("called")

    def defaulted(name: str = "default", *more: str) -> None:
        calls.append((name, *more))

    for callback in (
        calls.append,
        coroutine,
        Listener().method,
        Listener(),
        defaulted,
        functools.partial(calls.append, 1),
    ):
        callbacks.add("a", callback)

    callbacks(restarting())

    assert await callbacks.drain(30)
    assert [restarting(), restarting(), restarting(), "called", ("default",), 1] == calls


def test_what_cannot_be_called_is_refused_at_registration() -> None:
    callbacks = Callbacks()

    with pytest.raises(TypeError, match="must take no argument or one"):
        callbacks.add("a", lambda one, two: None)  # type: ignore[arg-type, misc]
    with pytest.raises(TypeError, match="not callable"):
        callbacks.add("a", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'died' is not one of 'restart', 'dead', 'restarted'"):
        callbacks.add("a", print, "died")
    with pytest.raises(ValueError, match="'died'"):
        callbacks.remove("a", print, "died")


async def test_removing_undoes_one_registration_and_nothing_else() -> None:
    calls, callbacks = Calls(), Callbacks()
    one, two = calls.note(1), calls.note(2)
    for callback in (one, one, two):
        callbacks.add("a", callback)

    callbacks.remove("a", one)
    callbacks.remove("a", two, "dead")
    callbacks.remove("b", two)
    callbacks.remove(None, two)
    callbacks.remove("a", calls.note(3))
    callbacks(restarting())

    assert await callbacks.drain(30)
    assert [1, 2] == calls


async def test_the_list_is_that_of_the_moment_of_the_event() -> None:
    calls, callbacks = Calls(), Callbacks()
    last = calls.note("last")

    def first() -> None:
        calls.append("first")
        callbacks.remove("a", last)
        callbacks.add("a", calls.note("added"))

    callbacks.add("a", first)
    callbacks.add("a", last)
    callbacks(restarting())
    assert await callbacks.drain(30)

    assert ["first", "last"] == calls


async def test_a_failing_callback_is_logged_and_the_next_is_called(caplog: pytest.LogCaptureFixture) -> None:
    calls, callbacks = Calls(), Callbacks()

    def fails() -> None:
        raise RuntimeError("no luck")

    async def fails_too() -> None:
        sys.exit(3)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    for callback in (fails, sys.exit, fails_too, cancelled, calls.note("next")):
        callbacks.add("a", callback)

    with caplog.at_level(logging.ERROR):
        callbacks(restarting())
        assert await callbacks.drain(30)

    assert ["next"] == calls
    assert 4 == len(caplog.records)
    assert "fails of kernel a failed" in caplog.records[0].getMessage()
    assert "no luck" in caplog.text


async def test_a_hanging_callback_delays_neither_the_loop_nor_another_kernel() -> None:
    calls, callbacks, release = Calls(), Callbacks(), threading.Event()

    def hang() -> None:
        assert release.wait(60)
        calls.append("released")

    callbacks.add(None, lambda event: hang() if event["kernel"] in hanging else calls.append(event["kernel"]))  # type: ignore[arg-type, misc]
    hanging = {f"k{number}" for number in range(40)}  # more than any pool has threads

    for kernel in hanging:
        callbacks(restarting(kernel))
    callbacks(restarting("well"))
    await until(lambda: ["well"] == calls)

    assert not await callbacks.drain(0.01)
    release.set()
    assert await callbacks.drain(30)
    assert ["well"] + ["released"] * 40 == calls


async def test_events_for_a_stuck_callback_do_not_pile_up(caplog: pytest.LogCaptureFixture) -> None:
    calls, callbacks, release = Calls(), Callbacks(max_waiting=3), asyncio.Event()

    async def stuck(event: Mapping[str, object]) -> None:
        calls.append(event["number"])
        await release.wait()

    callbacks.add("a", stuck)
    callbacks(restarting(number=0))
    await until(lambda: [0] == calls)
    for number in range(1, 10):
        callbacks(restarting(number=number))
    release.set()

    assert await callbacks.drain(30)
    assert [0, 7, 8, 9] == calls
    assert "an event is lost" in caplog.text


async def test_closing_ends_coroutines_and_calls_nobody_any_more() -> None:
    calls, callbacks = Calls(), Callbacks()

    async def forever() -> None:
        calls.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("ended")

    callbacks.add("a", forever)
    callbacks(restarting())
    await until(lambda: ["began"] == calls)

    assert not await callbacks.close(0.01)
    callbacks(restarting())

    assert ["began", "ended"] == calls
    assert await callbacks.drain(0)


async def test_no_thread_is_left() -> None:
    callbacks = Callbacks()
    callbacks.add("a", lambda: None)

    for _ in range(20):
        callbacks(restarting())
    assert await callbacks.drain(30)

    await until(lambda: not any(thread.name == "callback" for thread in threading.enumerate()))


def test_a_hanging_callback_does_not_hold_up_the_exit() -> None:
    program = (
        "import asyncio, threading\n"
        "from supervisor.observe.callbacks import Callbacks\n"
        "async def main():\n"
        "    callbacks = Callbacks()\n"
        "    called = threading.Event()\n"
        "    callbacks.add('a', lambda: (called.set(), threading.Event().wait()))\n"
        "    callbacks({'event': 'kernel.failed', 'kernel': 'a'})\n"
        "    callbacks({'event': 'kernel.restarting', 'kernel': 'a'})\n"
        "    while not called.is_set():\n"
        "        await asyncio.sleep(0.005)\n"
        "    assert not await callbacks.close(0.01)\n"
        "asyncio.run(main())\n"
        "print('out')\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)

    assert (0, b"out\n", b"") == (ended.returncode, ended.stdout, ended.stderr)


async def test_an_ordered_restart_is_told_once_its_process_is_there() -> None:
    calls, callbacks = Calls(), Callbacks()
    for event in ("restart", "restarted"):
        callbacks.add("a", calls.note(event), event)
    ordered: dict[str, object] = {**restarting(), "reason": "ordered"}
    starting: dict[str, object] = {"event": "kernel.starting", "kernel": "a"}

    for line in (starting, ordered, starting, starting, ordered, failed(), starting):
        callbacks(line)

    assert await callbacks.drain(30)
    assert ["restarted"] == calls


async def test_within_a_callback_the_end_that_it_is_called_for_is_known() -> None:
    callbacks, other = Callbacks(), Callbacks()
    ends: list[object] = []
    release = asyncio.Event()

    async def slow() -> None:
        await release.wait()
        ends.append((callbacks.end_of("a"), other.end_of("a")))

    callbacks.add("a", slow)
    died: list[dict[str, object]] = [
        {"event": "kernel.died", "kernel": "a", "cause": "killed", "number": number} for number in (1, 2)
    ]
    for line in died:
        callbacks(line)
        callbacks(restarting())
    release.set()

    assert await callbacks.drain(30)
    assert [(line, None) for line in died] == ends
    assert died[1] == callbacks.end_of("a")
    assert callbacks.told is None
