"""The pure machine: what happens to the kernels, and what is to be done about it.

``decide`` is total: every event has an answer in every state, and it never
raises.  It never reads a clock; ``next_deadline`` is all the timer there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from msgspec.structs import replace

from supervisor.core import spare
from supervisor.core.actions import Action, Refuse
from supervisor.core.events import (
    Answered,
    BecameIdle,
    Began,
    Delayed,
    Enqueued,
    Escaped,
    Event,
    Exited,
    Fact,
    Found,
    Load,
    Missed,
    NoRoom,
    Noted,
    Ready,
    Reset,
    Restart,
    RoomMade,
    RunFact,
    Shutdown,
    SpareEnded,
    SpareParked,
    Spawned,
    SpawnFailed,
    Start,
    Tick,
)
from supervisor.core.health import answered, missed
from supervisor.core.lifecycle import (
    Transition,
    began,
    begin_stop,
    delayed,
    ended,
    enqueued,
    launch,
    no_room,
    push,
    queue,
    room_made,
    spawn_failed,
    spawned,
    too_late,
    unanswered,
)
from supervisor.core.loading import became_idle, found, load
from supervisor.core.model import (
    Backoff,
    Course,
    Growing,
    Kernel,
    Queued,
    Reason,
    Running,
    Starting,
    State,
    Step,
    Stopping,
    Want,
)
from supervisor.core.orders import obey, stop
from supervisor.core.telling import begun_fields, say

Decision = tuple[State, list[Action]]


def decide(state: State, event: Event, now: float) -> Decision:
    """The state after ``event`` at monotonic instant ``now``, and the actions that it asks for."""
    match event:
        case Load() if state.course is Course.SERVING:
            state, actions = load(state, event, now)
        case Load():
            return state, []
        case Found():
            state, actions = found(state, event, now)
            if state.course is Course.CLOSING:
                state, stopped = _shutdown(state, Shutdown(), now)
                actions += stopped
        case Shutdown():
            state, actions = _shutdown(state, event, now)
        case Tick():
            state, actions = _tick(state, now)
        case Delayed(seconds=seconds):
            return _delayed(state, seconds), []
        case _:
            before = state
            state, actions = _one_kernel(state, event, now)
            if state is before:
                return state, actions  # nobody else is concerned, however many there are
    state, started = _admit(state, now)
    if isinstance(event, Found):
        return state, actions + started  # the settings in force come with the Load
    state, tended = _tend(state, now)
    return state, actions + started + tended


def next_deadline(state: State) -> float | None:
    """The monotonic instant at which a Tick is due, if one is."""
    deadlines = [at for kernel in state.kernels.values() if (at := _deadline(kernel)) is not None]
    return min(deadlines, default=None)


def _deadline(kernel: Kernel) -> float | None:
    """When something is due about its run or its spare."""
    run = _run_deadline(kernel)
    if kernel.spare is None:
        return run
    at = min(spare.spare_deadline(kernel), inf if run is None else run)
    return at if at < inf else None


def _run_deadline(kernel: Kernel) -> float | None:
    match kernel.phase:
        case Running():  # first, as most of them run: this is asked of every kernel at every event
            return None
        # Infinite where the file says so: nothing to be woken for.
        case Starting(deadline=at) | Stopping(deadline=at) | Backoff(until=at) if at is not None and at < inf:
            return at
        case _:
            return None


def _with(state: State, changed: Iterable[tuple[str, Kernel | None]]) -> State:
    kernels = dict(state.kernels)
    for name, kernel in changed:
        if kernel is None:
            del kernels[name]
        else:
            kernels[name] = kernel
    return replace(state, kernels=kernels)


def _one_kernel(state: State, event: Event, now: float) -> Decision:
    assert not isinstance(event, Load | Found | Shutdown | Tick | Delayed), "those are about all kernels"
    kernel = state.kernels.get(event.kernel)
    if isinstance(event, Escaped | Noted):
        return state, [_told_aside(event)]
    if isinstance(event, Spawned) and (kernel is None or kernel.generation != event.generation):
        return state, [too_late(event.kernel, event.generation)]
    if kernel is None:
        if isinstance(event, Fact):
            return state, []
        return state, [Refuse(event.kernel, f'no kernel "{event.kernel}" is declared')]
    after: Kernel | None
    if isinstance(event, SpareParked | SpareEnded):
        after, actions = spare.learn(kernel, event, now)
    elif isinstance(event, Fact):
        if event.generation != kernel.generation:
            return state, []
        after, actions = _learn(kernel, event, now)
    elif isinstance(event, Start | Restart | Reset) and state.course is Course.CLOSING:
        return state, [Refuse(kernel.name, "the supervisor is stopping")]
    else:
        after, actions = obey(kernel, event, now)
    if after is kernel:
        return state, actions
    return _with(state, [(kernel.name, after)]), actions


def _told_aside(event: Escaped | Noted) -> Action:
    """What is told whatever has become of the kernel since."""
    past = Kernel(event.kernel, None, Want.DOWN, generation=event.generation)
    if isinstance(event, Noted):
        return say(past, event.event, **event.fields)
    return say(past, "kernel.escaped", pids=list(event.pids))


def _learn(kernel: Kernel, fact: RunFact, now: float) -> Transition:
    match fact:
        case Spawned(process=process, begun=begun):
            return spawned(kernel, process, now, begun)
        case SpawnFailed(exit=exit):
            return spawn_failed(kernel, exit, now)
        case NoRoom(reason=reason):
            return no_room(kernel, reason, now)
        case RoomMade():
            return room_made(kernel, now)
        case Exited(exit=exit):
            return ended(kernel, exit, now)
        case Ready(connect=connect):
            return _ready(kernel, connect, now)
        case Enqueued() | Began():
            return _placed(kernel, fact, now)
        case Missed(check=check, stacks=stacks):
            return missed(kernel, check, now, stacks)
        case Answered(check=check):
            return answered(kernel, check)
        case _:
            assert isinstance(fact, BecameIdle), "the list of facts is closed"
            return became_idle(kernel, now)


def _placed(kernel: Kernel, fact: Enqueued | Began, now: float) -> Transition:
    if isinstance(fact, Began):
        return began(kernel, fact.job, now)
    return enqueued(kernel, fact.job, fact.queue)


def _ready(kernel: Kernel, connect: str, now: float) -> Transition:
    match kernel.phase:
        case Starting(launched=launched, process=process, since=since, begun=begun) if process is not None:
            running = replace(kernel, phase=Running(launched, process, since, begun=begun))
            took = round(now - since, 3)
            return running, [say(running, "kernel.ready", took=took, connect=connect, **begun_fields(begun))]
        case _:
            return kernel, []


def _each(state: State, kernels: Iterable[Kernel], act: Callable[[Kernel], Transition]) -> Decision:
    """What becomes of the state when all these kernels do it."""
    actions: list[Action] = []
    changed: list[tuple[str, Kernel | None]] = []
    for kernel in kernels:
        after, done = act(kernel)
        actions += done
        if after is not kernel:
            changed.append((kernel.name, after))
    return (_with(state, changed) if changed else state), actions


def _shutdown(state: State, event: Shutdown, now: float) -> Decision:
    step = Step.KILL if event.now else Step.ASK
    kernels = state.kernels.values()
    state, actions = _each(state, kernels, lambda kernel: stop(kernel, Reason.SHUTDOWN, step, now))
    return replace(state, course=Course.CLOSING), actions


def _tick(state: State, now: float) -> Decision:
    deadlines = [(kernel, _run_deadline(kernel)) for kernel in state.kernels.values()]
    due = [kernel for kernel, deadline in deadlines if deadline is not None and deadline <= now]
    return _each(state, due, lambda kernel: _overdue(kernel, now))


def _delayed(state: State, seconds: float) -> State:
    """Starts and stops under way have so much more time: what became of them meanwhile is not known yet."""
    changed = [(kernel.name, delayed(kernel, seconds)) for kernel in state.kernels.values()]
    return _with(state, changed)


def _overdue(kernel: Kernel, now: float) -> Transition:
    match kernel.phase:
        case Starting(process=None) | Stopping(process=None):
            return unanswered(kernel, now)
        case Starting():
            return begin_stop(kernel, Step.KILL, Reason.START_TIMEOUT, now)
        case Stopping(step=step):
            return push(kernel, Step(min(step + 1, Step.KILL)), now)
        case _:
            return queue(kernel, now), []


def _takes_slot(kernel: Kernel) -> bool:
    return isinstance(kernel.phase, Starting) and kernel.phase.queue is None


def _admit(state: State, now: float) -> Decision:
    """Launch queued kernels, oldest first, while fewer than the limit are starting."""
    waiting = [kernel for kernel in state.kernels.values() if isinstance(kernel.phase, Queued)]
    if not waiting:
        return state, []
    starting = sum(_takes_slot(kernel) for kernel in state.kernels.values())
    slots = max(0, state.max_concurrent_starts - starting)
    waiting.sort(key=lambda kernel: kernel.phase.since if isinstance(kernel.phase, Queued) else now)
    return _each(state, waiting[:slots], lambda kernel: launch(kernel, now))


def _tend(state: State, now: float) -> Decision:
    """Spares, after everything else: none is grown beside a start, which it would take longer."""
    course, concerned = state.course, [each for each in state.kernels.values() if spare.concerns(each)]
    if not concerned:
        return state, []
    state, actions = _each(state, concerned, lambda kernel: spare.tend(kernel, course, now))
    kernels = state.kernels.values()
    if any(isinstance(kernel.phase, Queued) or _takes_slot(kernel) for kernel in kernels):
        return state, actions
    slots = state.max_concurrent_starts - sum(isinstance(kernel.spare, Growing) for kernel in kernels)
    due = [kernel for kernel in kernels if spare.is_due(kernel, course)]
    state, grown = _each(state, due[: max(0, slots)], lambda kernel: spare.grow(kernel, now))
    return state, actions + grown
