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
import subprocess
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from supervisor.cgroups.tree import RunId
from supervisor.core.actions import Adopt, Discard, Park, Spawn
from supervisor.core.events import Exited, Fact, Noted, Spawned, SpawnFailed
from supervisor.core.model import Begun, Cause, Death, Exit, JobId, Kernel, ProcessId, State, is_to_run
from supervisor.disk.off_loop import Hanging, Lane, begin
from supervisor.kernel.adopted import AdoptedKernel
from supervisor.kernel.aftermath import Aftermath
from supervisor.kernel.channel import Channel
from supervisor.kernel.confinement import Confinement
from supervisor.kernel.connection import CHANNELS, Address, FileOfAnother, PortOfAnother, read_address
from supervisor.kernel.equipment import Equipment
from supervisor.kernel.handle import Handle, LocalHandle
from supervisor.kernel.holder import WAY_OUT, look_for
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import Command, describe_failure, interrupt_mode, owner
from supervisor.kernel.local import LocalKernel
from supervisor.kernel.ports import Place, PortTaken
from supervisor.kernel.run import OutputOfRun, Run
from supervisor.kernel.spares import Spares
from supervisor.kernel.subproc import KernelManager
from supervisor.kernel.survivors import record_of
from supervisor.kernel.trimming import Trimming, make_room
from supervisor.kernel.warmth import Launching, Spare
from supervisor.output.file import OutputFile
from supervisor.output.growth import Growth
from supervisor.output.stream import Position
from supervisor.process.identity import identify
from supervisor.records.keeper import Keeper, Store, Trouble
from supervisor.records.places import Places
from supervisor.records.record import Record, helper_mark, mark
from supervisor.settings.config import KernelConfig, OutputConfig
from supervisor.warm.zygotes import Forked, Tell

if TYPE_CHECKING:
    from supervisor.kernel.jobs import Jobs

log = logging.getLogger(__name__)

Report = Callable[[Fact], object]

# Of a run: its pidfd, and two sockets, each with a connection.  The sockets stay open: a kernel that
# has run out of descriptors answers on the connections that it has, and takes no further one.
RUN_DESCRIPTORS = 5
# How long a launch waits for the disk of its record, for that of its output, for its turn, for the corpse
# of a failed one, and how often watching an adopted process is tried again; in seconds.
INTENT_PATIENCE = 3.0
OUTPUT_PATIENCE = 3.0
TURN_PATIENCE = 10.0
REAP_TIMEOUT = 5.0
ADOPT_INTERVAL = 1.0

# What to do where another kernel has the connection file, other than to end it.
NO_FILE = "choose another name or runtime_dir"

# Kernels are made here, one after the other.
PROCESSES = Lane("processes", lasts=True)


