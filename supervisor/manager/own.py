"""The orders of a manager, carried out by this process: one kernel under supervision.

``attached`` has the same interface.  What is so may be asked from any thread; orders
are coroutines, to be given to ``block`` or ``wait``.  ``config`` are the settings of the
manager, ``launch`` what it is to launch, ``keywords`` what the caller said besides.

Owns a runner and a host from the first start to the last cleanup, and the private
directory with the kernel's output.  Decides nothing: the core does, as for the
daemon.  Coroutines run on the loop of the supervisors' thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from supervisor.core.events import Interrupt, Load, Restart, SendSignal, Stop
from supervisor.core.model import (
    Backoff,
    Cause,
    Exit,
    Failed,
    Kernel,
    ProcessId,
    Queued,
    Running,
    Starting,
    Stopped,
    Stopping,
    process_of,
)
from supervisor.disk.off_loop import PATIENCE, Hanging, Lane, begin
from supervisor.kernel.connection import Address, Connection
from supervisor.kernel.equipment import Equipment
from supervisor.kernel.host import Host
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.ports import PortTaken, bind
from supervisor.manager.attached import exit_of
from supervisor.manager.launch import Launch, ManagerLauncher
from supervisor.manager.manner import Attended, Manner
from supervisor.manager.thread import LoopThread, Work, acquire, hold
from supervisor.observe.callbacks import Callbacks
from supervisor.observe.sentence import sentence
from supervisor.process.identity import is_running
from supervisor.records.keeper import NoRecords
from supervisor.records.places import Places
from supervisor.runner import Runner, RunnerClosed
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

_LEVELS = {"error": logging.WARNING, "warning": logging.WARNING}
# SIGTERM gets 1 s, SIGKILL 5 s (core.lifecycle), and once more, in seconds.
LADDER_PATIENCE = 12.0
# How long a request to exit may take to be answered, in seconds.
REQUEST_PATIENCE = 0.5
# SIGINT in the first moments ends an ipykernel: an interrupt waits this long for readiness, in seconds.
READY_PATIENCE = 5.0


class ManagerPlaces(Places, frozen=True):
    """The connection file where the manager wants it."""

    file: Path = Path()

    def connection_file(self, kernel: str) -> Path:  # noqa: ARG002 - there is one kernel
        """Where the manager wants it."""
        return self.file


@dataclass(frozen=True)
class _Opened:
    """What is there while there is something to supervise."""

    thread: LoopThread
    directory: Path
    host: Host
    attended: Attended
    runner: Runner


class Own:
    """One kernel of this process."""

    def __init__(self, connection: Connection, callbacks: Callbacks) -> None:
        self.name = connection.name
        self.connection = connection
        self.launcher = ManagerLauncher()
        self.callbacks = callbacks
        self._opened: _Opened | None = None
        # The run that was ordered last; and whether the connection file is ours to remove.
        self._ordered = 0
        self.owns_file = False
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._troubles: set[str] = set()

    def block(self, work: Work[T]) -> T:
        """Carry out an order; blocks the calling thread."""
        with _using(work) as thread:
            return thread.call(work)

    async def wait(self, work: Work[T]) -> T:
        """Carry out an order; blocks nobody."""
        with _using(work, join=False) as thread:
            return await asyncio.wrap_future(thread.begin(work))

    # To be read from any thread: the state is a value that is replaced whole.

    @property
    def kernel(self) -> Kernel | None:
        """The kernel as it is now; ``None`` while nothing is supervised."""
        return opened.runner.state.kernels.get(self.name) if (opened := self._opened) else None

    @property
    def connection_file(self) -> str:
        """The path of the connection file."""
        return str(self.connection.path)

    @property
    def process(self) -> ProcessId | None:
        """The process of the kernel, if there is one."""
        return None if (kernel := self.kernel) is None else process_of(kernel)

    hearer = process

    @property
    def is_idle(self) -> bool:
        """Whether nothing is supervised and nothing left behind."""
        return self._opened is None and not self.owns_file

    @property
    def is_managing(self) -> bool:
        """Whether the kernel has a run, or is to have one."""
        return (kernel := self.kernel) is not None and not isinstance(kernel.phase, Stopped | Failed)

    @property
    def last_exit(self) -> Exit | None:
        """How the last run ended; within a callback, the end that it is called for."""
        end = self.callbacks.end_of(self.name)
        return None if end is None else exit_of(end)

    @property
    def address(self) -> Address | None:
        """Where the kernel listens, once that is chosen."""
        address = self.connection.address
        return address if address is not None and address.shell_port else None

    def choose_address(self, config: KernelConfig, kernel_name: str) -> Address:
        """The address, chosen now if need be."""
        # In the connection's own order: a launch may be choosing one at this moment.
        return self.connection.choose_once(config, kernel_name)

    def formatted(self, launch: Launch, extra_arguments: list[str] | None) -> list[str]:
        """The command as it is launched.  Raises NoSuchKernel."""
        if self.launcher.launch is not None:
            launch = self.launcher.launch.named_as(launch)
        try:
            return launch.formatted(self.connection.path, extra_arguments)
        except LaunchError as error:
            raise launch.missing(error) from None

    def listen(self) -> None:
        """Have the callbacks told; here they always are."""

    def change(self, config: KernelConfig) -> None:
        """Whether and how it is restarted is as in ``config`` from now on."""
        if self._opened is not None:
            self.block(self._change(restart=config.restart, start_timeout=config.start_timeout))

    # Launching

    async def start(self, launch: Launch, config: KernelConfig, keywords: Mapping[str, Any]) -> Launch:
        """Launch it; returns what is remembered of that, once there is a process."""
        return await self._surely(self._launch(launch, config, keywords))

    async def restart(
        self, launch: Launch, config: KernelConfig, keywords: Mapping[str, Any], *, now: bool
    ) -> Launch:
        """Stop it and launch it again; returns as ``start`` does."""
        return await self._surely(self._launch(launch, config, keywords, again=True, now=now))

    async def _launch(
        self,
        launch: Launch,
        config: KernelConfig,
        keywords: Mapping[str, Any],
        *,
        again: bool = False,
        now: bool = False,
    ) -> Launch:
        async with self._in_turn():
            former = self.launcher.launch
            if again:
                if former is None:
                    raise RuntimeError("no kernel was started: call start_kernel first")
                launch = former.named_as(launch)
            elif self.is_managing:
                raise RuntimeError("a kernel runs already: use restart_kernel, or shut it down first")
            else:
                await begin(_refuse_elsewhere, config)
            held = self.launcher.launch = launch.updated(keywords).holding()
            try:
                before = await self._order_launch(config, now=now, new_ports=bool(keywords.get("newports")))
            except BaseException:
                self.launcher.launch = former
                raise
        try:
            await self._wait_launched(before)
        except RunnerClosed:
            raise RuntimeError("the kernel was shut down before it had started") from None
        except Exception:
            if self.launcher.launch is held:  # no other order came since
                self.launcher.launch = former
            await self._surely(self._end(keep_file=False, keep_streams=True))
            raise
        return held

    def _in_turn(self) -> asyncio.Lock:
        """The lock of orders that begin or end a supervision; a lock belongs to one loop."""
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = (loop, asyncio.Lock())
        return self._turn[1]

    async def _order_launch(self, config: KernelConfig, *, now: bool, new_ports: bool) -> int:
        """Have it launched instead of what runs; returns the generation of that."""
        opened = await self._open()
        opened.attended.manner = Manner()
        self._declare(config)
        before = self._state.generation
        self._ordered = before + 1
        opened.runner.submit(Restart(self.name, now, new_ports))
        return before

    async def _wait_launched(self, before: int) -> None:
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
                    error = self.launcher.error or _not_started(death.exit)
                    # The next launch may be under way: nothing of it must be left.
                    self._runner.submit(Stop(self.name, now=True))
                    await self._wait_stopped(LADDER_PATIENCE)
                    raise error
            if isinstance(kernel.phase, Stopped | Failed):
                raise RuntimeError("the kernel was shut down before it had started")
            await self._runner.wait_for_change()

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until it answers.  TimeoutError, or RuntimeError if it will not."""
        if self.kernel is None:
            raise RuntimeError("no kernel is running")
        async with asyncio.timeout(timeout):
            while not isinstance((phase := self._state.phase), Running):
                if isinstance(phase, Failed):
                    raise RuntimeError(f"the kernel was given up: {phase.reason}")
                if isinstance(phase, Stopped):
                    raise RuntimeError("the kernel is not running")
                await self._runner.wait_for_change()

    # Stopping

    async def shut_down(self, patience: float, *, now: bool, restart: bool) -> None:
        """Ask it to exit; signals follow after ``patience`` seconds."""
        manner = Manner(restart=restart, keep_file=restart)
        await self._surely(self._stop(manner, patience, now=now, retire=not restart))

    async def request_shutdown(self, *, restart: bool) -> None:
        """Ask it to exit, without signals; returns once it has answered, after a bounded time."""
        await self._surely(self._begin_stop(Manner(interrupt=False, restart=restart, keep_file=True), inf))
        if (opened := self._opened) and isinstance(self._state.phase, Stopping):
            # Who ends right after us takes what is not on its way yet with it.
            try:
                async with asyncio.timeout(REQUEST_PATIENCE):
                    await opened.attended.asked.wait()
            except TimeoutError:
                pass

    async def finish_shutdown(self, patience: float) -> None:
        """Wait so many seconds for its end, then signal it."""
        await self._surely(self._stop(Manner(ask=False, keep_file=True), patience))

    async def _stop(
        self, manner: Manner, patience: float, *, now: bool = False, retire: bool = False
    ) -> None:
        await self._begin_stop(manner, patience, now=now)
        await self._wait_stopped(patience + LADDER_PATIENCE)
        if retire:
            await self._end(keep_file=False, keep_streams=False)

    async def _begin_stop(self, manner: Manner, patience: float, *, now: bool = False) -> None:
        """Have it stopped in this manner; signals follow after ``patience`` seconds."""
        async with self._in_turn():  # a launch that was ordered before is not to come after
            if (opened := self._opened) is None or self.kernel is None:
                return
            if not isinstance(self._state.phase, Stopping):
                opened.attended.manner = manner
                opened.attended.asked.clear()
            await self._change(stop_timeout=patience)
            opened.runner.submit(Stop(self.name, now))

    async def _wait_stopped(self, timeout: float) -> None:
        """Wait until it has no run and is to have none, or is wanted up again by a later order."""
        try:
            async with asyncio.timeout(timeout):
                while self.is_managing and isinstance(self._state.phase, Stopping | Backoff | Queued):
                    await self._runner.wait_for_change()
        except TimeoutError:
            raise RuntimeError(f"the kernel has not ended {timeout:g} s after it was told to") from None
        except RunnerClosed:
            pass  # shut down by another order meanwhile

    async def clean_up(self, *, connection_file: bool) -> None:
        """Let go of ports and connection file; of all else, too, if nothing runs."""
        if not self.is_managing:
            await self._surely(self._end(keep_file=not connection_file, keep_streams=False))
            return
        # A later launch has them again.
        self.connection.release()
        if connection_file:
            await begin(self.connection.remove)

    # Reaching it

    async def interrupt(self) -> None:
        """Interrupt it, by signal or message; RuntimeError if it has no process, or cannot hear one yet."""
        self._refuse_dead()
        try:
            if isinstance(self._state.phase, Starting | Queued):
                await self.wait_ready(READY_PATIENCE)
        except TimeoutError:
            pass  # it never said that it is a Jupyter kernel
        if isinstance(self._state.phase, Running):
            await self._reach(Interrupt(self.name))
        elif self._takes_messages():
            # SIGINT would end it: a JVM does not know any other meaning.
            raise RuntimeError("the kernel takes interrupts as messages, and none while it starts or stops")
        else:
            await self._reach(SendSignal(self.name, signal.SIGINT))

    def _takes_messages(self) -> bool:
        assert self._opened is not None, "there is a process"
        run = self._opened.host.entry(self.name).run
        return run is not None and run.interrupt_mode == "message"

    async def signal(self, signum: int) -> None:
        """Signal its process group.  RuntimeError if nothing runs."""
        self._refuse_dead()
        await self._reach(SendSignal(self.name, signum))

    def _refuse_dead(self) -> None:
        process = self.process
        if process is None or not is_running(process):
            raise RuntimeError("no kernel is running")

    async def _reach(self, order: Interrupt | SendSignal) -> None:
        if (refusal := self._runner.order(order)) is not None:
            raise RuntimeError(refusal)
        # The effect is a task that the order has begun; by the second turn of the loop it has acted.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    # The supervision

    async def _open(self) -> _Opened:
        """Begin to supervise, if that is not so; nothing is declared yet."""
        if self._opened is None:
            thread = acquire()
            try:
                directory = Path(await begin(tempfile.mkdtemp, None, "kernel-supervisor-"))
                try:
                    self._opened = self._begin(thread, directory)
                except BaseException:
                    shutil.rmtree(directory, ignore_errors=True)
                    raise
            except BaseException:
                thread.release()
                raise
            thread.farewells.add(self._leave)
        self.owns_file = True
        return self._opened

    def _begin(self, thread: LoopThread, directory: Path) -> _Opened:
        places = ManagerPlaces(directory, self.connection.path.parent, self.connection.path)
        equipment = Equipment(self.launcher, lambda _kernel, _places: self.connection, thread.context, False)
        host = Host(places, NoRecords(), self._note_trouble, equipment)
        attended = Attended(host)
        runner = Runner(attended)
        runner.add_observer(self._observe)
        host.open()
        return _Opened(thread, directory, host, attended, runner)

    def _note_trouble(self, key: str, message: str | None) -> None:
        if message is not None:
            self._troubles.add(key)
            log.warning("%s: %s", key, message)
        elif key in self._troubles:
            self._troubles.discard(key)
            log.warning("%s: recovered", key)

    @property
    def _runner(self) -> Runner:
        if self._opened is None:
            raise RunnerClosed("the supervision has ended")
        return self._opened.runner

    @property
    def _state(self) -> Kernel:
        return self._runner.state.kernels[self.name]

    def _declare(self, config: KernelConfig) -> None:
        self._runner.submit(Load({self.name: config}))

    async def _change(self, **settings: object) -> None:
        """Change live settings; what it was launched with stays."""
        if (kernel := self.kernel) is not None and kernel.declared is not None:
            self._declare(msgspec.structs.replace(kernel.declared, **settings))

    def _observe(self, line: Mapping[str, object]) -> None:
        in_vain = self._could_not_be_launched()
        level = logging.DEBUG if in_vain else _LEVELS.get(str(line["level"]), logging.DEBUG)
        if line["event"] == "kernel.failed":
            log.log(level, "kernel %s is given up: %s", self.name, line["reason"])
        else:
            log.log(level, "kernel %s", sentence(line))
        if not in_vain:
            self.callbacks(line)

    def _could_not_be_launched(self) -> bool:
        """Whether this is about an ordered launch that failed: whoever ordered it gets an exception."""
        death = self._state.last_death
        return death is not None and death.pid is None and death.generation == self._ordered

    async def _surely(self, work: Work[T]) -> T:
        """Carry it out to its end, also if nobody waits for it any more."""
        return await asyncio.shield(self._begin_task(work))

    def _begin_task(self, work: Work[T]) -> asyncio.Task[T]:
        try:
            thread = hold()
        except asyncio.CancelledError:
            work.close()
            raise
        task = thread.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # What comes of one that nobody waits for any more is no mistake.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task.add_done_callback(lambda _: thread.release(join=False))
        return task

    async def _end(self, *, keep_file: bool, keep_streams: bool) -> None:
        """End the supervision, unless a kernel is managed (again).

        With ``keep_streams`` a later restart has the streams of the start again.
        """
        async with self._in_turn():
            if (opened := self._opened) is not None:
                if self.is_managing:
                    return
                await self._close(opened)
                if not keep_streams:
                    self.launcher.let_go()
            if self.owns_file and not keep_file:
                self.owns_file = False
                await _done(self._remove_files)
        if opened is not None:
            opened.thread.release()

    def _remove_files(self) -> None:
        self.connection.remove()
        self.remove_sockets()

    def remove_sockets(self) -> None:
        """Remove the sockets of an ipc kernel that has ended."""
        try:
            self.connection.remove_stale_sockets()
        except PortTaken:
            pass  # somebody else's by now

    async def _close(self, opened: _Opened) -> None:
        address = self.connection.address
        opened.thread.farewells.discard(self._leave)
        opened.runner.close()
        await opened.runner.wait_effects(PATIENCE)
        opened.runner.cancel_effects()
        await opened.host.flush()
        opened.host.close()
        if address is not None:
            # The address stays the kernel's own, for a start to come and for clients that know it.
            self.connection.adopt(address)
        await _done(shutil.rmtree, opened.directory, True)
        self._opened = None

    async def _leave(self) -> None:
        """The program ends: so does the kernel, unless it is to outlive it."""
        launch = self.launcher.launch
        if launch is None or not launch.independent or not self.is_managing:
            await self._stop(Manner(ask=False), 0.0, now=True, retire=True)
        elif self._opened is not None:
            shutil.rmtree(self._opened.directory, ignore_errors=True)
            self._opened, self.owns_file = None, False

    def update_env(self, env: Mapping[str, str]) -> None:
        """These variables are in the environment of the next launch, too."""
        if (launch := self.launcher.launch) is not None:
            base = launch.options.get("env") or os.environ
            self.launcher.launch = launch.updated({"env": {**base, **env}})

    def abandon(self) -> None:
        """Nobody holds the manager any more: end once nothing is managed."""
        if (opened := self._opened) is not None:
            try:
                opened.thread.loop.call_soon_threadsafe(lambda: self._begin_task(self._end_later(opened)))
            except RuntimeError:
                pass  # the program ends, and has ended the loop

    async def _end_later(self, opened: _Opened) -> None:
        try:
            while self.is_managing and self._opened is opened:
                await opened.runner.wait_for_change()
        except RunnerClosed:
            return
        await self._end(keep_file=False, keep_streams=False)


async def _done(work: Callable[..., object], *arguments: object) -> None:
    """Have it done off the loop; where a disk hangs, it goes on without us."""
    try:
        await Lane(getattr(work, "__name__", "cleanup")).do(work, *arguments)
    except Hanging as hanging:
        log.warning("%s", hanging)


@contextmanager
def _using(work: Work[Any], *, join: bool = True) -> Iterator[LoopThread]:
    try:
        thread = acquire()
    except BaseException:
        work.close()
        raise
    try:
        yield thread
    finally:
        thread.release(join=join)


def _refuse_elsewhere(config: KernelConfig) -> None:
    if config.transport != "tcp":
        return
    try:
        bind(config.ip, 0, reuse=True).close()
    except OSError as error:
        if not isinstance(error, PortTaken):
            raise RuntimeError(f"{config.ip!r} is not an address of this machine") from None


def _not_started(exit: Exit) -> RuntimeError:
    hint = ": newports=True gives it others" if exit.cause is Cause.PORT_TAKEN else ""
    return RuntimeError(f"cannot start the kernel: {exit.detail}{hint}")
