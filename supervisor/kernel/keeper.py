"""Writes one kernel's record, off the loop: the latest only, and as often as it takes.

Owns the order of the writes of one record.  Does not know what is in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from supervisor.kernel.record import Record

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
    """Keeps one record on disk equal to the latest that it was given; ``None`` is no record at all.

    ``trouble(kernel, message)`` is told when that fails, and with ``None``
    once it works again.  Writes have threads of their own: a disk that hangs
    holds up nothing else.
    """

    def __init__(self, store: Store, kernel: str, trouble: Trouble, threads: Executor) -> None:
        self._store = store
        self._kernel = kernel
        self._trouble = trouble
        self._threads = threads
        self._latest: Record | None = None
        self._on_disk: Record | None = None
        self._tried: Record | None = None
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

    async def _write(self) -> None:
        while (record := self._latest) is not self._on_disk:
            self._news.clear()
            try:
                await asyncio.get_running_loop().run_in_executor(self._threads, self._put, record)
            except OSError as error:
                self._failed(error)
            else:
                self._on_disk = record
                self._succeeded()
            self._tried = record
            self._attempt.set()
            if self._failing:
                await self._wait_for_reason()

    async def _wait_for_reason(self) -> None:
        """A new record is tried at once, one that failed before after a while."""
        try:
            async with asyncio.timeout(RETRY_INTERVAL):
                await self._news.wait()
        except TimeoutError:
            pass

    def _put(self, record: Record | None) -> None:
        if record is None:
            self._store.remove(self._kernel)
        else:
            self._store.write(record)

    def _failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._trouble(self._kernel, f"cannot write the record of kernel {self._kernel}: {error}")

    def _succeeded(self) -> None:
        if self._failing:
            self._failing = False
            self._trouble(self._kernel, None)
