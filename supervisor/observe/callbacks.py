"""Callbacks of embedding programs: told when a kernel restarts or is given up.

Owns who is called and in which order.  Never lets a callback delay a restart,
reach another kernel's callbacks, or hold up an exit: functions run in threads
of their own, coroutine functions on the loop, one at a time for each kernel.
Semantics are those of jupyter_client's ``add_restart_callback``.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Callback = Callable[[], object] | Callable[[Mapping[str, object]], object]

EVENTS: Mapping[str, str] = {"restart": "kernel.restarting", "dead": "kernel.failed"}
MAX_WAITING = 100

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Registration:
    kernel: str | None
    event: str
    callback: Callback
    takes_event: bool


class Callbacks:
    """The observer that calls registered callbacks.

    ``add`` and ``remove`` may be used from any thread, events come on the loop's.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._registrations: tuple[_Registration, ...] = ()
        self._lock = threading.Lock()
        self._waiting: dict[str, deque[tuple[Mapping[str, object], tuple[_Registration, ...]]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def add(self, kernel: str | None, callback: Callback, event: str = "restart") -> None:
        """Call ``callback`` at each ``event`` (restart or dead) of the kernel, or of all for ``None``.

        A callback that can be called without arguments is; one that needs an
        argument gets the event.  ValueError for an unknown event, TypeError
        for a callback that needs more than one argument.
        """
        registration = _Registration(kernel, _known(event), callback, _takes_event(callback))
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

    def __call__(self, event: Mapping[str, object]) -> None:
        """Start calling those whom the event concerns, as registered at this moment."""
        kernel, name = str(event.get("kernel")), event.get("event")
        due = tuple(r for r in self._registrations if r.event == name and r.kernel in (None, kernel))
        if not due or self._closed:
            return
        waiting = self._waiting.setdefault(kernel, deque())
        waiting.append((event, due))
        if len(waiting) > self._max_waiting:
            waiting.popleft()
            _logger.warning("callbacks of kernel %s are stuck: an event is lost for them", kernel)
        if kernel not in self._tasks:
            self._tasks[kernel] = asyncio.get_running_loop().create_task(self._serve(kernel))

    async def drain(self, timeout: float) -> bool:
        """Wait until no callback runs or is due; tell whether so within ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._tasks:
                    await asyncio.wait(tuple(self._tasks.values()))
        except TimeoutError:
            return False
        return True

    async def close(self, timeout: float = 0.0) -> bool:
        """Call nobody any more, after ``timeout`` seconds for those being called.

        A function that hangs is left in its thread, which ends with the process.
        """
        self._closed = True
        drained = await self.drain(timeout)
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        return drained

    async def _serve(self, kernel: str) -> None:
        waiting = self._waiting[kernel]
        try:
            while waiting:
                event, due = waiting.popleft()
                for registration in due:
                    await _call(registration, event)
        finally:
            del self._tasks[kernel], self._waiting[kernel]


def _known(event: str) -> str:
    if event not in EVENTS:
        raise ValueError(f"event: {event!r} is not one of {', '.join(map(repr, EVENTS))}")
    return EVENTS[event]


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
    raise TypeError(f"callback: {_name(callback)}{signature} must take no argument or one")


async def _call(registration: _Registration, event: Mapping[str, object]) -> None:
    callback: Callable[..., Any] = registration.callback
    arguments = (event,) if registration.takes_event else ()
    try:
        if inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(type(callback).__call__):
            await callback(*arguments)
        else:
            result = await _in_thread(lambda: callback(*arguments))
            if inspect.isawaitable(result):  # a lambda around a coroutine function
                await result
    except BaseException as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        # SystemExit and KeyboardInterrupt, too: a callback does not end the daemon.
        _logger.error("callback %s of kernel %s failed", _name(callback), event.get("kernel"), exc_info=error)


async def _in_thread(call: Callable[[], object]) -> object:
    # Not the loop's executor: a few hanging callbacks would fill it, and it is joined at exit.
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def settle(result: object, error: BaseException | None) -> None:
        if not outcome.done():
            outcome.set_result((result, error))
        elif inspect.iscoroutine(result):  # nobody waits any more
            result.close()

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop was closed in the meantime
            if inspect.iscoroutine(result):
                result.close()

    threading.Thread(target=work, name="callback", daemon=True).start()
    result, error = await outcome
    if error is not None:
        raise error
    return result


def _name(callback: object) -> str:
    # Not repr: that of a functools.partial shows its arguments.
    return str(getattr(callback, "__qualname__", type(callback).__qualname__))
