"""What every ``KernelManagerABC`` of this project does, as tests.

A subclass names a kind of kernel by the fixture ``kernels``, a function that starts
one of the programs below and wraps it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Protocol

import pytest

from supervisor.kernel.managerabc import KernelManagerABC
from tests.waiting import DEADLINE


class Program(Enum):
    """What the process of a kernel does."""

    SLEEPER = "sleeps until a signal"
    STUBBORN = "ignores SIGTERM and SIGINT"
    EXITS_7 = "has exited with 7"


class Kernels(Protocol):
    """Starts a program and wraps it; returns when the program does what it is said to do."""

    async def __call__(
        self, program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
    ) -> KernelManagerABC: ...


async def ends(kernel: KernelManagerABC) -> None:
    """Wait for the end of a kernel, with the deadline of all tests."""
    async with asyncio.timeout(DEADLINE):
        assert await kernel.wait() is False


class ManagerContract:
    """Inherit it, and give it a fixture ``kernels``."""

    tells_returncode = True

    @pytest.fixture
    def kernels(self) -> Kernels:
        raise NotImplementedError

    def assert_returncode(self, expected: int, kernel: KernelManagerABC) -> None:
        assert (expected if self.tells_returncode else None) == kernel.returncode  # type: ignore[attr-defined]

    async def test_a_kernel_that_runs_is_alive(self, kernels: Kernels) -> None:
        kernel = await kernels()

        assert await kernel.is_alive() is True
        assert kernel.returncode is None  # type: ignore[attr-defined]

    async def test_the_kernel_id_is_a_string_that_stays(self, kernels: Kernels) -> None:
        kernel = await kernels()

        assert isinstance(kernel.kernel_id, str)
        assert kernel.kernel_id == kernel.kernel_id != ""
        assert (await kernels()).kernel_id != kernel.kernel_id

    async def test_a_kernel_that_has_exited_before_is_no_error(self, kernels: Kernels) -> None:
        kernel = await kernels(Program.EXITS_7)

        await ends(kernel)

        assert await kernel.is_alive() is False
        self.assert_returncode(7, kernel)

    async def test_wait_goes_on_until_the_end(self, kernels: Kernels) -> None:
        kernel = await kernels()
        waiting = asyncio.create_task(kernel.wait())
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()

        await kernel.signal(signal.SIGTERM)

        assert await asyncio.wait_for(waiting, DEADLINE) is False
        assert await kernel.is_alive() is False
        self.assert_returncode(-signal.SIGTERM, kernel)

    async def test_several_tasks_may_wait(self, kernels: Kernels) -> None:
        kernel = await kernels()
        waiting = [asyncio.create_task(kernel.wait()) for _ in range(5)]
        await asyncio.wait(waiting, timeout=0.02)

        await kernel.kill()

        assert [False] * 5 == await asyncio.wait_for(asyncio.gather(*waiting), DEADLINE)

    async def test_a_wait_may_be_cancelled_and_the_others_go_on(self, kernels: Kernels) -> None:
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
        self.assert_returncode(-signal.SIGKILL, kernel)

    async def test_waiting_for_a_kernel_that_has_ended_returns_every_time(self, kernels: Kernels) -> None:
        kernel = await kernels(Program.EXITS_7)

        await ends(kernel)
        await ends(kernel)

        self.assert_returncode(7, kernel)

    async def test_signal_0_only_asks(self, kernels: Kernels) -> None:
        kernel = await kernels()

        await kernel.signal(0)

        assert await kernel.is_alive() is True

    async def test_a_signal_that_the_kernel_ignores_leaves_it_alive(self, kernels: Kernels) -> None:
        kernel = await kernels(Program.STUBBORN)

        await kernel.signal(signal.SIGTERM)
        await kernel.interrupt()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await kernel.wait()
        assert await kernel.is_alive() is True

    async def test_an_interrupt_is_sigint(self, kernels: Kernels) -> None:
        kernel = await kernels()

        await kernel.interrupt()

        await ends(kernel)
        self.assert_returncode(-signal.SIGINT, kernel)

    async def test_after_the_end_a_signal_raises_process_lookup_error(self, kernels: Kernels) -> None:
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

    async def test_kill_ends_a_stubborn_kernel_before_it_returns(self, kernels: Kernels) -> None:
        kernel = await kernels(Program.STUBBORN)

        await kernel.kill()

        assert await kernel.is_alive() is False
        self.assert_returncode(-signal.SIGKILL, kernel)

    async def test_kill_ends_a_stopped_kernel(self, kernels: Kernels) -> None:
        kernel = await kernels()
        await kernel.signal(signal.SIGSTOP)
        assert await kernel.is_alive() is True

        await kernel.kill()

        assert await kernel.is_alive() is False

    async def test_a_second_kill_is_no_error(self, kernels: Kernels) -> None:
        kernel = await kernels()

        await kernel.kill()
        await kernel.kill()
        await asyncio.gather(kernel.kill(), kernel.kill())

        self.assert_returncode(-signal.SIGKILL, kernel)

    async def test_concurrent_kills_all_wait_for_the_end(self, kernels: Kernels) -> None:
        kernel = await kernels()

        await asyncio.gather(kernel.kill(), kernel.kill(), kernel.wait())

        assert await kernel.is_alive() is False

    async def test_cleanup_removes_the_files_and_may_be_repeated(
        self, kernels: Kernels, tmp_path: Path
    ) -> None:
        there, missing = tmp_path / "there", tmp_path / "missing"
        there.touch()
        kernel = await kernels(Program.EXITS_7, [there, missing])
        await ends(kernel)

        await kernel.cleanup()
        await kernel.cleanup()

        assert not there.exists()
        self.assert_returncode(7, kernel)

    async def test_cleanup_leaves_a_kernel_that_runs_alone(self, kernels: Kernels) -> None:
        kernel = await kernels()

        await kernel.cleanup()

        assert await kernel.is_alive() is True
        await kernel.kill()
        await ends(kernel)
        assert await kernel.is_alive() is False
