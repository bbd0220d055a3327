"""The supervision of one kernel for one manager: a runner and a host of its own, no records.

Owns them from the first start to the last cleanup, and the private directory
with the kernel's output.  Decides nothing: the core does, as for the daemon.
All methods belong to the loop's thread, but those that say otherwise.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import msgspec

from supervisor.core.actions import AskToExit, Effect, Withdraw
from supervisor.core.events import Exited, Fact, Interrupt, Load, Restart, SendSignal, Stop
from supervisor.core.model import (
    Backoff,
    Cause,
    Exit,
    Failed,
    Kernel,
    Queued,
    Running,
    Starting,
    State,
    Stopped,
    Stopping,
    process_of,
)
from supervisor.kernel.connection import Connection
from supervisor.kernel.entry import Equipment
from supervisor.kernel.host import Host
from supervisor.manager.callbacks import RestartCallbacks
from supervisor.manager.launch import ManagerLauncher
from supervisor.manager.thread import LoopThread
from supervisor.observe.sentence import sentence
from supervisor.records.keeper import NoRecords
from supervisor.records.places import Places
from supervisor.runner import Runner, RunnerClosed
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

_LEVELS = {"error": logging.WARNING, "warning": logging.WARNING}
# SIGTERM gets 2 s, SIGKILL 5 s (core.lifecycle), and once more, in seconds.
LADDER_PATIENCE = 12.0
# How long a request to exit may take to be answered, in seconds.
REQUEST_PATIENCE = 0.5
# SIGINT in the first moments ends an ipykernel: an interrupt waits this long for readiness, in seconds.
READY_PATIENCE = 5.0


@dataclass(frozen=True)
class Farewell:
    """What a stop says to the kernel, and what it leaves.

    ``ask``: send a ``shutdown_request``; ``interrupt``: after an interrupt, if it
    is busy; ``restart``: which says that the kernel will be back; ``keep_file``: the
    connection file stays.
    """

    ask: bool = True
    interrupt: bool = True
    restart: bool = False
    keep_file: bool = False


@dataclass(frozen=True)
class ManagerPlaces(Places):
    """The connection file where the manager wants it."""

    file: Path = Path()

    def connection_file(self, kernel: str) -> Path:  # noqa: ARG002 - there is one kernel
        """Where the manager wants it."""
        return self.file


class _Attended:
    """The host, with the manager's wishes about a stop, and an ear for the ends of runs."""

    def __init__(self, host: Host, callbacks: RestartCallbacks) -> None:
        self.farewell = Farewell()
        # Set once the kernel has been asked to exit, or is not to be.
        self.asked = asyncio.Event()
        self._host = host
        self._callbacks = callbacks

    def remember(self, kernel: Kernel, state: State) -> None:
        """Nothing: nobody takes the kernel up after us."""

    def dismiss(self, kernel: str) -> None:
        self._host.dismiss(kernel)

    async def perform(self, effect: Effect, report: Callable[[Fact], object]) -> None:
        match effect:
            case AskToExit():
                await self._ask(effect, report)
            case Withdraw() if self.farewell.keep_file:
                return
            case _:
                await self._host.perform(effect, lambda fact: self._heard(fact, report))

    async def _ask(self, effect: AskToExit, report: Callable[[Fact], object]) -> None:
        farewell = self.farewell
        restart, interrupt = effect.restart or farewell.restart, effect.interrupt and farewell.interrupt
        try:
            if farewell.ask:
                await self._host.perform(replace(effect, restart=restart, interrupt=interrupt), report)
        finally:
            self.asked.set()

    def _heard(self, fact: Fact, report: Callable[[Fact], object]) -> None:
        if isinstance(fact, Exited):
            self._callbacks.note(fact.exit)
        report(fact)


