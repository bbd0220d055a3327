"""Kernels under supervision, inside any asyncio program: the daemon is one.

Owns the composition of lock, records, machine, host and observers, for as long
as it is entered.  Installs no signal handler, configures no log, opens no door.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from supervisor.cgroups.tree import NOWHERE, open_tree
from supervisor.core import plan as planning
from supervisor.core.events import (
    Found,
    Interrupt,
    Load,
    Order,
    Reset,
    Restart,
    SendSignal,
    Shutdown,
    Start,
)
from supervisor.core.lifecycle import settings_of
from supervisor.core.model import Death, Failed, JobId, Kernel, Running, Stopped, Waiting, identity_of
from supervisor.core.policy import describe, is_clean, may_restart
from supervisor.disk.canary import Canaries
from supervisor.disk.files import remove_temporaries_of
from supervisor.disk.lock import StateLock
from supervisor.disk.off_loop import THREADS, Lane, begin
from supervisor.disk.privacy import make_private_directory, refuse_shared, tighten
from supervisor.kernel.equipment import Equipment
from supervisor.kernel.host import Host
from supervisor.kernel.survivors import Stock, end_leftovers, run_of, take_stock
from supervisor.observe.callbacks import Callbacks
from supervisor.observe.counts import Counts
from supervisor.observe.events_file import EventsFile
from supervisor.observe.redaction import clean, redact
from supervisor.observe.stream import EventStream
from supervisor.process.group import end_group, signal_process
from supervisor.records.places import Places, files_of
from supervisor.records.record import RecordStore
from supervisor.runner import Observer, Runner, RunnerClosed
from supervisor.settings.config import Config
from supervisor.supervision.hooks import Hooks
from supervisor.views import About, Clock, view

log = logging.getLogger(__name__)

# What an order may take at most beyond the kernel's own limits, in seconds.
CALLBACK_PATIENCE = 5.0
# How long after an interrupt an end of the kernel counts as its doing, in seconds.
INTERRUPT_PATIENCE = 0.5
# How long an exit waits for launches under way, and for a disk that hangs, in seconds.
EFFECT_PATIENCE = 10.0
LAST_RECORDS_PATIENCE = 10.0
# How much longer than the largest stop_timeout an orderly stop takes at most, in seconds.
LAST_PATIENCE = 30.0
# A disk that takes so many seconds is one that hangs, to an exit, which looks this often.
HANGING_AFTER = 1.0
LOOK_INTERVAL = 0.1
# How long the answer to an order waits for the disk, in seconds.
RECORD_PATIENCE = 2.0
# How long the connection files are left alone after something has happened to them, in seconds.
MEND_DELAY = 0.5
# A disk that does not take something is tried again this often, in seconds.
RETRY_INTERVAL = 2.0


class OrderRefused(Exception):
    """An order that was not carried out, and why."""


class Supervision:
    """A set of kernels, a state directory, and the loop that keeps the ones alive in the other.

    Used as an asynchronous context manager.  Entering takes the lock of
    the state directory (AlreadyLocked if a supervisor runs there), takes up
    the kernels that an earlier one left running, and starts those declared.
    With ``canaries`` it can be left though a disk is frozen.
    """

    def __init__(
        self,
        config: Config,
        state_dir: Path,
        runtime_dir: Path,
        canaries: Canaries | None = None,
        *,
        has_cgroups: bool = False,
    ) -> None:
        """``has_cgroups``: where a cgroup is delegated to this process, which then must be its only one."""
        self.cgroups = NOWHERE
        self._has_cgroups = has_cgroups
        self.instance = uuid.uuid4().hex
        self.config = config
        self.places = Places(state_dir, runtime_dir)
        self._canaries = canaries
        self._writing = Lane("events", partial(self.wait_disk, state_dir))
        self.events_file = EventsFile(
            state_dir / "events.jsonl", on_change=self._note_events_soon, put=self._writing.put
        )
        self.stream = EventStream()
        self.callbacks = Callbacks()
        self.hooks = Hooks(config.hooks)
        self.counts = Counts()
        self._degraded: dict[str, str] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._lock = StateLock(state_dir / "lock")
        self._observers: list[Observer] = [self._hide_key, self.events_file, self.stream, self.callbacks]
        self._observers += [self.hooks, self.counts]
        self._sequence = 0
        self._found = Stock()
        self._strangers: frozenset[str] = frozenset()
        self._opened: tuple[Runner, Host] | None = None

    def wait_disk(self, directory: Path) -> None:
        """Return once the disk of the directory takes changes; to be called in a lane."""
        if self._canaries is not None:
            self._canaries.wait(directory)

    @property
    def is_open(self) -> bool:
        """Whether it supervises: from ``open`` to ``close``."""
        return self._opened is not None

    @property
    def runner(self) -> Runner:
        """The loop; there from ``open`` to ``close``."""
        assert self._opened is not None, "enter the supervisor first"
        return self._opened[0]

    @property
    def host(self) -> Host:
        """The machine; there from ``open`` to ``close``."""
        assert self._opened is not None, "enter the supervisor first"
        return self._opened[1]

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer`` of every event from now on; before or after ``open``."""
        self._observers.append(observer)

    def lock(self) -> None:
        """Make the state directory if need be, and take its lock.

        Raises AlreadyLocked, UnsafeDirectory or OSError.
        """
        make_private_directory(self.places.state_dir)
        refuse_shared(self.places.output_file("any").parent, "state_dir")
        refuse_shared(self.places.runtime_dir, "runtime_dir")
        self._lock.take()
        self._sequence = self.events_file.last_sequence()
        if self._has_cgroups:
            self.cgroups = open_tree(os.environ, lambda pid: run_of(pid, self.places.state_dir))
        self._tighten(files_of(self.places))
        for name in self.config.kernels:
            remove_temporaries_of(self.places.connection_file(name))

    def keep_lock(self) -> None:
        """Take the lock anew where its file was removed; blocks.

        Raises AlreadyLocked if another supervisor has it by now, UnsafeDirectory or OSError.
        """
        if not self._lock.is_in_place():
            self.wait_disk(self.places.state_dir)
            make_private_directory(self.places.state_dir)
            self._lock.take()

    def _tighten(self, files: Iterable[Path]) -> None:
        for file in tighten(files):
            log.warning("%s could be read or written by others; it is ours alone again", file)

    def unlock(self) -> None:
        """Give the state directory back."""
        self._lock.release()

    def open(self) -> None:
        """Begin to supervise, with no kernels yet.  The lock is held already.

        Raises OSError if the machine has no room.
        """
        THREADS.keep_one()
        self._store = store = RecordStore(self.places.records)
        equipment = Equipment(wait_disk=self.wait_disk, cgroups=self.cgroups)
        host = Host(self.places, store, self.note_trouble, equipment)
        runner = Runner(host, self._sequence, self._observers)
        self._loop, self._opened = asyncio.get_running_loop(), (runner, host)
        host.open()

    async def look_back(self) -> None:
        """Learn what an earlier supervisor left; before ``take_up``."""
        now = asyncio.get_running_loop().time()
        declared, cgroups = self.config.kernels, self.cgroups
        found = await take_stock(self._store, self.places, now, time.time(), declared, cgroups)
        # As at every death: children in the group hold the ports, and the next run needs them.
        for helper in found.helpers:
            signal_process(helper, signal.SIGKILL)
        await asyncio.gather(*(end_group(process) for process in found.ended))
        await begin(end_leftovers, cgroups, found)
        self._found = found

    def take_up(self) -> None:
        """Take up the kernels that were found; a ``load`` of the same configuration follows at once."""
        runner, host, found = self.runner, self.host, self._found
        host.recall(found.records)
        for record in found.records:
            self._hide_key_of(record.name)
        self._tighten(self.places.connection_file(record.name) for record in found.records)
        self._strangers = found.strangers
        for key, message in found.troubles.items():
            self.note_trouble(key, message)
        if found.survivors:
            runner.submit(Found(found.survivors, self.config.kernels))

    def load(self, config: Config) -> None:
        """Declare exactly the kernels of this configuration."""
        self.config = config
        self.hooks.configs = config.hooks
        self.runner.submit(self._load_event(config))

    def plan(self, config: Config) -> tuple[planning.Planned, ...]:
        """What ``load`` would do, kernel by kernel; does nothing."""
        now = asyncio.get_running_loop().time()
        planned = planning.plan(self.runner.state, self._load_event(config), now)
        return tuple(self._with_limits(line, config) for line in planned)

    def _with_limits(self, line: planning.Planned, config: Config) -> planning.Planned:
        """A limit that is below what is used is not put in force, unless the kernel begins anew."""
        declared = config.kernels.get(line.kernel)
        if declared is None or line.kernel not in self.runner.state.kernels or line.action == "restart":
            return line
        run = self.host.entry(line.kernel).run
        refused = "" if run is None or run.is_over else run.handle.confinement.too_low(declared)
        return replace(line, note="; ".join(filter(None, (line.note, refused))))

    def _load_event(self, config: Config) -> Load:
        # A kernel that we do not understand is not ours to start a second time.
        kernels = {name: kernel for name, kernel in config.kernels.items() if name not in self._strangers}
        return Load(kernels, config.supervisor.max_concurrent_starts)

    async def stop_all(self, *, now: bool = False) -> list[str]:
        """Stop every kernel, in parallel; returns when the last process is gone, or the patience at an end.

        Returned are the names of those that are left, as one whose process hangs in a system call.
        """
        self.runner.submit(Shutdown(now))
        try:
            async with asyncio.timeout(self.longest_stop):
                await self.runner.wait_all_gone()
                await self._unless_hanging(self.runner.wait_effects(), EFFECT_PATIENCE)
                await self._unless_hanging(self.host.wait_told(), EFFECT_PATIENCE)
        except TimeoutError:
            pass
        left = self.living()
        if left:
            # On record, so the next supervisor goes on with it.
            log.error("cannot be ended, and are left: %s", ", ".join(left))
        return left

    @property
    def longest_stop(self) -> float | None:
        """How long an orderly stop of all kernels may take, in seconds; ``None`` without a limit."""
        kernels = self.runner.state.kernels.values()
        longest = max((settings_of(kernel).longest_stop for kernel in kernels), default=0.0)
        return longest + LAST_PATIENCE if isfinite(longest) else None

    async def close(self) -> None:
        """End the supervision; kernels that run are left running."""
        runner, host = self.runner, self.host
        runner.close()
        await self._unless_hanging(runner.wait_effects(), EFFECT_PATIENCE)
        runner.cancel_effects()
        if not await self._unless_hanging(host.flush(), LAST_RECORDS_PATIENCE):
            log.error("the disk does not answer: the last records are not written")
        host.close()
        await self._unless_hanging(host.wait_closed(), LAST_RECORDS_PATIENCE)
        for task in filter(None, (self._retrying, self._mending)):
            task.cancel()
        self.stream.close()
        await self.callbacks.close(CALLBACK_PATIENCE)
        await self.hooks.close()
        self.events_file.flush()
        with suppress(OSError):
            # Behind all that is to be written.
            await self._unless_hanging(self._writing.begin(lambda: None), LAST_RECORDS_PATIENCE)
        self._opened = None

    @property
    def hangs(self) -> bool:
        """Whether a disk seems to hang at this moment."""
        return max(self._writing.busy_for, self.host.busy_for) > HANGING_AFTER

    async def _unless_hanging(self, work: Awaitable[object], patience: float) -> bool:
        """Wait for the end of the work, for ``patience`` seconds or until a disk hangs; whether it ended."""
        task = asyncio.ensure_future(work)
        deadline = asyncio.get_running_loop().time() + patience
        while not task.done() and asyncio.get_running_loop().time() < deadline and not self.hangs:
            await asyncio.wait({task}, timeout=LOOK_INTERVAL)
        return task.done() or not task.cancel()

    def _hide_key(self, event: Mapping[str, object]) -> None:
        """Whatever a kernel writes into its output, its key gets into no line of ours."""
        if event["event"] in ("kernel.starting", "kernel.adopted"):
            self._hide_key_of(str(event["kernel"]))

    def _hide_key_of(self, name: str) -> None:
        address = self.host.entry(name).connection.address
        if address is not None:
            redact(address.key)

    def note_trouble(self, key: str, message: str | None) -> None:
        """Something is not as it should be (or, with ``None``, is again), and the work goes on."""
        if message is None:
            if self._degraded.pop(key, None) is not None:
                log.warning("recovered: %s", key)
        elif self._degraded.get(key) != message:
            self._degraded[key] = message
            log.error("%s", message)

    def _note_events_soon(self, trouble: str | None) -> None:
        with suppress(RuntimeError):  # the loop was closed in the meantime
            self._loop.call_soon_threadsafe(self._note_events, trouble)

    def _note_events(self, trouble: str | None) -> None:
        self.note_trouble("events", trouble)
        is_retrying = self._retrying is not None and not self._retrying.done()
        if trouble is not None and self._opened is not None and not is_retrying:
            self._retrying = asyncio.get_running_loop().create_task(self._retry_events())

    def mend_soon(self) -> None:
        """Something happens where the connection files are: see that each living kernel has its own."""
        self._stirred.set()
        if self._opened is not None and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._mend())

    async def _mend(self) -> None:
        while self._stirred.is_set():
            await asyncio.sleep(MEND_DELAY)  # one look for all that happens at a time
            self._stirred.clear()
            for name in await self.host.mend():
                self._tell_restored(name)
            if self.host.lacks_files:
                await asyncio.sleep(RETRY_INTERVAL)
                self._stirred.set()

    def _tell_restored(self, name: str) -> None:
        kernel = self.runner.state.kernels[name]
        process, file = identity_of(kernel), self.places.connection_file(name)
        run = {"kernel": name, "generation": kernel.generation, "pid": process.pid if process else None}
        self.runner.tell("kernel.restored", "warning", **run, file=str(file))

    async def _retry_events(self) -> None:
        """Write the events that wait as soon as the disk takes them, though nothing happens."""
        while self.events_file.degraded is not None:
            await asyncio.sleep(RETRY_INTERVAL)
            self.events_file.flush()

    # Questions

    def degraded(self) -> list[str]:
        """What is not as it should be at the moment, in words."""
        present = self.events_file.degraded  # how many events wait changes
        now = self._degraded if present is None else self._degraded | {"events": present}
        return list(now.values())

    def kernel(self, name: str) -> Kernel:
        """The state of a kernel.  Raises KeyError."""
        return self.runner.state.kernels[name]

    def names(self) -> list[str]:
        """The kernels, in the order of the file."""
        return list(self.runner.state.kernels)

    def living(self) -> list[str]:
        """Those that have a run."""
        return [kernel.name for kernel in self.runner.state.kernels.values() if identity_of(kernel)]

    def view(self, kernel: Kernel) -> dict[str, Any]:
        """One kernel, as ``status`` shows it."""
        clock = Clock.read(asyncio.get_running_loop().time())
        name, entry = kernel.name, self.host.entry(kernel.name)
        files = (self.places.connection_file(name), self.places.output_file(name))
        # Its last words are in there, and may have the key in them.
        return clean(view(kernel, clock, *files, About(entry.id, entry.language, entry.spec_mode)))

    # Orders

    async def order(
        self, order: Order, *, wait: bool = True, timeout: float | None = None
    ) -> tuple[bool, str, Kernel | None]:
        """Submit an order; tells whether it came to what was wanted, what came of it, and the kernel.

        Raises OrderRefused.  The order stands, whatever becomes of the waiting.
        """
        runner = self.runner
        before = runner.state.kernels.get(order.kernel)
        refusal = runner.order(order)
        if refusal is not None:
            raise OrderRefused(refusal)
        if isinstance(order, Interrupt) and wait and before is not None:
            return await self._interrupted(before)
        changes = not isinstance(order, Interrupt | SendSignal)
        if changes:
            # What is accepted is wanted by the next supervisor too, however this one ends.
            await self.host.wait_recorded(order.kernel, RECORD_PATIENCE)
        if not changes or not wait:
            return True, "accepted", runner.state.kernels.get(order.kernel)
        try:
            kernel = await runner.wait_settled(order.kernel, timeout)
        except (TimeoutError, RunnerClosed) as error:
            why = str(error) if isinstance(error, RunnerClosed) else f"not done after {timeout:g} s"
            return False, f"{why}; the order stands", runner.state.kernels.get(order.kernel)
        # What is stopped has no connection file any more: its removal is part of the outcome.
        await runner.wait_effects_of(order.kernel, RECORD_PATIENCE)
        ok, message = outcome(order, kernel, before.last_death if before is not None else None)
        return ok, message, kernel

    async def _interrupted(self, before: Kernel) -> tuple[bool, str, Kernel | None]:
        """Whether the run has survived its interrupt: what it does by itself comes at once."""
        name, runner = before.name, self.runner

        def ended() -> Death | None:
            death = kernel.last_death if (kernel := runner.state.kernels.get(name)) is not None else None
            return death if death is not None and death.generation == before.generation else None

        with suppress(TimeoutError, RunnerClosed):
            async with asyncio.timeout(INTERRUPT_PATIENCE):
                while ended() is None:
                    await runner.wait_for_change()
        after = runner.state.kernels.get(name)
        if (death := ended()) is None:
            return True, "accepted", after
        hint = 'if it understands messages, set interrupt_mode = "message" in its table'
        return False, f"the interrupt ended it, {describe(death.exit)}: {hint}", after


