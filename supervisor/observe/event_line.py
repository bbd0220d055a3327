"""An event as one line of JSON, and back.

Owns the form of a line in ``events.jsonl``, in the JSON log and on the event
stream.  Never opens a file; imports the standard library only, because the
command line reads lines too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from supervisor.observe.redaction import clean
from supervisor.wording import timestamp

LEADING = ("timestamp", "level", "event", "kernel")


def encode(event: Mapping[str, object]) -> bytes:
    """Return the line of an event, newline included, without secrets; never raises."""
    return dump(clean(event))


def dump(plain: Mapping[str, object]) -> bytes:
    """Return the line of an event that is clean already."""
    ordered = {name: plain[name] for name in LEADING if name in plain} | dict(plain)
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    # A lone surrogate (undecodable output of a kernel) becomes \udcXX, which is its JSON escape.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def lost(what: str, dropped: int) -> dict[str, object]:
    """The event, ``what``, that stands for so many others that are lost."""
    return {"timestamp": timestamp(), "level": "warning", "event": what, "dropped": dropped}


def decode(line: bytes) -> dict[str, object] | None:
    """Return the event of a line, or ``None`` where the line is damaged."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None
