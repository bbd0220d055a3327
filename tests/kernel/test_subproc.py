"""What only a child of ours can do, and what only it can suffer."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import uuid

import pytest

from supervisor.kernel import subproc
from supervisor.kernel.subproc import KernelManager
from tests.cli.tools import ROOT
from tests.kernel.programs import (
    EXITS_7,
    SLEEPER,
    SUCCESSFUL,
    name_of,
    open_files,
    start,
    start_async,
    state_of,
)
from tests.waiting import DEADLINE, until, wait_for

CYCLES = 30  # a file, thread or zombie a run would show


def reap(popen: subprocess.Popen[bytes]) -> None:
    """Reap a child that is about to end, without its process object learning of it."""
    os.waitpid(popen.pid, 0)


def test_the_id_is_the_name_that_it_was_given_else_a_uuid(sleeper: subprocess.Popen[bytes]) -> None:
    assert "analysis" == KernelManager(sleeper, kernel_id="analysis").kernel_id
    assert uuid.UUID(KernelManager(sleeper).kernel_id)


def test_the_constructor_has_the_signature_that_is_documented(sleeper: subprocess.Popen[bytes]) -> None:
    parameters = list(inspect.signature(KernelManager).parameters.values())[:3]

    assert ["popen", "files_to_cleanup", "win_interrupt_evt"] == [each.name for each in parameters]
    assert [None, None] == [each.default for each in parameters[1:]]
    # By position, too.
    assert KernelManager(sleeper, [], None).kernel is sleeper


def test_a_child_that_was_reaped_before_it_was_wrapped_has_exited() -> None:
    popen = start(EXITS_7)
    popen.wait(DEADLINE)

    kernel = KernelManager(popen)

    assert kernel.process is None
    assert 7 == kernel.returncode
    assert asyncio.run(kernel.is_alive()) is False
    assert asyncio.run(kernel.wait()) is False
    asyncio.run(kernel.kill())


def test_a_zombie_is_reaped_when_it_is_looked_at() -> None:
    popen = start(EXITS_7)
    wait_for(lambda: state_of(popen.pid) == "Z")
    kernel = KernelManager(popen)
    assert kernel.process is not None

    assert asyncio.run(kernel.is_alive()) is False

    assert "" == state_of(popen.pid)
    assert 7 == popen.returncode == kernel.returncode


async def test_a_child_in_our_own_group_is_signalled_alone() -> None:
    popen = start(SLEEPER, start_new_session=False)
    kernel = KernelManager(popen)

    await kernel.interrupt()

    await asyncio.wait_for(kernel.wait(), DEADLINE)
    assert -signal.SIGINT == kernel.returncode


async def test_somebody_else_may_wait_for_the_same_child_in_a_thread(
    sleeper: subprocess.Popen[bytes],
) -> None:
    kernel = KernelManager(sleeper)
    waiting = asyncio.create_task(kernel.wait())
    other = asyncio.create_task(asyncio.to_thread(sleeper.wait, DEADLINE))
    blocked = asyncio.create_task(asyncio.to_thread(sleeper.wait))
    await asyncio.wait([waiting, other, blocked], timeout=0.05)

    await kernel.signal(signal.SIGTERM)

    assert await asyncio.wait_for(waiting, DEADLINE) is False
    assert [-signal.SIGTERM] * 3 == [kernel.returncode, await other, await blocked]


@pytest.mark.parametrize("pidfds", [True, False])
async def test_a_child_that_somebody_else_has_reaped_is_never_said_to_have_exited_with_0(
    monkeypatch: pytest.MonkeyPatch, pidfds: bool
) -> None:
    if not pidfds:
        monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(subproc, "_REAPER_PATIENCE", 0.05)
    popen = start(SLEEPER)
    kernel = KernelManager(popen)
    waiting = asyncio.create_task(kernel.wait())
    await asyncio.wait([waiting], timeout=0.02)

    os.kill(popen.pid, signal.SIGKILL)
    reap(popen)

    assert await asyncio.wait_for(waiting, DEADLINE) is False
    assert kernel.returncode in ({-signal.SIGKILL, None} if pidfds else {None})
    assert await kernel.is_alive() is False
    popen.poll()


async def test_a_child_that_is_gone_before_it_is_wrapped_has_exited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subproc, "_REAPER_PATIENCE", 0.05)
    popen = start(SUCCESSFUL)
    reap(popen)

    kernel = KernelManager(popen)

    assert await kernel.is_alive() is False
    assert await asyncio.wait_for(kernel.wait(), DEADLINE) is False
    assert kernel.process is kernel.returncode is None
    with pytest.raises(ProcessLookupError):
        await kernel.signal(0)
    popen.poll()


def test_one_event_loop_after_another_may_wait() -> None:
    popen = start(SLEEPER)
    kernel = KernelManager(popen)

    async def wait_a_little() -> bool:
        try:
            return await asyncio.wait_for(kernel.wait(), 0.02)
        except TimeoutError:
            return await kernel.is_alive()

    assert asyncio.run(wait_a_little()) is True
    assert asyncio.run(wait_a_little()) is True
    asyncio.run(kernel.kill())

    assert asyncio.run(kernel.wait()) is False
    assert -signal.SIGKILL == kernel.returncode


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio's, of its transport
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_asyncio_process_outlives_its_event_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def launch() -> KernelManager:
        return KernelManager(await start_async(SLEEPER))

    kernel = asyncio.run(launch())
    assert asyncio.run(kernel.is_alive()) is True

    asyncio.run(kernel.kill())

    assert asyncio.run(kernel.wait()) is False
    assert -signal.SIGKILL == kernel.returncode
    pid = kernel.pid
    wait_for(lambda: state_of(pid) == "")
    del kernel
    gc.collect()


_LOOP_GONE = """
import asyncio, sys
from supervisor.kernel.subproc import KernelManager
from tests.kernel.programs import SLEEPER, start_async, state_of

