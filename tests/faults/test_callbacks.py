"""Callbacks of an embedding program that raise, hang, or end their thread: kernels come back all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor import Supervisor
from supervisor.settings.config import BackoffConfig, KernelConfig
from tests.kernels.using import mini
from tests.waiting import DEADLINE


def _raise() -> None:
    raise ValueError("a mistake of the program")


def _exit() -> None:
    sys.exit("a callback that wants to end the program")


def _not_callable_twice() -> object:
    return 1 / 0


@pytest.mark.parametrize("callback", [_raise, _exit, _not_callable_twice])
async def test_a_callback_that_raises_delays_no_restart_and_the_next_one_is_called(
    tmp_path: Path, callback: Callable[[], object]
) -> None:
    called = threading.Event()
    await _dies_twice(tmp_path, callback, called.set)

    assert called.is_set()


async def test_a_callback_that_hangs_delays_no_restart_and_no_end(tmp_path: Path) -> None:
    release, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(DEADLINE)

    try:
        await _dies_twice(tmp_path, hang)
        assert begun.is_set()
    finally:
        release.set()


async def _dies_twice(directory: Path, *callbacks: Callable[[], object]) -> None:
    backoff = BackoffConfig(initial=0.0, next=0.0, jitter=0.0)
    settings = KernelConfig(name="a", argv=tuple(mini()), cwd=str(directory), backoff=backoff)
    supervisor = Supervisor(settings, state_dir=directory / "state", runtime_dir=directory / "runtime")
    for callback in callbacks:
        supervisor.add_restart_callback("a", callback)
    async with asyncio.timeout(DEADLINE), supervisor:
        for generation in (1, 2):
            await _runs(supervisor, generation)
            pid = supervisor["a"].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        await _runs(supervisor, 3)


async def _runs(supervisor: Supervisor, generation: int) -> None:
    while (supervisor["a"].status()["phase"], supervisor["a"].generation) != ("running", generation):
        await supervisor.supervision.runner.wait_for_change()
