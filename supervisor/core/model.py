"""The state of the supervised kernels, as frozen values.

Owns the words of the domain: what is wanted, what is so, and what was learnt
about a process that ended.  Never reads a clock and never touches the machine.
Instants are monotonic seconds that the caller supplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum, StrEnum

from msgspec import Struct, field

from supervisor.settings.config import KernelConfig


class OfKernel(Struct, frozen=True):
    """What is about one kernel."""

    kernel: str


class OfRun(OfKernel, frozen=True):
    """What is about one run of it."""

    generation: int


class OfSpare(OfKernel, frozen=True):
    """What is about one of its spares."""

    number: int


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


class ProcessId(Struct, frozen=True):
    """A process, beyond doubt: a pid alone is used again by the next process.

    ``start_time`` is field 22 of ``/proc/PID/stat`` in clock ticks since boot
    (proc(5)); ``boot_id`` is ``/proc/sys/kernel/random/boot_id``.
    """

    pid: int
    start_time: int
    boot_id: str


class JobId(Struct, frozen=True):
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


class Queue(Struct, frozen=True):
    """Why a run that a cluster was given has not begun, and when it is to (ISO 8601; empty: not known)."""

    reason: str = ""
    estimate: str = ""


class Executing(Struct, frozen=True):
    """The cell that a process executed: its number, since when (ISO 8601, UTC), the begin of its code."""

    count: int
    since: str
    code: str = ""

    def __repr__(self) -> str:
        return f"Executing(count={self.count}, since={self.since!r})"  # no code of others in a log


class Exit(Struct, frozen=True):
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


class Death(Struct, frozen=True):
    """A run that ended: which, when (monotonic), after how many seconds, and how."""

    generation: int
    pid: int | None
    at: float
    uptime: float
    exit: Exit


# Phases: each carries only what is true in it.


class Stopped(Struct, frozen=True):
    """No process, and none is due."""


class Queued(Struct, frozen=True):
    """To be started as soon as fewer than ``max_concurrent_starts`` are starting."""

    since: float


class Waiting(Struct, frozen=True):
    """To be started as soon as the machine has room for it; ``reason`` says what there is too little of."""

    since: float
    reason: str


class Begun(Struct, frozen=True):
    """How a run was begun: "cold", "prepared" or "fork", and why no warmer; empty: not known."""

    how: str = ""
    why: str = ""


AS_EVER = Begun()


class Starting(Struct, frozen=True):
    """Being launched, and not ready yet; ``process`` is known once it is spawned.

    ``queue``: as long as a cluster has it wait; it takes no slot, and the time of its start has not begun.
    """

    launched: KernelConfig
    since: float
    process: Identity | None = None
    deadline: float | None = None
    begun: Begun = AS_EVER
    queue: Queue | None = None


class Running(Struct, frozen=True):
    """Ready, as far as is known; ``since`` is its spawn, ``missed`` counts unanswered checks in a row."""

    launched: KernelConfig
    process: Identity
    since: float
    missed: Mapping[Check, int] = field(default_factory=dict)
    begun: Begun = AS_EVER


class Stopping(Struct, frozen=True):
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


class Backoff(Struct, frozen=True):
    """Died, and is started again at ``until``."""

    until: float
    delay: float
    attempt: int


class Failed(Struct, frozen=True):
    """Given up; a person is needed."""

    reason: str


# The spare of a running kernel, which takes its place at its death.


class Growing(Struct, frozen=True):
    """On its way: it is started, and runs the start-up code."""

    number: int
    launched: KernelConfig
    deadline: float


class Parked(Struct, frozen=True):
    """It waits, and listens nowhere."""

    number: int
    launched: KernelConfig
    since: float


class Resting(Struct, frozen=True):
    """The last one came to nothing; the next is tried at ``until``."""

    until: float


Spare = Growing | Parked | Resting
Phase = Stopped | Queued | Waiting | Starting | Running | Stopping | Backoff | Failed


class Kernel(Struct, frozen=True):
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


class State(Struct, frozen=True):
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


def is_to_run(kernel: Kernel) -> bool:
    """Whether the kernel has a run, or will have one as soon as may be."""
    return kernel.want is Want.UP and not isinstance(kernel.phase, Stopped | Failed)
