"""A manager in its process: loops, threads, forks, pickles, garbage."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from supervisor.manager import KernelManager
from supervisor.manager.own import Own
from supervisor.manager.thread import acquire, hold
from tests.kernels.using import MINI
from tests.manager.managing import run_program
from tests.waiting import DEADLINE, wait_for


@pytest.fixture
def manager() -> Iterator[KernelManager]:
    made = KernelManager(kernel_cmd=MINI)
    yield made
    made.shutdown_kernel(now=True)


async def test_it_can_be_used_within_a_running_loop(manager: KernelManager) -> None:
    manager.start_kernel()
    await asyncio.to_thread(manager.wait_ready)
    pid = manager.pid

    manager.restart_kernel()

    assert pid != manager.pid
    manager.shutdown_kernel()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "kernel-supervisor"]


def test_managers_share_one_thread_which_ends_with_the_last(manager: KernelManager) -> None:
    other = KernelManager(kernel_cmd=MINI)
    assert [] == threads()
    manager.start_kernel()
    other.start_kernel()
    assert 1 == len(threads())
    assert manager.pid != other.pid

    manager.shutdown_kernel()
    assert other.is_alive() is True
    assert 1 == len(threads())
    other.shutdown_kernel()
    assert [] == threads()


def test_one_that_nobody_waits_for_as_it_begins_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("concurrent.futures.Future", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        acquire()

    wait_for(lambda: not threads(), "it has ended")


@pytest.mark.parametrize("another", [False, True])
def test_nothing_is_begun_on_a_thread_that_ends(*, another: bool) -> None:
    with ExitStack() as held:
        ending = acquire()

        async def came_late() -> None:
            ending.release(join=False)
            if another:
                held.callback(acquire().release)
            hold()

        with pytest.raises(CancelledError):
            ending.begin(came_late()).result(DEADLINE)


@pytest.mark.parametrize("started", [False, True])
def test_a_manager_cannot_be_pickled(manager: KernelManager, *, started: bool) -> None:
    if started:
        manager.start_kernel()

    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle KernelManager"):
            refuse(manager)


def test_a_forked_child_refuses_clearly_and_can_make_its_own(manager: KernelManager) -> None:
    manager.start_kernel()
    manager.wait_ready()
    reader, writer = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            told = []
            for act in (
                manager.is_alive,
                manager.restart_kernel,
                manager.start_kernel,
                manager.shutdown_kernel,
                manager.interrupt_kernel,
                manager.cleanup,
                lambda: manager.has_kernel,
            ):
                try:
                    act()
                    told.append("no refusal")
                except RuntimeError as error:
                    told.append(str(error))
            own = KernelManager(kernel_cmd=MINI)
            own.start_kernel()
            own.wait_ready()
            told.append(f"alive: {own.is_alive()}")
            own.shutdown_kernel()
            os.write(writer, "\n".join(told).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        *refusals, own = told.read().split("\n")
    os.waitpid(child, 0)

    assert 7 == len(refusals)
    assert all(f"belongs to process {os.getpid()}, of which this is a fork" in each for each in refusals)
    assert "alive: True" == own
    # And the parent's supervision goes on.
    pid = manager.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: manager.pid not in (pid, None))
    manager.wait_ready()


def test_a_fork_while_other_threads_hold_the_locks_refuses_all_the_same(manager: KernelManager) -> None:
    from supervisor.kernel.ports import CLAIMS
    from supervisor.process import dispositions

    manager.start_kernel()
    idle = KernelManager(kernel_cmd=MINI)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with manager._carrier.callbacks._lock, CLAIMS._lock, dispositions._lock:
            held.set()
            go_on.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(30)
            refused = 0
            for act in (
                manager.start_kernel,
                manager.restart_kernel,
                idle.client,
                lambda: idle.key,
                lambda: manager.add_restart_callback(print),
                lambda: manager.remove_restart_callback(print),
            ):
                try:
                    act()
                except RuntimeError:
                    refused += 1
            old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            own = KernelManager(kernel_cmd=MINI)
            own.start_kernel()
            own.shutdown_kernel(now=True)
            signal.signal(signal.SIGUSR2, old)
            os.write(writer, f"{refused} refusals".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as told:
        answer = told.read()
    os.waitpid(child, 0)
    go_on.set()
    holder.join()

    assert "6 refusals" == answer


def test_garbage_collection_leaves_a_living_kernel_and_its_file() -> None:
    manager = KernelManager(kernel_cmd=MINI)
    manager.start_kernel()
    manager.wait_ready()
    file, pid = Path(manager.connection_file), manager.pid
    assert pid is not None
    own = manager._carrier
    assert isinstance(own, Own)

    del manager
    gc.collect()

    assert file.exists()
    os.kill(pid, 0)
    # It is still supervised; and once it has ended for good nothing is left of it.
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: own.kernel is not None and own.kernel.generation == 2)
    own.block(own.wait_ready(30))
    assert file.exists()
    own.block(own.finish_shutdown(0.0))
    wait_for(lambda: own.kernel is None)
    wait_for(lambda: not file.exists())
    wait_for(lambda: all(thread.name != "kernel-supervisor" for thread in threading.enumerate()))


def test_a_manager_without_a_kernel_takes_its_thread_with_it() -> None:
    manager = KernelManager(kernel_cmd=MINI)
    manager.start_kernel()
    manager.shutdown_kernel(restart=True)

    del manager
    gc.collect()

    wait_for(lambda: all(thread.name != "kernel-supervisor" for thread in threading.enumerate()))


ENDINGS = {
    "nothing": "",
    "an exception": "raise ZeroDivisionError",
    "a manager that nobody holds": "del manager",
    "registered": "import atexit; atexit.register(manager.shutdown_kernel)",
    "a callback that hangs": "manager.add_restart_callback(__import__('threading').Event().wait)",
}


@pytest.mark.parametrize(
    ("ending", "independent"),
    [*((ending, False) for ending in ENDINGS), ("nothing", True), ("registered", True)],
)
def test_a_program_that_ends_without_a_shutdown_leaves_no_file_of_a_kernel_that_ends_with_it(
    tmp_path: Path, ending: str, *, independent: bool
) -> None:
    program = f"""
