"""What a run leaves: what it executed, what it has not answered, what its clients are told of its end.

Owns the words for that, and the process that answers for a while where there is no next run.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from supervisor.core.model import Cause, Executing, Exit, Phase, Reason, Running, Stopping
from supervisor.records.record import Record, RecordedDeath
from supervisor.settings.config import KernelConfig
from supervisor.warm.inside import pending
from supervisor.wording import CAUSES, span, written

# Why a run was stopped that is followed by another, as its clients are told.
WHY_STOPPED: Mapping[Reason, str] = {
    Reason.ORDERED: "stopped by order",
    Reason.EDITED: "restarted with edited settings",
    Reason.DISABLED: "disabled",
    Reason.REMOVED: "removed",
    Reason.SHUTDOWN: "stopped with its supervisor",
}
# How long the corpse of the process that answers may take, in seconds.
REAP_TIMEOUT = 5.0


class Aftermath:
    """The end of the latest run of one kernel, until the next one has told of it."""

    def __init__(self) -> None:
        # How it ended, at what instant (seconds since the epoch), after how many seconds.
        self._ended: tuple[Exit, float, float] | None = None
        self._stopped_by = ""
        self._stub: subprocess.Popen[bytes] | None = None

    def note(self, phase: Phase) -> None:
        """Why the current run is being stopped, if it is."""
        if isinstance(phase, Stopping):
            self._stopped_by = WHY_STOPPED.get(phase.reason, "")
        elif isinstance(phase, Running):
            self._stopped_by = ""

    def end(self, ended: Exit, at: float, uptime: float) -> None:
        """The run has ended."""
        self._ended = ended, at, uptime

    def recall(self, record: Record) -> None:
        """A run of an earlier supervisor may have ended while nobody watched; ``end`` tells if it has not.

        Without a process on record it had ended, and the next one was perhaps on its way.
        """
        last = record.deaths[-1] if record.deaths else None
        if record.process is None and last is not None and last.generation >= record.generation - 1:
            self._ended = exit_of(last), last.at_wall, last.uptime
        elif record.process is not None or record.generation > 1:
            began = time.monotonic() if record.spawned_at is None else record.spawned_at
            self._ended = Exit(Cause.UNKNOWN), time.time(), max(0.0, time.monotonic() - began)

    def told(self, config: KernelConfig, run: int) -> Mapping[str, Any] | None:
        """What the clients are told of it by the next run (``warm/inside/answers``); 0: there is none."""
        if self._ended is None:
            return None
        ended, at, uptime = self._ended
        then = "its variables are lost"
        if config.startup or config.startup_file:
            then = "the start-up code has run"
        return {
            "at": at,
            "how": f"{self._stopped_by or _ending(ended)} after {span(uptime)}",
            "then": f"started again as run {run}; {then}" if run else "it is not started again",
        }

    def settle(self, stub: subprocess.Popen[bytes] | None) -> None:
        """It is answered for good; who starts the kernel again need not hear of it."""
        self._ended, self._stub = None, stub

    def end_stub(self) -> None:
        """The address is needed."""
        if self._stub is not None:
            self._stub.kill()
            self._stub.wait(REAP_TIMEOUT)
            self._stub = None


def exit_of(recorded: RecordedDeath) -> Exit:
    """How a run ended that is on record."""
    try:
        cause = Cause(recorded.cause)
    except ValueError:
        cause = Cause.UNKNOWN
    return Exit(cause, recorded.exit_code, recorded.signal, (), recorded.detail)


def _ending(ended: Exit) -> str:
    why = f" ({CAUSES[ended.cause.value]})" if ended.cause.value in CAUSES else ""
    if ended.signal is not None:
        return f"killed by {ended.signal}{why}"
    return f"exited with code {ended.code}{why}" if ended.code is not None else f"ended{why}"


def left_of(file: Path, ended: Exit, *, ready: bool, executing: bool) -> Exit:
    """The end of a run with what its file tells of it: what it executed, why its start failed."""
    try:
        left = pending.read(str(file))
    except OSError:
        return ended
    if not ready and left.reason:
        detail = left.reason.strip().splitlines()[-1]
        tail = tuple(left.reason.splitlines()[-50:])
        return replace(ended, cause=Cause.STARTUP, detail=detail, output_tail=ended.output_tail or tail)
    return replace(ended, executing=executing_in(left.requests) if executing else None)


def executing_of(file: Path) -> Executing | None:
    """The cell that is executed now.  Raises OSError."""
    return executing_in(pending.read(str(file)).requests)


def executing_in(requests: list[pending.Request]) -> Executing | None:
    """The cell that is executed, of the requests of a run."""
    for request in requests:
        if request.started is not None and not request.idle and b'"execute_request"' in request.header:
            since = written(datetime.fromtimestamp(request.started, UTC))
            return Executing(request.execution_count, since, request.code)
    return None