class Session:
    """One kernel under supervision."""

    def __init__(
        self,
        thread: LoopThread,
        connection: Connection,
        launcher: ManagerLauncher,
        callbacks: RestartCallbacks,
    ) -> None:
        self.thread = thread
        self.name = connection.name
        self.is_closed = False
        self._connection = connection
        self._callbacks = callbacks
        self._launcher = launcher
        self._directory = Path(tempfile.mkdtemp(prefix="kernel-supervisor-"))
        self._opened: tuple[Runner, Host, _Attended] | None = None
        self._abandonment: asyncio.Task[None] | None = None
        self._ordered = 0

    # To be read from any thread: the state is a value that is replaced whole.

    @property
    def kernel(self) -> Kernel | None:
        """The kernel as it is now; ``None`` before it is declared."""
        return self._opened[0].state.kernels.get(self.name) if self._opened else None

    @property
    def is_managing(self) -> bool:
        """Whether the kernel has a run, or is to have one."""
        kernel = self.kernel
        return kernel is not None and not isinstance(kernel.phase, Stopped | Failed)

    # On the loop

    async def open(self) -> None:
        """Begin to supervise; nothing is declared yet."""
        places = ManagerPlaces(self._directory, self._connection.path.parent, self._connection.path)
        equipment = Equipment(self._launcher, lambda _kernel, _places: self._connection, self.thread.context)
        host = Host(places, NoRecords(), _note_trouble, equipment)
        attended = _Attended(host, self._callbacks)
        runner = Runner(attended)
        runner.add_observer(self._observe)
        host.open()
        self._opened = (runner, host, attended)

    @property
    def _runner(self) -> Runner:
        assert self._opened is not None, "open comes first"
        return self._opened[0]

    @property
    def _state(self) -> Kernel:
        return self._runner.state.kernels[self.name]

    def _observe(self, line: Mapping[str, object]) -> None:
        ordered_in_vain = self._could_not_be_launched()
        level = logging.DEBUG if ordered_in_vain else _LEVELS.get(str(line["level"]), logging.DEBUG)
        if line["event"] == "kernel.failed":
            log.log(level, "kernel %s is given up: %s", self.name, line["reason"])
        else:
            log.log(level, "kernel %s", sentence(line))
        match line["event"]:
            case "kernel.died":
                death = self._state.last_death
                assert death is not None, "it is told of"
                self._callbacks.note(death.exit)
            case "kernel.restarting" if not ordered_in_vain:
                self._callbacks.call("restart")
            case "kernel.failed" if not ordered_in_vain:
                self._callbacks.call("dead")
            case _:
                pass

    def _could_not_be_launched(self) -> bool:
        """Whether this is about an ordered launch that failed: whoever ordered it gets an exception."""
        death = self._state.last_death
        return death is not None and death.pid is None and death.generation == self._ordered

    def declare(self, config: KernelConfig) -> None:
        """These settings are in force from now on."""
        self._runner.submit(Load({self.name: config}))

    def restart(self, config: KernelConfig, *, now: bool, new_ports: bool) -> int:
        """Have it restarted; returns the generation before.  Of one without a run, a restart is a start."""
        self._attended.farewell = Farewell()
        self.declare(config)
        before = self._state.generation
        self._ordered = before + 1
        self._runner.submit(Restart(self.name, now, new_ports))
        return before

    @property
    def _attended(self) -> _Attended:
        assert self._opened is not None, "open comes first"
        return self._opened[2]

    def change(self, **settings: object) -> None:
        """Change live settings; what it was launched with stays."""
        if (kernel := self.kernel) is not None and kernel.declared is not None:
            self.declare(msgspec.structs.replace(kernel.declared, **settings))

    def stop(self, farewell: Farewell, patience: float, *, now: bool = False) -> None:
        """Have it stopped as ``farewell`` says; signals follow after ``patience`` seconds."""
        if self.kernel is None:
            return
        if not isinstance(self._state.phase, Stopping):
            self._attended.farewell = farewell
            self._attended.asked.clear()
        self.change(stop_timeout=patience)
        self._runner.submit(Stop(self.name, now))

    async def request(self, *, restart: bool) -> None:
        """Have it asked to exit, without signals; returns once it has answered, after a bounded time."""
        self.stop(Farewell(interrupt=False, restart=restart, keep_file=True), inf)
        if (kernel := self.kernel) is not None and isinstance(kernel.phase, Stopping):
            # Who ends right after us takes what is not on its way yet with it.
            try:
                async with asyncio.timeout(REQUEST_PATIENCE):
                    await self._attended.asked.wait()
            except TimeoutError:
                pass

    async def wait_launched(self, before: int) -> None:
        """Wait until a run after generation ``before`` has a process, or had one.

        Otherwise it is stopped, and the reason raised: FileNotFoundError and
        others where the launch failed, RuntimeError where another order came.
        """
        while True:
            kernel = self._state
            death = kernel.last_death
            if kernel.generation > before:
                if process_of(kernel) is not None:
                    return
                if death is not None and death.generation > before:
                    if death.pid is not None:
                        return
                    self._runner.submit(Stop(self.name))
                    raise self._launcher.error or _not_started(death.exit)
            if isinstance(kernel.phase, Stopped | Failed):
                raise RuntimeError("the kernel was shut down before it had started")
            await self._runner.wait_for_change()

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until it is ready.  TimeoutError after so many seconds, RuntimeError if it will not be."""
        async with asyncio.timeout(timeout):
            while not isinstance((phase := self._state.phase), Running):
                if isinstance(phase, Failed):
                    raise RuntimeError(f"the kernel was given up: {phase.reason}")
                if isinstance(phase, Stopped):
                    raise RuntimeError("the kernel is not running")
                await self._runner.wait_for_change()

    async def wait_stopped(self, timeout: float) -> None:
        """Wait until it has no run and is to have none, or is wanted up again by a later order.

        Raises RuntimeError after so many seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                while self.is_managing and isinstance(self._state.phase, Stopping | Backoff | Queued):
                    await self._runner.wait_for_change()
        except TimeoutError:
            raise RuntimeError(f"the kernel has not ended {timeout:g} s after it was told to") from None

    async def interrupt(self) -> None:
        """Interrupt it, by signal or message; RuntimeError if it has no process, or cannot hear one yet."""
        try:
            if isinstance(self._state.phase, Starting | Queued):
                await self.wait_ready(READY_PATIENCE)
        except TimeoutError:
            pass  # it never said that it is a Jupyter kernel
        if isinstance(self._state.phase, Running):
            await self._order(Interrupt(self.name))
        elif self._takes_messages():
            # SIGINT would end it: a JVM does not know any other meaning.
            raise RuntimeError("the kernel takes interrupts as messages, and none while it starts or stops")
        else:
            await self.signal(signal.SIGINT)

    def _takes_messages(self) -> bool:
        assert self._opened is not None, "open comes first"
        run = self._opened[1].entry(self.name).run
        return run is not None and run.interrupt_mode == "message"

    async def signal(self, signum: int) -> None:
        """Signal its process group; RuntimeError if it has no process."""
        await self._order(SendSignal(self.name, signum))

    async def _order(self, order: Interrupt | SendSignal) -> None:
        if (refusal := self._runner.order(order)) is not None:
            raise RuntimeError(refusal)
        # The effect is a task that the order has begun; by the second turn of the loop it has acted.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def let_go(self, *, connection_file: bool) -> None:
        """Let go of ports and connection file, whatever runs; a later launch has them again."""
        self._connection.release()
        if connection_file:
            await asyncio.to_thread(self._connection.remove)

    async def close(self) -> None:
        """End the supervision; a kernel that runs is left alone, and so is its connection file."""
        if self.is_closed:
            return
        self.is_closed = True
        assert self._opened is not None, "open comes first"
        runner, host, _ = self._opened
        address = self._connection.address
        runner.close()
        await runner.wait_effects()
        await host.flush()
        host.close()
        if address is not None:
            # The address stays the kernel's own, for a start to come and for clients that know it.
            self._connection.adopt(address)
        await asyncio.to_thread(shutil.rmtree, self._directory, True)

    def abandon(self) -> None:
        """Nobody holds the manager any more: close once nothing is managed.  From any thread."""
        self.thread.loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        self._abandonment = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        try:
            while self.is_managing and not self.is_closed:
                await self._runner.wait_for_change()
        except RunnerClosed:
            return
        if not self.is_closed:
            await self.close()
            self._launcher.let_go()
            self.thread.release()


def _not_started(exit: Exit) -> RuntimeError:
    hint = ": newports=True gives it others" if exit.cause is Cause.PORT_TAKEN else ""
    return RuntimeError(f"cannot start the kernel: {exit.detail}{hint}")


def _note_trouble(key: str, message: str | None) -> None:
    log.warning("%s: %s", key, message or "recovered")
