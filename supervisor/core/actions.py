"""What is to be done: the closed list of what ``decide`` asks for.

The runner starts an effect for each and never waits for it; the answer comes
back as a fact.  Spawn is answered once by Spawned, SpawnFailed or NoRoom, and each
Spawned or Adopt is followed once by Exited.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from supervisor.core.model import Identity
from supervisor.settings.config import KernelConfig


class Spawn(Struct, frozen=True):
    """Launch a process for this run with these settings."""

    kernel: str
    generation: int
    config: KernelConfig
    spare: int | None = None


class Park(Struct, frozen=True):
    """Have a spare kernel that waits; answered by SpareParked, and by SpareEnded once it is of no use."""

    kernel: str
    number: int
    config: KernelConfig


class Discard(Struct, frozen=True):
    """End a spare."""

    kernel: str
    number: int


class Adopt(Struct, frozen=True):
    """Watch what an earlier supervisor launched; answered by Ready unless it was ``ready``."""

    kernel: str
    generation: int
    process: Identity
    config: KernelConfig
    ready: bool = False


class AskToExit(Struct, frozen=True):
    """Interrupt it if it is busy and ``interrupt``, then send a ``shutdown_request`` on control."""

    kernel: str
    generation: int
    restart: bool = False
    interrupt: bool = True


class InterruptKernel(Struct, frozen=True):
    """Interrupt what the kernel executes, by signal or by message."""

    kernel: str
    generation: int


class SignalGroup(Struct, frozen=True):
    """Send a signal to the process group of the run."""

    kernel: str
    generation: int
    signum: int


class WatchIdle(Struct, frozen=True):
    """Tell once, by BecameIdle, when the kernel executes nothing."""

    kernel: str
    generation: int


class AwaitRoom(Struct, frozen=True):
    """Tell once, by RoomMade, when there is room for the kernel with these settings."""

    kernel: str
    generation: int
    config: KernelConfig


class Apply(Struct, frozen=True):
    """Other settings are in force for the kernel from now on (live keys)."""

    kernel: str
    config: KernelConfig


class Renew(Struct, frozen=True):
    """Give the kernel a new address at its next spawn."""

    kernel: str


class Withdraw(Struct, frozen=True):
    """The kernel is stopped: remove its connection file, keep its address."""

    kernel: str


class Forget(Struct, frozen=True):
    """The kernel is no longer declared: remove all that is kept for it."""

    kernel: str


class Publish(Struct, frozen=True):
    """A transition that the world is told about (one line of log)."""

    kernel: str
    event: str
    level: str
    generation: int
    pid: int | None
    fields: Mapping[str, object]


class Refuse(Struct, frozen=True):
    """The order is not carried out, and why."""

    kernel: str
    message: str


Reached = AskToExit | InterruptKernel | SignalGroup | WatchIdle
Effect = Spawn | Park | Discard | Adopt | Reached | AwaitRoom | Apply | Renew | Withdraw | Forget
Action = Effect | Publish | Refuse
