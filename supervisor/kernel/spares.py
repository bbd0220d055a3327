"""The spare of one kernel on this machine, from its beginning to its place or its end.

Owns at most one process that is nobody's kernel yet, and its cord.  Decides nothing: ``core.spare`` does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from supervisor.core.events import Fact, SpareEnded, SpareParked
from supervisor.disk.off_loop import Hanging, Lane
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.warmth import Launching, Spare, Warmth
from supervisor.warm.command import NotWarm
from supervisor.warm.zygotes import Tell

# As much as a spare says on its cord, in bytes.
_WORDS = 1 << 16


Report = Callable[[Fact], object]


class Spares:
    """One after the other."""

    def __init__(self, kernel: str, warmth: Warmth) -> None:
        self._kernel, self._warmth = kernel, warmth
        self._lane = Lane(f"spare of kernel {kernel}")
        self._number = 0
        self._spare: Spare | None = None
        self._is_parked = False
        self._said: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def park(
        self, number: int, resolve: Callable[[], Awaitable[Launching]], tell: Tell, report: Report
    ) -> None:
        """Begin one where there is none; what becomes of it is reported until it is taken or discarded."""
        self._number = number
        self._task = asyncio.get_running_loop().create_task(self._grow(number, resolve, tell, report))

    async def _grow(
        self, number: int, resolve: Callable[[], Awaitable[Launching]], tell: Tell, report: Report
    ) -> None:
        try:
            spare = await self._lane.begin(self._warmth.park, await resolve(), number, tell)
        except (NotWarm, LaunchError, OSError, Hanging) as error:
            if self._number == number:
                report(SpareEnded(self._kernel, number, str(error)))
            return
        if self._number != number:
            spare.end()  # discarded in the meantime
            return
        self._spare = spare
        words = await self._hear(spare)
        if "parked" in words:
            self._is_parked = True
            report(SpareParked(self._kernel, number))
            words = await self._hear(spare)
        if self._spare is spare:
            self.discard()
            lines = str(words.get("failed") or "it ended").strip().splitlines()
            report(SpareEnded(self._kernel, number, lines[-1]))

    async def _hear(self, spare: Spare) -> dict[str, object]:
        """What it says next; nothing once it has ended, been taken or discarded."""
        loop, cord = asyncio.get_running_loop(), spare.forked.cord
        said = self._said = loop.create_future()
        loop.add_reader(cord, _resolve, said)
        await said
        if self._spare is not spare:
            return {}
        loop.remove_reader(cord)
        try:
            words = json.loads(cord.recv(_WORDS) or b"{}")
        except (OSError, ValueError):
            return {}
        return words if isinstance(words, dict) else {}

    def take(self, number: int | None) -> Spare | None:
        """The parked one of this number, which is the caller's from now on; any other is ended."""
        spare, is_its = self._spare, self._is_parked and self._number == number
        if spare is None or not is_its:
            self.discard()
            return None
        self._forget(spare)
        return spare

    def discard(self) -> None:
        """End the one that there is."""
        spare, self._number = self._spare, 0
        if spare is not None:
            self._forget(spare)
            spare.end()

    def _forget(self, spare: Spare) -> None:
        self._spare, self._number, self._is_parked = None, 0, False
        asyncio.get_running_loop().remove_reader(spare.forked.cord)
        if self._said is not None:
            _resolve(self._said)


def _resolve(said: asyncio.Future[None]) -> None:
    if not said.done():
        said.set_result(None)