import atexit
atexit.register(lambda: stop())
from supervisor.manager import KernelManager
manager = KernelManager(kernel_cmd={MINI!r})
stop = KernelManager(kernel_cmd={MINI!r}).shutdown_kernel
manager.start_kernel(independent={independent})
manager.wait_ready()
print(manager.pid, manager.connection_file, flush=True)
{ENDINGS[ending]}
"""
    done = run_program(program, tmp_path, timeout=30, TMPDIR=str(tmp_path))
    pid, file = done.stdout.split()

    try:
        if ending != "an exception":
            assert (0, "") == (done.returncode, done.stderr)
        lives_on = independent and ending != "registered"
        assert (lives_on, lives_on) == (psutil.pid_exists(int(pid)), Path(file).exists())
        assert [] == list(tmp_path.glob("kernel-supervisor-*"))
    finally:
        if psutil.pid_exists(int(pid)):
            os.kill(int(pid), signal.SIGKILL)


def test_a_manager_without_descriptors_says_so_and_begins_later(tmp_path: Path) -> None:
    program = f"""
import os, resource, signal
from supervisor.manager import KernelManager
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for left in range(17):
    signal.alarm(25)
    manager = KernelManager(kernel_cmd={MINI!r})
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for descriptor in taken[:left]:
        os.close(descriptor)
    told = ""
    try:
        manager.start_kernel()
    except (OSError, RuntimeError) as error:
        told = error
    for descriptor in taken[left:]:
        os.close(descriptor)
    manager.start_kernel() if not manager.has_kernel else None
    manager.wait_ready()
    manager.shutdown_kernel()
    print(left, told)
"""
    done = run_program(program, tmp_path, timeout=100)

    refusals = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert (17, 0) == (len(refusals), done.returncode), done.stderr
    assert all(refusals[str(left)] for left in range(8)), refusals


def test_importing_the_package_imports_next_to_nothing(tmp_path: Path) -> None:
    program = (
        "import sys, supervisor; print([m for m in ('asyncio', 'zmq', 'jupyter_client') if m in sys.modules])"
    )
    done = run_program(program, tmp_path, timeout=30)

    assert ("[]\n", 0) == (done.stdout, done.returncode), done.stderr
