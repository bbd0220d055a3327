"""The manager whose orders are awaited: on any loop, cancelled, beside others, its callbacks on that loop."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import subprocess
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor import AsyncKernelManager, run_kernel, start_new_async_kernel
from supervisor.manager import KernelManager
from tests.kernels.using import MINI, mini
from tests.manager.managing import children, descriptors
from tests.waiting import DEADLINE, until, wait_for

Make = Callable[..., AsyncKernelManager]


def files(directory: Path) -> list[Path]:
    return list(directory.glob("kernel-*.json"))


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[AsyncKernelManager] = []

    def new(**keywords: Any) -> AsyncKernelManager:
        made.append(AsyncKernelManager(**{"kernel_cmd": MINI, **keywords}))
        return made[-1]

    yield new
    for manager in made:
        await manager.shutdown_kernel(now=True)


async def test_the_life_of_a_kernel_is_awaited_and_the_loop_turns_meanwhile(
    make: Make, tmp_path: Path
) -> None:
    manager = make()
    assert isinstance(manager, KernelManager)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    turning = asyncio.create_task(turn())
    await manager.start_kernel(extra_arguments=["--start-delay", "0.2"])
    await manager.ready
    await manager.wait_ready(DEADLINE)
    assert turns > 20
    pid = manager.pid
    assert (True, True) == (await manager.is_alive(), manager.has_kernel)
    await manager.interrupt_kernel()
    await manager.signal_kernel(0)

    await manager.restart_kernel(now=True)
    assert pid != manager.pid
    await manager.request_shutdown()
    await manager.finish_shutdown(waittime=DEADLINE)
    await manager.cleanup_resources()
    await manager.cleanup_resources()
    await manager.shutdown_kernel()

    turning.cancel()
    assert (False, False, []) == (await manager.is_alive(), manager.has_kernel, files(tmp_path))
    wait_for(lambda: all(thread.name != "kernel-supervisor" for thread in threading.enumerate()))


async def test_what_fails_is_raised_where_it_is_awaited(make: Make) -> None:
    manager = make(kernel_cmd=["/no/such/program"])

    for failing in (manager.start_kernel(), manager.ready, manager.interrupt_kernel(), manager.wait_ready()):
        with pytest.raises((FileNotFoundError, RuntimeError)):
            await failing
    assert asyncio.iscoroutinefunction(manager.start_kernel)


async def test_callbacks_run_on_the_loop_be_they_coroutine_functions_or_not(make: Make) -> None:
    manager = make(settings={"max_restarts": 1, "backoff": {"next": 0.0}})
    told: list[tuple[str, Any, bool]] = []

    def note(event: str) -> None:
        end = manager.last_exit
        told.append((event, end and end.signal, threading.current_thread() is threading.main_thread()))

    async def restart() -> None:
        await asyncio.sleep(0)
        note("restart")

    manager.add_restart_callback(restart)
    manager.add_restart_callback(lambda: note("dead"), "dead")
    await manager.start_kernel()
    for signum in (signal.SIGKILL, signal.SIGSEGV):
        await manager.wait_ready()
        os.kill(manager.pid or 0, signum)
        known = len(told)
        await until(lambda known=known: len(told) > known)  # type: ignore[misc]

    assert [("restart", "SIGKILL", True), ("dead", "SIGSEGV", True)] == told


async def test_twenty_beside_each_other_of_one_server(make: Make) -> None:
    managers = [make() for _ in range(20)]

    await asyncio.gather(*(manager.start_kernel() for manager in managers))
    await asyncio.gather(*(manager.wait_ready(DEADLINE) for manager in managers))
    assert 20 == len({manager.pid for manager in managers})
    assert 1 == sum(thread.name == "kernel-supervisor" for thread in threading.enumerate())
    await asyncio.gather(*(manager.restart_kernel(now=True) for manager in managers))
    await asyncio.gather(*(manager.shutdown_kernel(now=True) for manager in managers))

    assert not any([await manager.is_alive() for manager in managers])


async def test_an_await_that_is_cancelled_leaves_a_manager_that_obeys(make: Make) -> None:
    manager = make(
        kernel_cmd=mini("--ignore", "SIGINT,SIGTERM", "--ignore-shutdown"), shutdown_wait_time=DEADLINE
    )
    for _ in range(3):
        task = asyncio.ensure_future(manager.start_kernel())
        await asyncio.sleep(0)
        task.cancel()  # carried out all the same, unless it had not begun
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await task
    if not manager.has_kernel:
        await asyncio.gather(manager.start_kernel(), return_exceptions=True)

    for patient in (manager.shutdown_kernel(), manager.wait_ready(), manager.finish_shutdown(DEADLINE)):
        task = asyncio.ensure_future(patient)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await manager.shutdown_kernel(now=True)

    assert (False, False) == (await manager.is_alive(), manager.has_kernel)


def test_a_manager_goes_on_when_its_loop_is_closed() -> None:
    manager = AsyncKernelManager(kernel_cmd=MINI)
    manager.add_restart_callback(lambda: None)

    asyncio.run(_awaited(manager.start_kernel()))
    pid = manager.pid
    os.kill(pid or 0, signal.SIGKILL)  # told to nobody: that loop is closed
    wait_for(lambda: manager.pid not in (pid, None))
    asyncio.run(_awaited(manager.shutdown_kernel(now=True)))

    assert manager.pid is None


async def test_a_start_that_fails_after_its_await_was_cancelled_leaves_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    manager = make(kernel_cmd=["/no/such/program"])
    for number in range(20):
        task = asyncio.ensure_future(manager.start_kernel())
        await asyncio.sleep(number / 2000)  # one of many interleavings, not a wait
        task.cancel()
        with pytest.raises((asyncio.CancelledError, FileNotFoundError, RuntimeError)):
            await task

    await until(lambda: manager._carrier.is_idle and not list(tmp_path.iterdir()))
    assert manager.has_kernel is False


async def _awaited(work: Awaitable[object]) -> None:
    await work


async def test_a_new_kernel_comes_with_an_asynchronous_client(make: Make) -> None:
    manager, client = await start_new_async_kernel(kernel_cmd=MINI)
    try:
        assert "AsyncKernelClient" == type(client).__name__
        assert await client.is_alive()
        reply = await client.execute_interactive("6 * 7", timeout=DEADLINE, output_hook=lambda _: None)
        assert "ok" == reply["content"]["status"]
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    assert not await client.is_alive()


async def test_a_start_that_takes_too_long_or_is_cancelled_leaves_nothing(make: Make, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"not ready within 0\.3 s"):
        await start_new_async_kernel(startup_timeout=0.3, kernel_cmd=mini("--deaf"))
    task = asyncio.ensure_future(start_new_async_kernel(kernel_cmd=mini("--deaf")))
    await until(lambda: files(tmp_path))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [] == children()
    assert [] == files(tmp_path)


async def test_run_kernel_is_an_asynchronous_context_manager_too(make: Make, tmp_path: Path) -> None:
    used: list[Any] = []

    async def use() -> None:
        async with run_kernel(kernel_cmd=MINI) as client:
            used.append(client)
            assert await client.is_alive()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()

    assert [] == files(tmp_path)
    assert not used[0].channels_running


async def test_a_manager_is_an_asynchronous_context_manager(make: Make) -> None:
    async with make() as manager:
        await manager.start_kernel()
        assert await manager.is_alive()

    assert manager.pid is None


async def test_one_that_nobody_holds_is_collected_though_it_has_clients_and_callbacks(make: Make) -> None:
    manager = AsyncKernelManager(kernel_cmd=MINI)
    manager.add_restart_callback(lambda: None)
    await manager.start_kernel()
    client = manager.client()
    gone, carrier = weakref.ref(manager), manager._carrier

    del manager
    gc.collect()

    assert gone() is None
    assert carrier.process is not None
    assert isinstance(await client.is_alive(), bool)  # by the heartbeat, which nobody asked for
    await carrier.wait(carrier.shut_down(0.0, now=True, restart=False))
    client.stop_channels()


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_is_ordered_and_called_off_nothing_is_left(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    gc.collect()
    before, threads = descriptors(), threading.enumerate()  # other tests may have left some

    async def live(chance: random.Random) -> None:
        commands = [
            MINI,
            mini("--start-delay", "0.05"),
            ["/no/such"],
            mini("--exit-after", "0.05", "--exit-code", "3"),
        ]
        manager = make(kernel_cmd=chance.choice(commands), shutdown_wait_time=0.2)
        acts: list[Callable[[], Awaitable[object]]] = [
            *(
                manager.start_kernel,
                manager.restart_kernel,
                manager.shutdown_kernel,
                manager.cleanup_resources,
            ),
            *(manager.interrupt_kernel, manager.request_shutdown, manager.is_alive),
            *(lambda: manager.finish_shutdown(0.1), lambda: manager.wait_ready(0.2)),
            *(lambda: manager.restart_kernel(now=True), lambda: manager.signal_kernel(signal.SIGKILL)),
            lambda: manager.start_kernel(stdout=subprocess.PIPE, stderr=subprocess.PIPE),
        ]
        for _ in range(12):
            try:
                async with asyncio.timeout(chance.choice([0, 0.001, 0.01, 0.05, DEADLINE])):
                    await chance.choice(acts)()
            except (RuntimeError, TimeoutError, FileNotFoundError):
                pass  # refused, or called off
        await manager.shutdown_kernel(now=True)

    await asyncio.gather(*(live(random.Random(10 * seed + number)) for number in range(8)))

    await until(lambda: not children() and not list(tmp_path.glob("k*")))
    ours = {"MainThread", "processes"}
    await until(lambda: {each.name for each in threading.enumerate() if each not in threads} <= ours)
    await until(lambda: len(descriptors()) <= len(before))
