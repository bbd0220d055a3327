"""The daemon: one supervision, its file, its door, its signals, its log.

Owns the order in which things begin and end; what the
kernels do is decided and carried out elsewhere.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.control.binding import Bound, bind
from supervisor.control.callers import Circle
from supervisor.core.events import Shutdown
from supervisor.core.model import Stopping, process_of
from supervisor.daemon.settings_file import (
    LAST_GOOD,
    Rejected,
    SettingsFile,
    forget_last_good,
    keep_last_good,
)
from supervisor.disk.lock import AlreadyLocked
from supervisor.disk.off_loop import Hanging, Lane, begin
from supervisor.disk.privacy import ExposedFiles, UnsafeDirectory, refuse_shared
from supervisor.observe.log import EventLog, Log
from supervisor.observe.notify import Notifier
from supervisor.process.account import expand, uid_of
from supervisor.process.orphans import is_first, reap_orphans
from supervisor.settings.config import Config, SupervisorConfig, changed_keys, reload_actions
from supervisor.supervision.supervision import RETRY_INTERVAL, Supervision
from supervisor.version import __version__
from supervisor.views import awaited, phase_name

if TYPE_CHECKING:
    from supervisor.control.door import Door
    from supervisor.control.watch import FileWatch

log = logging.getLogger(__name__)

Serving = Callable[["Daemon", Bound], "tuple[Door, FileWatch]"]

SUPERVISOR_KEYS = reload_actions(SupervisorConfig)
# While kernels take their time to stop, the log tells which, this often, in seconds.
PROGRESS_INTERVAL = 5.0
# How long an exit waits for the disk of the lock, and of what nobody needs any more, in seconds.
LEAVING_PATIENCE = 1.0
# How long the door is not opened yet because the first kernels are being launched, in seconds.
LAUNCH_PATIENCE = 0.5
# How often it is looked whether the state directory is ours still, in seconds.
LOCK_INTERVAL = 5.0
# How long an orphan that has ended is left to whoever may wait for it, in seconds.
REAP_INTERVAL = 5.0
# Why nobody detaches there.
FIRST = (
    "the daemon has pid 1, and all others of its container end with it: shutdown stops the kernels in order"
)


class Farewell(Enum):
    """How the daemon leaves."""

    STOP = "stop"
    DETACH = "detach"


class Daemon:
    """One life of the daemon, on the running loop."""

    def __init__(self, file: SettingsFile, config: Config, supervision: Supervision, logs: Log) -> None:
        self.file = file
        self.logs = logs
        self._begun_with = config.supervisor
        self.supervision = supervision
        self.notifier = Notifier.from_environ()
        self._farewell: asyncio.Future[Farewell] = asyncio.get_running_loop().create_future()
        self._reloading = asyncio.Lock()
        self._keeping = asyncio.Lock()
        self._kept: asyncio.Task[None] | None = None
        self._exposed = ExposedFiles()
        self._reload_wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._status = ""
        self._door: Door | None = None
        self._reading, self._locking = Lane("configuration"), Lane("lock")
        self._writing = Lane(
            "last good configuration", partial(supervision.wait_disk, supervision.places.state_dir)
        )

    # From the first moment to the last

    async def run(self, socket: Path, serving: Serving) -> int:
        """From the lock to the last line of log; returns the exit code.

        ``serving`` makes the door behind the first launches: whoever calls at the socket before waits.
        """
        self.supervision.lock()
        try:
            return await self._supervise(socket, serving)
        finally:
            self.supervision.unlock()

    async def _supervise(self, socket: Path, serving: Serving) -> int:
        supervision = self.supervision
        supervision.add_observer(EventLog())
        supervision.add_observer(self._notify_status)
        self._listen_to_signals()
        supervision.open()
        close = AsyncExitStack()
        try:
            self._tell_started(socket)
            await supervision.look_back()
            # Before anything is started: a socket that another daemon serves is a reason not to.
            refuse_shared(socket.parent, "socket")
            bound = await begin(bind, socket)
            close.callback(bound.sock.close)
            supervision.take_up()
            if not self._farewell.done():
                self._apply(supervision.config)
                await supervision.runner.wait_effects(LAUNCH_PATIENCE)
            door, watch = serving(self, bound)
            close.push_async_callback(door.close)
            await door.start()
            self._door = door
            if not self._farewell.done():
                self._begin_to_serve()
                self._begin(door.keep_open())
                self._begin(watch.run())
            return await self._leave(await self._farewell)
        finally:
            for task in self._tasks:
                task.cancel()
            # Before the door: those who follow are to find our last words, and then the end.
            supervision.stream.close()
            await close.aclose()
            await supervision.close()

    async def _reap_orphans(self) -> None:
        ended, seen = asyncio.Event(), set[int]()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, ended.set)
        while True:
            if not seen:
                await ended.wait()
            ended.clear()
            await asyncio.sleep(REAP_INTERVAL)
            kernels = self.supervision.runner.state.kernels.values()
            ours = {process.pid for kernel in kernels if (process := process_of(kernel)) is not None}
            seen = await begin(reap_orphans, ours, seen)

    async def _keep_lock(self) -> None:
        """Where another daemon was started on a state directory that was removed, leave it the kernels."""
        now = asyncio.get_running_loop().time
        while True:
            # At multiples, so that it falls into one wake-up with the checks of the kernels.
            await asyncio.sleep(LOCK_INTERVAL - now() % LOCK_INTERVAL)
            if await self._is_dispossessed():
                self._leave_as(Farewell.DETACH)

    async def _is_dispossessed(self, patience: float | None = None) -> bool:
        trouble, is_lost = None, False
        try:
            await self._locking.do(self.supervision.keep_lock, patience=patience)
        except AlreadyLocked as error:
            trouble = f"{error}: it was started after the directory was removed, and has the kernels now"
            is_lost = not is_first()  # with pid 1 they would end
        except (UnsafeDirectory, OSError, Hanging) as error:
            trouble = f"cannot lock the state directory anew: {error}"
        self.supervision.note_trouble("lock", trouble)
        return is_lost

    def _begin_to_serve(self) -> None:
        if is_first():
            self._begin(self._reap_orphans())
        self.notifier.ready(self._status_line())
        self._begin(self._feed_watchdog())
        self._begin(self._keep_lock())
        self._begin(self._reload_when_asked())
        self._begin(self._tell_stops())
        self._begin(self._let_in(self.supervision.config))

    def _tell_started(self, socket: Path) -> None:
        tell, places = self.supervision.runner.tell, self.supervision.places
        tell(
            "daemon.started",
            "info",
            pid=os.getpid(),
            version=__version__,
            instance=self.supervision.instance,
            config=str(self.file.path),
            state_dir=str(places.state_dir),
            socket=str(socket),
        )
        if self.file.last_good_in_use:
            self._tell_rejected(in_force="the last good configuration, which was kept")

    async def _leave(self, farewell: Farewell) -> int:
        """Leave in order; returns the exit code: 1 if kernels are left that were to be stopped."""
        supervision, tell = self.supervision, self.supervision.runner.tell
        if farewell is Farewell.STOP and await self._is_dispossessed(LEAVING_PATIENCE):
            farewell = Farewell.DETACH  # they are not ours to stop
        self.notifier.stopping(f"{farewell.value}: {self._status_line()}")
        if farewell is Farewell.DETACH:
            tell("daemon.detached", "info", pid=os.getpid(), kernels=self.supervision.living())
            if self._kept is not None:
                await asyncio.wait({self._kept}, timeout=RETRY_INTERVAL)
            return 0
        tell("daemon.stopping", "info", pid=os.getpid(), kernels=self.supervision.living())
        progress = self._begin(self._tell_progress())
        if not (left := await supervision.stop_all()):
            await self._forget_last_good()
        progress.cancel()
        tell("daemon.stopped", "error" if left else "info", pid=os.getpid(), kernels=left)
        return 1 if left else 0

    async def _tell_progress(self) -> None:
        while True:
            # systemd would kill the daemon, and the kernels would be nobody's.
            self.notifier.extend_timeout(6 * PROGRESS_INTERVAL)
            await asyncio.sleep(PROGRESS_INTERVAL)
            fields = {"kernels": self.supervision.living(), "awaited": self._awaited()}
            self.supervision.runner.tell("daemon.stopping", "info", pid=os.getpid(), **fields)

    async def _tell_stops(self) -> None:
        """While a kernel takes its time to stop, the log tells what it is given."""
        while True:
            await self.supervision.runner.wait_for_change()
            while self._awaited():
                await asyncio.sleep(PROGRESS_INTERVAL)
                if slow := self._awaited(PROGRESS_INTERVAL / 2):
                    log.warning("still being stopped: %s", "; ".join(slow))

    def _awaited(self, least: float = 0.0) -> list[str]:
        """The kernels that have been on their way out for ``least`` seconds, and what comes next."""
        now, kernels = asyncio.get_running_loop().time(), self.supervision.runner.state.kernels.values()
        stopping = [k for k in kernels if isinstance(k.phase, Stopping) and now - k.phase.since >= least]
        return [awaited(kernel, now) for kernel in stopping]

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the daemon failed", exc_info=error)

    # Signals and orders to the daemon itself

    def _listen_to_signals(self) -> None:
        acts: dict[int, Callable[[], object]] = {
            signal.SIGTERM: self.stop,
            signal.SIGINT: self.stop,
            signal.SIGHUP: self.reload_soon,
            signal.SIGUSR2: self.detach,
            signal.SIGUSR1: lambda: None,
            signal.SIGWINCH: lambda: None,
        }
        for signum, act in acts.items():
            asyncio.get_running_loop().add_signal_handler(signum, act)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, acts)  # some of which the verb has blocked

    def stop(self) -> None:
        """Leave as the file says, in order; told again, at once."""
        # With pid 1 all others end: in order, rather.
        keep = self.supervision.config.supervisor.on_exit == "keep" and not is_first()
        if not self._farewell.done():
            self._leave_as(Farewell.DETACH if keep else Farewell.STOP)
        else:
            self._hurry()

    def detach(self) -> str | None:
        """Leave, and leave the kernels running; returns why not, if it is refused."""
        if is_first():
            log.warning("cannot detach: %s", FIRST)
            return FIRST
        self._leave_as(Farewell.DETACH)
        return None

    def shutdown(self, *, now: bool = False) -> None:
        """Stop all kernels, then leave; ``now`` goes straight to SIGKILL."""
        self._leave_as(Farewell.STOP)
        if now:
            self._hurry()

    def _hurry(self) -> None:
        """Kill what an orderly stop still waits for; of one that leaves the kernels alone, nothing."""
        if self._farewell.result() is Farewell.STOP and self.supervision.is_open:
            self.supervision.runner.submit(Shutdown(now=True))

    def _leave_as(self, farewell: Farewell) -> None:
        if not self._farewell.done():
            self._farewell.set_result(farewell)

    # The file

    def reload_soon(self) -> None:
        """Read the file; many requests at once are one, and none during a reading is lost."""
        self._reload_wanted.set()

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            try:
                await self.reload()
            except Exception:
                log.exception("reading the file failed; the next change is looked at all the same")

    async def reload(self) -> Rejected | None:
        """Read the file now; returns its mistakes if it was not accepted."""
        async with self._reloading:
            self.notifier.reloading()
            try:
                return await self._reload()
            finally:
                if not self._farewell.done():
                    self.notifier.ready(self._status_line())

    async def _reload(self) -> Rejected | None:
        try:
            seen = await self._reading.do(self.file.look)
        except (OSError, Hanging) as error:
            seen = Rejected((f"{self.file.path}: cannot be read: {error}",), is_new=True)
        if self._farewell.done():
            return Rejected(("the daemon is leaving: start it again",), is_new=False)
        if isinstance(seen, Rejected):
            if seen.is_new:
                self._tell_rejected(in_force="the configuration before it")
            return seen
        if seen is not None:
            self.file.accept(seen)
            self._apply(seen)
        return None

    def edited_keys(self, config: Config) -> dict[str, str]:
        """The keys of ``[supervisor]`` that are not as in force: ``apply``, ``pending`` for a new daemon."""
        present, new = self.supervision.config.supervisor, config.supervisor
        edited: dict[str, str] = {}
        for key, action in SUPERVISOR_KEYS.items():
            in_force = self._begun_with if action == "daemon" else present
            if getattr(in_force, key) != getattr(new, key):
                edited[key] = "pending" if action == "daemon" else "apply"
        return edited

    def _apply(self, config: Config) -> None:
        supervision = self.supervision
        needs = [key for key, action in self.edited_keys(config).items() if action == "pending"]
        if needs:
            log.warning("[supervisor] %s: takes effect when the daemon is started anew", ", ".join(needs))
        self._begin(self._warn_of_exposed())
        self._begin(self._let_in(config))
        self.logs.set_level(config.supervisor.log_level)
        kept = supervision.places.state_dir / LAST_GOOD
        file = kept if self.file.last_good_in_use else self.file.path
        touched = _touched(supervision.config, config)
        supervision.runner.tell(
            "config.loaded", "info", file=str(file), kernels=list(config.kernels), touched=touched
        )
        supervision.load(config)
        self._kept = self._begin(self._keep(config))

    async def _let_in(self, config: Config) -> None:
        """Let in whom the configuration lets in, as long as it is in force; once there is a door."""
        if (door := self._door) is None:
            return
        groups = config.supervisor.operators, config.supervisor.readers
        try:
            circle = await self._reading.begin(Circle.named, *groups)
            if config is self.supervision.config:
                closed = await door.let_in(circle)
                self.supervision.note_trouble("door", closed or None)
        except (KeyError, OSError) as error:
            self.supervision.note_trouble("door", f"operators and readers are not let in: {error}")

    async def _warn_of_exposed(self) -> None:
        await self._reading.begin(lambda: self._exposed.warn_of(self._trusted_files()))

    def _trusted_files(self) -> list[Path]:
        """All that decides what our account runs; what another one reads is its own to guard."""
        kernels = self.supervision.config.kernels.values()
        ours = [kernel.startup_file for kernel in kernels if uid_of(kernel.user) == os.geteuid()]
        return [*self.file.files(), *(Path(expand(file, None)) for file in ours if file)]

    async def _keep(self, config: Config) -> None:
        """Have the configuration in force kept for the next start; the disk may be slow, or take it later."""
        note, state_dir = self.supervision.note_trouble, self.supervision.places.state_dir
        while config is self.supervision.config:
            async with self._keeping:
                try:
                    await self._writing.do(keep_last_good, config, state_dir)
                except (OSError, Hanging) as error:
                    note("last-good", f"cannot keep the configuration for the next start: {error}")
                else:
                    note("last-good", None)
                    return
            await asyncio.sleep(RETRY_INTERVAL)

    async def _forget_last_good(self) -> None:
        async with self._keeping:
            try:
                state_dir = self.supervision.places.state_dir
                await self._writing.do(forget_last_good, state_dir, patience=LEAVING_PATIENCE)
            except (OSError, Hanging) as error:
                log.error("cannot remove the configuration that was kept: %s", error)

    def _tell_rejected(self, *, in_force: str) -> None:
        self.supervision.runner.tell(
            "config.rejected",
            "error",
            file=str(self.file.path),
            mistakes=list(self.file.mistakes),
            in_force=in_force,
        )

    # systemd

    def _status_line(self) -> str:
        kernels = self.supervision.runner.state.kernels.values()
        counts = Counter(phase_name(kernel.phase) for kernel in kernels)
        line = ", ".join(f"{count} {name}" for name, count in counts.items()) or "no kernels"
        return f"{line}; the file has mistakes" if self.file.found else line

    def _notify_status(self, _event: Mapping[str, object]) -> None:
        if self.notifier.is_active and (line := self._status_line()) != self._status:
            self._status = line
            self.notifier.status(line)

    async def _feed_watchdog(self) -> None:
        if self.notifier.watchdog_interval is not None:
            faulthandler.enable(2)  # SIGABRT is how systemd ends a daemon that hangs: it then tells where
        # Fed from the loop itself: a loop that hangs is a daemon that hangs.
        while (interval := self.notifier.watchdog_interval) is not None:
            self.notifier.watchdog()
            await asyncio.sleep(interval)


def _touched(old: Config, new: Config) -> dict[str, list[str]]:
    """Each kernel that is not as before, with the keys that were edited; without any if it came or went."""
    names = dict.fromkeys([*new.kernels, *old.kernels])
    pairs = {name: (old.kernels.get(name), new.kernels.get(name)) for name in names}
    return {
        name: list(changed_keys(before, now)) if before and now else []
        for name, (before, now) in pairs.items()
        if before != now
    }
