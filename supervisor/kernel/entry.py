"""What this machine keeps for one declared kernel, across its runs.

Owns the kernel's address, its connection file, its output file, its record and
its current run, and carries out the effects that concern them, one launch or
removal at a time.  Decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor

from supervisor.config import KernelConfig
from supervisor.core.actions import Adopt, Spawn
from supervisor.core.events import Exited, Fact, Spawned, SpawnFailed
from supervisor.core.model import Cause, Death, Exit, Kernel, ProcessId, State
from supervisor.kernel.adopted import AdoptedKernel
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Address, PortTaken
from supervisor.kernel.equipment import Equipment
from supervisor.kernel.identity import identify
from supervisor.kernel.keeper import Keeper, Store, Trouble
from supervisor.kernel.launch import Command, LaunchError
from supervisor.kernel.output import OutputFile
from supervisor.kernel.places import Places
from supervisor.kernel.record import MARK_VARIABLE, Record, mark
from supervisor.kernel.run import Handle, OutputOfRun, Run
from supervisor.kernel.stream import Position
from supervisor.kernel.subproc import KernelManager
from supervisor.kernel.survivors import record_of

log = logging.getLogger(__name__)

Report = Callable[[Fact], object]

# How long a launch waits for the disk, how long for the corpse of a failed one, and how often
# watching an adopted process is tried again; in seconds.
INTENT_PATIENCE = 3.0
REAP_TIMEOUT = 5.0
ADOPT_INTERVAL = 1.0


class Entry:
    """One kernel on this machine."""

    def __init__(
        self,
        name: str,
        places: Places,
        store: Store,
        trouble: Trouble,
        equipment: Equipment,
        threads: Executor,
    ) -> None:
        self.name = name
        self.connection = equipment.connect(name, places)
        self.output = OutputFile(places.output_file(name))
        self.keeper = Keeper(store, name, trouble, threads)
        self.run: Run | None = None
        # The settings in force; a launch and an edit of live keys set them.
        self.config: KernelConfig | None = None
        self._places = places
        self._equipment = equipment
        self._launcher = equipment.launcher
        self._known: tuple[Kernel, State] | None = None
        self._output_from: Position | None = None
        # The last death and its date, in seconds since the epoch.
        self._dated: tuple[Death | None, float] = (None, 0.0)
        # Launch, withdrawal and removal are carried out in the order of their decisions.
        self._turn = asyncio.Lock()

    async def spawn(self, effect: Spawn, report: Report) -> None:
        """Launch a run; answers Spawned or SpawnFailed, and after Spawned later Exited."""
        async with self._turn:
            self.config = effect.config
            try:
                run = await self._launch(effect, report)
            except Exception as error:
                if not isinstance(error, LaunchError | OSError):
                    log.exception("launching kernel %s failed", self.name)
                report(SpawnFailed(self.name, effect.generation, _describe_failure(error)))
                return
            self.run = run
            report(Spawned(self.name, effect.generation, run.process))
            run.watch(self.config)

    async def _launch(self, effect: Spawn, report: Report) -> Run:
        before = self.connection.address
        command = await asyncio.to_thread(self._prepare, effect.config)
        if self.connection.address != before:
            self._record()
        await self._wait_intent_recorded()
        the_mark = mark(self._places.state_dir, self.name, effect.generation)
        popen = await asyncio.to_thread(
            self._launcher.spawn, command, self.connection.path, self.output.path, {MARK_VARIABLE: the_mark}
        )
        try:
            handle = KernelManager(popen, kernel_id=self.name)
            process = handle.process or identify(popen.pid)
            return self._run(effect.generation, process, handle, the_mark, command.interrupt_mode, report)
        except BaseException:
            # Out of descriptors, say.  What nobody can watch must not live on.
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(REAP_TIMEOUT)
            raise

    async def _wait_intent_recorded(self) -> None:
        """Wait until the intent is on disk, before the process exists: no process is ever unheard of.

        It is written while the launch is prepared.  Where the output begins is
        put on record with the process, and costs no write of its own.
        """
        try:
            async with asyncio.timeout(INTENT_PATIENCE):
                await self.keeper.flush()
        except TimeoutError:
            # The mark in its environment tells of it, too; a kernel must come back with a slow disk.
            log.warning("the disk takes more than %g s for the record of %s", INTENT_PATIENCE, self.name)

    def _prepare(self, config: KernelConfig) -> Command:
        """All that must be so before the process is there; blocks for a file or two."""
        command = self._launcher.resolve(config)
        self.connection.choose(config, command.kernel_name)
        if config.hold_ports:
            self.connection.hold()
        else:
            self.connection.release()
        self.connection.remove_stale_sockets()
        self.connection.write()
        self.output.rotate(config.output.max_bytes, config.output.backups)
        self._output_from = self.output.position()
        return command

    async def adopt(self, effect: Adopt, report: Report) -> None:
        """Watch a process of an earlier supervisor; answers Exited when it has ended."""
        async with self._turn:
            self.config = effect.config
            mode = await asyncio.to_thread(self._interrupt_mode, effect.config)
            the_mark = mark(self._places.state_dir, self.name, effect.generation)
            while True:
                try:
                    handle = AdoptedKernel(effect.process, kernel_id=self.name)
                    self.run = self._run(effect.generation, effect.process, handle, the_mark, mode, report)
                except ProcessLookupError:
                    report(Exited(self.name, effect.generation, Exit(Cause.UNKNOWN)))
                    return
                except OSError as error:
                    # Out of descriptors, say.  It lives, so it is not given up, nor started again.
                    log.warning("cannot watch kernel %s yet: %s", self.name, error)
                    await asyncio.sleep(ADOPT_INTERVAL)
                else:
                    self.run.watch(effect.config, ready=effect.ready)
                    return

    def _run(
        self, generation: int, process: ProcessId, handle: Handle, the_mark: str, mode: str, report: Report
    ) -> Run:
        output = OutputOfRun(self.output, self._output_from or Position())
        assert self.connection.address is not None, "a run has an address before it has a process"
        channel = Channel(self.connection.address, context=self._equipment.context)
        return Run(
            self.name, generation, process, handle, self.connection, channel, output, the_mark, mode, report
        )

    def _interrupt_mode(self, config: KernelConfig) -> str:
        try:
            return self._launcher.resolve(config).interrupt_mode
        except LaunchError:
            # Its kernelspec is gone, which is no reason to harm the living.
            return config.interrupt_mode or "signal"

    def recall(self, record: Record) -> None:
        """Take up what an earlier supervisor put on record."""
        self._output_from = record.output_from
        if record.address is None:
            return
        try:
            self.connection.adopt(Address.from_mapping(record.address))
        except (ValueError, OSError) as error:
            # The next start then chooses another; a living kernel is reached by its connection file.
            log.warning("the address of kernel %s on record is of no use: %s", self.name, error)

    def look_after(self) -> None:
        """What a living kernel needs from time to time: its output within its limits."""
        if self.run is not None:
            self.run.note_well()
        if self.config is not None:
            self.output.trim(self.config.output.max_bytes, self.config.output.backups)

    def run_of(self, generation: int) -> Run | None:
        """The run of this generation, if it is the current one."""
        return self.run if self.run is not None and self.run.generation == generation else None

    def apply(self, config: KernelConfig) -> None:
        """Other live settings are in force."""
        self.config = config
        if self.run is not None:
            self.run.apply(config)

    def remember(self, kernel: Kernel, state: State) -> None:
        """Have the record written if this changes it."""
        self._known = (kernel, state)
        self._record()

    def dismiss(self) -> None:
        """Nothing is to be remembered of it any more, unless it is declared anew."""
        self._known = None

    def _record(self) -> None:
        if self._known is not None:
            kernel, state = self._known
            if kernel.last_death is not None and kernel.last_death is not self._dated[0]:
                self._dated = (kernel.last_death, time.time() - (time.monotonic() - kernel.last_death.at))
            record = record_of(kernel, state, self.connection.address, self._output_from, self._dated[1])
            if record is not None:
                self.keeper.keep(record)

    async def withdraw(self) -> None:
        """The kernel is stopped: its connection file would mislead, its address stays its own."""
        async with self._turn:
            await asyncio.to_thread(self.connection.remove)

    async def forget(self) -> None:
        """Remove all that is kept for it, but what it wrote; it may have been declared anew meanwhile."""
        async with self._turn:
            self.connection.remove()
            self.connection.close()
            if self._known is None:
                self.keeper.keep(None)
                await self.keeper.flush()

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing is kept for the kernel any more."""
        return self._known is None

    def close(self) -> None:
        """Let go of everything; the kernel and its files are left as they are."""
        if self.run is not None:
            self.run.close()
        self.connection.close()


def _describe_failure(error: Exception) -> Exit:
    if isinstance(error, LaunchError):
        return Exit(error.cause, detail=str(error))
    cause = Cause.PORT_TAKEN if isinstance(error, PortTaken) else Cause.UNKNOWN
    return Exit(cause, detail=str(error) or type(error).__name__)