def outcome(order: Order, kernel: Kernel | None, known: Death | None = None) -> tuple[bool, str]:
    """Whether the kernel has come to where the order wanted it, and the sentence that tells.

    ``known`` is its last death at the time of the order.
    """
    wants_up = isinstance(order, Start | Restart | Reset)
    if kernel is None:
        return not wants_up, "removed"
    match kernel.phase:
        case Failed(reason=reason):
            return not wants_up, f"failed: {reason}"
        case Waiting(reason=reason):
            return not wants_up, f"waits for room: {reason}"
        case Stopped() if not wants_up:
            return True, "stopped"
        case Stopped():
            ended = _ended_by_itself(kernel, known)
            return False, "stopped by a later order" if ended is None else f"ended by itself: {ended}"
        case Running():
            run = identity_of(kernel)
            assert run is not None, "a running kernel has a run"
            what = f"job {run.number}" if isinstance(run, JobId) else f"pid {run.pid}"
            return wants_up, f"running ({what})"
        case _:
            return False, "changing"


def _ended_by_itself(kernel: Kernel, known: Death | None) -> str | None:
    """How the latest run ended, if the file wants no other after such an end; else ``None``."""
    death = kernel.last_death
    if death is None or death == known or death.generation != kernel.generation:
        return None
    is_final = is_clean(death.exit) and not may_restart(settings_of(kernel), death.exit)
    return describe(death.exit) if is_final else None
