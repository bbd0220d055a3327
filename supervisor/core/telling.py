"""What the world is told of a transition: the event, its level, its fields.

Owns the names and the levels of the lifecycle events.  Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.actions import Publish
from supervisor.core.model import Begun, Exit, Kernel, identity_of

# info: as wanted; warning: it recovers by itself; error: a person is needed.
LEVELS: Mapping[str, str] = {
    "kernel.starting": "info",
    "kernel.queued": "info",
    "kernel.begun": "info",
    "kernel.expiring": "warning",
    "kernel.waiting": "error",
    "kernel.ready": "info",
    "kernel.died": "warning",
    "kernel.restarting": "info",
    "kernel.stopping": "info",
    "kernel.stopped": "info",
    "kernel.failed": "error",
    "kernel.unresponsive": "warning",
    "kernel.responsive": "info",
    "kernel.adopted": "info",
    "kernel.interrupted": "info",
    "kernel.signalled": "info",
    "kernel.escaped": "warning",
    "kernel.pressed": "warning",
    "kernel.removed": "info",
    "standby.ready": "info",
    "standby.failed": "warning",
    "standby.dropped": "info",
    "zygote.ready": "info",
    "zygote.unfit": "warning",
    "zygote.retired": "info",
}


def say(kernel: Kernel, event: str, **fields: object) -> Publish:
    """The line that tells of ``event``, with the run that it is about."""
    run = identity_of(kernel)
    pid = run.pid if run else None
    return Publish(kernel.name, event, LEVELS[event], kernel.generation, pid, fields)


def death_fields(exit: Exit) -> dict[str, object]:
    """How a process ended that nobody wanted to end, and its last words."""
    fields = {**exit_fields(exit), "output_tail": list(exit.output_tail)}
    if (cell := exit.executing) is not None:
        fields["executing"] = {"count": cell.count, "since": cell.since, "code": cell.code}
    return fields


def begun_fields(begun: Begun) -> dict[str, object]:
    """How warm a run began, as fields; of one that began as ever there is nothing to tell."""
    return {key: value for key, value in (("how", begun.how), ("why", begun.why)) if value}


def exit_fields(exit: Exit) -> dict[str, object]:
    """How a process ended, as fields: a code, or a signal, or neither when unknown."""
    fields: dict[str, object] = {"cause": exit.cause.value}
    if exit.code is not None:
        fields["exit_code"] = exit.code
    if exit.signal is not None:
        fields["signal"] = exit.signal
    if exit.detail:
        fields["detail"] = exit.detail
    return fields
