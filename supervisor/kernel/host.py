"""The effects of the machine, carried out on this machine.

Owns one entry for each kernel, and hands each effect to it.  Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from supervisor.core.actions import (
    Adopt,
    Apply,
    AskToExit,
    AwaitRoom,
    Discard,
    Effect,
    Forget,
    InterruptKernel,
    Park,
    Reached,
    Renew,
    SignalGroup,
    Spawn,
    WatchIdle,
    Withdraw,
)
from supervisor.core.events import Fact, NoRoom, RoomMade
from supervisor.core.model import Kernel, State
from supervisor.disk.off_loop import Hanging, Lane, begin
from supervisor.kernel.connection import CHANNELS, fixed_places
from supervisor.kernel.entry import PROCESSES, RUN_DESCRIPTORS, Entry
from supervisor.kernel.equipment import Equipment
from supervisor.kernel.line import make_threads
from supervisor.kernel.run import Run
from supervisor.kernel.warmth import Warmth
from supervisor.output.growth import Growth
from supervisor.process import descriptors
from supervisor.records.keeper import Store, Trouble
from supervisor.records.places import Places
from supervisor.records.record import Record
from supervisor.settings.config import KernelConfig

if TYPE_CHECKING:
    from supervisor.kernel.jobs import Jobs

log = logging.getLogger(__name__)

# A start leaves so many descriptors for the door and all else, or an eighth if we may have few.
RESERVE = 32
# How often it is looked whether there is room for a kernel that waits for some, in seconds.
ROOM_INTERVAL = 2.0
# How often what the OOM killer did is noted, in seconds.
CARE_INTERVAL = 10.0


class Host:
    """This machine, for one supervisor."""

    def __init__(
        self, places: Places, store: Store, trouble: Trouble, equipment: Equipment | None = None
    ) -> None:
        self.places = places
        self._store = store
        self._equipment = equipment or Equipment()
        self._trouble = trouble
        self._entries: dict[str, Entry] = {}
        self._growth: Growth | None = None
        self._files = Lane("connection files")
        self._jobs: Jobs | None = None
        self._caretaker: asyncio.Task[None] | None = None
        # The runs that are being started or taken up and what they need, and who waits for room.
        self._starting: dict[tuple[str, int], int] = {}
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def entry(self, kernel: str) -> Entry:
        """What is kept for a kernel; made when it is first asked for."""
        if kernel not in self._entries:
            made = Entry(kernel, self.places, self._store, self._trouble, self._equipment, self._jobs_here)
            if self._growth is not None:
                made.keep_output_small(self._growth)
            self._entries[kernel] = made
        return self._entries[kernel]

    def _jobs_here(self) -> Jobs:
        if self._jobs is None:
            # Loaded where a kernel is a job, and nowhere else.
            from supervisor.kernel.jobs import Jobs

            self._jobs = Jobs(self.places.state_dir)
        return self._jobs

    def remember(self, kernel: Kernel, state: State) -> None:
        """Put on record what the next supervisor must know of the kernel."""
        self.entry(kernel.name).remember(kernel, state)

    def dismiss(self, kernel: str) -> None:
        """The kernel is known no more; a Forget follows."""
        self.entry(kernel).dismiss()

    async def perform(self, effect: Effect, report: Callable[[Fact], object]) -> None:
        """Carry out one effect; what comes of it is reported as facts."""
        entry = self.entry(effect.kernel)
        match effect:
            case Spawn():
                await self._spawn(entry, effect, report)
            case Park() | Discard():
                entry.tend_spare(effect, report)
            case AwaitRoom():
                self._begin_waiting(entry, effect, report)
            case Adopt():
                await self._adopt(entry, effect, report)
            case Apply(config=config):
                entry.connection.fix(config)
                await entry.apply(config)
            case Renew():
                await entry.renew()
            case Withdraw():
                await entry.withdraw()
            case Forget():
                await self._forget(entry)
            case AskToExit() | InterruptKernel() | SignalGroup() | WatchIdle():
                await self._reach(entry, effect)

    async def _forget(self, entry: Entry) -> None:
        await entry.forget()
        if entry.is_forgotten and self._entries.get(entry.name) is entry:
            del self._entries[entry.name]

    async def _spawn(self, entry: Entry, effect: Spawn, report: Callable[[Fact], object]) -> None:
        entry.connection.fix(effect.config)
        if (reason := self._lack_for(entry, effect.config)) is not None:
            report(NoRoom(entry.name, effect.generation, reason))
            return
        if fixed := fixed_places(effect.config):
            for other in self._entries.values():
                if other is not entry:
                    other.give_way(fixed)
        # By the run: of the one before, the adoption may not be over.
        self._starting[entry.name, effect.generation] = entry.needs(effect.config)
        try:
            await entry.spawn(effect, report)
        finally:
            del self._starting[entry.name, effect.generation]

    def _lack_for(self, entry: Entry, config: KernelConfig) -> str | None:
        """Why a kernel that has no run cannot have one now, if that is so."""
        needs, room = entry.needs(config), self._room_for(entry)
        if needs <= room:
            return None
        return f"needs {needs} descriptors, {max(0, room)} are left: raise LimitNOFILE"

    def _room_for(self, entry: Entry) -> int:
        """How many descriptors a kernel may still take."""
        if not self._equipment.keeps_reserve:
            return sys.maxsize
        others = {run: needs for run, needs in self._starting.items() if run[0] != entry.name}
        room = descriptors.left() - min(RESERVE, descriptors.limit() // 8) - sum(others.values())
        if not _comes_back(entry):
            # Who had a place and died has it first: others would take it before the next try.
            coming = {e.name for e in self._entries.values() if _comes_back(e)}
            room -= RUN_DESCRIPTORS * len(coming - {name for name, _ in others})
        return room

    async def _adopt(self, entry: Entry, effect: Adopt, report: Callable[[Fact], object]) -> None:
        entry.connection.fix(effect.config)
        try:
            await entry.adopt(effect, report, partial(self._may_watch, entry, effect.generation))
        finally:
            self._starting.pop((entry.name, effect.generation), None)

    def _may_watch(self, entry: Entry, generation: int) -> bool:
        """Whether there is room for the watch over a process, which is kept for it then.

        It comes before the ports that are held for kernels that are stopped.
        """
        held = (e.connection for e in self._entries.values() if not e.is_to_run and e.connection.is_held)
        while self._room_for(entry) < RUN_DESCRIPTORS:
            if (connection := next(held, None)) is None:
                return False
            connection.release()
        self._starting[entry.name, generation] = RUN_DESCRIPTORS
        return True

    def _begin_waiting(self, entry: Entry, effect: AwaitRoom, report: Callable[[Fact], object]) -> None:
        if earlier := self._waiting.get(entry.name):
            earlier.cancel()
        work = self._await_room(entry, effect, report)
        self._waiting[entry.name] = asyncio.get_running_loop().create_task(work)

    async def _await_room(self, entry: Entry, effect: AwaitRoom, report: Callable[[Fact], object]) -> None:
        while self._lack_for(entry, effect.config) is not None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(ROOM_INTERVAL)
        report(RoomMade(entry.name, effect.generation))

    async def _reach(self, entry: Entry, effect: Reached) -> None:
        # What is asked of a kernel right after its adoption must not be lost.
        run = await entry.wait_run_of(effect.generation)
        if run is None:
            return
        match effect:
            case AskToExit(restart=restart, interrupt=interrupt):
                await run.ask_to_exit(restart=restart, interrupt=interrupt)
            case InterruptKernel():
                await run.interrupt()
            case SignalGroup(signum=signum):
                run.signal(signum)
            case WatchIdle():
                run.watch_idle()

    def recall(self, records: Iterable[Record]) -> None:
        """Give the kernels on record the addresses that they had."""
        for record in records:
            entry = self.entry(record.name)
            entry.recall(record, holds=self._room_for(entry) >= len(CHANNELS))

    def open(self) -> None:
        """Begin, on the running loop, before the first effect.  Raises OSError if the machine has no room."""
        make_threads(self._equipment.context)
        self._growth = Growth()
        for entry in self._entries.values():
            entry.keep_output_small(self._growth)
        self._caretaker = asyncio.get_running_loop().create_task(self._look_after())

    async def _look_after(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # At multiples, so that it falls into one wake-up with the checks of the kernels.
            await asyncio.sleep(CARE_INTERVAL - loop.time() % CARE_INTERVAL)
            entries = [e for e in self._entries.values() if e.run is not None and not e.run.is_over]
            with suppress(OSError):  # no thread is to be had
                runs = [entry.run for entry in entries if entry.run is not None]
                await begin(_look_at, runs, self._equipment.warmth)
            for entry in entries:
                entry.tell_limits()

    @property
    def busy_for(self) -> float:
        """For how many seconds the slowest work on files has gone on."""
        return max((entry.busy_for for entry in self._entries.values()), default=PROCESSES.busy_for)

    async def mend(self) -> list[str]:
        """Write the connection files again that living kernels have lost; tells of which."""
        entries = list(self._entries.values())
        with suppress(Hanging):
            # One look at all: there are as many as kernels, and at each start.
            entries = await self._files.do(
                lambda: [entry for entry in entries if entry.lacks_file or entry.has_lost_file]
            )
        lost = await asyncio.gather(*(entry.mend() for entry in entries))
        return [entry.name for entry, was_lost in zip(entries, lost, strict=True) if was_lost]

    @property
    def lacks_files(self) -> bool:
        """Whether a connection file could not be written."""
        return any(entry.lacks_file for entry in self._entries.values())

    async def wait_told(self) -> None:
        """Return once all is told of the runs that have ended: which of their children live on, above all."""
        ended = [entry.run.wait_told() for entry in self._entries.values() if entry.run and entry.run.is_over]
        await asyncio.gather(*ended)

    async def wait_recorded(self, kernel: str, timeout: float) -> None:
        """Return once what is known of a kernel is on disk, could not be put there, or takes too long."""
        if (entry := self._entries.get(kernel)) is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await entry.keeper.flush()
        except TimeoutError:
            pass

    async def flush(self) -> None:
        """Return once every record has been written, or has failed to be."""
        for entry in list(self._entries.values()):
            await entry.keeper.flush()

    def close(self) -> None:
        """Let go of everything; kernels and files are left as they are."""
        if self._caretaker is not None:
            self._caretaker.cancel()
        for task in self._waiting.values():
            task.cancel()
        for entry in self._entries.values():
            entry.close()
        if self._jobs is not None:
            self._jobs.close()
        self._entries.clear()
        self._equipment.warmth.close()
        if self._growth is not None:
            self._growth.close()

    async def wait_closed(self) -> None:
        """Return once nothing is left here that nobody needs."""
        if self._jobs is not None:
            await self._jobs.wait_closed()


def _comes_back(entry: Entry) -> bool:
    """Whether a run of it has ended, and another is to follow."""
    return entry.is_to_run and entry.run is not None and entry.run.is_over


def _look_at(runs: Iterable[Run], warmth: Warmth) -> None:
    for run in runs:
        run.look()
    warmth.bury()
