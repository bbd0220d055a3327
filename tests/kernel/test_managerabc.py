"""The contract of one run, kept by every kind of kernel: what ``KernelManagerABC`` promises."""

from __future__ import annotations

import asyncio
import errno
import inspect
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from enum import Enum
from pathlib import Path

import pytest

from supervisor.kernel import local
from supervisor.kernel.adopted import AdoptedKernel
from supervisor.kernel.managerabc import KernelManagerABC
from supervisor.kernel.subproc import KernelManager
from supervisor.process.identity import identify
from tests.kernel.programs import (
    EXITS_7,
    SLEEPER,
    STUBBORN,
    Stranger,
    end,
    name_of,
    start,
    start_async,
    state_of,
)
from tests.waiting import DEADLINE, wait_for

Kernel = KernelManager | AdoptedKernel


class Program(Enum):
    """What the process of a kernel does."""

    SLEEPER = SLEEPER
    STUBBORN = STUBBORN
    EXITS_7 = EXITS_7


class Kernels:
    """Starts programs and wraps them; ``tells_returncode``: so that their exit status can be known."""

    def __init__(self, kind: str, *, tells_returncode: bool) -> None:
        self.kind = kind
        self.tells_returncode = tells_returncode
        self.begun: list[subprocess.Popen[bytes] | asyncio.subprocess.Process | Stranger] = []

    async def __call__(
        self, program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
    ) -> Kernel:
        """A kernel; returns when its process does what it is said to do."""
        files = list(files_to_cleanup)
        if self.kind == "adopted":
            # One that ended before it was adopted is there until its parent reaps it.
            stranger = Stranger(program.value, reap=program is not Program.EXITS_7)
            self.begun.append(stranger)
            _settle(program, stranger.pid)
            adopted = AdoptedKernel(identify(stranger.pid), files_to_cleanup=files)
            stranger.reap()
            return adopted
        process = start(program.value) if self.kind == "Popen" else await start_async(program.value)
        self.begun.append(process)
        _settle(program, process.pid)
        return KernelManager(process, files)

    def assert_returncode(self, expected: int, kernel: Kernel) -> None:
        assert (expected if self.tells_returncode else None) == kernel.returncode

    async def close(self) -> None:
        for each in self.begun:
            if isinstance(each, Stranger):
                each.close()
            elif isinstance(each, subprocess.Popen):
                end(each)
            else:
                if each.returncode is None:
                    each.kill()
                await each.wait()


def _settle(program: Program, pid: int) -> None:
    if program is Program.EXITS_7:
        wait_for(lambda: state_of(pid) in {"Z", ""})
    else:
        wait_for(lambda: name_of(pid) == "sleep")


@pytest.fixture(params=["pidfds", "no pidfds"])
def pidfds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    def refuse(process: object) -> int:
        raise OSError(errno.ENOSYS, "no pidfds here")

    if request.param == "no pidfds":
        monkeypatch.setattr(local, "open_pidfd", refuse)
    return bool(request.param == "pidfds")


@pytest.fixture(params=["Popen", "asyncio", "adopted"])
async def kernels(request: pytest.FixtureRequest, pidfds: bool) -> AsyncIterator[Kernels]:
    made = Kernels(request.param, tells_returncode=pidfds or request.param != "adopted")
    yield made
    await made.close()


async def ends(kernel: KernelManagerABC) -> None:
    """Wait for the end of a kernel, with the deadline of all tests."""
    async with asyncio.timeout(DEADLINE):
        assert await kernel.wait() is False


def test_the_interface_has_its_members_and_cannot_be_instantiated() -> None:
    abstract = {"is_alive", "wait", "signal", "interrupt", "kill"}

    assert abstract == set(KernelManagerABC.__abstractmethods__)
    assert all(
        inspect.iscoroutinefunction(getattr(KernelManagerABC, name)) for name in {*abstract, "cleanup"}
    )
    assert isinstance(KernelManagerABC.kernel_id, property)
    with pytest.raises(TypeError):
        KernelManagerABC()  # type: ignore[abstract]
    assert issubclass(KernelManager, KernelManagerABC)
    assert issubclass(AdoptedKernel, KernelManagerABC)


