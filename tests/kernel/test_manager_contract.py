"""One contract, every kind of kernel."""

from __future__ import annotations

import errno
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from supervisor.kernel import local
from supervisor.kernel.adopted import AdoptedKernel
from supervisor.kernel.managerabc import KernelManagerABC
from supervisor.kernel.subproc import KernelManager
from supervisor.process.identity import identify
from tests.kernel.contract import Kernels, ManagerContract, Program
from tests.kernel.fake import FakeKernel
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
from tests.waiting import wait_for

ARGV = {Program.SLEEPER: SLEEPER, Program.STUBBORN: STUBBORN, Program.EXITS_7: EXITS_7}


def settle(program: Program, pid: int) -> None:
    """Wait wait_for a real process does what its program says."""
    if program is Program.EXITS_7:
        wait_for(lambda: state_of(pid) in {"Z", ""})
    else:
        wait_for(lambda: name_of(pid) == "sleep")


@pytest.fixture
def _no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: object) -> int:
        raise OSError(errno.ENOSYS, "no pidfds here")

    monkeypatch.setattr(local, "open_pidfd", refuse)


class TestPopen(ManagerContract):
    @pytest.fixture
    def kernels(self) -> Iterator[Kernels]:
        started = []

        async def make(
            program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
        ) -> KernelManagerABC:
            popen = start(ARGV[program])
            started.append(popen)
            settle(program, popen.pid)
            return KernelManager(popen, list(files_to_cleanup))

        yield make
        for popen in started:
            end(popen)


@pytest.mark.usefixtures("_no_pidfd")
class TestPopenWithoutPidfd(TestPopen):
    pass


class TestAsyncioProcess(ManagerContract):
    @pytest.fixture
    async def kernels(self) -> Iterator[Kernels]:
        started = []

        async def make(
            program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
        ) -> KernelManagerABC:
            process = await start_async(ARGV[program])
            started.append(process)
            settle(program, process.pid)
            return KernelManager(process, list(files_to_cleanup))

        yield make
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.mark.usefixtures("_no_pidfd")
class TestAsyncioProcessWithoutPidfd(TestAsyncioProcess):
    pass


class TestAdopted(ManagerContract):
    @pytest.fixture
    def kernels(self) -> Iterator[Kernels]:
        strangers = []

        async def make(
            program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
        ) -> KernelManagerABC:
            # One that ended before it was adopted is there wait_for its parent reaps it.
            stranger = Stranger(ARGV[program], reap=program is not Program.EXITS_7)
            strangers.append(stranger)
            settle(program, stranger.pid)
            process = identify(stranger.pid)
            kernel = AdoptedKernel(process, files_to_cleanup=list(files_to_cleanup))
            stranger.reap()
            return kernel

        yield make
        for stranger in strangers:
            stranger.close()


@pytest.mark.usefixtures("_no_pidfd")
class TestAdoptedWithoutPidfd(TestAdopted):
    tells_returncode = False


class TestFake(ManagerContract):
    @pytest.fixture
    def kernels(self) -> Kernels:
        async def make(
            program: Program = Program.SLEEPER, files_to_cleanup: Iterable[Path] = ()
        ) -> KernelManagerABC:
            ignores = [signal.SIGTERM, signal.SIGINT] if program is Program.STUBBORN else []
            kernel = FakeKernel(ignores=ignores, files_to_cleanup=files_to_cleanup)
            if program is Program.EXITS_7:
                kernel.end(7)
            return kernel

        return make
