"""Many kernels, each by its id."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.multikernelmanager import DuplicateKernelError

from supervisor import AsyncKernelManager, AsyncMultiKernelManager, KernelManager, MultiKernelManager
from tests.kernels.using import MINI, mini
from tests.waiting import DEADLINE, wait_for


class Small(KernelManager):
    kernel_cmd = MINI


class SmallAsync(AsyncKernelManager):
    kernel_cmd = MINI


@pytest.fixture
def kernels() -> Iterator[MultiKernelManager]:
    made = MultiKernelManager(kernel_manager_class=Small)
    yield made
    made.shutdown_all(now=True)
    assert 0 == len(made)


def test_kernels_are_known_by_their_ids(kernels: MultiKernelManager, tmp_path: Path) -> None:
    kernels.connection_dir = tmp_path / "there"
    one, two = kernels.start_kernel(kernel_id="one"), kernels.start_kernel("python3")

    assert "one" == one
    assert [one, two] == kernels.list_kernel_ids()
    assert (2, True, False) == (len(kernels), two in kernels, "three" in kernels)
    manager = kernels.get_kernel(one)
    assert isinstance(manager, Small)
    assert ("one", f"{tmp_path}/there/kernel-one.json") == (manager.kernel_id, manager.connection_file)
    assert manager.shell_port == kernels.get_connection_info(one)["shell_port"]
    with pytest.raises(DuplicateKernelError):
        kernels.start_kernel(kernel_id="one")
    for unknown in (kernels.get_kernel, kernels.shutdown_kernel, kernels.is_alive, kernels.restart_kernel):
        with pytest.raises(KeyError, match="three"):
            unknown("three")  # type: ignore[operator]
    assert kernels.remove_kernel("three") is None


def test_orders_reach_the_kernel_that_is_named(kernels: MultiKernelManager) -> None:
    one, two = kernels.start_kernel(), kernels.start_kernel(extra_arguments=["--say", "x"])
    for each in (one, two):
        kernels.get_kernel(each).wait_ready(DEADLINE)
    pids = [kernels.get_kernel(each).pid for each in (one, two)]
    told: list[str] = []
    kernels.add_restart_callback(one, lambda: told.append("restart"))
    kernels.add_restart_callback(one, print, "dead")
    kernels.remove_restart_callback(one, print, "dead")

    os.kill(pids[0] or 0, signal.SIGKILL)
    wait_for(lambda: told)
    kernels.get_kernel(one).wait_ready(DEADLINE)
    kernels.restart_kernel(one, now=True)
    kernels.interrupt_kernel(two)
    kernels.signal_kernel(two, 0)
    socket = kernels.connect_shell(two, b"me")
    socket.close()
    assert kernels.is_alive(one)
    assert pids[1] == kernels.get_kernel(two).pid
    manager = kernels.get_kernel(one)

    kernels.shutdown_kernel(one)
    kernels.request_shutdown(two)
    kernels.finish_shutdown(two, waittime=DEADLINE)
    kernels.cleanup_resources(two)

    assert (["restart"], [two], False) == (told, kernels.list_kernel_ids(), manager.is_alive())


def test_a_start_that_fails_is_forgotten(kernels: MultiKernelManager) -> None:
    with pytest.raises(FileNotFoundError):
        kernels.start_kernel(kernel_cmd=["/no/such/program"])

    assert [] == kernels.list_kernel_ids()
    with pytest.raises(TypeError, match="no such keyword"):
        MultiKernelManager(nonsense=3)


def test_twenty_in_parallel_threads_start_and_end(kernels: MultiKernelManager) -> None:
    failed: list[BaseException] = []

    def live() -> None:
        try:
            name = kernels.start_kernel()
            kernels.get_kernel(name).wait_ready(DEADLINE)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=live) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    pids = {kernels.get_kernel(name).pid for name in kernels.list_kernel_ids()}

    kernels.shutdown_all(now=True)

    assert ([], 20) == (failed, len(pids))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_orders_to_asynchronous_managers_are_awaited() -> None:
    kernels = AsyncMultiKernelManager(kernel_manager_class=SmallAsync)

    one, two = await asyncio.gather(kernels.start_kernel(kernel_id="one"), kernels.start_kernel())
    with pytest.raises(DuplicateKernelError):
        await kernels.start_kernel(kernel_id="one")
    await kernels.get_kernel(one).wait_ready(DEADLINE)
    await kernels.restart_kernel(one, now=True)
    assert await kernels.is_alive(one)
    await kernels.shutdown_kernel(one, now=True)
    assert [two] == kernels.list_kernel_ids()
    for _ in range(3):
        await kernels.start_kernel(kernel_cmd=mini("--ignore-shutdown"))
    await kernels.shutdown_all(now=True)

    assert 0 == len(kernels)
