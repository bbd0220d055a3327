"""The processes of the small operating system in memory, and how they may end."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.model import Cause, Exit, ProcessId
from supervisor.settings.config import KernelConfig

ENDS = [
    Exit(Cause.EXITED, code=0),
    Exit(Cause.CRASHED, code=7),
    Exit(Cause.KILLED, signal="SIGKILL"),
    Exit(Cause.PORT_TAKEN, code=1),
]
CLEAN, KILLED = ENDS[0], ENDS[2]


@dataclass
class Process:
    """A process, whoever knows of it."""

    id: ProcessId
    kernel: str
    generation: int
    config: KernelConfig
    born: float
    is_polite: bool = True
    is_stubborn: bool = False
    ready_after: float | None = 0.1
    is_alive: bool = True
    is_watched: bool = False
    exit: Exit = KILLED
