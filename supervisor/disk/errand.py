"""Blocking work that may hang, each in a thread where it is in nobody's way.

Owns the way from a call to its answer on the loop, and the patience with what
prepares a launch.  Knows nothing of kernels, and ends no thread.

Not the loop's own executor: it has a few threads, which a file system that
hangs would fill, and the deaths of kernels are told from there.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

# How long a step may take, in seconds: no disk that works takes so long for a few files.
STEP_PATIENCE = 10.0


def begin(work: Callable[..., T], *arguments: object, pool: Executor | None = None) -> asyncio.Future[T]:
    """Begin ``work(*arguments)`` off the running loop; the future has what comes of it.

    In a thread of its own, which an exit of the process does not wait for, or
    in one of the ``pool``.  The work goes on when nobody waits any more.  Raises
    OSError (EAGAIN) if no thread is to be had; the work is not done then.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()
    # One that nobody waits for any more is no mistake.
    answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
    calling = threading.Lock()

    def run() -> None:
        if not calling.acquire(blocking=False):
            return  # called off
        try:
            result = work(*arguments)
        except BaseException as error:
            _tell(loop, answer, answer.set_exception, error)
        else:
            _tell(loop, answer, answer.set_result, result)

    try:
        if pool is None:
            threading.Thread(target=run, name="errand", daemon=True).start()
        else:
            pool.submit(run)
    except RuntimeError as error:
        # A pool has it queued all the same, for the next thread that is free, which may have it by now.
        if calling.acquire(blocking=False):
            raise OSError(errno.EAGAIN, "no thread is to be had") from error
    return answer


class Hanging(Exception):
    """The system keeps us waiting: a file system hangs, say.  No fault of the kernel's."""


class Steps:
    """Steps that may hang, done one after the other and never two at a time."""

    def __init__(self) -> None:
        # One that hangs outlives the wait for it.
        self._begun: asyncio.Future[Any] | None = None

    async def do(self, work: Callable[..., T], *arguments: object) -> T:
        """Do one step in a thread of its own.

        Raises Hanging if it, or one that was given up before, has not ended in
        time, and what the work raises.
        """
        if self._begun is not None and not self._begun.done():
            raise Hanging("an earlier attempt still waits for the system: does a file system hang?")
        step: asyncio.Future[T] = begin(work, *arguments)
        self._begun = step
        await asyncio.wait({step}, timeout=STEP_PATIENCE)
        if not step.done():
            raise Hanging(
                f"a file or directory has not answered within {STEP_PATIENCE:g} s: does a disk hang?"
            )
        return step.result()


def _tell(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[T],
    settle: Callable[..., object],
    outcome: object,
) -> None:
    def told() -> None:
        if not answer.done():
            settle(outcome)

    try:
        loop.call_soon_threadsafe(told)
    except RuntimeError:
        pass  # the loop was closed in the meantime
