"""A daemon, asked by a program that has an event loop, which nothing of it holds up.

Owns that it is done in a thread: finding the daemon looks on the disk, and a daemon
may hang.  Knows nothing of what is asked.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from supervisor.control.client import QUICK_TIMEOUT, Answer, Broken, Client, Connection, NoDaemon
from supervisor.control.follow import open_stream
from supervisor.control.lookup import BadPath, NoConfig
from supervisor.disk.off_loop import begin

MakeClient = Callable[[], Client]
Line = dict[str, Any]

# What is raised where no daemon can be asked.
UNREACHED = (NoDaemon, Broken, BadPath, NoConfig, OSError)
# Lines that wait for one who takes them slowly; then the daemon is read no further, and drops it.
_WAITING = 256


async def ask(
    make_client: MakeClient,
    method: str,
    where: str,
    body: Mapping[str, Any] | None = None,
    timeout: float | None = QUICK_TIMEOUT,
) -> Answer:
    """What the daemon answers within ``timeout`` seconds.  Raises ``UNREACHED``."""
    return await begin(lambda: make_client().ask(method, where, body, timeout=timeout))


async def listen(make_client: MakeClient, where: str) -> Lines:
    """The lines of this target, as they come.  Raises ``UNREACHED`` and Refused."""
    return Lines(await begin(lambda: open_stream(make_client(), where)))


class Lines:
    """The lines of a stream, read in a thread of its own; who does not take them holds it up alone."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[Line | None] = asyncio.Queue()
        self._room = threading.Semaphore(_WAITING)
        threading.Thread(target=self._read, name="kernel-supervisor-lines", daemon=True).start()

    def _read(self) -> None:
        with suppress(*UNREACHED), self._connection:
            for line in self._connection.lines():
                self._room.acquire()
                self._put(line)
        self._put(None)

    def _put(self, line: Line | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._lines.put_nowait, line)

    async def next(self, pulse: float) -> list[Line] | None:
        """All that has come; nothing after ``pulse`` seconds without any; ``None`` at the end."""
        try:
            async with asyncio.timeout(pulse):
                line = await self._lines.get()
        except TimeoutError:
            return []
        return None if line is None else [line, *self._waiting()]

    def _waiting(self) -> Iterator[Line]:
        self._room.release()
        while not self._lines.empty():
            line = self._lines.get_nowait()
            if line is None:
                self._lines.put_nowait(None)
                return
            self._room.release()
            yield line

    def close(self) -> None:
        """Read no more."""
        self._connection.hang_up()
        self._room.release(_WAITING)
