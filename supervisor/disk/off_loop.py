"""The one way off the event loop, for everything that may hang.

Owns the threads, the order of what is done in a lane, and the patience with it.
Knows nothing of what is done.  A thread without work ends after a while, but for those
that must last, and an exit of the process waits for none.

Not the loop's own executor: it has a few threads, which one file system that
hangs would fill, and the interpreter joins them when it exits.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Job = Callable[[], object]

# How long a thread without work waits for some, in seconds.
LINGER = 2.0
# How long a piece of work may take, in seconds: no disk that works takes so long for a few files.
PATIENCE = 10.0
# Where threads last, one does all the work, and gets a companion when it takes longer than so many seconds.
RELIEF_AFTER = 1.0


def no_thread() -> OSError:
    """What is raised where the system makes no more threads (pthread_create(3))."""
    return OSError(errno.EAGAIN, "no thread is to be had: raise LimitNPROC or TasksMax")


class Hanging(Exception):
    """The system keeps us waiting: a file system hangs, say."""


class Threads:
    """Threads between two pieces of work: one that has none waits a while for that of another lane.

    To make one takes the loop longer than most of what is done in it, and much longer on a busy machine.
    The *last* one is made in time: where the system makes no more, the lanes take turns in it.  So what is
    to be read, written and told goes on; a lane that hangs holds up the others, though.
    """

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """In a forked child, too: the threads are the parent's, and whoever held the lock is not here."""
        self._lock = threading.Lock()
        self._waiting: list[SimpleQueue[Job]] = []
        self._last: SimpleQueue[Job] | None = None

    def keep_one(self) -> None:
        """Have the last one, once and for all.  Raises OSError if there is no thread even now."""
        if self._last is None:
            asked: SimpleQueue[Job] = SimpleQueue()
            try:
                threading.Thread(target=_serve_always, args=(asked,), name="last thread", daemon=True).start()
            except RuntimeError as error:
                raise no_thread() from error
            self._last = asked

    def begin(self, work: Job) -> None:
        """Have ``work`` called, which raises nothing.  Raises RuntimeError if no thread is to be had."""
        with self._lock:
            if self._waiting:
                self._waiting.pop().put(work)
                return
        threading.Thread(target=self._serve, args=(work,), name="without work", daemon=True).start()

    def begin_in_last(self, work: Job) -> bool:
        """Have ``work`` called in the last one, in turn; False if that was never made."""
        if self._last is not None:
            self._last.put(work)
        return self._last is not None

    def _serve(self, work: Job) -> None:
        asked: SimpleQueue[Job] = SimpleQueue()
        while True:
            work()
            with self._lock:
                self._waiting.append(asked)
            try:
                work = asked.get(timeout=LINGER)
            except Empty:
                with self._lock:
                    if asked in self._waiting:
                        self._waiting.remove(asked)
                        return
                work = asked.get()  # given in the last moment


def _serve_always(asked: SimpleQueue[Job]) -> None:
    while True:
        asked.get()()


THREADS = Threads()


