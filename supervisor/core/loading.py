"""What a file, or the records of an earlier supervisor, make of the kernels.

Comparing what is declared with what was launched is all there is to it, for a
first start, an edit, and a supervisor that takes up living kernels alike.
"""

from __future__ import annotations

from math import inf

from msgspec.structs import replace

from supervisor.core.actions import Action, Adopt, Apply, Forget, WatchIdle, Withdraw
from supervisor.core.events import Found, Load, Survivor
from supervisor.core.health import rejudged
from supervisor.core.lifecycle import (
    Change,
    Transition,
    begin_stop,
    died,
    ended,
    forgive,
    pending_keys,
    queue,
    queue_deadline,
)
from supervisor.core.model import (
    Backoff,
    Exit,
    Failed,
    Identity,
    JobId,
    Kernel,
    Queue,
    Queued,
    Reason,
    Running,
    Starting,
    State,
    Step,
    Stopped,
    Stopping,
    Want,
    identity_of,
)
from supervisor.core.orders import start, stop
from supervisor.core.telling import say
from supervisor.settings.config import KernelConfig, changed_launch_keys, judged_by


def load(state: State, event: Load, now: float) -> tuple[State, list[Action]]:
    """Declare exactly these kernels, in this order."""
    kernels: dict[str, Kernel] = {}
    actions: list[Action] = []
    for name in (*event.kernels, *(name for name in state.kernels if name not in event.kernels)):
        kernel, done = _declare(state.kernels.get(name), event.kernels.get(name), now)
        actions += done
        if kernel is not None:
            kernels[name] = kernel
    return replace(state, kernels=kernels, max_concurrent_starts=event.max_concurrent_starts), actions


def _declare(kernel: Kernel | None, declared: KernelConfig | None, now: float) -> Transition:
    if declared is None:
        assert kernel is not None, "the name comes from the state"
        return _remove(kernel, now)
    if kernel is None:
        return _begin(Kernel(declared.name, declared, Want.DOWN), now), []
    if kernel.phase == Stopped() and kernel.want is Want.UP:
        return _begin(replace(kernel, declared=declared, want=Want.DOWN), now), []
    if kernel.declared == declared:
        return kernel, []
    return _edit(kernel, declared, now)


def _begin(kernel: Kernel, now: float) -> Kernel:
    """A kernel that nobody has decided about yet: the file says whether it starts."""
    assert kernel.declared is not None, "only declared kernels begin"
    return queue(kernel, now) if kernel.declared.enabled and kernel.declared.autostart else kernel


def _remove(kernel: Kernel, now: float) -> Transition:
    if kernel.declared is None:
        return kernel, []
    match kernel.phase:
        case Starting() | Running() | Stopping():
            stopping, actions = stop(kernel, Reason.REMOVED, Step.ASK, now)
            assert stopping is not None, "a kernel with a run is kept until the run ends"
            return replace(stopping, declared=None), actions
        case _:
            return None, [Forget(kernel.name), say(kernel, "kernel.removed")]


def _edit(kernel: Kernel, new: KernelConfig, now: float) -> Transition:
    old, edited = kernel.declared, replace(kernel, declared=new)
    actions: list[Action] = [Apply(new.name, new)] if identity_of(edited) is not None else []
    if old is not None:
        edited = _retimed(edited, old, new, now)
        edited, told = rejudged(edited, old, new)
        actions += told
    if not new.enabled:
        stopped, done = stop(edited, Reason.DISABLED, Step.ASK, now)
        return stopped, actions + done
    if old is None or not old.enabled:
        edited = start(edited, now) if new.autostart else edited
    relaunched, done = _relaunch(edited, old, new, now)
    return relaunched, actions + done


def _retimed(kernel: Kernel, old: KernelConfig, new: KernelConfig, now: float) -> Kernel:
    """A start or a polite stop under way is given the edited time, counted from when its time began.

    The deadline is moved by the difference: an adopted start counts from its
    adoption, and the edit of another key must not end it.
    """
    match kernel.phase:
        case Starting(queue=Queue(), since=since) as start:
            return replace(kernel, phase=replace(start, deadline=queue_deadline(new, since)))
        case Starting(process=run, deadline=at) as start if run is not None and at is not None:
            moved = _moved(at, old.start_timeout, new.start_timeout, now)
            return replace(kernel, phase=replace(start, deadline=moved))
        case Stopping(step=Step.ASK, process=run) as ask if run is not None:
            moved = _moved(ask.deadline, old.stop_timeout, new.stop_timeout, now)
            return replace(kernel, phase=replace(ask, deadline=moved))
        case _:
            return kernel


def _moved(deadline: float, old: float, new: float, now: float) -> float:
    return now + new if deadline == inf else deadline - old + new


def _relaunch(kernel: Kernel, old: KernelConfig | None, new: KernelConfig, now: float) -> Transition:
    """Give the kernel its new launch settings, in the way that the operator chose."""
    match kernel.phase:
        case Starting() | Running() if kernel.want is Want.UP and pending_keys(kernel):
            if new.on_config_change == "manual":
                return kernel, []
            if waits_for_idle(kernel):
                # One watch is enough: it outlives an edit of other keys.
                watched = waits_for_idle(replace(kernel, declared=old))
                return kernel, [] if watched else [WatchIdle(kernel.name, kernel.generation)]
            return begin_stop(forgive(kernel), Step.ASK, Reason.EDITED, now)
        case Backoff() | Failed() if kernel.want is Want.UP and old and changed_launch_keys(old, new):
            return queue(forgive(kernel), now), []
        case _:
            return kernel, []