if sys.version_info < (3, 12):  # what newer versions do by themselves
    asyncio.set_child_watcher(asyncio.PidfdChildWatcher())

async def launch():
    return KernelManager(await start_async(SLEEPER))

kernel = asyncio.run(launch())
asyncio.run(kernel.kill())
print(kernel.returncode, repr(state_of(kernel.pid)))
"""


def test_an_asyncio_process_that_only_its_closed_event_loop_would_reap_is_reaped() -> None:
    # In an interpreter of its own, because such a child watcher is one for the whole process.
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LOOP_GONE],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert ["-9", "''"] == told.stdout.split(), told.stderr


async def test_the_windows_event_is_ignored_elsewhere(sleeper: subprocess.Popen[bytes]) -> None:
    wait_for(lambda: name_of(sleeper.pid) == "sleep")
    kernel = KernelManager(sleeper, win_interrupt_evt=object())

    await kernel.interrupt()

    assert await kernel.wait() is False
    assert -signal.SIGINT == kernel.returncode


@pytest.mark.parametrize("kind", ["Popen", "asyncio"])
async def test_many_runs_leave_no_file_thread_or_zombie(kind: str) -> None:
    async def cycle() -> int:
        process = start(SUCCESSFUL) if kind == "Popen" else await start_async(SUCCESSFUL)
        kernel = KernelManager(process)
        waiting = asyncio.gather(kernel.wait(), kernel.wait())
        await asyncio.wait_for(waiting, DEADLINE)
        assert 0 == kernel.returncode
        return kernel.pid

    await cycle()  # what is made once, such as asyncio's child watcher
    await _threads_at_most(threading.active_count())
    gc.collect()
    files, threads = open_files(), threading.active_count()

    pids = [await cycle() for _ in range(CYCLES)]

    gc.collect()
    assert files == open_files()
    await _threads_at_most(threads)
    assert [] == [pid for pid in pids if state_of(pid) == "Z"]


async def _threads_at_most(count: int) -> None:
    """Threads of asyncio end a moment after the processes that they wait for."""
    await until(lambda: threading.active_count() <= count)
