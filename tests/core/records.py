"""What the hosts of these tests put on record, and what the next supervisor makes of it.

The record is the one of ``supervisor.kernel.survivors``; what is made of it follows
the rules there, without files.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.events import Survivor
from supervisor.core.model import Cause, Exit, Kernel, ProcessId, Reason, State, Want
from supervisor.kernel.survivors import record_of


@dataclass(frozen=True)
class Record:
    """What is on record of a kernel, which is declared or has a run."""

    kernel: Kernel
    state: State

    def survivor(self, found: tuple[ProcessId, int] | None, now: float) -> Survivor:
        """What a new supervisor is told of the kernel, whose living process and generation are ``found``."""
        told = record_of(self.kernel, self.state, None, None, dict.fromkeys(self.kernel.deaths, 0.0))
        assert told is not None
        assert told.launched is not None
        process, generation = found or (None, told.generation)
        return Survivor(
            kernel=told.name,
            launched=told.launched,
            generation=generation,
            want=Want(told.want) if told.want else None,
            process=process,
            ready=process is not None and process == told.process and told.ready,
            uptime=max(0.0, now - told.spawned_at) if told.spawned_at is not None else 0.0,
            exit=Exit(Cause.UNKNOWN) if process is None and told.process is not None else None,
            failures=told.failures,
            streak=told.streak,
            restarts=told.restarts,
            failed=told.failed if process is None else "",
            deaths=self.kernel.deaths,
            ended=told.process if process is None else None,
            stopping=Reason(told.stopping) if told.stopping and generation == told.generation else None,
        )
