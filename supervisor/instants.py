"""The one written form of an instant: UTC, ISO 8601 with milliseconds and ``Z``.

Owns the form.  Imports nothing heavy: the command line passes here.
"""

from __future__ import annotations

from datetime import UTC, datetime


def written(moment: datetime) -> str:
    """An instant in UTC as the log, the API and ``status`` have it: "2026-01-02T03:04:05.678Z"."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def timestamp() -> str:
    """Now, in that form."""
    return written(datetime.now(UTC))
