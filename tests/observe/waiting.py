"""Waiting for a condition, with the one deadline that these tests share."""

import asyncio
import time
from collections.abc import Callable

DEADLINE = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; fail after the deadline."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    """As ``wait_until``, while the loop goes round."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - a condition of the outside, which nobody signals
            await asyncio.sleep(0.005)
