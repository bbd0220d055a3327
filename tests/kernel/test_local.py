"""What kernels on this machine have in common: their end, their files, their pidfd."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
from pathlib import Path

import pytest

from supervisor.kernel import local
from supervisor.kernel.subproc import KernelManager
from tests.kernel.programs import (
    SLEEPER,
    end,
    open_files,
    start,
)
from tests.waiting import DEADLINE


async def test_an_end_that_does_not_come_is_logged_and_not_waited_for(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local, "KILL_TIMEOUT", 0.02)
    monkeypatch.setattr(KernelManager, "_send", lambda self, signum: None)  # as if it hung in a system call
    kernel = KernelManager(sleeper, kernel_id="analysis")

    with caplog.at_level(logging.WARNING):
        await kernel.kill()

    assert f"kernel analysis: pid {sleeper.pid} has not ended 0.02 s after SIGKILL" in caplog.text
    assert await kernel.is_alive() is True


async def test_cleanup_takes_texts_and_paths_and_logs_what_cannot_be_removed(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, text, path = tmp_path / "directory", tmp_path / "text", tmp_path / "path"
    directory.mkdir()
    text.touch()
    path.touch()

    await KernelManager(sleeper, [str(directory), str(text), path, tmp_path / "missing"]).cleanup()

    assert 1 == caplog.text.count("cannot remove")
    assert not any(file.exists() for file in (text, path))


async def test_the_pidfd_is_closed_at_the_end_by_cleanup_and_when_forgotten() -> None:
    gc.collect()
    files = open_files()
    popens = [start(SLEEPER) for _ in range(3)]
    try:
        ended, cleaned, forgotten = (KernelManager(popen) for popen in popens)
        assert files + 3 == open_files()

        await ended.kill()
        assert files + 2 == open_files()
        await cleaned.cleanup()
        assert files + 1 == open_files()
        del forgotten
        gc.collect()
        assert files == open_files()
    finally:
        for popen in popens:
            end(popen)


async def test_who_waits_first_needs_no_further_descriptor_and_cleanup_lets_nobody_wait_in_vain(
    sleeper: subprocess.Popen[bytes],
) -> None:
    gc.collect()
    files = open_files()
    kernel = KernelManager(sleeper)
    first, cancelled = asyncio.create_task(kernel.wait()), asyncio.create_task(kernel.wait())
    await asyncio.sleep(0)
    assert files + 2 == open_files()  # of the kernel, and of the second that waits
    cancelled.cancel()
    await asyncio.wait({cancelled})

    await kernel.cleanup()
    assert files + 1 == open_files()
    sleeper.kill()

    assert await asyncio.wait_for(first, DEADLINE) is False
    assert files == open_files()