class Entry:
    """One kernel on this machine."""

    def __init__(
        self,
        name: str,
        places: Places,
        store: Store,
        trouble: Trouble,
        equipment: Equipment,
        jobs: Callable[[], Jobs],
    ) -> None:
        self.name = name
        # For its whole life, whatever runs it has; one on record takes its place.
        self.id = str(uuid.uuid4())
        self.connection = equipment.connect(name, places)
        self.output = OutputFile(places.output_file(name))
        # On a frozen disk they would keep our process from ending: they wait for it elsewhere.
        self._wait_state = partial(equipment.wait_disk, places.state_dir)
        self._wait_runtime = partial(equipment.wait_disk, places.runtime_dir)
        self.keeper = Keeper(store, name, trouble, self._wait_state)
        self.run: Run | None = None
        # The settings in force; a launch and an edit of live keys set them.
        self.config: KernelConfig | None = None
        self._places = places
        self._trouble = trouble
        self.lacks_file = False  # it could not be written
        self._equipment = equipment
        self._jobs = jobs
        self._launcher = equipment.launcher
        self._language = ""
        self._known: tuple[Kernel, State] | None = None
        self._output_from: Position | None = None
        # The dates of its deaths, in seconds since the epoch.
        self._dates: dict[Death, float] = {}
        # How the kernelspec of the latest launch is interrupted; empty until that is known.
        self.spec_mode = ""
        self._pending = places.pending_file(name)
        self._aftermath = Aftermath()
        self.spares = Spares(name, equipment.warmth)
        # Launch, withdrawal and removal are carried out in the order of their decisions.
        self._turn = asyncio.Lock()
        self._launching = Lane(f"launch of kernel {name}")
        self._writing = Lane(f"output of kernel {name}", self._wait_state)
        self._trimming = Trimming(name, self.output, self._writing, self._limits, trouble)
        self._growth: Growth | None = None

    def needs(self, config: KernelConfig) -> int:
        """How many descriptors its next run will take beyond those that are held for it already."""
        holds = config.transport == "tcp" and config.hold_ports and not self.connection.is_held
        return RUN_DESCRIPTORS + (len(CHANNELS) if holds else 0)

    @property
    def is_to_run(self) -> bool:
        """Whether it has a run, or will have one as soon as may be; not one that is being stopped."""
        return self._known is not None and is_to_run(self._known[0])

    async def spawn(self, effect: Spawn, report: Report) -> None:
        """Launch a run; answers Spawned or SpawnFailed, and after Spawned later Exited."""
        try:
            async with asyncio.timeout(TURN_PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            hanging = Hanging("what was to be done before it has not ended: does a file system hang?")
            report(SpawnFailed(self.name, effect.generation, describe_failure(hanging)))
            return
        try:
            await self._spawn(effect, report)
        finally:
            self._turn.release()

    def give_way(self, places: Collection[Place]) -> None:
        """Leave the ports that the settings of another kernel ask for, if no run of this one needs them."""
        if not self._turn.locked() and (self.run is None or self.run.is_over):
            self.connection.give_way(places)

    async def _spawn(self, effect: Spawn, report: Report) -> None:
        if effect.config.slurm is None:
            await self._leave_cluster()
        self.config = effect.config
        try:
            run = await self._launch(effect, report)
        except Exception as error:
            if not isinstance(error, LaunchError | OSError | Hanging):
                log.exception("launching kernel %s failed", self.name)
            failure = describe_failure(error)
            if isinstance(error, PortTaken) and not isinstance(error, PortOfAnother):
                wanted = (error.place, mark(self._places.state_dir, self.name, 0))
                way_out = NO_FILE if isinstance(error, FileOfAnother) else WAY_OUT
                who = await look_for(self._launching, *wanted, way_out)
                failure = replace(failure, detail=failure.detail + who)
            report(SpawnFailed(self.name, effect.generation, failure))
            return
        self._is_there(run)
        report(Spawned(self.name, effect.generation, run.handle.identity, run.begun))
        run.watch()

    async def _launch(self, effect: Spawn, report: Report) -> Run:
        config, before = effect.config, (self.connection.address, self.spec_mode)
        if self.run is not None and not self.run.is_over:
            raise Hanging("the process of an earlier launch, which was given up, has not ended yet")
        command = await self._launching.do(self._launcher.resolve, config)
        self._language = command.language
        await self._launching.do(self._aftermath.end_stub)
        await self._launching.do(self.connection.choose, config, command.kernel_name, command.account)
        self.spec_mode = command.interrupt_mode
        if (self.connection.address, self.spec_mode) != before:
            # On record before it is in a file that clients read: it is for good from then on.
            self._record()
            await self._wait_intent_recorded()
        await self._launching.do(self._make_way, config)
        await self._launching.do(self._write_file)
        self._note_no_file(None)
        output = await self._make_room(config)
        await self._wait_intent_recorded()
        wanted = self._wanted(config, command, output, effect.generation)
        if config.slurm is not None:
            job = await self._jobs().submit(self.name, wanted, self.connection.address, report)
            return self._run(wanted.run, job, wanted.mark, config, report)
        # Without a deadline: given up, it might have a process that nobody knows of.
        tell = self._teller(effect.generation, report)
        spare = self.spares.take(effect.spare)
        if spare is not None and (run := await self._promoted(spare, wanted, report)):
            return run
        way = await self._launching.begin(self._equipment.warmth.way, wanted, tell)
        if way.forked is not None:
            run = await self._run_forked(way.forked, wanted, report)
        else:
            if config.warm_start == "fork":  # its imports take long, say
                begin(self._equipment.warmth.kindle, wanted, tell)
            popen = await PROCESSES.begin(self._equipment.warmth.spawn, self._launcher, wanted, way)
            run = await self._run_popen(popen, wanted, report)
        run.begun = way.begun
        run.startup = ("", "") if way.parts is not None else way.startup
        return run

    async def _begun(self, process: ProcessId, kernel: LocalKernel, wanted: Launching, report: Report) -> Run:
        confinement = await self._confine(wanted.run, process, wanted.mark, wanted.config)
        handle = LocalHandle(process, kernel, confinement, wanted.mark)
        return self._run(wanted.run, handle, wanted.mark, wanted.config, report)

    async def _run_popen(self, popen: subprocess.Popen[bytes], wanted: Launching, report: Report) -> Run:
        try:
            kernel = KernelManager(popen, kernel_id=self.name)
            process = kernel.process or identify(popen.pid)
            return await self._begun(process, kernel, wanted, report)
        except BaseException:
            # Out of descriptors, say.  What nobody can watch must not live on.
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(REAP_TIMEOUT)
            raise

    async def _run_forked(self, forked: Forked, wanted: Launching, report: Report) -> Run:
        """It waits until it is watched, and ends if that fails."""
        try:
            process = identify(forked.pid)
            kernel = AdoptedKernel(process, kernel_id=self.name)
            run = await self._begun(process, kernel, wanted, report)
            forked.go()  # one that was parked has gone on already
            return run
        except BaseException:
            forked.kill()
            raise
        finally:
            forked.close()

    async def _confine(
        self, generation: int, process: ProcessId, the_mark: str, config: KernelConfig
    ) -> Confinement:
        run, uid = RunId(self.name, generation), self.connection.uid
        whose = (run, process.pid, the_mark, uid)
        return await PROCESSES.begin(Confinement.of, self._equipment.cgroups, *whose, config)

    async def _promoted(self, spare: Spare, wanted: Launching, report: Report) -> Run | None:
        """The run that its spare has become, or ``None`` if that is of no use: it is ended then."""
        if reason := await self._launching.begin(self._equipment.warmth.promote, spare, wanted):
            report(Noted(self.name, wanted.run, "standby.dropped", {"reason": reason}))
            spare.end()
            return None
        try:
            run = await self._run_forked(spare.forked, wanted, report)
        except ProcessLookupError:
            return None  # it has ended
        run.begun = Begun("standby")
        return run

    def tend_spare(self, effect: Park | Discard, report: Report) -> None:
        """Have a spare of the run that there is, or none any more."""
        self.spares.discard()
        if isinstance(effect, Park):
            wanted = partial(self._resolved, effect.config)
            self.spares.park(effect.number, wanted, self._teller(0, report), report)

    async def _resolved(self, config: KernelConfig) -> Launching:
        """What a launch of no particular run needs.  Raises LaunchError, Hanging."""
        command = await self._launching.do(self._launcher.resolve, config)
        return self._wanted(config, command, self.output.path, 0)

    def _wanted(self, config: KernelConfig, command: Command, output: Path, run: int) -> Launching:
        state_dir, death = self._places.state_dir, self._aftermath.told(config, run)
        marks = mark(state_dir, self.name, run), helper_mark(state_dir, "")
        return Launching(config, command, self.connection.path, output, self._pending, *marks, run, death)

    def _teller(self, generation: int, report: Report) -> Tell:
        """Tells from other threads."""
        loop = asyncio.get_running_loop()
        return lambda event, fields: loop.call_soon_threadsafe(
            report, Noted(self.name, generation, event, fields)
        )

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

    def _write_file(self) -> bool:
        if self.connection.is_written:
            return False
        self._wait_runtime()
        return self.connection.write()

    def _make_way(self, config: KernelConfig) -> None:
        """Nobody else is where the kernel is to listen."""
        if config.transport == "ipc":
            self._wait_runtime()
        self.connection.refuse_file_of_another()
        if config.hold_ports:
            self.connection.hold()
        else:
            self.connection.release()
        self.connection.remove_stale_sockets()
        self.connection.open_way()

    async def _make_room(self, config: KernelConfig) -> Path:
        """Where its output goes, within its limits; nothing about it keeps a kernel from coming back."""
        try:
            work = partial(make_room, self.name, self.output, config.output)
            self._output_from, lacking = await self._writing.do(work, patience=OUTPUT_PATIENCE)
        except Hanging as hanging:
            lacking = str(hanging)
        lost = f"{lacking}: what kernel {self.name} writes is lost until its next launch"
        self._trouble(f"output of kernel {self.name}", lost if lacking else None)
        return Path(os.devnull) if lacking else self.output.path

    async def adopt(self, effect: Adopt, report: Report, may_watch: Callable[[], bool]) -> None:
        """Watch a process of an earlier supervisor, once that may be; answers Exited when it has ended."""
        if self.connection.address is None:
            # It is watched all the same, and found unresponsive.
            self.connection.presume(effect.config)
        async with self._turn:
            self.config = effect.config
            run = await self._watch(effect, report, may_watch)
            if run is not None:
                self._is_there(run)
                run.watch(ready=effect.ready)
        if run is not None:
            if self.config is not None and self.config is not effect.config:
                await self.apply(self.config)  # as edited while nobody watched
            # Only now, as it may hang or fail: whatever happens, its end is told.
            await self._learn_owner(effect.config)
            await self._learn_mode(run, effect.config)
            await self._offer(run)
            if effect.config.warm_start == "fork":
                tell = self._teller(effect.generation, report)
                with suppress(LaunchError, Hanging, OSError):
                    begin(self._equipment.warmth.kindle, await self._resolved(effect.config), tell)

    async def _watch(self, effect: Adopt, report: Report, may_watch: Callable[[], bool]) -> Run | None:
        """What is adopted, watched; ``None`` if it has ended, which is told."""
        the_mark = mark(self._places.state_dir, self.name, effect.generation)
        generation, process = effect.generation, effect.process
        if isinstance(process, JobId):
            job = self._jobs().adopt(effect, self.connection.address, self.output.path, report)
            return self._run(generation, job, the_mark, effect.config, report)
        confinement = await self._confine(generation, process, the_mark, effect.config)
        while True:
            try:
                kernel = AdoptedKernel(process, kernel_id=self.name)
                if not may_watch():
                    await kernel.cleanup()
                    raise OSError("there are too few descriptors: raise LimitNOFILE")
                handle = LocalHandle(process, kernel, confinement, the_mark)
                # Other settings may have come into force meanwhile.
                run = self._run(generation, handle, the_mark, self.config or effect.config, report)
            except ProcessLookupError:
                report(Exited(self.name, effect.generation, Exit(Cause.UNKNOWN)))
                return None
            except Exception as error:
                # Out of descriptors, say.  It lives, so it is not given up, nor started again.
                self._trouble(f"watch over {self.name}", f"cannot watch kernel {self.name} yet: {error}")
                await asyncio.sleep(ADOPT_INTERVAL)
            else:
                self._trouble(f"watch over {self.name}", None)
                return run

    async def _leave_cluster(self) -> None:
        """Its address there is needed here, or by nobody."""
        if self.config is not None and self.config.slurm is not None:
            await self._jobs().withdraw(self.name)

    @property
    def has_lost_file(self) -> bool:
        """Whether a run of it may live whose clients do not find it; for a thread."""
        return self.run is not None and not self.run.is_over and not self.connection.is_written

    async def mend(self) -> bool:
        """Let the clients of a living kernel find it, should its file have been lost; tells if it was."""
        return self.run is not None and await self._offer(self.run)

    async def _offer(self, run: Run) -> bool:
        async with self._turn:
            if self.connection.is_presumed or run.is_over:
                return False
            try:
                was_lost = await self._launching.do(self._write_file)
            except Exception as error:
                self._note_no_file(f"cannot write the connection file of kernel {self.name}: {error}")
                return False
        self._note_no_file(None)
        return was_lost

    async def _learn_owner(self, launched: KernelConfig) -> None:
        try:
            self.connection.owner = await self._launching.do(owner, launched)
        except Exception as error:
            log.warning("whose kernel %s is cannot be told: %s", self.name, error)

    async def _learn_mode(self, run: Run, launched: KernelConfig) -> None:
        """How an adopted kernel is interrupted that a version has recorded which did not tell."""
        if self.spec_mode:
            return
        try:
            self.spec_mode = run.spec_mode = await self._launching.do(interrupt_mode, launched)
        except Exception as error:
            log.warning("cannot tell how kernel %s is interrupted, by message it is: %s", self.name, error)

    def _run(
        self, generation: int, handle: Handle, the_mark: str, config: KernelConfig, report: Report
    ) -> Run:
        assert self.connection.address is not None, "a run has an address before it has a process"
        output = OutputOfRun(self.output, self._output_from or Position(), self.connection.address.key)
        address, context = self.connection.address, self._equipment.context
        channel = Channel(address, context=context, trouble=self._note_no_socket)
        settled = (the_mark, config, self._pending, self._aftermath)
        run = Run(self.name, generation, handle, self.connection, channel, output, *settled, report)
        run.spec_mode = self.spec_mode or run.spec_mode
        return run

    def _is_there(self, run: Run) -> None:
        self.run = run
        self.tell_limits()
        if self._growth is not None:
            self._trimming.begin(self._growth)

    def _note_no_file(self, message: str | None) -> None:
        if message or self.lacks_file:
            self.lacks_file = message is not None
            self._trouble(f"connection file of {self.name}", message)

    def _note_no_socket(self, message: str | None) -> None:
        self._trouble(f"socket to {self.name}", message and f"no socket to kernel {self.name}: {message}")

    @property
    def language(self) -> str:
        """What it runs: as its kernelspec says, or else the kernel itself; "" until that is known."""
        return self._language or (self.run.language if self.run is not None else "")

    def recall(self, record: Record, *, holds: bool = True) -> None:
        """Take up what an earlier supervisor put on record; its ports are held from now on if that may be."""
        self.id, self._language = record.id or self.id, record.language
        self._aftermath.recall(record)
        self._output_from = record.output_from
        self.spec_mode, self.connection.uid = record.interrupt_mode, record.uid
        try:
            if record.address is not None:
                self.connection.adopt(Address.from_mapping(record.address))
            elif record.process is not None or record.spawned_at is not None:
                # On its way to the disk when its supervisor was killed.
                self.connection.adopt(read_address(self.connection.path))
        except FileNotFoundError:
            pass  # nothing came of the launch
        except (ValueError, AttributeError, OSError, RecursionError) as error:
            log.warning("the address of kernel %s on record is of no use: %s", self.name, error)
        if holds and record.launched is not None and record.launched.hold_ports:
            try:
                self.connection.hold()
            except OSError:
                pass  # it lives and listens, or somebody else does, which its next launch tells

    def _limits(self) -> OutputConfig:
        return OutputConfig() if self.config is None else self.config.output

    def keep_output_small(self, growth: Growth) -> None:
        """From now on, or the next launch; also when no run of it lives, but perhaps a child."""
        self._growth = growth
        if self.run is not None:
            self._trimming.begin(growth)

    async def wait_run_of(self, generation: int) -> Run | None:
        """The run of this generation, if it is the current one once an adoption under way is over."""
        if self.run is None or self.run.generation != generation:
            async with self._turn:
                pass
        return self.run if self.run is not None and self.run.generation == generation else None

    async def apply(self, config: KernelConfig) -> None:
        """Other live settings are in force."""
        self.config = config
        if self.run is not None:
            self.run.apply(config)
            await self._launching.begin(self.run.handle.confinement.limit, config)
            self.tell_limits()

    def tell_limits(self) -> None:
        """A limit that is not in force, and what is used if it comes near its limit."""
        if self.run is not None:
            refused = self.run.handle.confinement.refused
            self._trouble(f"limits of {self.name}", f"{self.name}: {refused}" if refused else None)
            self.run.tell_pressed()

    async def renew(self) -> None:
        """Another address at the next launch; one that is under way keeps the present one."""
        async with self._turn:
            self.connection.renew()

    def remember(self, kernel: Kernel, state: State) -> None:
        """Have the record written if this changes it."""
        self._known = (kernel, state)
        self._aftermath.note(kernel.phase)
        self._record()

    def dismiss(self) -> None:
        """Nothing is to be remembered of it any more, unless it is declared anew."""
        self._known = None

    def _record(self) -> None:
        if self._known is not None:
            kernel, state = self._known
            past = time.time() - time.monotonic()
            self._dates = {death: self._dates.get(death, past + death.at) for death in kernel.deaths}
            address = None if self.connection.is_presumed else self.connection.address
            record = record_of(kernel, state, address, self._output_from, self._dates, self.spec_mode)
            if record is not None:
                known = {"id": self.id, "language": self.language, "uid": self.connection.uid}
                self.keeper.keep(replace(record, **known))

    async def withdraw(self) -> None:
        """The kernel is stopped: its connection file would mislead, its address stays its own."""
        self._trouble(f"limits of {self.name}", None)
        self._note_no_file(None)
        async with self._turn:
            await self._leave_cluster()
            await self._launching.begin(self._answer_for_good)
            removal = self._launching.begin(self._remove_files)
        try:
            # However long it takes: the next launch, which comes behind it in the lane, has the patience.
            await removal
        except OSError as error:
            log.warning("cannot remove the connection file of kernel %s: %s", self.name, error)

    def _answer_for_good(self) -> None:
        """Have answered what the last run left: there is no next one, and nothing is kept ready for it."""
        self._equipment.warmth.leave(self.name)
        self._aftermath.settle(self._begin_stub())

    def _begin_stub(self) -> subprocess.Popen[bytes] | None:
        if self.config is None or self.connection.address is None or not self._pending.exists():
            return None
        with suppress(LaunchError, OSError):
            wanted = self._wanted(self.config, self._launcher.resolve(self.config), self.output.path, 0)
            return self._equipment.warmth.answer(wanted, self.connection.address.to_mapping())
        return None

    def _remove_files(self) -> None:
        self._wait_runtime()
        self.connection.remove()
        with suppress(OSError):  # somebody else's by now
            self.connection.remove_stale_sockets()

    async def forget(self) -> None:
        """Remove all that is kept for it, but what it wrote; it may have been declared anew meanwhile."""
        await self.withdraw()
        async with self._turn:
            if self._known is not None:
                return
            self._launching.begin(self._pending.unlink, True)
            self._trimming.close()
            self.connection.close()
            self.keeper.keep(None)
        await self.keeper.flush()

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing is kept for the kernel any more, also on disk."""
        return self._known is None and self.keeper.is_done

    @property
    def busy_for(self) -> float:
        """For how many seconds the slowest work on its files has gone on."""
        return max(self.keeper.busy_for, self._launching.busy_for, self._writing.busy_for)

    def close(self) -> None:
        """Let go of everything; the kernel and its files are left as they are."""
        self._trimming.close()
        self.spares.discard()
        if self.run is not None:
            self.run.close()
        self.connection.close()
        self.keeper.close()