class Lane:
    """Work of one kind, such as the records of one kernel: in order, one thing at a time.

    Its thread is another lane's afterwards.  With ``lasts`` it never is: a process may have
    asked to be ended with the very thread that made it (PR_SET_PDEATHSIG, prctl(2)), as
    ``bwrap --die-with-parent`` does.  Then the order is kept as long as nothing hangs.
    ``before`` is called before each thing; it raises nothing.  Where no thread is to be had
    the work is done in the last one, but for one that ``borrows`` nothing: what waits for
    a reader, or for code that is not ours, would keep that thread from everybody else.
    """

    def __init__(
        self,
        name: str,
        before: Callable[[], object] = lambda: None,
        *,
        lasts: bool = False,
        borrows: bool = True,
    ) -> None:
        self.name = name
        self._before = before
        self._lasts = lasts
        self._borrows = borrows
        self._begun: dict[Job, float] = {}
        self._given_up: set[Job] = set()
        self._reset()
        if lasts and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """In a forked child, too: the threads are the parent's, and whoever held the lock is not here."""
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._threads = self._idle = 0
        self._begun.clear()
        self._given_up.clear()

    @property
    def busy_for(self) -> float:
        """How long the work that was begun first has taken, in seconds; 0 without any."""
        with self._changed:
            begun = min(self._begun.values(), default=None)
        return 0.0 if begun is None else time.monotonic() - begun

    def put(self, job: Job) -> None:
        """Have ``job`` called, which raises nothing; from any thread, loop or no loop.

        Raises OSError (EAGAIN) if no thread is to be had, not even the last; the job is not called then.
        """
        with self._changed:
            self._jobs.append(job)
            if self._idle:
                self._changed.notify()
            elif not self._threads:
                try:
                    self._add_thread()
                except RuntimeError as error:
                    if not (self._borrows and THREADS.begin_in_last(self._serve_in_last)):
                        self._jobs.remove(job)
                        raise no_thread() from error

    def begin(self, work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Begin ``work(*arguments)`` off the running loop; the future has what comes of it.

        The work goes on when nobody waits any more.  Raises OSError (EAGAIN) as ``put`` does.
        """
        return self._begin(work, arguments)[1]

    async def do(self, work: Callable[..., T], *arguments: object, patience: float | None = None) -> T:
        """What comes of ``work(*arguments)``, done off the running loop.

        Raises Hanging if it has not come after ``patience`` seconds (PATIENCE), at once if
        what was given up so before still hangs, and what the work raises.  What has not
        begun by then is not done.
        """
        if self._given_up:
            raise Hanging(f"{self.name}: an earlier attempt still waits for the system: does a disk hang?")
        patience = PATIENCE if patience is None else patience
        job, answer = self._begin(work, arguments)
        await asyncio.wait({answer}, timeout=patience)
        if not answer.done():
            self._give_up(job)
            raise Hanging(f"{self.name}: no answer from the system within {patience:g} s: does a disk hang?")
        return answer.result()

    def _begin(self, work: Callable[..., T], arguments: tuple[object, ...]) -> tuple[Job, asyncio.Future[T]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        # One that nobody waits for any more is no mistake.
        answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())
        job = partial(_answer, loop, answer, work, arguments)
        self.put(job)
        if self._lasts:
            loop.call_later(RELIEF_AFTER, self._relieve, loop)
        return job, answer

    def _give_up(self, job: Job) -> None:
        with self._changed:
            if job in self._begun:
                self._given_up.add(job)
            elif job in self._jobs:
                self._jobs.remove(job)

    def _relieve(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._changed:
            if not self._jobs:
                return
            since = time.monotonic() - RELIEF_AFTER
            if len(self._begun) == self._threads and all(begun <= since for begun in self._begun.values()):
                with suppress(RuntimeError):  # none is to be had: what waits goes on waiting
                    self._add_thread()
        loop.call_later(RELIEF_AFTER, self._relieve, loop)

    def _add_thread(self) -> None:
        THREADS.begin(partial(self._serve, self._lasts))
        self._threads += 1

    def _serve_in_last(self) -> None:
        with self._changed:
            if self._threads:
                return  # of its own by now
            self._threads += 1
        self._serve(False)

    def _serve(self, lasts: bool) -> None:
        thread = threading.current_thread()
        before, thread.name = thread.name, self.name
        while (job := self._next(lasts)) is not None:
            self._before()
            Context().run(job)  # what is set in it is for nobody who has the thread next
            with self._changed:
                self._begun.pop(job, None)
                self._given_up.discard(job)
        thread.name = before

    def _next(self, lasts: bool) -> Job | None:
        with self._changed:
            self._idle += 1
            while not self._jobs and lasts:
                self._changed.wait()
            self._idle -= 1
            if not self._jobs:
                self._threads -= 1
                return None
            job = self._jobs.popleft()
            self._begun[job] = time.monotonic()
            return job


def begin(work: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
    """Begin ``work(*arguments)`` in a lane of its own, for what nothing need wait behind."""
    return Lane(getattr(work, "__name__", "off the loop")).begin(work, *arguments)


def _answer(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[Any],
    work: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    try:
        settle, outcome = answer.set_result, work(*arguments)
    except BaseException as error:
        settle, outcome = answer.set_exception, error

    def tell() -> None:
        if not answer.done():
            settle(outcome)

    with suppress(RuntimeError):  # the loop was closed in the meantime
        loop.call_soon_threadsafe(tell)
