"""What each order makes of a kernel, in every phase.

Owns the rows of the table in ARCHITECTURE.md that people and programs cause.
"""

from __future__ import annotations

from msgspec.structs import replace

from supervisor.core.actions import Action, InterruptKernel, Refuse, Renew, SignalGroup
from supervisor.core.events import Interrupt, Order, Reset, Restart, SendSignal, Start, Stop
from supervisor.core.lifecycle import Transition, begin_stop, forgive, harden, queue, rest
from supervisor.core.model import (
    Backoff,
    Failed,
    Kernel,
    Queued,
    Reason,
    Running,
    Starting,
    Step,
    Stopped,
    Stopping,
    Waiting,
    Want,
    identity_of,
)
from supervisor.core.telling import say


def obey(kernel: Kernel, order: Order, now: float) -> Transition:
    """Carry out an order, or refuse it with a reason."""
    if order.if_generation is not None and order.if_generation != kernel.generation:
        what = f'kernel "{kernel.name}" is at run {kernel.generation}, not {order.if_generation}'
        return kernel, [Refuse(kernel.name, f"{what}: look at it and order anew")]
    match order:
        case Start() | Restart() | Reset() if refusal := _reason_not_to_start(kernel):
            return kernel, [Refuse(kernel.name, refusal)]
        case Start():
            return start(kernel, now), []
        case Reset():
            return start(forgive(kernel), now), []
        case Stop():
            return stop(kernel, Reason.ORDERED, Step.KILL if order.now else Step.ASK, now)
        case Restart():
            restarted, actions = restart(kernel, Step.KILL if order.now else Step.ASK, now)
            return restarted, [Renew(kernel.name), *actions] if order.new_ports else actions
        case Interrupt():
            return _interrupt(kernel)
        case _:
            assert isinstance(order, SendSignal), "the list of orders is closed"
            return _signal(kernel, order.signum)


def _reason_not_to_start(kernel: Kernel) -> str | None:
    if kernel.declared is None:
        return f'kernel "{kernel.name}" has left the file and is being stopped'
    if not kernel.declared.enabled:
        return f'kernel "{kernel.name}" is disabled: set enabled = true in the file'
    return None


def start(kernel: Kernel, now: float) -> Kernel:
    """Want it up."""
    match kernel.phase:
        case Stopped() | Waiting() | Backoff():
            return queue(kernel, now)
        case Failed():
            return queue(forgive(kernel), now)
        case _:
            return replace(kernel, want=Want.UP)


def stop(kernel: Kernel, reason: Reason, step: Step, now: float) -> Transition:
    """Want it down; never takes back a step of the ladder that was taken already."""
    down = replace(kernel, want=Want.DOWN)
    match kernel.phase:
        case Stopped() | Failed():
            return down, []
        case Queued() | Waiting() | Backoff():
            return rest(down, [say(kernel, "kernel.stopped", reason=reason.value)])
        case Starting() | Running():
            return begin_stop(down, step, reason, now)
        case Stopping(reason=Reason.REMOVED | Reason.DISABLED) as phase if kernel.want is Want.UP:
            # The file has had it again: whoever stops it now is the reason that it stays down.
            return harden(replace(down, phase=replace(phase, reason=reason)), step, now)
        case _:
            return harden(down, step, now)


def restart(kernel: Kernel, step: Step, now: float) -> tuple[Kernel, list[Action]]:
    """Want a new run: a stop while wanted up."""
    match kernel.phase:
        case Starting() | Running():
            return begin_stop(replace(kernel, want=Want.UP), step, Reason.ORDERED, now)
        case Stopping():
            return harden(replace(kernel, want=Want.UP), step, now)
        case _:
            return start(kernel, now), []


def _interrupt(kernel: Kernel) -> Transition:
    # Not before it is ready: SIGINT in the first 100 ms kills a starting ipykernel.
    if not isinstance(kernel.phase, Running):
        return kernel, [Refuse(kernel.name, f'kernel "{kernel.name}" is not running')]
    return kernel, [InterruptKernel(kernel.name, kernel.generation), say(kernel, "kernel.interrupted")]


def _signal(kernel: Kernel, signum: int) -> Transition:
    if identity_of(kernel) is None:
        return kernel, [Refuse(kernel.name, f'kernel "{kernel.name}" has no process')]
    return kernel, [
        SignalGroup(kernel.name, kernel.generation, signum),
        say(kernel, "kernel.signalled", signum=signum),
    ]
