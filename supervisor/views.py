"""A kernel's state as its operators read it: JSON-able, in wall-clock time.

Owns the shape of a kernel in ``status`` (docs/api.md).  Decides nothing.
"""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from supervisor.core.health import failing_checks, is_responsive
from supervisor.core.lifecycle import pending_keys
from supervisor.core.model import (
    Backoff,
    Death,
    Failed,
    JobId,
    Kernel,
    Phase,
    Queued,
    Running,
    Starting,
    Step,
    Stopping,
    Waiting,
    identity_of,
    launched_of,
)
from supervisor.settings.config import KernelConfig
from supervisor.wording import span, written

_HARDER = {Step.ASK: "SIGTERM", Step.TERMINATE: "SIGKILL"}


class Clock(Struct, frozen=True):
    """One instant in both clocks, so that monotonic instants can be told as dates."""

    monotonic: float
    wall: datetime

    @classmethod
    def read(cls, monotonic: float) -> Clock:
        """The clock at ``monotonic``, which is now."""
        return cls(monotonic, datetime.now(UTC))

    def date(self, instant: float) -> str:
        """A monotonic instant as ISO 8601 in UTC."""
        return written(self.wall + timedelta(seconds=instant - self.monotonic))


def phase_name(phase: Phase) -> str:
    """The operator's word for a phase; a queued kernel is starting to anyone but us."""
    return "starting" if isinstance(phase, Queued) else type(phase).__name__.lower()


class About(Struct, frozen=True):
    """What a kernel is, beside its state; ``spec_mode`` is of its kernelspec.  Empty: not known yet."""

    id: str
    language: str = ""
    spec_mode: str = ""


def view(
    kernel: Kernel, clock: Clock, connection_file: Path, output_file: Path, about: About
) -> dict[str, Any]:
    """One kernel, as ``GET /v1/kernels/NAME`` answers."""
    run = identity_of(kernel)
    since = _spawned_at(kernel.phase)
    config = launched_of(kernel) or kernel.declared
    return {
        "name": kernel.name,
        "phase": phase_name(kernel.phase),
        "want": kernel.want.value,
        "pid": run.pid if run else None,
        "job": _job(kernel, run) if isinstance(run, JobId) else None,
        "generation": kernel.generation,
        "since": clock.date(since) if since is not None else None,
        "uptime": round(clock.monotonic - since, 3) if since is not None else None,
        "restarts": kernel.restarts,
        "last_death": _death(kernel.last_death, clock) if kernel.last_death else None,
        "deaths": [_death(death, clock) for death in kernel.deaths],
        "health": _health(kernel),
        "unanswered": [check.value for check in failing_checks(kernel)],
        "connection_file": str(connection_file),
        "output_file": str(output_file),
        "pending": list(pending_keys(kernel)),
        "next_start_at": clock.date(kernel.phase.until) if isinstance(kernel.phase, Backoff) else None,
        "stopping": _stopping(kernel.phase, clock) if isinstance(kernel.phase, Stopping) else None,
        "reason": kernel.phase.reason if isinstance(kernel.phase, Failed | Waiting) else "",
        "user": config.user if config else None,
        "launch": launch_label(config) if config else "",
        "begun": _begun(kernel),
        "id": about.id,
        "language": about.language,
        **_for_jupyter(kernel.name, about, kernel.declared or config),
    }


def _stopping(phase: Stopping, clock: Clock) -> dict[str, Any]:
    """What comes next if it does not end, and when."""
    return {"next": _HARDER.get(phase.step), "at": clock.date(phase.deadline)}


def awaited(kernel: Kernel, now: float) -> str:
    """What a kernel that is being stopped is given, in words: "a: SIGTERM in 8 s"."""
    phase = kernel.phase
    if not isinstance(phase, Stopping) or (harder := _HARDER.get(phase.step)) is None:
        return f"{kernel.name}: SIGKILL was sent"
    return f"{kernel.name}: {harder} in {span(phase.deadline - now)}"


def _for_jupyter(name: str, about: About, config: KernelConfig | None) -> dict[str, Any]:
    config = config or KernelConfig(name=name)
    return {
        "interrupt_mode": config.interrupt_mode or about.spec_mode or None,
        "display_name": config.display_name or name,
        "on_client_shutdown": config.on_client_shutdown,
        "recorder": {"max_bytes": config.recorder.max_bytes, "max_age": config.recorder.max_age},
    }


def launch_label(config: KernelConfig) -> str:
    """What is launched, in a few words: the kernelspec, or the command."""
    return config.kernelspec or shlex.join(config.argv or ())


def _spawned_at(phase: Phase) -> float | None:
    match phase:
        case Starting(process=process, since=since) if process is not None:
            return since
        case Stopping(process=process, spawned_at=since) if process is not None:
            return since
        case Running(since=since):
            return since
        case _:
            return None


def _job(kernel: Kernel, job: JobId) -> dict[str, Any]:
    """A job of a cluster, and why it waits if it does."""
    queue = kernel.phase.queue if isinstance(kernel.phase, Starting) else None
    waits = None if queue is None else {"reason": queue.reason, "estimate": queue.estimate}
    return {"number": job.number, "node": job.node, "queue": waits}


def _begun(kernel: Kernel) -> dict[str, str]:
    match kernel.phase:
        case Starting(begun=begun) | Running(begun=begun):
            return {"how": begun.how, "why": begun.why}
        case _:
            return {"how": "", "why": ""}


def _health(kernel: Kernel) -> str | None:
    if not isinstance(kernel.phase, Running):
        return None
    return "ok" if is_responsive(kernel) else "unresponsive"


def _death(death: Death, clock: Clock) -> dict[str, Any]:
    return {
        "at": clock.date(death.at),
        "generation": death.generation,
        "pid": death.pid,
        "cause": death.exit.cause.value,
        "exit_code": death.exit.code,
        "signal": death.exit.signal,
        "uptime": round(death.uptime, 3),
        "output_tail": list(death.exit.output_tail),
        "detail": death.exit.detail,
    }
