"""Events in the systemd journal, field by field.

Owns the native protocol of journald (systemd's "Native Journal Protocol",
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).  Never blocks and never raises:
what the journal does not take at once is the caller's to write elsewhere.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
from collections.abc import Iterable, Mapping
from typing import Self

from supervisor.disk.files import write_all
from supervisor.observe.redaction import clean
from supervisor.observe.sentence import sentence

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "kernel-supervisor"

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_TOLD = frozenset({"level", "event", "kernel"})
_TOO_LONG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_LONGEST_CUT = 8192  # of a value, where neither a datagram nor a memfd takes the whole


class Journal:
    """An observer that sends each event to journald.

    Fields: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER, KERNEL_EVENT, KERNEL, and
    every other field in upper case after ``KERNEL_``, or after ``SUPERVISOR_``
    where the event is about no kernel.
    """

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    @classmethod
    def from_environ(
        cls, environ: Mapping[str, str] = os.environ, *, fds: Iterable[int] = (1, 2), path: str = SOCKET
    ) -> Self | None:
        """Return a journal if stdout or stderr is connected to it, else ``None``.

        ``JOURNAL_STREAM`` holds device and inode of that connection
        (systemd.exec(5)); inherited by a process whose output goes elsewhere
        it means nothing, hence the comparison.
        """
        claimed = environ.get("JOURNAL_STREAM", "")
        return cls(path) if claimed and any(claimed == _identity(fd) for fd in fds) else None

    def __call__(self, event: Mapping[str, object]) -> None:
        """Send the event; lost if the journal does not take it."""
        self.send(event)

    def send(self, event: Mapping[str, object]) -> bool:
        """Send the event; tell whether the journal has it."""
        fields = _fields(clean(event))
        try:
            payload = b"".join(_encode(name, value) for name, value in fields)
            cut = b"".join(_encode(name, value[-_LONGEST_CUT:]) for name, value in fields)
            return self._deliver(payload) or self._deliver_by_memfd(payload) or self._deliver(cut)
        except OSError:
            return False

    def close(self) -> None:
        """Close the socket; a later event opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _deliver(self, payload: bytes) -> bool:
        try:
            self._open().sendto(payload, self._path)
        except OSError as error:
            if error.errno in _TOO_LONG:
                return False
            raise
        return True

    def _deliver_by_memfd(self, payload: bytes) -> bool:
        """Send a sealed memory file instead of a datagram that is too long for the socket."""
        try:
            fd = os.memfd_create("kernel-supervisor-event", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except (OSError, AttributeError):
            return False
        try:
            write_all(fd, payload)
            # journald maps the file, and takes it only if nobody can change it any more.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
            self._open().sendmsg([], [rights], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _open(self) -> socket.socket:
        # Not connected: journald may be restarted, and each datagram finds the new one.
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket


def _fields(event: Mapping[str, object]) -> list[tuple[str, str]]:
    level = str(event.get("level", "info"))
    fields = [
        ("MESSAGE", sentence(event)),
        ("PRIORITY", str(_PRIORITIES.get(level, 6))),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("KERNEL_EVENT", str(event.get("event", ""))),
    ]
    prefix = "SUPERVISOR_"
    if event.get("kernel") is not None:
        fields.append(("KERNEL", str(event["kernel"])))
        prefix = "KERNEL_"
    for name, value in event.items():
        if name not in _TOLD and value is not None:
            fields.append((prefix + re.sub(r"[^A-Z0-9_]", "_", name.upper())[:50], _value(value)))
    return fields


def _value(value: object) -> str:
    if isinstance(value, list):
        return "\n".join(_value(item) for item in value)
    if isinstance(value, dict):
        return "\n".join(f"{name}={_value(item)}" for name, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _encode(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _identity(fd: int) -> str:
    try:
        status = os.fstat(fd)
    except OSError:
        return ""
    return f"{status.st_dev}:{status.st_ino}"
