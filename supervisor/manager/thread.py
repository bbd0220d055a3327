"""The thread in which the kernels of all managers of this process are supervised.

Owns one event loop in one thread, there as long as anybody needs it, and the
zmq context of its sockets.  Knows nothing of kernels.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import zmq

from supervisor.kernel.line import Context

T = TypeVar("T")


class Gone(Exception):
    """The thread has ended, or was asked for something that it can only do itself."""


class LoopThread:
    """A thread with an event loop: begun by the first ``acquire``, ended by the last ``release``.

    One for all managers: what they do on it is short, everything slow has a
    thread of its own.  A forked child has none, and begins another.
    """

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.context: Context = zmq.Context()
        self._users = 0
        self._stop: asyncio.Event
        begun = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(begun,), name="kernel-supervisor", daemon=True
        )
        self._thread.start()
        begun.wait()

    def _run(self, begun: threading.Event) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(begun))
        finally:
            # All sockets are closed by now: each session closes its own before it lets go.
            self.context.destroy(linger=0)

    async def _serve(self, begun: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        begun.set()
        await self._stop.wait()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; blocks the calling thread."""
        try:
            if self.is_current:
                raise Gone("called on the supervisor's own thread, which would wait for itself")
            self.hold()
        except Gone:
            work.close()
            raise
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
            try:
                return future.result()
            except concurrent.futures.CancelledError:
                raise Gone("the supervision ended meanwhile") from None
            except BaseException:
                future.cancel()  # KeyboardInterrupt in the calling thread
                raise
        finally:
            self.release()

    def hold(self) -> None:
        """Keep the thread until ``release``.  Raises Gone if it is on its way out."""
        with _lock:
            if self._users == 0:
                raise Gone("the thread has ended")
            self._users += 1

    def release(self) -> None:
        """Give it back; the last one ends it, and returns when it has ended."""
        global _current  # noqa: PLW0603
        with _lock:
            self._users -= 1
            if self._users:
                return
            if _current is self:
                _current = None
        self._end()

    def _end(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        if not self.is_current:
            self._thread.join()

    def begin_use(self) -> None:
        """The first user; called under the lock."""
        self._users += 1


_lock = threading.Lock()
_current: LoopThread | None = None


def acquire() -> LoopThread:
    """The thread, begun if need be, for as long as ``release`` is not called."""
    global _current  # noqa: PLW0603
    with _lock:
        if _current is None:
            _current = LoopThread()
        _current.begin_use()
        return _current


def _forget() -> None:
    """In a forked child: the thread is the parent's, and whoever held the lock is not here."""
    global _lock, _current  # noqa: PLW0603
    _lock = threading.Lock()
    _current = None


def _leave() -> None:
    """At the end of the interpreter: stop before what the loop needs is torn down."""
    if (thread := _current) is not None and thread.loop.is_running():
        thread._end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_leave)
