"""Kernels that another process started."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from supervisor.kernel.adopted import AdoptedKernel
from supervisor.process.identity import LINUX, identify
from tests.kernel.programs import (
    SLEEPER,
    SUCCESSFUL,
    TELLS_STRANGERS,
    Stranger,
    end,
    start,
    state_of,
)
from tests.waiting import DEADLINE


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    found = Stranger(SLEEPER, reap=False)
    yield found
    found.close()


@pytest.mark.parametrize("pidfds", [True, False])
def test_another_process_with_its_pid_is_not_adopted(
    stranger: Stranger, monkeypatch: pytest.MonkeyPatch, pidfds: bool
) -> None:
    if not pidfds:
        monkeypatch.delattr(os, "pidfd_open")
    process = identify(stranger.pid)
    for other in (replace(process, start_time=process.start_time + 1), replace(process, boot_id="another")):
        with pytest.raises(ProcessLookupError):
            AdoptedKernel(other, kernel_id="analysis")


def test_a_process_that_is_gone_is_not_adopted() -> None:
    popen = start(SUCCESSFUL)
    process = identify(popen.pid)
    popen.wait(DEADLINE)

    with pytest.raises(ProcessLookupError):
        AdoptedKernel(process, kernel_id="analysis")


async def test_it_tells_which_process_it_is(stranger: Stranger) -> None:
    kernel = AdoptedKernel(identify(stranger.pid), kernel_id="analysis")

    assert ("analysis", stranger.pid, identify(stranger.pid)) == (
        kernel.kernel_id,
        kernel.pid,
        kernel.process,
    )
    assert uuid.UUID(AdoptedKernel(kernel.process).kernel_id)


@pytest.mark.skipif(not LINUX, reason="the status of a zombie is read from /proc")
async def test_its_exit_status_is_told_when_its_parent_takes_its_time(stranger: Stranger) -> None:
    kernel = AdoptedKernel(identify(stranger.pid), kernel_id="analysis")

    await kernel.signal(signal.SIGTERM)

    assert [False, False] == await asyncio.wait_for(asyncio.gather(kernel.wait(), kernel.wait()), DEADLINE)
    assert "Z" == state_of(stranger.pid)
    assert -signal.SIGTERM == kernel.returncode


async def test_a_child_of_ours_may_be_adopted_too() -> None:
    popen = start(SLEEPER)
    try:
        kernel = AdoptedKernel(identify(popen.pid), kernel_id="analysis")
        waiting = asyncio.create_task(kernel.wait())

        await kernel.signal(signal.SIGKILL)
        popen.wait(DEADLINE)

        assert await asyncio.wait_for(waiting, DEADLINE) is False
        assert (-signal.SIGKILL if TELLS_STRANGERS else None) == kernel.returncode
    finally:
        end(popen)
