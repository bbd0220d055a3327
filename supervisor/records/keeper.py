"""Writes one kernel's record, off the loop: the latest only, and as often as it takes.

Owns the order of the writes of one record.  Does not know what is in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from supervisor.disk.off_loop import PATIENCE, Lane
from supervisor.records.record import Record

log = logging.getLogger(__name__)

# A full or read-only disk is looked at again this often, in seconds.
RETRY_INTERVAL = 2.0

Trouble = Callable[[str, str | None], None]


class Store(Protocol):
    """Where records go; both block, and raise OSError."""

    def write(self, record: Record) -> None:
        """Replace the record of its kernel."""

    def remove(self, name: str) -> None:
        """Forget the kernel."""


class NoRecords:
    """The records of a supervisor whose kernels nobody is to take up after it: none."""

    def write(self, record: Record) -> None:
        """Forget it."""

    def remove(self, name: str) -> None:
        """There is none."""


_UNKNOWN = Record(name="")
"""In the place of a record."""


class Keeper:
    """Keeps one record on disk equal to the latest that it was given; ``None`` is no record at all.

    ``trouble(what, message)`` is told when that fails, and with ``None`` once it works
    again.  Writes have a lane of their own, with ``before``: a disk that hangs holds up
    nothing else, and is told as well.
    """

    def __init__(
        self, store: Store, kernel: str, trouble: Trouble, before: Callable[[], object] = lambda: None
    ) -> None:
        self._store = store
        self._kernel = kernel
        self._trouble = trouble
        self._lane = Lane(f"record of kernel {kernel}", before)
        # What is on disk is not known yet: there may be one of an earlier supervisor.
        self._latest: Record | None = _UNKNOWN
        self._on_disk: Record | None = _UNKNOWN
        self._tried: Record | None = _UNKNOWN
        self._failing = False
        self._writer: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._attempt = asyncio.Event()

    def keep(self, record: Record | None) -> None:
        """Have ``record`` written, or removed, as soon as may be."""
        if record == self._latest:
            return
        self._latest = record
        self._news.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Return once the latest is on disk, or could not be put there at the first attempt."""
        while self._tried is not self._latest:
            self._attempt.clear()
            await self._attempt.wait()

    @property
    def is_done(self) -> bool:
        """Whether the latest is on disk."""
        return self._latest is self._on_disk

    def close(self) -> None:
        """Try no longer; what is being written is written."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        while (record := self._latest) is not self._on_disk and record is not _UNKNOWN:
            self._news.clear()
            try:
                await self._put(record)
            except Exception as error:
                # Not of the disk: a mistake of ours, which must keep nobody waiting for ever.
                if not isinstance(error, OSError):
                    log.exception("the record of kernel %s cannot be written", self._kernel)
                self._note(error)
            else:
                self._on_disk = record
                self._note(None)
            self._tried = record
            self._attempt.set()
            if self._failing:
                # A new record is tried at once, one that failed before after a while.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), RETRY_INTERVAL)

    async def _put(self, record: Record | None) -> None:
        if record is None:
            writing = self._lane.begin(self._store.remove, self._kernel)
        else:
            writing = self._lane.begin(self._store.write, record)
        await asyncio.wait({writing}, timeout=PATIENCE)
        if not writing.done():
            self._note(OSError(f"the disk has not answered within {PATIENCE:g} s"))
        await writing

    @property
    def busy_for(self) -> float:
        """How long the present write has taken, in seconds."""
        return self._lane.busy_for

    def _note(self, error: Exception | None) -> None:
        what = f"record of kernel {self._kernel}"
        if self._failing != (error is not None):
            self._failing = error is not None
            self._trouble(what, None if error is None else f"cannot write the {what}: {error}")
