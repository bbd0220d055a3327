"""The state of the supervised kernels, as frozen values.

Owns the words of the domain: what is wanted, what is so, and what was learnt
about a process that ended.  Never reads a clock and never touches the machine.
Instants are monotonic seconds that the caller supplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum

from supervisor.settings.config import KernelConfig


class Want(StrEnum):
    """What the operator wants of a kernel."""

    UP = "up"
    DOWN = "down"


class Step(IntEnum):
    """The rungs of the stop ladder, harder with each."""

    ASK = 1
    TERMINATE = 2
    KILL = 3


class Course(Enum):
    """Whether the supervisor goes on or is on its way out."""

    SERVING = "serving"
    CLOSING = "closing"


class Cause(StrEnum):
    """Why a run of a kernel ended."""

    EXITED = "exited"
    CRASHED = "crashed"
    KILLED = "killed"
    OOM = "oom"
    START_TIMEOUT = "start-timeout"
    UNRESPONSIVE = "unresponsive"
    PORT_TAKEN = "port-taken"
    NOT_FOUND = "not-found"
    STARTUP = "startup"
    TIME_LIMIT = "time-limit"
    NODE_FAILED = "node-failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Reason(StrEnum):
    """Why a running kernel is being stopped."""

    ORDERED = "ordered"
    EDITED = "edited"
    DISABLED = "disabled"
    REMOVED = "removed"
    SHUTDOWN = "shutdown"
    START_TIMEOUT = "start-timeout"
    UNRESPONSIVE = "unresponsive"


class Check(StrEnum):
    """The two ways in which a running kernel is asked whether it is well."""

    HEARTBEAT = "heartbeat"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process, beyond doubt: a pid alone is used again by the next process.

    ``start_time`` is field 22 of ``/proc/PID/stat`` in clock ticks since boot
    (proc(5)); ``boot_id`` is ``/proc/sys/kernel/random/boot_id``.
    """

    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class JobId:
    """A job of a cluster, beyond doubt: its number alone is given again by a controller that forgot it.

    ``name`` is that of all jobs of its kernel, ``mark`` that of its run.  ``number`` is empty as long
    as nobody knows whether there is such a job, ``submitted`` (as the cluster writes it) until it was seen,
    ``node`` until it has begun.
    """

    name: str
    mark: str
    number: str = ""
    cluster: str = ""
    submitted: str = ""
    node: str = ""

    @property
    def pid(self) -> None:
        """It has none here."""


# What a run is, for the machine: it only ever asks whether there is one.
Identity = ProcessId | JobId


@dataclass(frozen=True, slots=True)
class Queue:
    """Why a run that a cluster was given has not begun, and when it is to (ISO 8601; empty: not known)."""

    reason: str = ""
    estimate: str = ""


