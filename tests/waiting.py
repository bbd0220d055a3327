"""Waiting for a condition, with the one deadline that all tests share; nothing else in the tests sleeps."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import TypeVar

# In seconds; the one deadline of all waits.  TEST_DEADLINE is for a machine that is busy with other work.
DEADLINE = float(os.environ.get("TEST_DEADLINE", "30"))
INTERVAL = 0.005

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str | Callable[[], str] = "", deadline: float = DEADLINE) -> T:
    """What the condition gives once that is true; AssertionError if it is not in time."""
    until = time.monotonic() + deadline
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline:g} s: {what() if callable(what) else what}")
        time.sleep(INTERVAL)
    return found


async def until(condition: Callable[[], object]) -> None:
    """As ``wait_for``, while the loop goes round."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  of other threads and processes, which signal nobody
            await asyncio.sleep(INTERVAL)


async def outlast(alarm: float) -> None:
    """Let whatever the loop was set to do in ``alarm`` seconds, or in two times as many, have its turn.

    For what must not happen: the span is that of a setting, never a guess.
    """
    await asyncio.sleep(2 * alarm + INTERVAL)
