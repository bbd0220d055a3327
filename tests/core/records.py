"""What the hosts of these tests put on record, and what the next supervisor makes of it.

Follows the rules of ``supervisor.kernel.survivors``, without files.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.events import Survivor
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
    Stopping,
    Want,
    launched_of,
    process_of,
)
from supervisor.settings.config import KernelConfig


@dataclass(frozen=True)
class Record:
    """What is on record of a kernel."""

    kernel: Kernel
    launched: KernelConfig
    want: Want | None
    spawned_at: float | None

    @classmethod
    def of(cls, kernel: Kernel, state: State) -> Record:
        """The record of a kernel; after an orderly stop the file alone says what is wanted."""
        launched = launched_of(kernel) or kernel.declared
        assert launched is not None
        want = None if state.course is Course.CLOSING else kernel.want
        return cls(kernel, launched, want, _spawned_at(kernel))

    def survivor(self, found: tuple[ProcessId, int] | None, now: float) -> Survivor:
        """What a new supervisor is told of the kernel, whose living process and generation are ``found``."""
        kernel, recorded = self.kernel, process_of(self.kernel)
        process, generation = found or (None, kernel.generation)
        stopping = kernel.phase.reason if isinstance(kernel.phase, Stopping) else None
        failed = kernel.phase.reason if isinstance(kernel.phase, Failed) and process is None else ""
        return Survivor(
            kernel=kernel.name,
            launched=self.launched,
            generation=generation,
            want=self.want,
            process=process,
            ready=process is not None and process == recorded and _was_ready(kernel),
            uptime=max(0.0, now - self.spawned_at) if self.spawned_at is not None else 0.0,
            exit=Exit(Cause.UNKNOWN) if process is None and recorded is not None else None,
            failures=kernel.failures,
            streak=kernel.streak,
            restarts=kernel.restarts,
            failed=failed,
            deaths=kernel.deaths,
            ended=recorded if process is None else None,
            stopping=stopping if generation == kernel.generation else None,
        )


def _was_ready(kernel: Kernel) -> bool:
    match kernel.phase:
        case Running() | Stopping(ready=True):
            return True
        case _:
            return False


def _spawned_at(kernel: Kernel) -> float | None:
    match kernel.phase:
        case Starting(since=since) | Running(since=since) | Stopping(spawned_at=since):
            return since
        case _:
            return None
