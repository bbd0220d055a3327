"""A small operating system in memory, with a host that carries out effects on it.

Owns processes, records, connection files and the clock, and sees to the
contract: every action of the machine is checked against it, every step against
the invariants.  Answers come late and in any order.  The supervisor can crash
at any moment; processes and records stay.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random
from signal import SIGKILL, SIGTERM

from supervisor.core.actions import (
    Action,
    Adopt,
    Apply,
    AskToExit,
    AwaitRoom,
    Discard,
    Forget,
    InterruptKernel,
    Park,
    Publish,
    Refuse,
    SignalGroup,
    Spawn,
    WatchIdle,
    Withdraw,
)
from supervisor.core.events import (
    BecameIdle,
    Event,
    Exited,
    Found,
    Load,
    NoRoom,
    Ready,
    Reset,
    Restart,
    RoomMade,
    Shutdown,
    SpareEnded,
    SpareParked,
    Spawned,
    SpawnFailed,
    Start,
    Stop,
    Survivor,
    Tick,
)
from supervisor.core.lifecycle import pending_keys
from supervisor.core.machine import decide, next_deadline
from supervisor.core.model import (
    Cause,
    Course,
    Exit,
    Failed,
    Kernel,
    ProcessId,
    Running,
    Starting,
    State,
    Stopped,
    Stopping,
    Want,
    launched_of,
    process_of,
)
from supervisor.settings.config import KernelConfig, changed_launch_keys
from tests.core.oracle import Oracle
from tests.core.processes import CLEAN, ENDS, KILLED, Process
from tests.core.records import Record

DIED = "kernel.died"
PATIENCE = 20_000


class World:
    """The machine, its host and its surroundings."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = 1000.0
        self.state = State()
        self.file = Load({})
        self.oracle = Oracle()
        self.processes: dict[str, Process] = {}
        self.records: dict[str, Record] = {}
        self.connection_files: set[str] = set()
        self.in_force: dict[str, KernelConfig] = {}
        self.spawning: set[str] = set()
        self.spawns = 0
        self.spares: dict[str, int] = {}
        self.generations: dict[str, int] = {}
        # The runs that were asked to exit, by whichever supervisor.
        self.asked: set[tuple[str, int]] = set()
        # The runs that were known to be ready, by whichever supervisor.
        self.ready: set[tuple[str, int]] = set()
        self.is_kind = False
        self._epoch = 0
        self._pid = 100
        self._agenda: list[tuple[float, int, int | None, Callable[[], None]]] = []
        self._entries = 0

    # Time

    def _delay(self) -> float:
        return self.random.choice([0.0, 0.001, 0.05, 0.4, 3.0])

    def _later(self, delay: float, happen: Callable[[], None], *, outlives_us: bool = False) -> None:
        self._entries += 1
        entry = (self.now + delay, self._entries, None if outlives_us else self._epoch, happen)
        heapq.heappush(self._agenda, entry)

    def _report(self, fact: Event, delay: float | None = None) -> None:
        self._later(self._delay() if delay is None else delay, lambda: self.submit(fact))

    def step(self) -> bool:
        """Let the next thing happen, an answer or the alarm; ``False`` when nothing is due any more."""
        alarm = next_deadline(self.state)
        happening = self._agenda[0][0] if self._agenda else None
        if alarm is None and happening is None:
            return False
        if alarm is not None and (happening is None or alarm <= happening):
            self.now = max(self.now, alarm)
            self.submit(Tick())
            return True
        at, _, epoch, happen = heapq.heappop(self._agenda)
        self.now = max(self.now, at)
        if epoch in (None, self._epoch):
            happen()
        return True

    def run_until_quiet(self) -> None:
        """Let everything happen that is due; it has to come to an end."""
        for _ in range(PATIENCE):
            if not self.step():
                return
        raise AssertionError("it never settles")

    # The runner

    def submit(self, event: Event) -> list[Action]:
        """One decision, with what has to hold of every decision; its effects begin."""
        before, spelled = self.state, repr(self.state)
        self._foresee(event)
        after, actions = decide(before, event, self.now)
        assert spelled == repr(before), "decide changes nothing in place"
        assert (after, actions) == decide(before, event, self.now), "the same question has the same answer"
        self._check_decision(before, after, event, actions)
        self.state = after
        self.ready |= {(k.name, k.generation) for k in after.kernels.values() if isinstance(k.phase, Running)}
        for name, kernel in after.kernels.items():
            if before.kernels.get(name) is not kernel:
                self._remember(kernel)
        for action in actions:
            self._perform(action)
        return actions

    def _check_decision(self, before: State, after: State, event: Event, actions: list[Action]) -> None:
        for name, kernel in after.kernels.items():
            if name in before.kernels:
                self._check_kernel(before.kernels[name], kernel)
        died = {(a.kernel, a.generation) for a in actions if isinstance(a, Publish) and a.event == DIED}
        assert not died & self.asked, "who does as asked has not died"
        spawns = [action for action in actions if isinstance(action, Spawn)]
        assert not spawns or after.course is Course.SERVING, "nothing is started while closing"
        starting = sum(isinstance(kernel.phase, Starting) for kernel in after.kernels.values())
        assert not spawns or starting <= after.max_concurrent_starts
        if isinstance(event, Tick):
            deadline = next_deadline(after)
            assert deadline is None or deadline > self.now, "every passed deadline is settled"
        if isinstance(event, Load):
            assert (after, []) == decide(after, event, self.now), "the same file twice does nothing"

    def _check_kernel(self, before: Kernel, after: Kernel) -> None:
        assert after.generation - before.generation in (0, 1), "generations never fall"
        if after.generation != before.generation:
            return
        assert process_of(before) in (None, process_of(after)) or launched_of(after) is None
        if isinstance(before.phase, Stopping) and isinstance(after.phase, Stopping):
            assert after.phase.step >= before.phase.step, "no step of the ladder is taken back"

    def _foresee(self, event: Event) -> None:
        """Tell the oracle, before the machine has answered."""
        oracle = self.oracle
        match event:
            case Load(kernels=kernels) if not oracle.is_closing:
                runs = {name for name, kernel in self.state.kernels.items() if launched_of(kernel)}
                oracle.loaded(kernels, runs)
            case Found(survivors=survivors, declared=declared):
                oracle.taken_up(survivors, declared)
            case Shutdown():
                oracle.closing()
            case Exited(kernel=name, generation=generation, exit=exit):
                kernel = self.state.kernels[name]
                by_itself = kernel.generation == generation and (name, generation) not in self.asked
                if by_itself and isinstance(kernel.phase, Starting | Running):
                    oracle.ended(name, exit)
            case _:
                pass

    def order(self, order: Start | Stop | Restart | Reset) -> None:
        """Give an order; it is refused exactly when it has to be."""
        name = order.kernel
        refused = self.oracle.refuses(order, name, is_known=name in self.state.kernels)
        if not refused:
            self.oracle.ordered(name, Want.DOWN if isinstance(order, Stop) else Want.UP)
        actions = self.submit(order)
        assert refused == any(isinstance(action, Refuse) for action in actions)

    def load(self, file: Load) -> None:
        """The file is edited and read."""
        self.file = file
        self.submit(file)

    def _remember(self, kernel: Kernel) -> None:
        self.records[kernel.name] = Record(kernel, self.state)

    # The host

    def _perform(self, action: Action) -> None:
        match action:
            case Spawn():
                self._spawn(action)
            case Adopt(kernel=name, generation=generation, process=id, config=config, ready=ready):
                process = self.processes[name]
                assert (process.id, process.generation) == (id, generation)
                assert ready == ((name, generation) in self.ready), "what was ready is adopted as ready"
                self.in_force[name] = config
                self._watch(process, is_ready=ready)
            case Park(kernel=name, number=number):
                assert name not in self.spares, "one spare at a time"
                assert self.file.kernels[name].warm_start == "standby"
                self.spares[name] = number
                self._later(self._delay(), lambda: self._is_parked(name, number))
            case Discard(kernel=name, number=number):
                assert self.spares.pop(name) == number
            case AwaitRoom(kernel=name, generation=generation):
                self._report(RoomMade(name, generation))
            case Withdraw(kernel=name):
                assert name not in self.spawning
                assert name not in self.processes, "the file of a living kernel stays"
                self.connection_files.discard(name)
            case Forget(kernel=name):
                assert name not in self.state.kernels
                assert name not in self.processes
                assert name not in self.spawning
                self.connection_files.discard(name)
                self.records.pop(name, None)
                self.generations.pop(name, None)
                self.asked = {run for run in self.asked if run[0] != name}
                self.ready = {run for run in self.ready if run[0] != name}
            case Apply(kernel=name, config=config):
                assert process_of(self.state.kernels[name]) is not None
                self.in_force[name] = config
            case AskToExit() | SignalGroup() | WatchIdle() | InterruptKernel():
                self._reach(action)
            case _:
                pass

    def _spawn(self, spawn: Spawn) -> None:
        name = spawn.kernel
        assert name not in self.processes, "never two processes for a kernel"
        assert name not in self.spawning, "never two spawns in flight"
        assert spawn.generation == self.state.kernels[name].generation
        assert spawn.generation > self.generations.get(name, 0), "each run has a number of its own"
        self.generations[name] = spawn.generation
        assert self.file.kernels[name] == spawn.config
        assert spawn.config.enabled
        self.spawns += 1
        if spawn.spare is not None:
            assert self.spares.pop(name) == spawn.spare, "what takes its place is there"
        assert name not in self.spares, "never a spare beside a launch"
        if not self.is_kind and self.random.random() < 0.1:
            self._report(NoRoom(name, spawn.generation, "no room"))
            return
        self.spawning.add(name)
        self.connection_files.add(name)
        fails = not self.is_kind and self.random.random() < 0.15
        happen = (lambda: self._spawn_fails(spawn)) if fails else (lambda: self._is_born(spawn))
        self._later(self._delay(), happen)

    def _is_parked(self, name: str, number: int) -> None:
        if self.spares.get(name) != number:
            return
        if self.is_kind or self.random.random() < 0.7:
            self.submit(SpareParked(name, number))
        if not self.is_kind and self.random.random() < 0.3:
            self._later(self._delay(), lambda: self._spare_ends(name, number))

    def _spare_ends(self, name: str, number: int) -> None:
        if self.spares.get(name) == number:
            del self.spares[name]
            self.submit(SpareEnded(name, number, "it ended"))

    def _spawn_fails(self, spawn: Spawn) -> None:
        self.spawning.discard(spawn.kernel)
        cause = self.random.choice([Cause.NOT_FOUND, Cause.PORT_TAKEN, Cause.CRASHED])
        self._report(SpawnFailed(spawn.kernel, spawn.generation, Exit(cause)), delay=0.0)

    def _is_born(self, spawn: Spawn) -> None:
        name = spawn.kernel
        assert name not in self.processes, "never two processes for a kernel"
        self.spawning.discard(name)
        self._pid += 1
        process = Process(
            ProcessId(self._pid, self._pid, "boot"), name, spawn.generation, spawn.config, self.now
        )
        if not self.is_kind:
            process.is_polite = self.random.random() < 0.6
            process.is_stubborn = self.random.random() < 0.4
            process.ready_after = self.random.choice([None, 0.0, 0.1, 2.0])
            if self.random.random() < 0.2:
                how = self.random.choice(ENDS)
                self._later(self._delay(), lambda: self.die(process, how), outlives_us=True)
        self.processes[name] = process
        self.in_force[name] = spawn.config
        self._later(self._delay(), lambda: self._is_known(process))

    def _is_known(self, process: Process) -> None:
        self.submit(Spawned(process.kernel, process.generation, process.id))
        self._watch(process, is_ready=False)

    def _watch(self, process: Process, *, is_ready: bool) -> None:
        process.is_watched = True
        if not process.is_alive:
            self._report(Exited(process.kernel, process.generation, process.exit))
        elif not is_ready and process.ready_after is not None:
            self._later(process.ready_after, lambda: self._is_ready(process))

    def _is_ready(self, process: Process) -> None:
        if process.is_alive:
            self.submit(Ready(process.kernel, process.generation))

    def _reach(self, action: AskToExit | SignalGroup | WatchIdle | InterruptKernel) -> None:
        kernel = self.state.kernels.get(action.kernel)
        known = process_of(kernel) if kernel is not None else None
        if kernel is None or known is None or action.generation != kernel.generation:
            assert isinstance(action, SignalGroup), (
                "only a known process is reached, or one that comes too late"
            )
            found = self.processes.get(action.kernel)
            assert found is None or found.generation != action.generation, "no launch is given up here"
            return
        process = self.processes.get(action.kernel)
        if process is None:
            return  # It has died already; its Exited is under way.
        assert process.id == known
        match action:
            case AskToExit():
                self.asked.add((process.kernel, process.generation))
                dies = process.is_polite
            case SignalGroup(signum=signum):
                dies = signum == SIGKILL or (signum == SIGTERM and not process.is_stubborn)
            case _:
                dies = False
        if dies:
            how = CLEAN if isinstance(action, AskToExit) else KILLED
            self._later(self._delay(), lambda: self.die(process, how), outlives_us=True)
        if isinstance(action, WatchIdle):
            self._report(BecameIdle(action.kernel, action.generation))

    def die(self, process: Process, how: Exit) -> None:
        """The process ends; its supervisor learns of it later."""
        if not process.is_alive:
            return
        process.is_alive = False
        process.exit = how
        del self.processes[process.kernel]
        if process.is_watched:
            self._report(Exited(process.kernel, process.generation, how))

    # Supervisors come and go

    def crash(self) -> None:
        """The supervisor is gone, with all that it was about to do or to hear."""
        self._epoch += 1
        self.spawning.clear()
        self.spares.clear()
        self.state = State()
        for process in self.processes.values():
            process.is_watched = False

    def take_over(self) -> None:
        """A new supervisor finds what the last one left, and reads the file."""
        survivors = tuple(self._survivor(name) for name in self.records)
        self.submit(Found(survivors, self.file.kernels))
        self.submit(self.file)

    def _survivor(self, name: str) -> Survivor:
        process = self.processes.get(name)
        found = (process.id, process.generation) if process else None
        return self.records[name].survivor(found, self.now)

    # What has to hold once nothing is due any more

    def settle(self) -> None:
        """From here on nothing goes wrong; then everything is as it is wanted."""
        self.is_kind = True
        for process in self.processes.values():
            process.ready_after = 0.1
        self.run_until_quiet()
        self.is_kind = False
        self.check_settled()

    def check_settled(self) -> None:
        """What is so is what is wanted."""
        assert set(self.state.kernels) == set(self.file.kernels)
        assert set(self.processes) <= set(self.file.kernels)
        for name, kernel in self.state.kernels.items():
            process = self.processes.get(name)
            assert self.oracle.want[name] is kernel.want
            wanted = kernel.want is Want.UP and not isinstance(kernel.phase, Failed)
            assert wanted == (process is not None), "alive if and only if wanted and not failed"
            assert wanted == (name in self.connection_files)
            if process is None:
                assert isinstance(kernel.phase, Stopped | Failed)
                continue
            assert isinstance(kernel.phase, Running)
            assert process.id == kernel.phase.process
            self._check_settings(kernel, process)

    def _check_settings(self, kernel: Kernel, process: Process) -> None:
        declared = self.file.kernels[kernel.name]
        assert declared == kernel.declared == self.in_force[kernel.name]
        behind = changed_launch_keys(process.config, declared)
        assert behind == pending_keys(kernel)
        assert not behind or declared.on_config_change == "manual"