def waits_for_idle(kernel: Kernel) -> bool:
    """Whether the kernel gets its edited settings once it executes nothing."""
    chosen = kernel.declared is not None and kernel.declared.on_config_change == "when-idle"
    return chosen and isinstance(kernel.phase, Running) and bool(pending_keys(kernel))


def became_idle(kernel: Kernel, now: float) -> Transition:
    """It executes nothing: the moment that an edit with ``when-idle`` waits for."""
    if waits_for_idle(kernel):
        return begin_stop(forgive(kernel), Step.ASK, Reason.EDITED, now)
    return kernel, []


def found(state: State, event: Found, now: float) -> tuple[State, list[Action]]:
    """Take up what an earlier supervisor left on record; a kernel known already is left as it is."""
    kernels: dict[str, Kernel] = dict(state.kernels)
    actions: list[Action] = []
    for survivor in event.survivors:
        if survivor.kernel not in kernels:
            declared = event.declared.get(survivor.kernel)
            kernels[survivor.kernel], done = _take_up(survivor, declared, now)
            actions += done
    return replace(state, kernels=kernels), actions


def _take_up(survivor: Survivor, declared: KernelConfig | None, now: float) -> Change:
    kernel = Kernel(
        survivor.kernel,
        survivor.launched,
        _wanted(survivor, declared),
        Stopped(),
        survivor.generation,
        survivor.failures,
        survivor.streak,
        survivor.restarts,
        survivor.deaths,
    )
    if survivor.want is None:
        # It ended in an orderly shutdown, or was about to, which is no death.
        kernel = forgive(kernel)
    if survivor.process is not None:
        return _adopt(kernel, survivor.process, survivor, now)
    # The earlier supervisor may have ended before it removed the connection file.
    withdraw: list[Action] = [Withdraw(kernel.name)]
    if survivor.want is None:
        # Stopped while wanted up: the file decides.
        return kernel, withdraw
    if survivor.failed:
        return replace(kernel, phase=Failed(survivor.failed)), withdraw
    if survivor.want is Want.DOWN:
        # As stopped as it was to be, also if by now the file wants it up again.
        return kernel, withdraw
    if survivor.exit is not None:
        if declared is not None:
            # Its launch keys stay those on record, so that the Load sees what was edited.
            kernel = replace(kernel, declared=judged_by(survivor.launched, declared))
        return _bury(kernel, survivor, survivor.exit, now)
    return _due(kernel, now), []


def _wanted(survivor: Survivor, declared: KernelConfig | None) -> Want:
    """What is wanted of it; after an orderly shutdown the file says it, also of one that still stops.

    And it takes back what an earlier file has begun.
    """
    starts = declared is not None and declared.enabled and declared.autostart
    if survivor.want is Want.DOWN and survivor.stopping in (Reason.REMOVED, Reason.DISABLED):
        return Want.UP if starts else Want.DOWN
    if survivor.want is not None:
        return survivor.want
    is_stopping = survivor.process is not None and survivor.stopping is not None
    return Want.DOWN if is_stopping and not starts else Want.UP


def _adopt(kernel: Kernel, process: Identity, survivor: Survivor, now: float) -> Change:
    launched, since = survivor.launched, now - survivor.uptime
    actions: list[Action] = [Adopt(kernel.name, kernel.generation, process, launched, survivor.ready)]
    if survivor.ready:
        adopted = replace(kernel, phase=Running(launched, process, since))
    else:
        # What has become of a job is not known yet: whoever watches it learns that.
        queue = Queue() if isinstance(process, JobId) else None
        deadline = now + launched.start_timeout if queue is None else queue_deadline(launched, since)
        adopted = replace(kernel, phase=Starting(launched, since, process, deadline, queue=queue))
    actions.append(say(adopted, "kernel.adopted"))
    if survivor.stopping is None and kernel.want is Want.UP:
        return adopted, actions
    # Gone on with, from the beginning: what it was asked may not have reached it.
    reason = Reason.SHUTDOWN if survivor.want is None else survivor.stopping or Reason.ORDERED
    is_fault = reason in (Reason.START_TIMEOUT, Reason.UNRESPONSIVE)
    stopping, done = begin_stop(adopted, Step.KILL if is_fault else Step.ASK, reason, now)
    return stopping, actions + done


def _bury(kernel: Kernel, survivor: Survivor, exit: Exit, now: float) -> Change:
    launched, since = survivor.launched, now - survivor.uptime
    # With the phase in which it ended, so that the end is told as what it is, of the process that it was.
    if survivor.stopping is not None:
        phase = Stopping(launched, survivor.ended, Step.KILL, since, inf, survivor.stopping, since)
        dead, actions = ended(replace(kernel, phase=phase), exit, now, while_unsupervised=True)
    else:
        if survivor.ended is not None:
            kernel = replace(kernel, phase=Running(launched, survivor.ended, since))
        dead, actions = died(kernel, exit, now, survivor.uptime, while_unsupervised=True)
    assert dead is not None, "it is declared, as on record"
    return (_due(dead, now) if isinstance(dead.phase, Queued) else dead), actions


def _due(kernel: Kernel, now: float) -> Kernel:
    """To be started at once, but not before the Load that follows has removed or edited it."""
    return replace(kernel, phase=Backoff(now, 0.0, kernel.streak))