@dataclass(frozen=True, slots=True)
class Executing:
    """The cell that a process executed: its number, since when (ISO 8601, UTC), the begin of its code."""

    count: int
    since: str
    code: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, as far as it is known.

    ``code`` is the exit code and ``signal`` the name of the signal that ended
    it; both are ``None`` when the operating system does not tell.
    ``is_passing``: there was no process because the machine had no room for one
    (fork(2): EAGAIN; a full disk), which says nothing about the kernel.
    """

    cause: Cause
    code: int | None = None
    signal: str | None = None
    output_tail: tuple[str, ...] = ()
    detail: str = ""
    is_passing: bool = False
    executing: Executing | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """A run that ended: which, when (monotonic), after how many seconds, and how."""

    generation: int
    pid: int | None
    at: float
    uptime: float
    exit: Exit


# Phases: each carries only what is true in it.


@dataclass(frozen=True, slots=True)
class Stopped:
    """No process, and none is due."""


@dataclass(frozen=True, slots=True)
class Queued:
    """To be started as soon as fewer than ``max_concurrent_starts`` are starting."""

    since: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """To be started as soon as the machine has room for it; ``reason`` says what there is too little of."""

    since: float
    reason: str


@dataclass(frozen=True, slots=True)
class Begun:
    """How a run was begun: "cold", "prepared" or "fork", and why no warmer; empty: not known."""

    how: str = ""
    why: str = ""


AS_EVER = Begun()


@dataclass(frozen=True, slots=True)
class Starting:
    """Being launched, and not ready yet; ``process`` is known once it is spawned.

    ``queue``: as long as a cluster has it wait; it takes no slot, and the time of its start has not begun.
    """

    launched: KernelConfig
    since: float
    process: Identity | None = None
    deadline: float | None = None
    begun: Begun = AS_EVER
    queue: Queue | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """Ready, as far as is known; ``since`` is its spawn, ``missed`` counts unanswered checks in a row."""

    launched: KernelConfig
    process: Identity
    since: float
    missed: Mapping[Check, int] = field(default_factory=dict)
    begun: Begun = AS_EVER


@dataclass(frozen=True, slots=True)
class Stopping:
    """On the stop ladder; ``process`` is not known while the spawn is in flight.

    ``ready``: it was Running before.
    """

    launched: KernelConfig
    process: Identity | None
    step: Step
    since: float
    deadline: float
    reason: Reason
    spawned_at: float
    ready: bool = False


@dataclass(frozen=True, slots=True)
class Backoff:
    """Died, and is started again at ``until``."""

    until: float
    delay: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Given up; a person is needed."""

    reason: str


# The spare of a running kernel, which takes its place at its death.


@dataclass(frozen=True, slots=True)
class Growing:
    """On its way: it is started, and runs the start-up code."""

    number: int
    launched: KernelConfig
    deadline: float


@dataclass(frozen=True, slots=True)
class Parked:
    """It waits, and listens nowhere."""

    number: int
    launched: KernelConfig
    since: float


@dataclass(frozen=True, slots=True)
class Resting:
    """The last one came to nothing; the next is tried at ``until``."""

    until: float


Spare = Growing | Parked | Resting
Phase = Stopped | Queued | Waiting | Starting | Running | Stopping | Backoff | Failed


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel across its runs.

    ``declared`` is ``None`` once the kernel has left the file and its last run
    has not ended yet.  ``failures`` are the instants of the unwanted deaths
    within the restart window; ``streak`` counts unwanted deaths since the
    kernel last ran for a whole restart window.  ``deaths`` are the last twenty,
    the latest at the end.
    """

    name: str
    declared: KernelConfig | None
    want: Want
    phase: Phase = Stopped()
    generation: int = 0
    failures: tuple[float, ...] = ()
    streak: int = 0
    restarts: int = 0
    deaths: tuple[Death, ...] = ()
    spare: Spare | None = None
    spares: int = 0
    spare_trouble: str = ""

    @property
    def last_death(self) -> Death | None:
        """The last of its deaths, if it ever died."""
        return self.deaths[-1] if self.deaths else None


@dataclass(frozen=True, slots=True)
class State:
    """All kernels, in the order in which they were declared."""

    kernels: Mapping[str, Kernel] = field(default_factory=dict)
    max_concurrent_starts: int = 4
    course: Course = Course.SERVING


def identity_of(kernel: Kernel) -> Identity | None:
    """What the kernel's current run is, if there is one: a process or a job."""
    match kernel.phase:
        case Starting(process=process) | Running(process=process) | Stopping(process=process):
            return process
        case _:
            return None


def process_of(kernel: Kernel) -> ProcessId | None:
    """The process of the kernel's current run, if it is one of this machine."""
    run = identity_of(kernel)
    return run if isinstance(run, ProcessId) else None


def launched_of(kernel: Kernel) -> KernelConfig | None:
    """The settings that the current run was launched with, if there is a run."""
    match kernel.phase:
        case Starting(launched=config) | Running(launched=config) | Stopping(launched=config):
            return config
        case _:
            return None


def is_settled(kernel: Kernel) -> bool:
    """Whether the kernel is where it will stay until something happens to it."""
    return isinstance(kernel.phase, Stopped | Waiting | Running | Failed)
