"""The thread in which the kernels of all managers of this process are supervised.

Owns one event loop in one thread, there as long as anybody needs it, and the
zmq context of its sockets.  Knows nothing of kernels.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import errno
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

import zmq

from supervisor.kernel.line import Context

T = TypeVar("T")
Work = Coroutine[Any, Any, T]

# What a loop and a zmq context with a socket take, and a few to spare.
DESCRIPTORS = 16
# How long each kernel may take to end when the interpreter does, in seconds.
FAREWELL_PATIENCE = 3.0


class LoopThread:
    """A thread with an event loop: begun by the first ``acquire``, ended by the last ``release``.

    One for all managers: what they do on it is short, everything slow has a
    thread of its own.  A forked child has none, and begins another.  Raises
    OSError if the machine has no room for it.
    """

    def __init__(self) -> None:
        _refuse_without_descriptors()
        self.loop: asyncio.AbstractEventLoop
        self.context: Context = zmq.Context()
        # What is to be done on the loop before the interpreter ends.
        self.farewells: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._users = 0
        self._stop: asyncio.Event
        begun: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._run, args=(begun,), name="kernel-supervisor", daemon=True
        )
        try:
            self._start()
            begun.result()
        except BaseException:  # KeyboardInterrupt in the calling thread
            begun.add_done_callback(self._end_unused)
            raise

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, f"no thread for the supervision of kernels: {error}") from None

    def _end_unused(self, begun: concurrent.futures.Future[None]) -> None:
        if begun.exception() is None:
            self._end(join=False)

    def _run(self, begun: concurrent.futures.Future[None]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(begun))
        except BaseException as error:
            if begun.done():
                raise
            begun.set_exception(error)
        finally:
            # All sockets are closed by now: each supervision closes its own before it lets go.
            self.context.destroy(linger=0)

    async def _serve(self, begun: concurrent.futures.Future[None]) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        begun.set_result(None)
        await self._stop.wait()

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    def begin(self, work: Work[T]) -> concurrent.futures.Future[T]:
        """Begin a coroutine on the loop."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            raise

    def call(self, work: Work[T]) -> T:
        """Run a coroutine on the loop and return its result; blocks the calling thread."""
        if self.is_current:
            work.close()
            raise RuntimeError("called on the supervisor's own thread, which would wait for itself")
        future = self.begin(work)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the supervision of kernels has ended: this program does") from None
        except BaseException:
            future.cancel()  # KeyboardInterrupt in the calling thread
            raise

    def release(self, *, join: bool = True) -> None:
        """Give it back; the last one ends it, and returns when it has ended, unless told not to."""
        global _current  # noqa: PLW0603
        with _lock:
            self._users -= 1
            if self._users:
                return
            if _current is self:
                _current = None
        self._end(join=join)

    def _end(self, *, join: bool) -> None:
        try:
            self.loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            return  # it has ended
        if join and not self.is_current:
            self._thread.join()

    def begin_use(self) -> None:
        """One more user; called under the lock."""
        self._users += 1

    def leave(self) -> None:
        """Do what is to be done before the interpreter ends, for a bounded time."""
        acquire()  # to the end of it
        try:
            self.begin(self._say_farewell()).result(2 * FAREWELL_PATIENCE)
        except concurrent.futures.TimeoutError:
            pass
        finally:
            self._end(join=True)

    async def _say_farewell(self) -> None:
        if tasks := [asyncio.ensure_future(farewell()) for farewell in self.farewells]:
            await asyncio.wait(tasks, timeout=FAREWELL_PATIENCE)


def drive(work: Work[T]) -> T:
    """Carry out a coroutine in which there is nothing to be awaited."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("it waits for something")


def _refuse_without_descriptors() -> None:
    """Raise OSError where a loop and a zmq context would not have what they need.

    libzmq does not tell: it ends the process (``epoll_t::epoll_t``).
    """
    try:
        with ExitStack() as taken:
            for _ in range(DESCRIPTORS):
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        what = f"no descriptors for the supervision of kernels: {error.strerror}"
        raise OSError(error.errno, what) from None


_lock = threading.Lock()
_current: LoopThread | None = None


def acquire() -> LoopThread:
    """The thread, begun if need be, for as long as ``release`` is not called.  Raises OSError."""
    global _current  # noqa: PLW0603
    with _lock:
        if _current is None:
            _current = LoopThread()
        _current.begin_use()
        return _current


def hold() -> LoopThread:
    """The thread that runs the caller, until ``release``.  Raises CancelledError if it is ending.

    Whoever gave an order and was cancelled lets go at once, maybe before the order was begun.
    """
    with _lock:
        if _current is None or not _current.is_current:
            raise asyncio.CancelledError
        _current.begin_use()
        return _current


def _forget() -> None:
    """In a forked child: the thread is the parent's, and whoever held the lock is not here."""
    global _lock, _current  # noqa: PLW0603
    _lock = threading.Lock()
    _current = None


def _leave() -> None:
    """At the end of the interpreter: stop before what the loop needs is torn down."""
    global _current  # noqa: PLW0603
    if (thread := _current) is not None and thread.loop.is_running():
        thread.leave()
        _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(_leave)
