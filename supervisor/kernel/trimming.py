"""Keeps the output of one kernel within its limits, as often as it grows.

Owns when the file is looked at: at once when it is written to, then the more
often the faster it grows, whoever writes, be it a child that the kernel left.
How it is made smaller is the file's business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from supervisor.disk.off_loop import Hanging, Lane
from supervisor.output.file import OutputFile
from supervisor.output.growth import Growth
from supervisor.output.stream import Position
from supervisor.records.keeper import Trouble
from supervisor.settings.config import OutputConfig

log = logging.getLogger(__name__)

# Between two looks at a file that grows, in seconds; and where nobody tells that it is written to.
SHORTEST, LONGEST = 0.1, 1.0
BLIND_INTERVAL = 10.0
# Sooner if a flood would write so many bytes meanwhile, however small it is to be kept.
_MUCH = 1 << 20


def make_room(kernel: str, file: OutputFile, limits: OutputConfig) -> tuple[Position, str]:
    """Before a launch, in a thread: where the output of the run begins, and why it cannot be kept, if so."""
    lacking = ""
    try:
        file.rotate(limits.max_bytes, limits.backups)
    except OSError as error:
        log.warning("cannot rotate the output of kernel %s: %s", kernel, error)
    try:
        # Made here: the thread that makes the processes of all kernels is not to wait for a disk.
        file.make()
    except OSError as error:
        lacking = str(error)
    try:
        return file.position(), lacking
    except OSError:
        return Position(), lacking  # its last words may then be those of an earlier run


class Trimming:
    """Of one file, from ``begin`` to ``close``."""

    def __init__(
        self, kernel: str, file: OutputFile, lane: Lane, limits: Callable[[], OutputConfig], trouble: Trouble
    ) -> None:
        self._kernel = kernel
        self._file = file
        self._lane = lane
        self._limits = limits
        self._trouble = trouble
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._size, self._looked, self._lost = 0, 0.0, 0

    def begin(self, growth: Growth) -> None:
        """Look after it from now on; again, since there may be another file: look at once."""
        self._grown.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_after(growth))

    def close(self) -> None:
        """Look no more, until another ``begin``."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look_after(self, growth: Growth) -> None:
        while True:
            self._grown.clear()
            is_told = await self._watch(growth)
            pause = await self._look()
            while pause is not None:
                await asyncio.sleep(pause)
                pause = await self._look()
            try:
                async with asyncio.timeout(None if is_told else BLIND_INTERVAL):
                    await self._grown.wait()
                    self._looked = time.monotonic()  # it has begun to grow just now
            except TimeoutError:
                pass

    async def _watch(self, growth: Growth) -> bool:
        try:
            return await self._lane.do(growth.watch, self._file.path, self._grown)
        except (OSError, Hanging):
            return False

    async def _look(self) -> float | None:
        """Look at the file; in how many seconds again, ``None`` if it does not grow."""
        limits, what = self._limits(), f"size of the output of kernel {self._kernel}"
        try:
            before, size = await self._lane.do(self._file.keep_within, limits.max_bytes, limits.backups)
        except (OSError, Hanging) as error:
            self._trouble(what, f"the output of kernel {self._kernel} cannot be kept small: {error}")
            return BLIND_INTERVAL
        self._trouble(what, None)
        if self._file.lost > self._lost:
            lost, self._lost = self._file.lost - self._lost, self._file.lost
            log.warning("the disk is full: %d bytes of the output of kernel %s are lost", lost, self._kernel)
        now = time.monotonic()
        grown, took = before - self._size, now - self._looked
        self._size, self._looked = size, now
        return _pause(grown, took, limits.max_bytes - size)


def _pause(grown: int, took: float, left: int) -> float | None:
    """Until half of what is left would be written, if it goes on growing so fast."""
    if not grown:
        return None
    rate = abs(grown) / max(took, 1e-6)
    return min(LONGEST, max(left / rate / 2, min(SHORTEST, _MUCH / rate)))
