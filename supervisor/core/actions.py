"""What is to be done: the closed list of what ``decide`` asks for.

The runner starts an effect for each and never waits for it; the answer comes
back as a fact.  Spawn is answered once by Spawned, SpawnFailed or NoRoom, and each
Spawned or Adopt is followed once by Exited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.model import Identity
from supervisor.settings.config import KernelConfig


@dataclass(frozen=True, slots=True)
class Spawn:
    """Launch a process for this run with these settings."""

    kernel: str
    generation: int
    config: KernelConfig
    spare: int | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """Have a spare kernel that waits; answered by SpareParked, and by SpareEnded once it is of no use."""

    kernel: str
    number: int
    config: KernelConfig


@dataclass(frozen=True, slots=True)
class Discard:
    """End a spare."""

    kernel: str
    number: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Watch what an earlier supervisor launched; answered by Ready unless it was ``ready``."""

    kernel: str
    generation: int
    process: Identity
    config: KernelConfig
    ready: bool = False


@dataclass(frozen=True, slots=True)
class AskToExit:
    """Interrupt it if it is busy and ``interrupt``, then send a ``shutdown_request`` on control."""

    kernel: str
    generation: int
    restart: bool = False
    interrupt: bool = True


@dataclass(frozen=True, slots=True)
class InterruptKernel:
    """Interrupt what the kernel executes, by signal or by message."""

    kernel: str
    generation: int


@dataclass(frozen=True, slots=True)
class SignalGroup:
    """Send a signal to the process group of the run."""

    kernel: str
    generation: int
    signum: int


@dataclass(frozen=True, slots=True)
class WatchIdle:
    """Tell once, by BecameIdle, when the kernel executes nothing."""

    kernel: str
    generation: int


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """Tell once, by RoomMade, when there is room for the kernel with these settings."""

    kernel: str
    generation: int
    config: KernelConfig


@dataclass(frozen=True, slots=True)
class Apply:
    """Other settings are in force for the kernel from now on (live keys)."""

    kernel: str
    config: KernelConfig


@dataclass(frozen=True, slots=True)
class Renew:
    """Give the kernel a new address at its next spawn."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The kernel is stopped: remove its connection file, keep its address."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Forget:
    """The kernel is no longer declared: remove all that is kept for it."""

    kernel: str


@dataclass(frozen=True, slots=True)
class Publish:
    """A transition that the world is told about (one line of log)."""

    kernel: str
    event: str
    level: str
    generation: int
    pid: int | None
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The order is not carried out, and why."""

    kernel: str
    message: str


Reached = AskToExit | InterruptKernel | SignalGroup | WatchIdle
Effect = Spawn | Park | Discard | Adopt | Reached | AwaitRoom | Apply | Renew | Withdraw | Forget
Action = Effect | Publish | Refuse
