"""A spare kernel behind a running one: when one is grown, kept, taken and dropped.

Owns ``Kernel.spare``.  Tended by level after each decision, as queued starts are, so that no path forgets it.
A promotion is a Spawn with the number of the spare; a spare never makes a launch fail.
"""

from __future__ import annotations

from msgspec.structs import replace

from supervisor.core.actions import Action, Discard, Park, Spawn
from supervisor.core.events import SpareEnded, SpareParked
from supervisor.core.model import (
    Course,
    Failed,
    Growing,
    Kernel,
    Parked,
    Resting,
    Running,
    Stopped,
    Want,
)
from supervisor.core.telling import say
from supervisor.settings.config import KernelConfig, changed_keys

# After a spare that came to nothing the next one waits so long, in seconds.
REST = 60.0
# So many deaths in a row and what is parked would only die as well.
LONGEST_STREAK = 3
# Edits that are of no concern to what is parked.
_ELSEWHERE = frozenset({"autostart", "hold_ports", "reconnect_grace"})

Tended = tuple[Kernel, list[Action]]


def concerns(kernel: Kernel) -> bool:
    """Whether there is anything to tend: a spare, or the wish for one."""
    is_wished = kernel.declared is not None and kernel.declared.warm_start == "standby"
    return is_wished or kernel.spare is not None


def spare_deadline(kernel: Kernel) -> float:
    """When something is due about its spare, of which there is one, or a rest."""
    match kernel.spare:
        case Growing(deadline=at) | Resting(until=at):
            return at
        case _:
            assert isinstance(kernel.spare, Parked), "the caller has looked"
            return kernel.spare.since + (kernel.declared or kernel.spare.launched).standby.max_age


def take(kernel: Kernel, spawn: Spawn) -> Tended:
    """The launch of a kernel, by its spare if there is one."""
    match kernel.spare:
        case Parked(number=number):
            return replace(kernel, spare=None), [replace(spawn, spare=number)]
        case Growing(number=number):
            return replace(kernel, spare=None), [Discard(kernel.name, number), spawn]
        case _:
            return kernel, [spawn]


def learn(kernel: Kernel, fact: SpareParked | SpareEnded, now: float) -> Tended:
    """What is told of a spare; of an earlier one it changes nothing."""
    spare = kernel.spare
    if not isinstance(spare, Growing | Parked) or spare.number != fact.number:
        return kernel, []
    if isinstance(fact, SpareParked):
        parked = replace(kernel, spare=Parked(spare.number, spare.launched, now))
        return parked, [say(parked, "standby.ready")]
    return _fail(kernel, fact.reason, now)


def _fail(kernel: Kernel, reason: str, now: float) -> Tended:
    # Told once, not every minute.
    told: list[Action] = []
    if kernel.spare_trouble != reason:
        told.append(say(kernel, "standby.failed", reason=reason))
    return replace(kernel, spare=Resting(now + REST), spare_trouble=reason), told


def tend(kernel: Kernel, course: Course, now: float) -> Tended:
    """What is due about the spare that there is: drop what is of no use, give up what does not come."""
    reason = _reason_for_none(kernel, course)
    match kernel.spare:
        case Growing(number=number) | Parked(number=number) if reason:
            return _drop(kernel, number, reason)
        case Growing(number=number, deadline=deadline) if deadline <= now:
            kernel, told = _fail(kernel, "it was not parked in time", now)
            return kernel, [Discard(kernel.name, number), *told]
        case Parked(number=number) if spare_deadline(kernel) <= now:
            return _drop(kernel, number, "its age")
        case Resting(until=until) if reason or until <= now:
            return replace(kernel, spare=None), []
        case _:
            return kernel, []


def is_due(kernel: Kernel, course: Course) -> bool:
    """Whether a spare is to be grown."""
    is_missing = kernel.spare is None and isinstance(kernel.phase, Running)
    return is_missing and not _reason_for_none(kernel, course)


def grow(kernel: Kernel, now: float) -> Tended:
    """Grow a spare."""
    number, config = kernel.spares + 1, kernel.declared
    assert config is not None, "it is due"
    growing = Growing(number, config, now + config.start_timeout)
    return replace(kernel, spare=growing, spares=number), [Park(kernel.name, number, config)]


def _drop(kernel: Kernel, number: int, reason: str) -> Tended:
    dropped = replace(kernel, spare=None)
    return dropped, [Discard(kernel.name, number), say(dropped, "standby.dropped", reason=reason)]


def _reason_for_none(kernel: Kernel, course: Course) -> str:
    """Why there is to be no spare; empty if one is to be there."""
    config, spare = kernel.declared, kernel.spare
    if config is None or config.warm_start != "standby":
        return "not wished"
    if course is not Course.SERVING or kernel.want is Want.DOWN:
        return "stopping"
    if isinstance(kernel.phase, Stopped | Failed) or kernel.streak >= LONGEST_STREAK:
        return "its kernel does not live"
    is_edited = isinstance(spare, Growing | Parked) and _differ(spare.launched, config)
    return "edited" if is_edited else ""


def _differ(old: KernelConfig, new: KernelConfig) -> bool:
    return bool(set(changed_keys(old, new, ("restart", "next-start"))) - _ELSEWHERE)
