"""What may be asked at the door: the fields of each request, checked, and what goes wrong.

Owns the words and bounds of requests; carries nothing out.  Fields come in the
JSON body or in the query, with the same names and the same meaning.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from supervisor.settings.mistakes import did_you_mean

MAX_WAIT = 3600.0
"""Seconds after which an order is no longer waited for, at most."""


MAX_LAST = 10_000_000
"""More events than are ever kept."""


class RequestError(Exception):
    """A request that cannot be carried out: HTTP status, what is wrong, and what to do."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=None):
    """What all requests have in common: values, and no unknown fields."""


class NoFields(Request, frozen=True, kw_only=True):
    """A request that needs no fields."""


class OrderRequest(Request, frozen=True, kw_only=True):
    """An order to one kernel."""

    wait: Annotated[bool, Meta(description="answer when the kernel has settled; false: at once")] = True
    timeout: Annotated[
        float, Meta(gt=0, le=MAX_WAIT, description="seconds to wait; the order stands when they are over")
    ] = MAX_WAIT
    if_generation: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="refuse it unless this is the kernel's latest run"),
    ] = None


class StopRequest(OrderRequest, frozen=True, kw_only=True):
    """Stop the kernel."""

    now: Annotated[bool, Meta(description="begin with SIGKILL instead of asking")] = False


class RestartRequest(StopRequest, frozen=True, kw_only=True):
    """Restart the kernel."""

    new_ports: Annotated[bool, Meta(description="give it a new address")] = False


class SignalRequest(OrderRequest, frozen=True, kw_only=True):
    """Send a signal to the kernel's process group."""

    signal: Annotated[str | int, Meta(description="a name, with or without SIG, or a number")]


class PlanRequest(Request, frozen=True, kw_only=True):
    """Tell what loading a file would do."""

    path: Annotated[str | None, Meta(description="absolute path; default: the daemon's own file")] = None

    def __post_init__(self) -> None:
        if self.path is not None and not _is_file_name(self.path):
            raise RequestError(
                400, f"path: {self.path!r} cannot be the name of a file", "send an absolute path"
            )


class ShutdownRequest(Request, frozen=True, kw_only=True):
    """Stop all kernels and exit."""

    now: Annotated[bool, Meta(description="begin with SIGKILL instead of asking")] = False


class StatusRequest(Request, frozen=True, kw_only=True):
    """Tell the state of the daemon and of kernels."""

    kernel: Annotated[tuple[str, ...], Meta(description="only these; may be repeated")] = ()


class OutputRequest(Request, frozen=True, kw_only=True):
    """Read what the kernel process itself wrote to stdout and stderr, and follow it."""

    follow: Annotated[bool, Meta(description="keep telling what it writes")] = False
    last: Annotated[int, Meta(ge=0, le=10_000, description="at most so many lines of the past")] = 100


class EventsRequest(Request, frozen=True, kw_only=True):
    """Replay lifecycle events, and follow them."""

    follow: Annotated[bool, Meta(description="keep telling events as they happen")] = False
    kernel: Annotated[tuple[str, ...], Meta(description="only of these kernels; may be repeated")] = ()
    event: Annotated[str | None, Meta(description="only this event, such as kernel.died")] = None
    since: Annotated[str | None, Meta(description="ISO 8601 instant; UTC where it names no zone")] = None
    last: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_LAST)] | None, Meta(description="at most so many of the past")
    ] = None
    after: Annotated[
        Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | None, Meta(description="only those with a higher seq")
    ] = None
    brief: Annotated[bool, Meta(description="without the last lines of output")] = False

    def __post_init__(self) -> None:
        _ = self.began  # which is refused now

    @property
    def began(self) -> datetime | None:
        """The instant ``since``.  Raises RequestError."""
        if self.since is None:
            return None
        try:
            found = datetime.fromisoformat(self.since)
            return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            hint = "an example: 2025-01-31T12:00:00Z"
            raise RequestError(400, f"since: {self.since!r} is not an ISO 8601 instant", hint) from None


Asked = TypeVar("Asked", bound=Request)

_REPEATED = frozenset({"kernel"})


@functools.cache
def _fields_of(asked: type[Request]) -> tuple[str, ...]:
    # msgspec works out the type of each field every time.
    return tuple(field.name for field in msgspec.structs.fields(asked))


def parse(asked: type[Asked], query: Mapping[str, Sequence[str]], body: bytes) -> Asked:
    """The request that query and body make together.  Raises RequestError."""
    fields = {**_of_body(body), **_of_query(query)}
    known = _fields_of(asked)
    for name in fields:
        if name not in known:
            hint = did_you_mean(name, known) or f"known here: {', '.join(known) or 'none'}"
            raise RequestError(400, f"{name!r} is not a field of this request", hint)
    try:
        return msgspec.convert(fields, asked, strict=not query)
    except msgspec.ValidationError as mistake:
        raise RequestError(400, f"the request is not valid: {mistake}", "see GET /v1/openapi.json") from None


def _of_body(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as mistake:
        raise RequestError(
            400, f"the body is not JSON: {mistake}", "send a JSON object, or no body"
        ) from None
    if not isinstance(found, dict):
        raise RequestError(400, "the body is not a JSON object", 'send an object such as {"wait": false}')
    return found


def _of_query(query: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, texts in query.items():
        if name not in _REPEATED and len(texts) > 1:
            raise RequestError(400, f"{name!r} is given {len(texts)} times", "give it once")
        fields[name] = list(texts) if name in _REPEATED else texts[0]
    return fields


def signal_number(word: str | int) -> int:
    """The number of a signal by its name or number.  Raises RequestError."""
    names = {member.name: int(member) for member in signal.Signals}
    text = str(word).upper()
    if text.isdecimal() and len(text) < 4 and int(text) in signal.valid_signals():
        return int(text)
    if text == "0":  # to kill(2) a question, which no kernel hears of
        raise RequestError(400, "0 is not a signal", "status tells whether the kernel lives")
    full = text if text.startswith("SIG") else f"SIG{text}"
    if full in names:
        return names[full]
    hint = did_you_mean(full, names) or "kill -l lists the signals"
    raise RequestError(400, f"{word!r} is not a signal", hint)


def _is_file_name(path: str) -> bool:
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False
