"""What can happen: the closed list of messages that ``decide`` understands.

Orders are imperative and come from people and programs; facts are past and
come from the machine.  A fact names the generation that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from supervisor.core.model import (
    AS_EVER,
    Begun,
    Check,
    Death,
    Exit,
    Identity,
    JobId,
    OfKernel,
    OfRun,
    OfSpare,
    Queue,
    Reason,
    Want,
)
from supervisor.settings.config import KernelConfig

# Orders


class KernelOrder(OfKernel, frozen=True, kw_only=True):
    """An order to one kernel; with ``if_generation`` only as long as that is its latest run."""

    if_generation: int | None = None


class Start(KernelOrder, frozen=True):
    """Want the kernel up."""


class Stop(KernelOrder, frozen=True):
    """Want the kernel down; ``now`` begins the ladder at SIGKILL."""

    now: bool = False


class Restart(KernelOrder, frozen=True):
    """Want a new run of the kernel; ``new_ports`` gives it a new address."""

    now: bool = False
    new_ports: bool = False


class Interrupt(KernelOrder, frozen=True):
    """Interrupt what the kernel executes."""


class SendSignal(KernelOrder, frozen=True):
    """Send a signal to the kernel's process group."""

    signum: int


class Reset(KernelOrder, frozen=True):
    """Clear the failures of the kernel and start it."""


class Shutdown(Struct, frozen=True):
    """Stop every kernel; start none afterwards.  ``now`` goes straight to SIGKILL."""

    now: bool = False


class Load(Struct, frozen=True):
    """These kernels are declared, and no others."""

    kernels: Mapping[str, KernelConfig]
    max_concurrent_starts: int = 4


# Facts


class Survivor(Struct, frozen=True):
    """A kernel that an earlier supervisor left on record.

    ``process`` is alive and verified, or a job, of which that is learnt later;
    ``exit`` is set instead, and ``ended`` as far as it is known, when the run
    ended while nobody watched; all are ``None`` when it had no run.
    ``want`` is ``None`` after an orderly shutdown: the file decides then.
    ``failures`` are monotonic instants of this boot.
    ``stopping``: why the run was being stopped, if it was.
    """

    kernel: str
    launched: KernelConfig
    generation: int
    want: Want | None
    process: Identity | None = None
    ready: bool = False
    uptime: float = 0.0
    exit: Exit | None = None
    failures: tuple[float, ...] = ()
    streak: int = 0
    restarts: int = 0
    failed: str = ""
    deaths: tuple[Death, ...] = ()
    ended: Identity | None = None
    stopping: Reason | None = None


class Found(Struct, frozen=True):
    """What an earlier supervisor left on record; comes once, before the first Load.

    ``declared`` is what that Load will declare: what happened while nobody
    watched is judged by the file in force.
    """

    survivors: tuple[Survivor, ...]
    declared: Mapping[str, KernelConfig] = field(default_factory=dict)


class Spawned(OfRun, frozen=True):
    """The process of this run exists, or its job was handed in."""

    process: Identity
    begun: Begun = AS_EVER


class Enqueued(OfRun, frozen=True):
    """The cluster has this run wait; may be told again, with another ``queue``."""

    job: JobId
    queue: Queue


class Began(OfRun, frozen=True):
    """The run that a cluster was given has begun."""

    job: JobId


class SpawnFailed(OfRun, frozen=True):
    """This run has no process and will not have one."""

    exit: Exit


class NoRoom(OfRun, frozen=True):
    """Nothing was begun of this run: the machine has no room for it; ``reason`` says of what."""

    reason: str


class RoomMade(OfRun, frozen=True):
    """There may be room now; answers AwaitRoom."""


class Ready(OfRun, frozen=True):
    """The kernel answered its heartbeat and ``kernel_info``; ``connect`` is the command that reaches it."""

    connect: str = ""


class Missed(OfRun, frozen=True):
    """A check was not answered within its interval; ``stacks`` are what the kernel's threads do."""

    check: Check
    stacks: tuple[str, ...] = ()


class Answered(OfRun, frozen=True):
    """A check was answered; need be told only after a miss."""

    check: Check


class BecameIdle(OfRun, frozen=True):
    """The kernel executes nothing; answers WatchIdle."""


class Escaped(OfRun, frozen=True):
    """Children of an ended run live on outside its process group; told, whatever runs by now."""

    pids: tuple[int, ...]


class Noted(OfRun, frozen=True):
    """Something about the helpers of a kernel, its zygote say; told, whatever runs by now."""

    event: str
    fields: Mapping[str, object]


class SpareParked(OfSpare, frozen=True):
    """The spare of this number has done all but bind, and waits."""


class SpareEnded(OfSpare, frozen=True):
    """The spare of this number is of no use any more, and why."""

    reason: str


class Exited(OfRun, frozen=True):
    """The process of this run has ended."""

    exit: Exit


class Tick(Struct, frozen=True):
    """Time has passed; the alarm went off."""


class Delayed(Struct, frozen=True):
    """Nobody looked for so many seconds: the supervisor itself was stopped (SIGSTOP, a debugger)."""

    seconds: float


Order = Start | Stop | Restart | Interrupt | SendSignal | Reset
Launched = Spawned | SpawnFailed | NoRoom | RoomMade | Enqueued | Began
RunFact = Launched | Ready | Missed | Answered | BecameIdle | Exited
Fact = RunFact | SpareParked | SpareEnded | Escaped | Noted
Event = Order | Fact | Shutdown | Load | Found | Tick | Delayed
