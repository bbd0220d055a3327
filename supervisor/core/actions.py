"""What is to be done: the closed list of what ``decide`` asks for.

The runner starts an effect for each and never waits for it; the answer comes
back as a fact.  Spawn is answered once by Spawned, SpawnFailed or NoRoom, and each
Spawned or Adopt is followed once by Exited.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.model import Identity, OfKernel, OfRun, OfSpare
from supervisor.settings.config import KernelConfig


class Spawn(OfRun, frozen=True):
    """Launch a process for this run with these settings."""

    config: KernelConfig
    spare: int | None = None


class Park(OfSpare, frozen=True):
    """Have a spare kernel that waits; answered by SpareParked, and by SpareEnded once it is of no use."""

    config: KernelConfig


class Discard(OfSpare, frozen=True):
    """End a spare."""


class Adopt(OfRun, frozen=True):
    """Watch what an earlier supervisor launched; answered by Ready unless it was ``ready``."""

    process: Identity
    config: KernelConfig
    ready: bool = False


class AskToExit(OfRun, frozen=True):
    """Interrupt it if it is busy and ``interrupt``, then send a ``shutdown_request`` on control."""

    restart: bool = False
    interrupt: bool = True


class InterruptKernel(OfRun, frozen=True):
    """Interrupt what the kernel executes, by signal or by message."""


class SignalGroup(OfRun, frozen=True):
    """Send a signal to the process group of the run."""

    signum: int


class WatchIdle(OfRun, frozen=True):
    """Tell once, by BecameIdle, when the kernel executes nothing."""


class AwaitRoom(OfRun, frozen=True):
    """Tell once, by RoomMade, when there is room for the kernel with these settings."""

    config: KernelConfig


class Apply(OfKernel, frozen=True):
    """Other settings are in force for the kernel from now on (live keys)."""

    config: KernelConfig


class Renew(OfKernel, frozen=True):
    """Give the kernel a new address at its next spawn."""


class Withdraw(OfKernel, frozen=True):
    """The kernel is stopped: remove its connection file, keep its address."""


class Forget(OfKernel, frozen=True):
    """The kernel is no longer declared: remove all that is kept for it."""


class Publish(OfKernel, frozen=True):
    """A transition that the world is told about (one line of log)."""

    event: str
    level: str
    generation: int
    pid: int | None
    fields: Mapping[str, object]


class Refuse(OfKernel, frozen=True):
    """The order is not carried out, and why."""

    message: str


Reached = AskToExit | InterruptKernel | SignalGroup | WatchIdle
Effect = Spawn | Park | Discard | Adopt | Reached | AwaitRoom | Apply | Renew | Withdraw | Forget
Action = Effect | Publish | Refuse
