"""Rows of jupyter_kernel_mgmt's API that the contract suite does not tell already."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.kernel.adopted import AdoptedKernel
from supervisor.kernel.managerabc import KernelManagerABC
from supervisor.kernel.subproc import KernelManager
from supervisor.process.identity import identify
from tests.kernel.programs import EXITS_7, SLEEPER, end, name_of, start, start_async
from tests.waiting import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    popen = start(SLEEPER)
    wait_for(lambda: name_of(popen.pid) == "sleep")
    yield popen
    end(popen)


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


def test_the_constructor_has_the_signature_that_is_documented(sleeper: subprocess.Popen[bytes]) -> None:
    parameters = list(inspect.signature(KernelManager).parameters.values())[:3]

    assert ["popen", "files_to_cleanup", "win_interrupt_evt"] == [each.name for each in parameters]
    assert [None, None] == [each.default for each in parameters[1:]]
    # By position, too.
    assert KernelManager(sleeper, [], None).kernel is sleeper


async def test_a_kernel_that_we_started_and_one_that_we_adopt_have_ids_alike(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = identify(sleeper.pid)

    assert "analysis" == KernelManager(sleeper, kernel_id="analysis").kernel_id
    assert "analysis" == AdoptedKernel(process, kernel_id="analysis").kernel_id
    unnamed = AdoptedKernel(process).kernel_id
    assert unnamed == str(uuid.UUID(unnamed))


async def test_is_alive_is_a_bool_before_and_after_the_end() -> None:
    for process in (start(EXITS_7), await start_async(EXITS_7)):
        kernel = KernelManager(process)
        assert type(await kernel.is_alive()) is bool

        assert await kernel.wait() is False

        assert await kernel.is_alive() is False
        assert 7 == kernel.returncode


async def test_a_wait_may_be_wrapped_in_a_time_out(sleeper: subprocess.Popen[bytes]) -> None:
    kernel = KernelManager(sleeper)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(kernel.wait(), 0.05)

    assert await kernel.is_alive() is True
    await kernel.kill()
    assert await asyncio.wait_for(kernel.wait(), 30) is False


async def test_the_windows_event_is_ignored_elsewhere(sleeper: subprocess.Popen[bytes]) -> None:
    kernel = KernelManager(sleeper, win_interrupt_evt=object())

    await kernel.interrupt()

    assert await kernel.wait() is False
    assert -signal.SIGINT == kernel.returncode


async def test_an_interrupt_after_the_end_is_a_process_lookup_error_and_a_kill_is_none(
    sleeper: subprocess.Popen[bytes],
) -> None:
    kernel = KernelManager(sleeper)
    await kernel.kill()

    with pytest.raises(ProcessLookupError):
        await kernel.interrupt()
    await kernel.kill()


async def test_cleanup_takes_texts_and_paths(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    text, path = tmp_path / "text", tmp_path / "path"
    text.touch()
    path.touch()

    await KernelManager(sleeper, [str(text), path, tmp_path / "missing"]).cleanup()

    assert not any(file.exists() for file in (text, path))
