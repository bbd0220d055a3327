"""One run of a kernel, watched from its first moment to its last.

Owns the process handle, the channel and the checks of the run, and reports
what becomes of them.  Decides nothing, and does not know the kernel's other runs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from supervisor.core.events import Answered, BecameIdle, Escaped, Exited, Fact, Missed, Noted, Ready
from supervisor.core.health import rule_of
from supervisor.core.model import Begun, Cause, Check, Executing, Exit
from supervisor.disk.off_loop import Hanging, Lane, begin
from supervisor.kernel.aftermath import Aftermath, executing_of, left_of
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Connection
from supervisor.kernel.handle import Handle
from supervisor.kernel.holder import look_for
from supervisor.kernel.monitor import Monitor
from supervisor.output.file import OutputFile
from supervisor.output.stream import Position
from supervisor.records.places import connect_command
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

Report = Callable[[Fact], object]

# Where the system has no room to watch a process, it is asked again this often, in seconds.
WATCH_INTERVAL = 1.0
# How long a death waits for the last words of the kernel, in seconds.
TAIL_PATIENCE = 2.0
# A silent kernel that was ready before is asked this often at least, in seconds.
LONGEST_PATIENCE = 600.0
# Lines that are told of what it wrote last, and within which the stack of a crash is looked for.
_TAIL_LINES = 20
_CRASH_LINES = 400
# How often and how long after one another (seconds) the stacks that it is to write are looked for.
_LOOKS, _LOOK_INTERVAL = 20, 0.05


@dataclass(frozen=True)
class OutputOfRun:
    """What one run wrote: the kernel's output file from a place on; its key is not told."""

    file: OutputFile
    begin: Position
    key: str = field(default="", repr=False)

    def tail(self) -> tuple[str, ...]:
        """The last lines of it, without the key."""
        try:
            return _last_words(self.file.tail_since(self.begin, _CRASH_LINES, hide=self.key))
        except OSError as error:
            return (f"(the output cannot be read: {error})",)

    def stacks(self) -> list[str]:
        """The stacks that were written.  Raises OSError."""
        return _stacks_in(self.file.tail_since(self.begin, _CRASH_LINES, hide=self.key))


def _stacks_in(lines: tuple[str, ...]) -> list[str]:
    """What faulthandler wrote of the threads, without what else was written."""
    begins = [at for at, line in enumerate(lines) if line.startswith(("Thread 0x", "Current thread 0x"))]
    kept = lines[begins[0] :] if begins else ()
    return [line for line in kept if line.startswith(("Thread 0x", "Current thread 0x", "  File ", "  ..."))]


