"""Writes one kernel's record, off the loop: the latest only, and as often as it takes.

Owns the order of the writes of one record.  Does not know what is in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from supervisor.kernel.record import Record

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


class Keeper:
    """Keeps one record on disk equal to the latest that it was given.

    ``trouble(kernel, message)`` is told when a write fails, and with ``None``
    once one succeeds again.  A kernel is never held up by a full disk for
    longer than one attempt.
    """

    def __init__(self, store: Store, kernel: str, trouble: Trouble) -> None:
        self._store = store
        self._kernel = kernel
        self._trouble = trouble
        self._latest: Record | None = None
        self._tried: Record | None = None
        self._failing = False
        self._writer: asyncio.Task[None] | None = None
        self._attempt = asyncio.Event()

    def keep(self, record: Record) -> None:
        """Have ``record`` written as soon as may be."""
        if record == self._latest:
            return
        self._latest = record
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        """Return once the latest record is on disk, or could not be written at the first attempt."""
        while self._tried is not self._latest:
            self._attempt.clear()
            await self._attempt.wait()

    async def remove(self) -> None:
        """Remove the record, and write none any more."""
        self._latest = None
        if self._writer is not None:
            # Waited for, not cancelled: a thread that writes cannot be, and would bring the record back.
            await asyncio.wait([self._writer])
        await asyncio.to_thread(self._store.remove, self._kernel)
        self._tried = None

    async def _write(self) -> None:
        written: Record | None = None
        while (record := self._latest) is not written and record is not None:
            try:
                await asyncio.to_thread(self._store.write, record)
            except OSError as error:
                self._failed(error)
            else:
                written = record
                self._succeeded()
            self._tried = record
            self._attempt.set()
            if self._failing:
                await asyncio.sleep(RETRY_INTERVAL)

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._trouble(self._kernel, f"cannot write the record of kernel {self._kernel}: {error}")

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            self._trouble(self._kernel, None)
