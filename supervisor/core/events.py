"""What can happen: the closed list of messages that ``decide`` understands.

Orders are imperative and come from people and programs; facts are past and
come from the machine.  A fact names the generation that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core.model import AS_EVER, Begun, Check, Death, Exit, Identity, JobId, Queue, Reason, Want
from supervisor.settings.config import KernelConfig

# Orders


@dataclass(frozen=True, slots=True)
class KernelOrder:
    """An order to one kernel; with ``if_generation`` only as long as that is its latest run."""

    kernel: str
    if_generation: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Start(KernelOrder):
    """Want the kernel up."""


@dataclass(frozen=True, slots=True)
class Stop(KernelOrder):
    """Want the kernel down; ``now`` begins the ladder at SIGKILL."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Restart(KernelOrder):
    """Want a new run of the kernel; ``new_ports`` gives it a new address."""

    now: bool = False
    new_ports: bool = False


@dataclass(frozen=True, slots=True)
class Interrupt(KernelOrder):
    """Interrupt what the kernel executes."""


@dataclass(frozen=True, slots=True)
class SendSignal(KernelOrder):
    """Send a signal to the kernel's process group."""

    signum: int


@dataclass(frozen=True, slots=True)
class Reset(KernelOrder):
    """Clear the failures of the kernel and start it."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop every kernel; start none afterwards.  ``now`` goes straight to SIGKILL."""

    now: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """These kernels are declared, and no others."""

    kernels: Mapping[str, KernelConfig]
    max_concurrent_starts: int = 4


# Facts


@dataclass(frozen=True, slots=True)
class Survivor:
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


@dataclass(frozen=True, slots=True)
class Found:
    """What an earlier supervisor left on record; comes once, before the first Load.

    ``declared`` is what that Load will declare: what happened while nobody
    watched is judged by the file in force.
    """

    survivors: tuple[Survivor, ...]
    declared: Mapping[str, KernelConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process of this run exists, or its job was handed in."""

    kernel: str
    generation: int
    process: Identity
    begun: Begun = AS_EVER


@dataclass(frozen=True, slots=True)
class Enqueued:
    """The cluster has this run wait; may be told again, with another ``queue``."""

    kernel: str
    generation: int
    job: JobId
    queue: Queue


@dataclass(frozen=True, slots=True)
class Began:
    """The run that a cluster was given has begun."""

    kernel: str
    generation: int
    job: JobId


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """This run has no process and will not have one."""

    kernel: str
    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class NoRoom:
    """Nothing was begun of this run: the machine has no room for it; ``reason`` says of what."""

    kernel: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class RoomMade:
    """There may be room now; answers AwaitRoom."""

    kernel: str
    generation: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The kernel answered its heartbeat and ``kernel_info``; ``connect`` is the command that reaches it."""

    kernel: str
    generation: int
    connect: str = ""


@dataclass(frozen=True, slots=True)
class Missed:
    """A check was not answered within its interval; ``stacks`` are what the kernel's threads do."""

    kernel: str
    generation: int
    check: Check
    stacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """A check was answered; need be told only after a miss."""

    kernel: str
    generation: int
    check: Check


@dataclass(frozen=True, slots=True)
class BecameIdle:
    """The kernel executes nothing; answers WatchIdle."""

    kernel: str
    generation: int


@dataclass(frozen=True, slots=True)
class Escaped:
    """Children of an ended run live on outside its process group; told, whatever runs by now."""

    kernel: str
    generation: int
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Noted:
    """Something about the helpers of a kernel, its zygote say; told, whatever runs by now."""

    kernel: str
    generation: int
    event: str
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class SpareParked:
    """The spare of this number has done all but bind, and waits."""

    kernel: str
    number: int


@dataclass(frozen=True, slots=True)
class SpareEnded:
    """The spare of this number is of no use any more, and why."""

    kernel: str
    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process of this run has ended."""

    kernel: str
    generation: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; the alarm went off."""


@dataclass(frozen=True, slots=True)
class Delayed:
    """Nobody looked for so many seconds: the supervisor itself was stopped (SIGSTOP, a debugger)."""

    seconds: float


Order = Start | Stop | Restart | Interrupt | SendSignal | Reset
ClusterFact = Enqueued | Began
RunFact = (
    Spawned | SpawnFailed | NoRoom | RoomMade | Ready | Missed | Answered | BecameIdle | Exited | ClusterFact
)
Fact = RunFact | SpareParked | SpareEnded | Escaped | Noted
Event = Order | Fact | Shutdown | Load | Found | Tick | Delayed
