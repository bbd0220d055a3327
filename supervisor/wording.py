"""How things are written, everywhere alike: instants, spans, signals, causes, odd characters.

Owns the form.  Imports nothing heavy: the command line passes here.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CAUSES: Mapping[str, str] = {
    "oom": "out of memory",
    "start-timeout": "not ready in time",
    "unresponsive": "did not answer",
    "port-taken": "a port was taken",
    "not-found": "cannot be launched",
    "time-limit": "its time was up",
    "node-failed": "its node failed",
    "preempted": "its place was given to another job",
    "cancelled": "its job was cancelled",
}
"""The causes of an end that are more than its code or signal, as people read them."""

_ENDED = {"stopped": "was stopped", "failed": "has failed"}


def how_it_died(death: Mapping[str, object]) -> str:
    """How a run ended, as an event or a view tells it: "killed by SIGKILL", "out of memory".

    The cause before the signal by which it came: "not ready in time", not "killed by SIGKILL".
    """
    cause, signal, code = str(death.get("cause")), death.get("signal"), death.get("exit_code")
    if signal:
        how = f"{'crashed with' if cause == 'crashed' else 'killed by'} {signal}"
    else:
        how = "nobody knows how" if code is None else f"exited with code {code}"
    return CAUSES.get(cause) or how


def death_of(view: Mapping[str, Any], generation: object) -> Mapping[str, Any] | None:
    """The death of this run, if it has died, and no other since."""
    death = view.get("last_death") or {}
    return death if death.get("generation") == generation else None


def how_it_ended(view: Mapping[str, Any], generation: int) -> str:
    """Why a run is over and what becomes of the kernel, for people."""
    phase, name, death = view["phase"], view["name"], death_of(view, generation)
    if death is None:
        how = f"{name} {_ENDED.get(phase, 'was restarted')}"
    else:
        how = ", ".join(filter(None, (f"{name} died: {how_it_died(death)}", death.get("detail"))))
    if phase == "failed":
        return f"{how}. It is not started again: {view.get('reason')}"
    if phase == "stopped":
        return f"{how}. {view.get('reason') or ''}".strip()
    return f"{how}; started again as run {generation + 1}, its variables are lost."


def written(moment: datetime) -> str:
    """An instant in UTC as the log, the API and ``status`` have it: "2026-01-02T03:04:05.678Z"."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp() -> str:
    """Now, in that form."""
    return written(datetime.now(UTC))


def span(seconds: float) -> str:
    """A span of time in its two largest units: "0.41 s", "3 min 4 s", "3 h 2 min"."""
    if seconds < 0.1:
        thousandths = round(max(seconds, 0.0) * 1000)
        return f"{thousandths} ms" if thousandths else "0 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def amount(count: int) -> str:
    """A number of bytes: "512 B", "1.5 GiB"."""
    number, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.3g} {units[0]}" if number < 999.5 else f"{number:.0f} {units[0]}"


def signal_name(signum: int) -> str:
    """The name of a signal, ``SIGRTMIN+3`` for a real-time one, ``SIG32`` for one without a name."""
    first = getattr(signal, "SIGRTMIN", None)
    if first is not None and first < signum <= signal.SIGRTMAX:
        return f"SIGRTMIN+{signum - first}"
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"SIG{signum}"


def one_line(text: object) -> str:
    """The text on one line, with everything escaped that a terminal would obey."""
    line = str(text)
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)