def _last_words(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The last lines; of a crash of Python itself what crashed, and not what called it."""
    begins = [at for at, line in enumerate(lines) if line.startswith("Fatal Python error: ")]
    if not begins:
        return lines[-_TAIL_LINES:]
    dump = lines[begins[-1] :]
    current = [at for at, line in enumerate(dump) if line.startswith("Current thread ")]
    return (dump[0], *dump[current[0] :][: _TAIL_LINES - 1]) if current else dump[:_TAIL_LINES]


class Run:
    """One run: born alive, dies once."""

    def __init__(
        self,
        kernel: str,
        generation: int,
        handle: Handle,
        connection: Connection,
        channel: Channel,
        output: OutputOfRun,
        mark: str,
        config: KernelConfig,
        pending: Path,
        aftermath: Aftermath,
        report: Report,
    ) -> None:
        self.generation = generation
        self.handle = handle
        # What the kernelspec says.  As long as nobody knows: a kernel that does not take
        # messages ignores one, but SIGINT ends a JVM.
        self.spec_mode = "message"
        # As the kernel itself says; "" until it has been asked.
        self.language = ""
        self._kernel = kernel
        self._connection = connection
        self._output = output
        self._mark = mark
        self._reading = Lane(f"last words of kernel {kernel}")
        self._report = report
        self._is_pressed = False
        self._channel = channel
        self._monitor: Monitor | None = None
        self._misses = dict.fromkeys(Check, 0)
        self._ready = False
        self.is_over = False
        self.begun = Begun()
        # Code that is run before it is ready, by request; and what its tracebacks call it.
        self.startup = ("", "")
        self._failed_startup: tuple[str, ...] = ()
        self._aftermath = aftermath
        # What it has read and not answered is there, if it is prepared.
        self._pending = pending
        self._since = time.monotonic()
        self._config = config
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def interrupt_mode(self) -> str:
        """How it is interrupted: as the settings in force say, else its kernelspec."""
        return self._config.interrupt_mode or self.spec_mode

    def watch(self, *, ready: bool = False) -> None:
        """Report from now on: that it is ready, that it does not answer, that it ended."""
        self._begin(self._watch_end())
        if ready:
            self._start_monitor()
            self._begin(self._learn_control())
        else:
            self._begin(self._watch_start())

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("watching kernel %s failed", self._kernel, exc_info=error)

    async def _learn_control(self) -> None:
        """Whether the kernel serves control, which its checks depend on; it may be busy for days."""
        self._note_language(await self._channel.wait_ready(LONGEST_PATIENCE))

    async def _watch_start(self) -> None:
        await self.handle.wait_begun()
        self._note_language(await self._channel.wait_ready())
        if self.startup[0] and not await self._run_startup():
            return
        owner = self._connection.owner
        connect = await begin(connect_command, self._connection.path, owner and owner.name)
        self._report(Ready(self._kernel, self.generation, connect))
        self._start_monitor()

    async def _run_startup(self) -> bool:
        """Whether the start-up code of a kernel that is not prepared has run; else the kernel is ended."""
        reply = await self._channel.execute(self.startup[0])
        if reply.get("status") == "ok":
            return True
        lines = reply.get("traceback")
        self._failed_startup = tuple(str(line) for line in lines) if isinstance(lines, list) else ("",)
        self._failed_startup += (f"{reply.get('ename')}: {reply.get('evalue')}",)
        self.signal(signal.SIGKILL)
        return False

    def _note_language(self, info: Mapping[str, Any]) -> None:
        about = info.get("language_info")
        name = about.get("name") if isinstance(about, dict) else None
        # It goes on record: what is no text, or no name, would be refused there or fill it.
        self.language = name[:64] if isinstance(name, str) and name.isprintable() else ""

    def _start_monitor(self) -> None:
        self._ready = True
        tell = self._missed, self._answered
        self._monitor = Monitor(self._channel, self._config, *tell, self.handle.beats)
        self._monitor.start()

    def _missed(self, check: Check) -> None:
        self._misses[check] += 1
        if self._misses[check] == rule_of(self._config, check).misses:
            self._begin(self._tell_silent(check))
        else:
            self._report(Missed(self._kernel, self.generation, check))

    async def _tell_silent(self, check: Check) -> None:
        self._report(Missed(self._kernel, self.generation, check, await self.stacks()))

    async def executing(self) -> Executing | None:
        """The cell that it executes now, if it is prepared and that is to be told."""
        if self.is_over or not self._config.executing:
            return None
        try:
            return await self._reading.do(executing_of, self._pending, patience=TAIL_PATIENCE)
        except (Hanging, OSError):
            return None

    async def stacks(self) -> tuple[str, ...]:
        """The Python stacks of its threads, innermost first; nothing of a kernel that does not tell them."""
        if self.is_over or not self.handle.tells_stacks:
            return ()
        try:
            begin = await self._reading.do(self._output.file.position, patience=TAIL_PATIENCE)
            self.handle.dump_stacks()
            since, lines = OutputOfRun(self._output.file, begin, self._output.key), list[str]()
            for _ in range(_LOOKS):
                await asyncio.sleep(_LOOK_INTERVAL)
                before, lines = lines, await self._reading.do(since.stacks, patience=TAIL_PATIENCE)
                if lines and lines == before:
                    break
        except (Hanging, OSError):
            return ()
        return tuple(lines)

    def _answered(self, check: Check) -> None:
        self._misses[check] = 0
        self._report(Answered(self._kernel, self.generation, check))

    async def _watch_end(self) -> None:
        await self._wait_end()
        self.is_over = True
        at, uptime = time.time(), time.monotonic() - self._since
        # First the ports: children in the group hold them, and the next run needs them.
        await self.handle.end(self._config)
        self.close()
        self._hold_ports()
        ended = await self._told_end()
        self._aftermath.end(ended, at, uptime)
        self._report(Exited(self._kernel, self.generation, ended))
        await self.handle.cleanup()
        await self._tell_escaped()

    async def _wait_end(self) -> None:
        while True:
            try:
                await self.handle.wait()
            except OSError as error:
                # Out of descriptors, say.  Whoever gave up here would never hear of its end.
                log.warning("cannot watch kernel %s yet: %s", self._kernel, error)
                await asyncio.sleep(WATCH_INTERVAL)
            else:
                return

    def _hold_ports(self) -> None:
        """Those of an adopted kernel could not be held while it listened."""
        if self._config.hold_ports:
            try:
                self._connection.hold()
            except OSError:
                pass  # somebody has one already, which the next launch tells

    async def _told_end(self) -> Exit:
        try:
            ended = self._describe_end(await self._tail())
            if ended.cause is Cause.PORT_TAKEN:
                return await self._with_holder(ended)
            return await self._with_left(ended)
        except Exception:
            # A death that cannot be explained is still a death: without this fact it would never come back.
            log.exception("cannot tell how kernel %s ended", self._kernel)
            return self.handle.describe(())

    async def _with_left(self, ended: Exit) -> Exit:
        """Its end with what it left on record, if its disk gives that."""
        is_told = self._config.executing
        work = partial(left_of, self._pending, ended, ready=self._ready, executing=is_told)
        try:
            return await self._reading.do(work, patience=TAIL_PATIENCE)
        except (Hanging, OSError):
            return ended

    async def _tail(self) -> tuple[str, ...]:
        """Its last words, if its disk gives them: the death is told whatever it does."""
        try:
            return await self._reading.do(self._output.tail, patience=TAIL_PATIENCE)
        except (Hanging, OSError) as error:
            return (f"(the output cannot be read: {error})",)

    def _describe_end(self, tail: tuple[str, ...]) -> Exit:
        ended = self.handle.describe(tail)
        if self._failed_startup:
            detail = self._failed_startup[-1]
            return replace(ended, cause=Cause.STARTUP, detail=detail, output_tail=self._failed_startup)
        if not self._ready and (taken := self._connection.taken_port()) is not None:
            detail = f"port {taken[1]} ({taken[0]}) is used by another program"
            return replace(ended, cause=Cause.PORT_TAKEN, detail=detail)
        return ended

    async def _with_holder(self, ended: Exit) -> Exit:
        place = self._connection.taken_place()
        who = "" if place is None else await look_for(self._reading, place, self._mark)
        return replace(ended, detail=f"{ended.detail}{who}")

    async def _tell_escaped(self) -> None:
        if pids := await self.handle.left():
            self._report(Escaped(self._kernel, self.generation, pids))

    async def wait_told(self) -> None:
        """Return once all is told of a run that has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def look(self) -> None:
        """See what it uses; for a thread."""
        self.handle.look(self._config, lambda: self.is_over)

    def tell_pressed(self) -> None:
        """Tell once, until it uses less again, that it comes near its limit of memory."""
        pressed = self.handle.confinement.pressed
        if pressed is not None and not self._is_pressed:
            fields = {"used": pressed[0], "limit": pressed[1]}
            self._report(Noted(self._kernel, self.generation, "kernel.pressed", fields))
        self._is_pressed = pressed is not None

    def apply(self, config: KernelConfig) -> None:
        """Check with other settings from now on."""
        self._config = config
        if self._monitor is not None:
            self._monitor.configure(config)

    async def ask_to_exit(self, *, restart: bool, interrupt: bool = True) -> None:
        """Send a ``shutdown_request``, after an ``interrupt`` if it is busy; the answer proves nothing."""
        try:
            self.handle.wake()
            # The queue of the shell channel is served before a late shutdown is noticed by some kernels.
            if interrupt and self._ready and await self._channel.is_busy():
                await self.interrupt()
            await self._channel.shutdown_request(restart)
        except ProcessLookupError:
            pass

    async def interrupt(self) -> None:
        """Interrupt what it executes, in the way that its kernelspec asks for."""
        if self.interrupt_mode == "message":
            await self._channel.interrupt_request()
        else:
            self.signal(signal.SIGINT)

    def signal(self, signum: int) -> None:
        """Signal all of it; a run that has ended already is no error."""
        self.handle.signal(signum, self._config)

    def watch_idle(self) -> None:
        """Report once when it executes nothing."""
        self._begin(self._watch_idle())

    async def _watch_idle(self) -> None:
        try:
            await self._channel.wait_idle()
        except ConnectionAbortedError:
            return  # it has ended in the meantime
        self._report(BecameIdle(self._kernel, self.generation))

    def close(self) -> None:
        """Stop asking and listening; the process is left as it is."""
        if self._monitor is not None:
            self._monitor.stop()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._channel.close()
