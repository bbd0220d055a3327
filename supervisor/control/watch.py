"""Notices that the operator's file may have changed; never reads what is in it.

Owns the watchdog observer and the calm after an event.  An event is only a
hint, and so is its absence: links, network file systems and atomic swaps go by
unseen.  So the files are also looked at in intervals, whatever the events say,
and whoever is told compares contents.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

log = logging.getLogger(__name__)
# An emitter that is told to stop at the wrong moment logs that as an error of its own.
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "called when the thread is inactive" not in record.getMessage()
)

DEBOUNCE = 0.3
# However much goes on in the directories, and however long an editor goes on writing, in seconds.
LONGEST_DEBOUNCE = 1.5
LONGEST_CALM = 5.0
LOOK_INTERVAL = 5.0
# What cannot be watched is tried again this often, in seconds.
RETRY_INTERVAL = 60.0
_MOST_LINKS = 40  # as the operating system: path_resolution(7)

Fingerprint = tuple[tuple[str, tuple[int, ...] | None], ...]
Directories = frozenset[tuple[Path, int, int]]
_READING = frozenset({"opened", "closed_no_write"})


def watched_directories(files: Iterable[Path]) -> frozenset[Path]:
    """The directory of every link on the way to each file, so that any swap on it is seen."""
    found: set[Path] = set()
    for file in files:
        _follow(file.absolute(), found)
    # Not is_dir() and is_symlink(), which raise where a directory may not be entered or a name is too long.
    return frozenset(directory for directory in found if os.path.isdir(directory))  # noqa: PTH112


def _follow(path: Path, found: set[Path]) -> None:
    """Collect the directories in which a name on the way to ``path`` can be exchanged."""
    todo, seen = [path], 0
    while todo and seen < _MOST_LINKS:
        current = todo.pop()
        seen += 1
        for part in (current, *current.parents):
            if os.path.islink(part):  # noqa: PTH114
                found.add(part.parent)
                rest = current.relative_to(part)
                target = Path(os.path.normpath(part.parent / part.readlink()))
                todo.append(target / rest if str(rest) != "." else target)
        found.add(current.parent)


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """What tells, cheaply, that files are as they were: any write or exchange changes it."""
    return tuple((str(file), _mark(_stat(file))) for file in files)


def _mark(there: os.stat_result | None) -> tuple[int, ...] | None:
    if there is None:
        return None
    return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def fingerprint_directories(directories: Iterable[Path]) -> Directories:
    """The directories beyond doubt: one that was moved away is not the one at its path any more."""
    found = ((directory, _stat(directory)) for directory in directories)
    return frozenset((path, there.st_dev, there.st_ino) for path, there in found if there is not None)


class FileWatch:
    """Calls ``changed``, on the loop, when one of ``files()`` may have changed.

    ``files`` is asked again at every look, since what is included changes.
    A name in a directory that does not match is no reason to call.  Calls ``stirred``
    when something happens in ``beside``, a directory that has its threads in common.
    """

    def __init__(
        self,
        files: Callable[[], Iterable[Path]],
        changed: Callable[[], None],
        beside: Path | None = None,
        stirred: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._changed = changed
        self._beside = beside
        self._stirred = stirred
        self._hint = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._observer: BaseObserver | None = None
        self._watched: Directories = frozenset()
        self._not_before = 0.0
        self._last: Fingerprint = ()

    async def run(self) -> None:
        """Watch until cancelled; calls at once, for what was changed since the files were read."""
        self._last = fingerprint(self._files())
        self._changed()
        try:
            while True:
                self._watch()
                current = await self._look()
                if current != self._last:
                    self._last = current
                    self._changed()
        finally:
            self._end()

    async def _look(self) -> Fingerprint:
        """The files as they are, once there is a reason to look, and once nobody seems to write them."""
        if await self._is_hinted():
            deadline = self._loop.time() + LONGEST_DEBOUNCE
            while self._hint.is_set() and self._loop.time() < deadline:
                self._hint.clear()
                await asyncio.sleep(DEBOUNCE)
            is_calm = not self._hint.is_set()
            self._hint.clear()
            if is_calm:
                return fingerprint(self._files())
        return await self._wait_calm()

    async def _is_hinted(self) -> bool:
        try:
            # At multiples, so that it falls into one wake-up with the checks of the kernels.
            async with asyncio.timeout_at((self._loop.time() // LOOK_INTERVAL + 1) * LOOK_INTERVAL):
                await self._hint.wait()
        except TimeoutError:
            return False
        return True

    async def _wait_calm(self) -> Fingerprint:
        """The files as they are when they change no more: half a file may be a valid one of fewer kernels."""
        deadline = self._loop.time() + LONGEST_CALM
        current = fingerprint(self._files())
        while current != self._last and self._loop.time() < deadline:
            await asyncio.sleep(DEBOUNCE)
            before, current = current, fingerprint(self._files())
            if current == before:
                break
        return current

    def hint(self) -> None:
        """Something happened in a watched directory; called in the observer's thread."""
        self._soon(self._hint.set)

    def _stir(self) -> None:
        # One that was removed is to be watched again as soon as it is back.
        self._soon(self._stirred, self._hint.set)

    def _soon(self, *calls: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: the daemon is on its way out
            for call in calls:
                self._loop.call_soon_threadsafe(call)

    def _watch(self) -> None:
        """Have the observer watch what is to be watched now, and a living one."""
        wanted = watched_directories(self._files())
        marks = fingerprint_directories(wanted if self._beside is None else {*wanted, self._beside})
        if self._observer is not None and marks == self._watched and self._is_well(self._observer):
            return
        if self._loop.time() < self._not_before:
            return
        self._end()
        try:
            self._observer, self._watched = Observer(), marks
            for directory in sorted(wanted):
                self._observer.schedule(_Hinter(self.hint), str(directory))
            if self._beside in {directory for directory, *_ in marks}:
                self._observer.schedule(_Hinter(self._stir), str(self._beside))
            self._observer.start()
            self._stirred()  # for what has happened there before it was watched
        except (OSError, RuntimeError) as error:
            # Out of inotify instances or threads, mostly.  The looks in intervals go on.
            self._end()
            if self._not_before == 0.0:
                log.warning(
                    "cannot watch the configuration, it is looked at every %g s: %s", LOOK_INTERVAL, error
                )
            self._not_before = self._loop.time() + RETRY_INTERVAL
        else:
            self._not_before = 0.0

    def _is_well(self, observer: BaseObserver) -> bool:
        # A directory that was deleted takes its emitter along; the observer does not notice.
        return observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)

    def _end(self) -> None:
        observer, self._observer = self._observer, None
        if observer is None:
            return
        # One that could not be started has threads all the same, and a descriptor.
        observer.stop()
        if observer.is_alive():
            observer.join(timeout=1.0)


class _Hinter(FileSystemEventHandler):
    def __init__(self, hint: Callable[[], None]) -> None:
        self._hint = hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Our own reading makes events too; an exception here would end all of them for good.
        if event.event_type not in _READING:
            self._hint()