async def test_an_implementation_of_somebody_else_needs_no_cleanup_and_no_constructor() -> None:
    class Minimal(KernelManagerABC):
        async def is_alive(self) -> bool:
            return False

        async def wait(self) -> bool:
            return False

        async def signal(self, signum: int) -> None: ...

        async def interrupt(self) -> None: ...

        async def kill(self) -> None: ...

    minimal = Minimal()

    await minimal.cleanup()
    assert minimal.kernel_id == str(uuid.UUID(minimal.kernel_id))


async def test_a_kernel_that_runs_is_alive_whether_it_is_asked_or_cleaned_up(kernels: Kernels) -> None:
    kernel = await kernels()

    await kernel.signal(0)
    await kernel.cleanup()

    assert await kernel.is_alive() is True
    assert kernel.returncode is None
    await kernel.kill()
    await ends(kernel)
    assert await kernel.is_alive() is False


async def test_the_kernel_id_is_a_string_that_stays(kernels: Kernels) -> None:
    kernel = await kernels()

    assert isinstance(kernel.kernel_id, str)
    assert kernel.kernel_id == kernel.kernel_id != ""
    assert (await kernels()).kernel_id != kernel.kernel_id


async def test_wait_goes_on_until_the_end(kernels: Kernels) -> None:
    kernel = await kernels()
    waiting = asyncio.create_task(kernel.wait())
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()

    await kernel.signal(signal.SIGTERM)

    assert await asyncio.wait_for(waiting, DEADLINE) is False
    assert await kernel.is_alive() is False
    kernels.assert_returncode(-signal.SIGTERM, kernel)


async def test_a_wait_may_be_cancelled_and_the_others_go_on(kernels: Kernels) -> None:
    kernel = await kernels()
    other = asyncio.create_task(kernel.wait())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await kernel.wait()
    assert await kernel.is_alive() is True
    assert not other.done()

    await kernel.signal(signal.SIGKILL)

    assert await asyncio.wait_for(other, DEADLINE) is False
    await ends(kernel)
    kernels.assert_returncode(-signal.SIGKILL, kernel)


async def test_waiting_for_a_kernel_that_has_ended_returns_every_time(kernels: Kernels) -> None:
    kernel = await kernels(Program.EXITS_7)

    await ends(kernel)
    await ends(kernel)
    assert await kernel.is_alive() is False
    kernels.assert_returncode(7, kernel)


async def test_a_signal_that_the_kernel_ignores_leaves_it_alive(kernels: Kernels) -> None:
    kernel = await kernels(Program.STUBBORN)

    await kernel.signal(signal.SIGTERM)
    await kernel.interrupt()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await kernel.wait()
    assert await kernel.is_alive() is True


async def test_an_interrupt_is_sigint(kernels: Kernels) -> None:
    kernel = await kernels()

    await kernel.interrupt()

    await ends(kernel)
    kernels.assert_returncode(-signal.SIGINT, kernel)


async def test_after_the_end_a_signal_raises_process_lookup_error(kernels: Kernels) -> None:
    kernel = await kernels()
    await kernel.kill()

    late: list[Callable[[], Awaitable[None]]] = [
        lambda: kernel.signal(signal.SIGTERM),
        lambda: kernel.signal(0),
        kernel.interrupt,
    ]
    for order in late:
        with pytest.raises(ProcessLookupError):
            await order()


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_kill_ends_a_stubborn_or_stopped_kernel_before_it_returns(
    kernels: Kernels, *, is_stopped: bool
) -> None:
    kernel = await kernels(Program.STUBBORN)
    if is_stopped:
        await kernel.signal(signal.SIGSTOP)
    assert await kernel.is_alive() is True

    await kernel.kill()

    assert await kernel.is_alive() is False
    kernels.assert_returncode(-signal.SIGKILL, kernel)


async def test_many_kills_at_once_and_later_all_wait_for_the_end(kernels: Kernels) -> None:
    kernel = await kernels()

    await asyncio.gather(kernel.kill(), kernel.kill(), kernel.wait())

    assert await kernel.is_alive() is False
    await kernel.kill()
    kernels.assert_returncode(-signal.SIGKILL, kernel)


async def test_cleanup_removes_the_files_and_may_be_repeated(kernels: Kernels, tmp_path: Path) -> None:
    there, missing = tmp_path / "there", tmp_path / "missing"
    there.touch()
    kernel = await kernels(Program.EXITS_7, [there, missing])
    await ends(kernel)

    await kernel.cleanup()
    await kernel.cleanup()

    assert not there.exists()
    kernels.assert_returncode(7, kernel)
