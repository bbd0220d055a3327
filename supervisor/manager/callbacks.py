"""Who is told when the kernel of a manager restarts or is given up, and why it ended.

Owns the registered functions and the last exit.  Calls them one after the
other in a thread of their own, there while there is something to call, so that
no function delays a restart, and every one may give orders to its manager.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable

from supervisor.core.model import Exit

log = logging.getLogger(__name__)

Callback = Callable[[], object]

EVENTS = ("restart", "dead")
MAX_WAITING = 100


class RestartCallbacks:
    """The callbacks of one manager; to be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._registered: dict[str, list[Callback]] = {event: [] for event in EVENTS}
        self._waiting: deque[tuple[Exit | None, tuple[Callback, ...]]] = deque()
        self._is_calling = False
        self._last_exit: Exit | None = None
        self._told = threading.local()

    @property
    def last_exit(self) -> Exit | None:
        """How the last run ended; within a callback, the end that it is called for."""
        return self.told_exit or self._last_exit

    @property
    def told_exit(self) -> Exit | None:
        """Within a callback, the end that it is called for."""
        told: Exit | None = getattr(self._told, "exit", None)
        return told

    def note(self, exit: Exit) -> None:
        """A run has ended like this."""
        self._last_exit = exit

    def add(self, callback: Callback, event: str) -> None:
        """Call ``callback`` at each ``event``.  ValueError for an unknown one, TypeError for no function."""
        if inspect.iscoroutinefunction(callback):
            raise TypeError(
                "callback: is a coroutine function: give a plain one, or use supervisor.Supervisor"
            )
        if not callable(callback):
            raise TypeError(f"callback: {type(callback).__name__} object is not callable")
        with self._lock:
            self._of(event).append(callback)

    def remove(self, callback: Callback, event: str) -> None:
        """Undo one ``add``; no error if there was none.  ValueError for an unknown event."""
        with self._lock:
            if callback in (there := self._of(event)):
                there.remove(callback)

    def _of(self, event: str) -> list[Callback]:
        if event not in self._registered:
            raise ValueError(f"event: {event!r} is not one of {', '.join(map(repr, EVENTS))}")
        return self._registered[event]

    def call(self, event: str) -> None:
        """Have those called who are registered now, in this order; returns at once."""
        with self._lock:
            if not (due := tuple(self._of(event))):
                return
            if len(self._waiting) >= MAX_WAITING:
                log.warning("a restart callback is stuck: an event is lost for the others")
                return
            self._waiting.append((self._last_exit, due))
            if self._is_calling:
                return
            self._is_calling = True
        threading.Thread(target=self._work, name="restart-callbacks", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_calling = False
                    return
                self._told.exit, due = self._waiting.popleft()
            for callback in due:
                try:
                    callback()
                except BaseException:
                    # SystemExit, too: it would end nothing but the thread of the other callbacks.
                    log.exception("a restart callback failed")
