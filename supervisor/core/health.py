"""Whether a running kernel is well: unanswered checks are counted, and told at the limit.

Owns the counts and what reaching a limit means.  Asks no kernel anything: that
is the host's, which brings Missed and Answered.
"""

from __future__ import annotations

from math import inf

from msgspec.structs import replace

from supervisor.core.actions import Action
from supervisor.core.lifecycle import Transition, begin_stop, settings_of
from supervisor.core.model import Check, Kernel, Reason, Running, Step
from supervisor.core.telling import say
from supervisor.settings.config import HeartbeatConfig, KernelConfig, ProbeConfig


def rule_of(config: KernelConfig, check: Check) -> HeartbeatConfig | ProbeConfig:
    """The settings of a check."""
    return config.heartbeat if check is Check.HEARTBEAT else config.probe


def _limit(config: KernelConfig, check: Check) -> float:
    """Misses in a row that count as unresponsive; without end where the check is off."""
    rule = rule_of(config, check)
    return inf if rule.action == "off" else rule.misses


def is_responsive(kernel: Kernel) -> bool:
    """Whether the kernel is running and none of its checks fails."""
    return isinstance(kernel.phase, Running) and not failing_checks(kernel)


def failing_checks(kernel: Kernel) -> list[Check]:
    """The checks of a running kernel that have reached their limit of misses."""
    phase, config = kernel.phase, settings_of(kernel)
    missed = phase.missed if isinstance(phase, Running) else {}
    return [check for check, count in missed.items() if count >= _limit(config, check)]


def missed(kernel: Kernel, check: Check, now: float, stacks: tuple[str, ...] = ()) -> Transition:
    """A check went unanswered: count it; at the limit tell, and stop the kernel where that is wished."""
    phase = kernel.phase
    if not isinstance(phase, Running):
        return kernel, []
    config = settings_of(kernel)
    limit = _limit(config, check)
    if limit == inf:
        return kernel, []
    count = phase.missed.get(check, 0) + 1
    kernel = replace(kernel, phase=replace(phase, missed={**phase.missed, check: count}))
    told: list[Action] = []
    if count == limit:
        more = {"stacks": list(stacks)} if stacks else {}
        told.append(say(kernel, "kernel.unresponsive", check=check.value, misses=count, **more))
    if count < limit or rule_of(config, check).action != "restart":
        return kernel, told
    stopping, actions = begin_stop(kernel, Step.KILL, Reason.UNRESPONSIVE, now)
    return stopping, told + actions


def answered(kernel: Kernel, check: Check) -> Transition:
    """A check was answered: its count begins anew, and a recovery is told."""
    phase = kernel.phase
    if not isinstance(phase, Running) or check not in phase.missed:
        return kernel, []
    counts = {other: count for other, count in phase.missed.items() if other is not check}
    well = replace(kernel, phase=replace(phase, missed=counts))
    if phase.missed[check] < _limit(settings_of(kernel), check):
        return well, []
    return well, [say(well, "kernel.responsive", check=check.value)]


def rejudged(kernel: Kernel, old: KernelConfig, new: KernelConfig) -> tuple[Kernel, list[Action]]:
    """The same counts by edited limits: what was told of the kernel stays true after every edit.

    A limit that is already passed is acted upon at the next miss, so that
    nothing is stopped for a check that may have been answered since.
    """
    phase = kernel.phase
    if not isinstance(phase, Running):
        return kernel, []
    told: list[Action] = []
    counts = dict(phase.missed)
    for check, count in phase.missed.items():
        limit = _limit(new, check)
        was_well, is_well = count < _limit(old, check), count < limit
        if was_well and not is_well:
            told.append(say(kernel, "kernel.unresponsive", check=check.value, misses=count, reason="edited"))
        if is_well and not was_well:
            told.append(say(kernel, "kernel.responsive", check=check.value, reason="edited"))
        if limit == inf:
            del counts[check]
    return replace(kernel, phase=replace(phase, missed=counts)), told
