"""How times, deaths and phases are worded for people.

Owns words, not layout and not colour; everything is made from what the daemon
told and from the present instant, which is an argument.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from supervisor import wording


def span(seconds: float | None) -> str:
    """A span as everywhere; "-" when there is none."""
    return "-" if seconds is None else wording.span(seconds)


def seconds_since(instant: str | None, now: float) -> float | None:
    """Seconds from an ISO 8601 instant to ``now`` (Unix time); ``None`` when it is none."""
    if not instant:
        return None
    try:
        found = datetime.fromisoformat(instant)
    except ValueError:
        return None
    return now - (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def ago(instant: str | None, now: float) -> str:
    """How long ago it was, such as "5 min ago"."""
    seconds = seconds_since(instant, now)
    return "" if seconds is None else f"{span(seconds)} ago"


def how_it_died(death: Mapping[str, Any]) -> str:
    """The cause of a death in a word or two, such as "SIGKILL" or "exit 7"."""
    if told := wording.CAUSES.get(str(death.get("cause"))):
        return told
    if signal := death.get("signal"):
        return str(signal)
    code = death.get("exit_code")
    return "cause unknown" if code is None else f"exit {code}"


def last_death(view: Mapping[str, Any], now: float) -> str:
    """The last death of a kernel, such as "SIGKILL 5 min ago"; "-" when there was none."""
    death = view.get("last_death")
    return f"{how_it_died(death)} {ago(death.get('at'), now)}".strip() if death else "-"


def phase(view: Mapping[str, Any], now: float) -> str:
    """The phase of a kernel, in backoff with the time that is left."""
    word = str(view.get("phase"))
    seconds = seconds_since(view.get("next_start_at"), now)
    return word if word != "backoff" or seconds is None else f"backoff {span(-seconds)}"


def progress(view: Mapping[str, Any], now: float) -> str:
    """A kernel on its way, such as "a stopping (SIGTERM in 8 s)"."""
    step = view.get("stopping") or {}
    left = seconds_since(step.get("at"), now)
    after = f" ({step['next']} in {span(-left)})" if step.get("next") and left is not None else ""
    return f"{view['name']} {phase(view, now)}{after}"


def state(view: Mapping[str, Any]) -> str:
    """The state of a kernel in a few words, such as "running (pid 42)"."""
    pid = view.get("pid")
    return f"{view.get('phase')} (pid {pid})" if pid else str(view.get("phase"))


def tail(view: Mapping[str, Any], lines: int) -> list[str]:
    """The last lines that a kernel wrote before it died."""
    death = view.get("last_death") or {}
    return [str(line) for line in death.get("output_tail") or ()][-lines:]


def now() -> float:
    """The present as Unix time."""
    return time.time()
