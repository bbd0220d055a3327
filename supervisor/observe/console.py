"""An event as lines on a terminal.

Owns layout and colour; the words are those of ``sentence``.  Never writes.
structlog's own ConsoleRenderer is not used: it sorts and pads fields for
developers, and knows nothing of an output tail or of escape sequences in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from supervisor.observe.sentence import tell
from supervisor.wording import one_line

_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_FAINT = "\x1b[2m"
_PLAIN = "\x1b[0m"
_BELOW = ("mistakes", "output_tail", "traceback")  # shown as lines of their own
_ELSEWHERE = frozenset({"timestamp", "level", *_BELOW})


def render(event: Mapping[str, object], *, colour: bool) -> str:
    """Return the lines of a clean event: time, level, event, sentence, other fields; tail below."""
    text, told = tell(event)
    level = str(event.get("level", "info"))
    head = f"{level:<7} {one_line(str(event.get('event', ''))):<19}"
    if colour:
        head = f"{_COLOURS.get(level, '')}{head}{_PLAIN}"
    rest = [
        f"{one_line(name)}={_value(value)}"
        for name, value in event.items()
        if name not in told and name not in _ELSEWHERE and value is not None
    ]
    tail = "  " + _faint(" ".join(rest), colour=colour) if rest else ""
    lines = [f"{_time(event)} {head} {text}{tail}"]
    for name in _BELOW:
        lines += [_faint(f"         | {one_line(line)}", colour=colour) for line in _lines(event.get(name))]
    return "\n".join(lines)


def _faint(text: str, *, colour: bool) -> str:
    return f"{_FAINT}{text}{_PLAIN}" if colour else text


def _time(event: Mapping[str, object]) -> str:
    try:
        at = datetime.fromisoformat(str(event.get("timestamp"))).astimezone()
    except (ValueError, OverflowError):
        at = datetime.now().astimezone()
    return at.strftime("%H:%M:%S")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        value = ",".join(str(item) for item in value)
    if isinstance(value, str):
        bare = value and value.isprintable() and not set(value) & set(' "=')
        return value if bare else one_line(json.dumps(value, ensure_ascii=False))
    return one_line(json.dumps(value, ensure_ascii=False))


def _lines(value: object) -> list[str]:
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, list | tuple):
        return [line for item in value for line in str(item).splitlines() or [""]]
    return []
