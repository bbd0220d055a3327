"""The few Jupyter messages that the supervisor sends and reads, as bytes.

Owns signing and framing (Jupyter messaging protocol 5.3, "The wire protocol").
Pure functions: never touches a socket, and never raises about what it is given
to read; what is not a well-formed, rightly signed message is ``None``.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.3"
_FRAMES_AFTER_DELIMITER = 5


class Message(Struct, frozen=True):
    """A message whose signature was right; ``parent_id`` names the request that it answers."""

    msg_id: str
    msg_type: str
    parent_id: str
    content: Mapping[str, Any]


def request(key: str, msg_type: str, content: Mapping[str, Any], session: str) -> tuple[str, list[bytes]]:
    """Build a signed request for a DEALER socket; returns its message id and its frames."""
    msg_id = uuid.uuid4().hex
    header = {
        "msg_id": msg_id,
        "session": session,
        "username": "kernel-supervisor",
        "date": datetime.now(UTC).isoformat(),
        "msg_type": msg_type,
        "version": PROTOCOL_VERSION,
    }
    parts = [msgspec.json.encode(header), b"{}", b"{}", msgspec.json.encode(content)]
    return msg_id, [DELIMITER, signature(key, parts), *parts]


def reply(key: str, frames: Sequence[bytes]) -> Message | None:
    """Read a message, or ``None`` if it is truncated, wrongly signed, or not what the protocol says."""
    try:
        at = frames.index(DELIMITER) + 1
    except ValueError:
        return None
    if len(frames) - at < _FRAMES_AFTER_DELIMITER:
        return None
    parts = frames[at + 1 : at + _FRAMES_AFTER_DELIMITER]
    if not hmac.compare_digest(signature(key, parts), frames[at]):
        return None
    header, parent, content = (_mapping(parts[index]) for index in (0, 1, 3))
    if header is None or parent is None or content is None:
        return None
    msg_id, msg_type, parent_id = header.get("msg_id"), header.get("msg_type"), parent.get("msg_id", "")
    if not (isinstance(msg_id, str) and isinstance(msg_type, str) and isinstance(parent_id, str)):
        return None
    return Message(msg_id, msg_type, parent_id, content)


def signature(key: str, parts: Sequence[bytes]) -> bytes:
    """The hex HMAC of the parts; empty for an empty key, which means unsigned messages."""
    if not key:
        return b""
    return hmac.digest(key.encode(), b"".join(parts), "sha256").hex().encode()


def _mapping(text: bytes) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return value if isinstance(value, dict) else None
