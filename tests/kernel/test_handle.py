"""A run that is a process here: what ends with it, and what has left it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import pytest

from supervisor.core.events import Escaped
from supervisor.kernel import handle as handles
from supervisor.settings.config import KernelConfig
from tests.kernel.hosting import Hosting, config
from tests.waiting import DEADLINE, until


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_children_in_the_group_end_with_the_kernel(hosting: Hosting) -> None:
    spawned = await hosting.spawn(child_of("start_new_session=False"))
    await until(lambda: told_pid(hosting) is not None)
    child = told_pid(hosting)
    assert child is not None

    await hosting.kill(spawned)

    assert has_ended(child)


def child_of(how: str) -> KernelConfig:
    code = f"import subprocess, time; c = subprocess.Popen(['sleep', '600'], {how}); print(c.pid, flush=True)"
    argv = (sys.executable, "-c", f"{code}; time.sleep(600)", "{connection_file}")
    return KernelConfig(name="a", argv=argv)


def told_pid(hosting: Hosting) -> int | None:
    text = hosting.places.output_file("a").read_text()
    return int(text) if text.endswith("\n") else None


async def test_children_that_left_are_told_before_all_is_told(hosting: Hosting) -> None:
    spawned = await hosting.spawn(child_of("start_new_session=True"))
    await until(lambda: told_pid(hosting) is not None)
    child = told_pid(hosting)
    assert child is not None
    try:
        await hosting.kill(spawned)
        await asyncio.wait_for(hosting.host.wait_told(), DEADLINE)

        assert [Escaped("a", 1, (child,))] == hosting.of(Escaped)
    finally:
        os.kill(child, signal.SIGKILL)


async def test_an_end_is_told_though_what_is_left_behind_cannot_be_looked_for(
    hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(process: object) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(handles, "end_group", fail)

    await hosting.kill(await hosting.spawn(config()))
