"""How the kernel of a manager is stopped, where that is the caller's wish and not the settings'.

Owns what is said to the kernel and what is left of it.  Decides nothing of when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from supervisor.core.actions import AskToExit, Effect, Withdraw
from supervisor.core.events import Fact
from supervisor.core.model import Kernel, State
from supervisor.kernel.host import Host


@dataclass(frozen=True)
class Manner:
    """What a stop says to the kernel, and what it leaves.

    ``ask``: send a ``shutdown_request``; ``interrupt``: after an interrupt, if it
    is busy; ``restart``: which says that the kernel will be back; ``keep_file``: the
    connection file stays.
    """

    ask: bool = True
    interrupt: bool = True
    restart: bool = False
    keep_file: bool = False


class Attended:
    """The host, with the manager's wishes about a stop."""

    def __init__(self, host: Host) -> None:
        self.manner = Manner()
        # Set once the kernel has been asked to exit, or is not to be.
        self.asked = asyncio.Event()
        self._host = host

    def remember(self, kernel: Kernel, state: State) -> None:
        """Nothing: nobody takes the kernel up after us."""

    def dismiss(self, kernel: str) -> None:
        """As of the host."""
        self._host.dismiss(kernel)

    async def perform(self, effect: Effect, report: Callable[[Fact], object]) -> None:
        """As of the host, in the manner that was asked for."""
        match effect:
            case AskToExit():
                await self._ask(effect, report)
            case Withdraw() if self.manner.keep_file:
                return
            case _:
                await self._host.perform(effect, report)

    async def _ask(self, effect: AskToExit, report: Callable[[Fact], object]) -> None:
        manner = self.manner
        restart, interrupt = effect.restart or manner.restart, effect.interrupt and manner.interrupt
        try:
            if manner.ask:
                await self._host.perform(replace(effect, restart=restart, interrupt=interrupt), report)
        finally:
            self.asked.set()
