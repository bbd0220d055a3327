"""What may leave the process: plain values without secrets.

Owns the list of registered secrets and the copy of an event that the log, the
events file, followers and the journal are given.  Never writes anything, and
never changes the event that it is given.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import date
from enum import Enum
from pathlib import PurePath

HIDDEN = "[redacted]"
HIDDEN_FIELDS = frozenset({"key", "env", "environment", "session_key"})
SHORTEST_SECRET = 6

_MOST_SECRETS = 4096  # 64 bytes each: bounded where an embedding program makes managers for ever
_DEEPEST = 8

# Of other objects the type alone is told: the repr of a settings value shows the environment.
_TELLABLE = (str, int, float, Enum, PurePath, date, BaseException)

_secrets: dict[str, None] = {}
# How they begin: with hundreds of kernels, to look for the key of each in each text takes longer than all
# else that is done for an event.
_beginnings: set[str] = set()


def redact(secret: str | bytes) -> None:
    """Replace this value wherever it occurs in an event from now on.

    Meant for connection keys.  Values shorter than ``SHORTEST_SECRET``
    characters are ignored, because they occur in innocent words; environment
    values are kept out by never putting them into an event.  The oldest are
    forgotten beyond 4,096.
    """
    text = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else secret
    if len(text) < SHORTEST_SECRET:
        return
    _secrets[text] = None
    _beginnings.add(text[:SHORTEST_SECRET])
    while len(_secrets) > _MOST_SECRETS:
        del _secrets[next(iter(_secrets))]
    if len(_beginnings) > 2 * _MOST_SECRETS:
        known = set(_beginnings)  # before the secrets: what another thread adds meanwhile stays
        _beginnings.difference_update(known - {secret[:SHORTEST_SECRET] for secret in tuple(_secrets)})


def clean(event: Mapping[str, object]) -> dict[str, object]:
    """Return a copy in plain JSON values in which no secret is left; never raises.

    Fields named like a secret (``HIDDEN_FIELDS``) are replaced whole, at every depth.
    """
    return _mapping(event, 0)


def _mapping(value: Mapping[object, object] | Mapping[str, object], depth: int) -> dict[str, object]:
    return {
        name: HIDDEN if name.lower() in HIDDEN_FIELDS else _plain(item, depth + 1)
        for name, item in ((_text(name), item) for name, item in value.items())
    }


def _plain(value: object, depth: int) -> object:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)  # an IntEnum is told as its number
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if isinstance(value, str | bytes | bytearray) or depth >= _DEEPEST:
        return _text(value)
    if isinstance(value, Mapping):
        return _mapping(value, depth)
    if isinstance(value, Collection):
        return [_plain(item, depth + 1) for item in value]
    return _text(value)


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        text = bytes(value).decode("utf-8", "replace")
    elif isinstance(value, _TELLABLE):
        text = str(value)
    else:
        return f"<{type(value).__name__}>"
    if _is_short(text) and not _may_hold_secret(text):
        return text
    for secret in tuple(_secrets):
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def _is_short(text: str) -> bool:
    """Whether it takes less time to go through the text than through the secrets."""
    return len(text) < 10 * len(_secrets)


def _may_hold_secret(text: str) -> bool:
    places = range(len(text) - SHORTEST_SECRET + 1)
    return not _beginnings.isdisjoint(text[at : at + SHORTEST_SECRET] for at in places)
