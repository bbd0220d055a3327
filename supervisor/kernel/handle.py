"""What a run is made of, wherever it is: the handle that a launcher gives.

Owns the contract, and its first keeper: a process of this machine with its group, its cgroup
and its mark.  Reports nothing and decides nothing.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from supervisor.core.model import Cause, Exit, Identity, ProcessId
from supervisor.disk.off_loop import begin
from supervisor.kernel.confinement import Confinement
from supervisor.kernel.local import LocalKernel
from supervisor.process.exit import OomWatch, describe_exit
from supervisor.process.group import continue_group, end_group, marked_processes, signal_group, signal_process
from supervisor.process.identity import catches, is_running
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)

# The signal at which a prepared kernel writes the stacks of its threads (warm/inside/app).
DUMP = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else None


class Handle(Protocol):
    """One run, as whoever watches it has it: born alive, ends once."""

    @property
    def identity(self) -> Identity:
        """What it is beyond doubt, also for the next supervisor."""

    @property
    def beats(self) -> ProcessId | None:
        """Whose doings tell when there is reason to ask the kernel; ``None``: nobody's."""

    @property
    def confinement(self) -> Confinement:
        """What it may use of this machine."""

    async def wait_begun(self) -> None:
        """Return once it can be asked whether it is ready."""

    async def wait(self) -> None:
        """Return once it has ended; what fails with OSError is tried again."""

    async def end(self, config: KernelConfig) -> None:
        """After its end: end what it has left behind, which holds what the next run needs."""

    def describe(self, output_tail: tuple[str, ...]) -> Exit:
        """How it ended, after ``end``."""

    async def left(self) -> tuple[int, ...]:
        """The processes of it that live on, after ``end``."""

    async def cleanup(self) -> None:
        """Let go of what is held for it."""

    def signal(self, signum: int, config: KernelConfig) -> None:
        """Signal all of it; one that has ended is no error.  SIGKILL is for all that is its."""

    def wake(self) -> None:
        """Let it go on if it is stopped.  Raises ProcessLookupError once it has ended."""

    @property
    def tells_stacks(self) -> bool:
        """Whether it writes the stacks of its threads when it is told to."""

    def dump_stacks(self) -> None:
        """Have it write them to its output."""

    def look(self, config: KernelConfig, is_over: Callable[[], bool]) -> None:
        """See what it uses; for a thread."""

    def usage(self) -> Mapping[str, Any] | None:
        """What it uses as somebody else tells, if that is known; for a thread."""


class LocalHandle:
    """A process of this machine, ours or adopted, with its cgroup; ``mark`` is in its environment."""

    def __init__(self, process: ProcessId, kernel: LocalKernel, confinement: Confinement, mark: str) -> None:
        self.identity = self.beats = process
        self.kernel = kernel
        self.confinement = confinement
        self._mark = mark
        self._oom = OomWatch(process)
        self._is_oom = False

    async def wait_begun(self) -> None:
        """A process that exists has begun."""

    async def wait(self) -> None:
        """Return once it has ended."""
        await self.kernel.wait()

    async def end(self, config: KernelConfig) -> None:
        """End what is in its group and, as its settings say, in its cgroup."""
        # The count goes with the cgroup.
        self._is_oom = self._oom.struck(self.kernel.returncode)
        try:
            await begin(self.confinement.end, config.kill_mode)
            await end_group(self.identity)
        except OSError as error:
            log.warning("cannot end what kernel %s has left behind: %s", self.kernel.kernel_id, error)

    def describe(self, output_tail: tuple[str, ...]) -> Exit:
        """How it ended, and what it used if that was too much."""
        ended = describe_exit(self.kernel.returncode, oom=self._is_oom, output_tail=output_tail)
        if ended.cause is Cause.OOM and self.confinement.memory:
            return replace(ended, detail=f"memory: {self.confinement.memory}")
        return ended

    async def left(self) -> tuple[int, ...]:
        """Those that carry its mark."""
        left = await begin(marked_processes, MARK_VARIABLE, self._mark, self.confinement.uid)
        return tuple(process.pid for process in left)

    async def cleanup(self) -> None:
        """Let its pidfd go."""
        await self.kernel.cleanup()

    def signal(self, signum: int, config: KernelConfig) -> None:
        """Signal the group; by SIGKILL all that is in its cgroup, as its settings say."""
        if signum == signal.SIGKILL:
            self.confinement.kill(config.kill_mode)
        try:
            signal_group(self.identity, signum)
        except ProcessLookupError:
            pass

    def wake(self) -> None:
        """Let the group go on: a stopped process hears nothing, not even SIGTERM."""
        continue_group(self.identity)

    @property
    def tells_stacks(self) -> bool:
        """Whether it is prepared, and catches the signal."""
        return DUMP is not None and catches(self.identity, DUMP)

    def dump_stacks(self) -> None:
        """Send it the signal."""
        assert DUMP is not None, "asked of what tells its stacks"
        signal_process(self.identity, DUMP)

    def look(self, config: KernelConfig, is_over: Callable[[], bool]) -> None:
        """If it is alive at this moment, what the OOM killer did until now explains no later death."""
        self._oom.renew(lambda: not is_over() and is_running(self.identity))
        if not is_over():
            self.confinement.look(config)

    def usage(self) -> None:
        """Of what is here nobody tells: whoever asks measures it."""
