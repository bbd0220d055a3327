"""Work that may hang, done off the loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from supervisor.disk import off_loop
from supervisor.disk.off_loop import Hanging, Lane, Threads
from tests.waiting import DEADLINE, until


class NoThread(threading.Thread):
    """Where the system makes no more threads (pthread_create(3), EAGAIN)."""

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


@pytest.fixture
def lane() -> Lane:
    return Lane("lane under test")


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """None but those that this test makes."""
    monkeypatch.setattr(off_loop, "THREADS", made := Threads())
    return made


def threads_of(lane: Lane) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == lane.name]


async def test_what_comes_of_the_work_is_the_answer_and_what_it_raises_is_raised(lane: Lane) -> None:
    assert 3 == await lane.do(sum, (1, 2))
    assert 3 == await lane.begin(sum, (1, 2))
    with pytest.raises(ZeroDivisionError):
        await lane.do(divmod, 1, 0)


async def test_work_is_done_in_order_by_one_thread_which_others_have_after_it(
    lane: Lane, threads: Threads
) -> None:
    done: list[tuple[int, int]] = []
    gate = threading.Event()
    work = [lane.begin(gate.wait, DEADLINE)]
    work += [lane.begin(lambda n=n: done.append((n, threading.get_ident()))) for n in range(50)]
    gate.set()

    await asyncio.wait_for(asyncio.gather(*work), DEADLINE)

    assert list(range(50)) == [number for number, _ in done]
    (thread,) = {thread for _, thread in done}
    await until(lambda: not threads_of(lane))
    assert thread == await Lane("another").do(threading.get_ident)


@pytest.mark.parametrize("name", ["lane under test", "another"])
async def test_what_some_work_sets_in_its_context_is_not_set_for_what_its_thread_does_next(
    lane: Lane, threads: Threads, name: str
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="as new")
    await lane.do(variable.set, "set")

    assert "as new" == await (lane if name == lane.name else Lane(name)).do(variable.get)


async def test_a_thread_that_nobody_has_work_for_ends_and_the_next_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, lane: Lane, threads: Threads
) -> None:
    monkeypatch.setattr(off_loop, "LINGER", 0.0)
    for _ in range(100):
        thread = await lane.do(threading.current_thread)
    await until(lambda: not thread.is_alive())

    assert 3 == await lane.do(sum, (1, 2))


async def test_of_work_that_hangs_nobody_waits_longer_than_his_patience(lane: Lane) -> None:
    gate = threading.Event()
    done: list[str] = []
    try:
        with pytest.raises(Hanging, match="lane under test: no answer from the system within"):
            await lane.do(gate.wait, DEADLINE, patience=0.01)
        with pytest.raises(Hanging, match="an earlier attempt still waits"):
            await lane.do(done.append, "never")
        assert lane.busy_for > 0
        later = lane.begin(done.append, "later")
    finally:
        gate.set()
    await asyncio.wait_for(later, DEADLINE)

    assert ["later"] == done
    await lane.do(done.append, "again")
    await until(lambda: not lane.busy_for)


async def test_what_waits_behind_a_slow_one_for_too_long_is_not_done_later(lane: Lane) -> None:
    gate = threading.Event()
    done: list[str] = []
    slow = lane.begin(gate.wait, DEADLINE)

    with pytest.raises(Hanging):
        await lane.do(done.append, "never", patience=0.01)
    gate.set()
    await asyncio.wait_for(slow, DEADLINE)
    await lane.do(done.append, "done")

    assert ["done"] == done


@pytest.mark.parametrize("lasts", [False, True])
async def test_where_no_thread_is_to_be_had_that_is_told_and_nothing_is_done_later(
    monkeypatch: pytest.MonkeyPatch, threads: Threads, *, lasts: bool
) -> None:
    lane = Lane("lane without threads", lasts=lasts, borrows=False)
    done: list[str] = []
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        with pytest.raises(BlockingIOError, match="no thread is to be had"):
            lane.begin(done.append, "called off")

    await lane.do(done.append, "later")

    assert ["later"] == done


@pytest.mark.parametrize("lasts", [False, True])
async def test_where_no_thread_is_to_be_had_lanes_take_turns_in_the_last_one(
    monkeypatch: pytest.MonkeyPatch, threads: Threads, *, lasts: bool
) -> None:
    threads.keep_one()
    one, other, done = Lane("one", lasts=lasts), Lane("other"), list[str]()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        work = [one.begin(done.append, "first"), one.begin(done.append, "second")]
        last = {await one.do(threading.get_ident), await other.do(threading.get_ident)}
        await asyncio.gather(*work)

    assert ["first", "second"] == done
    assert 1 == len(last)
    await until(lambda: last <= {thread.ident for thread in threading.enumerate() if "last" in thread.name})
    assert last != {await one.do(threading.get_ident)}, "once there are threads, it has its own"


async def test_what_hangs_in_the_last_thread_holds_up_nobody_who_gets_one_of_his_own_again(
    monkeypatch: pytest.MonkeyPatch, threads: Threads
) -> None:
    threads.keep_one()
    hanging, lane, gate, done = Lane("hanging"), Lane("lane"), threading.Event(), list[str]()
    with monkeypatch.context() as scarce:
        scarce.setattr(threading, "Thread", NoThread)
        work = [hanging.begin(gate.wait, DEADLINE), lane.begin(done.append, "before")]
        with pytest.raises(Hanging):
            await lane.do(done.append, "given up", patience=0.01)

    await lane.do(done.append, "after")
    gate.set()
    await asyncio.gather(*work)

    assert ["before", "after"] == done


async def test_a_lane_that_lasts_keeps_its_thread_and_gets_another_only_if_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(off_loop, "RELIEF_AFTER", 0.01)
    lane, gate = Lane("lane that lasts", lasts=True), threading.Event()
    first = await lane.do(threading.get_ident)
    assert first == await lane.do(threading.get_ident)

    hanging = lane.begin(gate.wait, DEADLINE)
    assert first != await lane.do(threading.get_ident)

    gate.set()
    await asyncio.wait_for(hanging, DEADLINE)
    await until(lambda: not lane.busy_for)
    assert 2 == len(threads_of(lane))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork(2) here")
def test_a_lane_works_in_a_forked_child_and_a_hanging_one_keeps_no_process_from_exiting() -> None:
    program = """
import asyncio, os, threading
from supervisor.disk.off_loop import Lane
lane = Lane("lane", lasts=True)
async def use():
    return await Lane("other").do(os.getpid), await lane.do(os.getpid)
async def hang():
    lane.begin(threading.Event().wait)
asyncio.run(use())
if (child := os.fork()) == 0:
    os._exit(0 if asyncio.run(use()) == (os.getpid(), os.getpid()) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
asyncio.run(hang())
raise SystemExit(code)
"""

    assert 0 == subprocess.run([sys.executable, "-c", program], timeout=DEADLINE, check=False).returncode
