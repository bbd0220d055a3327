"""Callbacks of embedding programs: told when a kernel restarts or is given up.

Owns who is called and in which order.  Never lets a callback delay a restart,
reach another kernel's callbacks, or hold up an exit: those of one kernel are
called one after the other by a thread that is there while there is something to
tell; coroutine functions run on the loop of the program.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from msgspec import Struct

from supervisor.disk.off_loop import Lane

Callback = Callable[[], object] | Callable[[Mapping[str, object]], object]

EVENTS = ("restart", "dead", "restarted")
MAX_WAITING = 100

_logger = logging.getLogger(__name__)

Line = Mapping[str, object]

# Within a callback: whose, and the end of a run that it is called for.
_TOLD: ContextVar[tuple[Callbacks, Line | None] | None] = ContextVar("told", default=None)


class _Registration(Struct, frozen=True):
    kernel: str | None
    event: str
    callback: Callback
    takes_event: bool


class Callbacks:
    """The observer that calls registered callbacks; to be used from any thread.

    The events are those of jupyter_client, and one more: "restart" after a death,
    before the relaunch; "dead" when given up; "restarted" when the process of an ordered restart is there.

    Coroutine functions run on ``loop``, the one that is running when an event comes
    unless it is set; without ``coroutines`` they are refused.  With ``on_loop``
    functions are called there, too, and not in a thread.
    """

    def __init__(
        self, *, coroutines: bool = True, on_loop: bool = False, max_waiting: int = MAX_WAITING
    ) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._coroutines = coroutines
        self._on_loop = on_loop
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._registrations: tuple[_Registration, ...] = ()
        # Kernels that are restarted on demand, and not launched yet.
        self._ordered: set[str] = set()
        # The last line about each that told how a run ended.
        self._ends: dict[str, Line] = {}
        self._waiting: dict[str, deque[tuple[Line, Line | None, tuple[_Registration, ...]]]] = {}
        # The threads that call, by kernel, and the tasks on the loop that they wait for.
        self._callers: dict[str, concurrent.futures.Future[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def told(self) -> Line | None:
        """Within a callback of ours, the line that told the end of a run that it is called for."""
        told = _TOLD.get()
        return told[1] if told is not None and told[0] is self else None

    def end_of(self, kernel: str) -> Line | None:
        """The line that told how its last run ended; within a callback, the one that it is called for."""
        return self.told or self._ends.get(kernel)

    def add(self, kernel: str | None, callback: Callback, event: str = "restart") -> None:
        """Call ``callback`` at each ``event`` of the kernel, or of all for ``None``.

        A callback that can be called without arguments is; one that needs an
        argument gets the event.  ValueError for an unknown event, TypeError
        for a callback that needs more than one argument.
        """
        registration = _Registration(kernel, _known(event), callback, _takes_event(callback))
        if not self._coroutines and _is_coroutine_function(callback):
            raise TypeError(
                "callback: is a coroutine function: give a plain one, or use AsyncKernelManager or Supervisor"
            )
        with self._lock:
            self._registrations += (registration,)

    def remove(self, kernel: str | None, callback: Callback, event: str = "restart") -> None:
        """Undo one ``add``; no error if there was none.  ValueError for an unknown event."""
        name = _known(event)
        with self._lock:
            for position, known in enumerate(self._registrations):
                if (known.kernel, known.event) == (kernel, name) and known.callback == callback:
                    self._registrations = self._registrations[:position] + self._registrations[position + 1 :]
                    return

    def __call__(self, line: Line) -> None:
        """Start calling those whom the event concerns, as registered at this moment; returns at once."""
        kernel, name = str(line.get("kernel")), self._name(line)
        if "cause" in line:
            self._ends[kernel] = line
        with self._lock:
            due = tuple(r for r in self._registrations if r.event == name and r.kernel in (None, kernel))
            if not due or self._closed:
                return
            waiting = self._waiting.setdefault(kernel, deque())
            waiting.append((line, self._ends.get(kernel), due))
            if len(waiting) > self._max_waiting:
                waiting.popleft()
                _logger.warning("callbacks of kernel %s are stuck: an event is lost for them", kernel)
            if self._coroutines and self.loop is None:
                self.loop = asyncio.get_running_loop()
            if kernel not in self._callers:
                self._callers[kernel] = self._begin(kernel)

    def _name(self, line: Line) -> str | None:
        kernel = str(line.get("kernel"))
        match line.get("event"):
            case "kernel.restarting" if "reason" in line:
                self._ordered.add(kernel)  # told once there is a process
            case "kernel.restarting":
                return "restart"
            case "kernel.starting" if kernel in self._ordered:
                self._ordered.discard(kernel)
                return "restarted"
            case "kernel.failed":
                self._ordered.discard(kernel)
                return "dead"
            case "kernel.died" | "kernel.stopped" | "kernel.removed":
                self._ordered.discard(kernel)
        return None

    def _begin(self, kernel: str) -> concurrent.futures.Future[None]:
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        Lane("callback", borrows=False).put(partial(self._work, kernel, done))
        return done

    def _work(self, kernel: str, done: concurrent.futures.Future[None]) -> None:
        while True:
            with self._lock:
                if self._closed or not self._waiting[kernel]:
                    del self._waiting[kernel], self._callers[kernel]
                    break
                line, end, due = self._waiting[kernel].popleft()
            _TOLD.set((self, end))
            for registration in due:
                self._call(registration, line)
        done.set_result(None)

    def _call(self, registration: _Registration, line: Line) -> None:
        callback: Callable[..., Any] = registration.callback
        arguments = (line,) if registration.takes_event else ()
        try:
            if self._on_loop:
                self._carry(self._on_the_loop(callback, arguments))
            elif inspect.isawaitable(result := callback(*arguments)):
                try:
                    self._carry(self._on_the_loop(lambda: result, ()))
                finally:
                    if inspect.iscoroutine(result):  # the loop may have had it never
                        result.close()
        except BaseException as error:
            if self._closed and isinstance(error, concurrent.futures.CancelledError):
                return
            # SystemExit and KeyboardInterrupt, too: a callback does not end the program.
            _logger.error(
                "callback %s of kernel %s failed", _name_of(callback), line.get("kernel"), exc_info=error
            )

    def _carry(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            if self.loop is None:
                raise RuntimeError("there is no loop to run it on")
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise
        future.result()

    async def _on_the_loop(self, callback: Callable[..., Any], arguments: tuple[object, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None, "it is run as one"
        self._tasks.add(task)
        try:
            if inspect.isawaitable(result := callback(*arguments)):
                await result
        except (SystemExit, KeyboardInterrupt) as error:
            # Raised in a task, they would end the loop of the program.
            raise RuntimeError(f"it raised {error!r}") from error
        finally:
            self._tasks.discard(task)

    async def drain(self, timeout: float) -> bool:
        """Wait until no callback runs or is due; tell whether so within ``timeout`` seconds."""
        with self._lock:
            callers = {asyncio.wrap_future(caller) for caller in self._callers.values()}
        return not callers or not (await asyncio.wait(callers, timeout=timeout))[1]

    async def close(self, timeout: float = 0.0) -> bool:
        """Call nobody any more, after ``timeout`` seconds for those being called.

        A function that hangs is left in its thread, which ends with the process.
        """
        drained = await self.drain(timeout)
        self._closed = True
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            await self.drain(1.0)
        return drained


def _known(event: str) -> str:
    if event not in EVENTS:
        raise ValueError(f"event: {event!r} is not one of {', '.join(map(repr, EVENTS))}")
    return event


def _takes_event(callback: Callback) -> bool:
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):
        if not callable(callback):
            raise TypeError(f"callback: {type(callback).__name__} object is not callable") from None
        return False  # written in C, without a signature
    for count in (0, 1):
        try:
            signature.bind(*[None] * count)
        except TypeError:
            continue
        return count == 1
    raise TypeError(f"callback: {_name_of(callback)}{signature} must take no argument or one")


def _is_coroutine_function(callback: Callback) -> bool:
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__)


def _name_of(callback: object) -> str:
    # Not repr: that of a functools.partial shows its arguments.
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))
