"""One kernel's transitions: how it is started, stopped, buried and tried again.

Owns the phases and the stop ladder.  Each function takes a kernel and returns
the kernel that it becomes and what is to be done; ``machine`` says when.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from signal import SIGKILL, SIGTERM

from msgspec.structs import replace

from supervisor.core import policy, spare
from supervisor.core.actions import Action, Apply, AskToExit, AwaitRoom, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.model import (
    Backoff,
    Begun,
    Cause,
    Death,
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
    Step,
    Stopped,
    Stopping,
    Waiting,
    Want,
    identity_of,
    launched_of,
)
from supervisor.core.telling import death_fields, exit_fields, say
from supervisor.settings.config import CANCEL_PATIENCE, KernelConfig, changed_launch_keys

# Whoever launches gives up long before this by itself, unless the system hangs in the launch itself.
LAUNCH_PATIENCE = 120.0
# After stop_timeout a kernel gets this long from SIGTERM to SIGKILL: all is over within two seconds.
TERMINATE_PATIENCE = 1.0
# SIGKILL cannot be refused; a process in an uninterruptible wait takes it later.  Then again.
KILL_PATIENCE = 5.0

# What is remembered of a kernel's past.
DEATHS_KEPT = 20

Transition = tuple[Kernel | None, list[Action]]
Change = tuple[Kernel, list[Action]]


def delayed(kernel: Kernel, seconds: float) -> Kernel:
    """With so much more time for the start or the step of the ladder that is under way."""
    match kernel.phase:
        case Starting(deadline=at) | Stopping(deadline=at) as phase if at is not None:
            return replace(kernel, phase=replace(phase, deadline=at + seconds))
        case _:
            return kernel


def settings_of(kernel: Kernel) -> KernelConfig:
    """The settings in force: the declared ones, or those of the last run once it has left the file."""
    config = kernel.declared or launched_of(kernel)
    assert config is not None, "an undeclared kernel is kept only while it has a run"
    return config


def pending_keys(kernel: Kernel) -> tuple[str, ...]:
    """The edited keys that the current run does not have yet."""
    launched = launched_of(kernel)
    if launched is None or kernel.declared is None:
        return ()
    return changed_launch_keys(launched, kernel.declared)


def queue(kernel: Kernel, now: float) -> Kernel:
    """The kernel, wanted up and to be started as soon as there is a free slot."""
    return replace(kernel, want=Want.UP, phase=Queued(now))


def launch(kernel: Kernel, now: float) -> Change:
    """Begin a new run."""
    assert kernel.declared is not None, "only declared kernels are queued"
    generation = kernel.generation + 1
    phase = Starting(kernel.declared, now, deadline=now + LAUNCH_PATIENCE)
    started = replace(kernel, generation=generation, phase=phase)
    return spare.take(started, Spawn(kernel.name, generation, kernel.declared))


def forgive(kernel: Kernel) -> Kernel:
    """The kernel with a clean slate, as after an order of a person or new settings."""
    return replace(kernel, failures=(), streak=0)


def begin_stop(kernel: Kernel, step: Step, reason: Reason, now: float) -> Change:
    """Enter the stop ladder at ``step``; while the spawn is in flight, wait for its answer."""
    run = kernel.phase
    assert isinstance(run, Starting | Running), "only a run can be stopped"
    ready = isinstance(run, Running)
    if isinstance(run, Starting) and run.queue is not None:
        step = Step.KILL  # nothing of it executes: there is nobody to ask
    deadline = run.deadline if isinstance(run, Starting) and run.process is None else None
    phase = Stopping(run.launched, run.process, step, now, deadline or inf, reason, run.since, ready)
    stopping = replace(kernel, phase=phase)
    told: list[Action] = [say(stopping, "kernel.stopping", reason=reason.value)]
    stopping, actions = push(stopping, step, now)
    return stopping, told + actions


def push(kernel: Kernel, step: Step, now: float) -> Change:
    """Take a step of the stop ladder and give it its time."""
    phase = kernel.phase
    assert isinstance(phase, Stopping), "only the stop ladder has steps"
    if phase.process is None:
        return replace(kernel, phase=replace(phase, step=step)), []
    action: Action
    match step:
        case Step.ASK:
            patience = settings_of(kernel).stop_timeout
            action = AskToExit(kernel.name, kernel.generation, restart=kernel.want is Want.UP)
        case Step.TERMINATE:
            patience = TERMINATE_PATIENCE
            action = SignalGroup(kernel.name, kernel.generation, SIGTERM)
        case _:
            patience = KILL_PATIENCE if phase.launched.slurm is None else CANCEL_PATIENCE
            action = SignalGroup(kernel.name, kernel.generation, SIGKILL)
    return replace(kernel, phase=replace(phase, step=step, deadline=now + patience)), [action]


def harden(kernel: Kernel, step: Step, now: float) -> Change:
    """Climb the ladder to ``step``; never down it."""
    phase = kernel.phase
    assert isinstance(phase, Stopping), "only the stop ladder has steps"
    return push(kernel, step, now) if step > phase.step else (kernel, [])


def spawned(kernel: Kernel, process: Identity, now: float, begun: Begun) -> Change:
    """The process exists: time runs from here, and a stop that came before is carried out."""
    match kernel.phase:
        case Starting(process=None) as phase:
            # Of a job nothing has begun yet: that is told by Began.
            queue = Queue() if isinstance(process, JobId) else None
            config = settings_of(kernel)
            deadline = now + config.start_timeout if queue is None else queue_deadline(config, now)
            begins = replace(phase, process=process, since=now, deadline=deadline, begun=begun, queue=queue)
            started = replace(kernel, phase=begins)
            told: list[Action] = [say(started, "kernel.starting")]
            if kernel.declared is not None and kernel.declared != phase.launched:
                # Edited while the spawn was in flight; a run that is on its way out needs no telling.
                told.append(Apply(kernel.name, kernel.declared))
            return started, told
        case Stopping(process=None) as phase:
            known = replace(kernel, phase=replace(phase, process=process, since=now, spawned_at=now))
            pushed, actions = push(known, Step.KILL if isinstance(process, JobId) else phase.step, now)
            return pushed, [say(known, "kernel.starting"), *actions]
        case _:
            return kernel, [] if identity_of(kernel) else [too_late(kernel.name, kernel.generation)]


def queue_deadline(config: KernelConfig, since: float) -> float:
    """Until when a cluster may have a run wait that it was given at ``since``."""
    return since + ((config.slurm.queue_timeout if config.slurm is not None else 0.0) or inf)


def enqueued(kernel: Kernel, job: JobId, queue: Queue) -> Change:
    """A cluster has it wait: it takes no slot, and the time of its start does not run."""
    match kernel.phase:
        case Starting(process=run, since=since) as phase if run is not None:
            deadline = queue_deadline(settings_of(kernel), since)
            waiting = replace(kernel, phase=replace(phase, process=job, queue=queue, deadline=deadline))
            is_told = phase.queue is not None and phase.queue.reason == queue.reason and phase.process == job
            fields = {"job": job.number, "reason": queue.reason, "estimate": queue.estimate}
            return waiting, [] if is_told else [say(waiting, "kernel.queued", **fields)]
        case _:
            return kernel, []


def began(kernel: Kernel, job: JobId, now: float) -> Change:
    """It has begun: its time runs from here."""
    match kernel.phase:
        case Starting(queue=Queue()) as phase:
            deadline = now + settings_of(kernel).start_timeout
            begun = replace(phase, process=job, queue=None, since=now, deadline=deadline)
            begins = replace(kernel, phase=begun)
            return begins, [say(begins, "kernel.begun", job=job.number, node=job.node)]
        case Starting() | Running() | Stopping() as phase:
            return replace(kernel, phase=replace(phase, process=job)), []
        case _:
            return kernel, []


def too_late(kernel: str, generation: int) -> SignalGroup:
    """The end of a process whose launch was given up before it was answered: nobody waits for it."""
    return SignalGroup(kernel, generation, SIGKILL)


def unanswered(kernel: Kernel, now: float) -> Transition:
    """The launch hangs, or its answer was lost."""
    detail = f"the launch was not answered within {LAUNCH_PATIENCE:g} s: does the system hang?"
    return spawn_failed(kernel, Exit(Cause.UNKNOWN, detail=detail, is_passing=True), now)


def spawn_failed(kernel: Kernel, exit: Exit, now: float) -> Transition:
    """The run has no process: a death, unless it was to be stopped anyway."""
    match kernel.phase:
        case Starting(process=None):
            return died(kernel, exit, now, uptime=0.0)
        case Stopping(process=None) if kernel.want is Want.UP:
            return died(kernel, exit, now, uptime=0.0)
        case Stopping(process=None) as phase:
            return _ended_as_wanted(kernel, phase, exit, now)
        case _:
            return kernel, []


def no_room(kernel: Kernel, reason: str, now: float) -> Transition:
    """Nothing was begun: it waits for room, unless it is not to be started any more."""
    match kernel.phase:
        case Stopping(process=None) as phase if kernel.want is Want.DOWN:
            return rest(kernel, [say(kernel, "kernel.stopped", reason=phase.reason.value)])
        case Starting(process=None) | Stopping(process=None) as phase:
            waiting = replace(kernel, phase=Waiting(now, reason))
            told = say(waiting, "kernel.waiting", reason=reason)
            return waiting, [told, AwaitRoom(kernel.name, kernel.generation, phase.launched)]
        case _:
            return kernel, []


def room_made(kernel: Kernel, now: float) -> Change:
    """There is room: it is started in its turn."""
    return queue(kernel, now) if isinstance(kernel.phase, Waiting) else kernel, []


def ended(kernel: Kernel, exit: Exit, now: float, **extra: object) -> Transition:
    """The process is gone.  Whether that is a death depends on what was wanted."""
    match kernel.phase:
        case Stopping(reason=Reason.START_TIMEOUT | Reason.UNRESPONSIVE as reason) as phase:
            return died(kernel, replace(exit, cause=Cause(reason.value)), now, _uptime(phase, now), **extra)
        case Stopping() as phase:
            return _ended_as_wanted(kernel, phase, exit, now, **extra)
        case Starting() | Running() as phase:
            return died(kernel, exit, now, _uptime(phase, now), **extra)
        case _:
            return kernel, []


def _ended_as_wanted(kernel: Kernel, phase: Stopping, exit: Exit, now: float, **extra: object) -> Transition:
    if phase.process is not None and _uptime(phase, now) >= settings_of(kernel).restart_window:
        kernel = replace(kernel, streak=0)
    if kernel.want is Want.UP and kernel.declared is not None:
        how = {**exit_fields(exit), **extra}
        return _again(kernel, phase.reason, now, how)
    return rest(kernel, [say(kernel, "kernel.stopped", reason=phase.reason.value, **exit_fields(exit))])


def _again(kernel: Kernel, reason: Reason, now: float, how: Mapping[str, object]) -> Change:
    """The next run follows at once, with the settings in force; ``how`` the last one ended."""
    fields: dict[str, object] = {"attempt": 0, "delay": 0.0, "reason": reason.value}
    if keys := pending_keys(kernel):
        fields["keys"] = list(keys)
    again = queue(replace(kernel, restarts=kernel.restarts + 1), now)
    return again, [say(kernel, "kernel.restarting", **fields, **how)]


def rest(kernel: Kernel, told: list[Action]) -> Transition:
    """No run, and none is due: the connection file goes, and all else too if it is no longer declared."""
    if kernel.declared is None:
        return None, [*told, Forget(kernel.name), say(kernel, "kernel.removed")]
    return replace(kernel, phase=Stopped(), want=Want.DOWN), [*told, Withdraw(kernel.name)]


def died(kernel: Kernel, exit: Exit, now: float, uptime: float, **extra: object) -> Transition:
    """An end that nobody wanted, after ``uptime`` seconds: tell it, count it, try again or give up."""
    config = settings_of(kernel)
    run = identity_of(kernel)
    death = Death(kernel.generation, run.pid if run else None, now, uptime, exit)
    failures = policy.recent_failures(kernel.failures, config.restart_window, now)
    failures = failures if policy.is_of_outside(exit) else (*failures, now)
    streak = 1 if uptime >= config.restart_window else kernel.streak + 1
    told: list[Action] = [say(kernel, "kernel.died", uptime=round(uptime, 3), **death_fields(exit), **extra)]
    deaths = (*kernel.deaths, death)[-DEATHS_KEPT:]
    dead = replace(kernel, deaths=deaths, failures=failures, streak=streak)
    if dead.want is Want.DOWN or dead.declared is None:
        return rest(dead, [*told, say(dead, "kernel.stopped", **exit_fields(exit))])
    if isinstance(kernel.phase, Stopping) and pending_keys(kernel):
        # Edited on its way out: the settings that it died of are not those that are tried next.
        again, restarting = _again(forgive(dead), Reason.EDITED, now, {})
        return again, told + restarting
    if policy.is_clean(exit) and not policy.may_restart(config, exit):
        return rest(dead, [*told, say(dead, "kernel.stopped", **exit_fields(exit))])
    if reason := policy.reason_to_give_up(config, exit, len(failures)):
        failed = replace(dead, phase=Failed(reason))
        return failed, [*told, say(failed, "kernel.failed", reason=reason), Withdraw(kernel.name)]
    delay = policy.backoff_delay(config.backoff, streak, f"{kernel.name}:{kernel.generation}")
    told.append(say(dead, "kernel.restarting", attempt=streak, delay=round(delay, 3)))
    waiting = replace(dead, restarts=kernel.restarts + 1, phase=Backoff(now + delay, delay, streak))
    return (waiting if delay > 0 else queue(waiting, now)), told


def _uptime(phase: Starting | Running | Stopping, now: float) -> float:
    return max(0.0, now - (phase.spawned_at if isinstance(phase, Stopping) else phase.since))
