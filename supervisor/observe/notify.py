"""Telling systemd how the daemon is: the protocol of sd_notify(3).

Owns the datagrams to ``NOTIFY_SOCKET``.  Never raises and never waits for
long: outside systemd every call does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Self

_PATIENCE = 0.5  # seconds that a message which systemd waits for may take
_LONGEST_STATUS = 1000


class Notifier:
    """The way to the service manager; ``None`` for an address means there is none.

    ``watchdog_interval`` is how often ``watchdog`` is due in seconds, half of
    what systemd allows, as sd_watchdog_enabled(3) recommends; ``None`` if it
    does not watch this process.
    """

    def __init__(self, address: str | None = None, *, watchdog_interval: float | None = None) -> None:
        self._address = address
        self.watchdog_interval = watchdog_interval

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``."""
        name = environ.get("NOTIFY_SOCKET", "")
        if not name.startswith(("@", "/")):
            return cls()
        return cls(name.replace("@", "\0", name[0] == "@"), watchdog_interval=_watchdog_interval(environ))

    @property
    def is_active(self) -> bool:
        """Whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """Tell that starting, or reloading, is complete; returns whether it was told."""
        return self._send("READY=1", *_status(status), patience=_PATIENCE)

    def reloading(self) -> bool:
        """Tell that the configuration is read again; ``ready`` must follow, accepted or not."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send("RELOADING=1", f"MONOTONIC_USEC={now}", patience=_PATIENCE)

    def stopping(self, status: str = "") -> bool:
        """Tell that the daemon is on its way out."""
        return self._send("STOPPING=1", *_status(status), patience=_PATIENCE)

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for so much time from now, beyond what the unit allows for starting or stopping."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}", patience=_PATIENCE)

    def status(self, text: str) -> bool:
        """Show one line in ``systemctl status``."""
        return self._send(*_status(text))

    def watchdog(self) -> bool:
        """Tell that the loop has come round."""
        return self._send("WATCHDOG=1")

    def _send(self, *lines: str, patience: float = 0.0) -> bool:
        if self._address is None or not lines:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.settimeout(patience)
                out.sendto("\n".join(lines).encode("utf-8", "backslashreplace"), self._address)
        except (OSError, ValueError):  # ValueError: an address with a NUL inside
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())[:_LONGEST_STATUS]  # a newline would begin another assignment
    return (f"STATUS={line}",) if line else ()


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    try:
        allowed = int(environ.get("WATCHDOG_USEC", "0"))
        watched = int(environ.get("WATCHDOG_PID") or os.getpid())
    except ValueError:
        return None
    return allowed / 2_000_000 if allowed > 0 and watched == os.getpid() else None
