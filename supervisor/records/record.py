"""What is on record of each kernel, so that the next supervisor can take it up.

Owns ``STATE_DIR/kernels``: one record per kernel, replaced whole, with the
version before it kept.  A record that cannot be read is set aside, never taken
for an empty one; one of a newer version is left alone.  Also owns the mark in
the environment by which a process is found that no record knows of yet.
Never looks at processes and decides nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from supervisor.core.model import JobId, ProcessId
from supervisor.disk.files import (
    read_own,
    remove_temporaries,
    sync_directory,
    write_atomically,
)
from supervisor.disk.privacy import make_private_directory
from supervisor.output.stream import Position
from supervisor.settings.config import NAME_PATTERN, KernelConfig

VERSION = 1
MARK_VARIABLE = "KERNEL_SUPERVISOR_RUN"

_SUFFIX = ".json"
_VALID_NAME = re.compile(NAME_PATTERN)


# Bounds of what may be on record: whatever is beyond them would stop whoever reckons with it.
Instant = Annotated[float, Meta(ge=-1e11, le=1e11)]
Count = Annotated[int, Meta(ge=0, lt=1 << 53)]
_PID = range(1, 1 << 31)
_LARGEST = 1 << 63


class RecordedDeath(Struct, frozen=True, kw_only=True):
    """A run that ended; ``at_wall`` in seconds since the epoch, ``uptime`` in seconds."""

    at_wall: Instant
    generation: Count
    pid: int | None = None
    cause: str = "unknown"
    exit_code: int | None = None
    signal: str | None = None
    detail: str = ""
    uptime: Instant = 0.0


class Record(Struct, frozen=True, kw_only=True):
    """All that is kept of a kernel.

    ``spawned_at`` and ``failures`` are monotonic instants of the boot
    ``boot_id`` and mean nothing in another.  ``launched`` is ``None`` also when
    it was written by a version whose settings this one does not understand.
    ``id`` is a UUID for the whole life of the kernel, ``language`` what it runs, once known.
    ``address`` holds ports and key.  ``output_from`` is where the output of
    the run begins.  ``stopping`` is why the run is being stopped, if it is.
    ``uid`` is the account that has the key, ``None`` for the supervisor's own.
    ``interrupt_mode`` is that of the kernelspec it was launched with, empty if nobody knows.
    A field that is added has a default, and the version stays: older records
    are read with it, and older programs read newer records without it.
    """

    version: int = VERSION
    name: str
    id: str = ""
    language: str = ""
    generation: Count = 0
    boot_id: str = ""
    want: Literal["up", "down"] | None = None
    launched: KernelConfig | None = None
    process: ProcessId | None = None
    job: JobId | None = None
    ready: bool = False
    spawned_at: Instant | None = None
    output_from: Position | None = None
    address: Mapping[str, Any] | None = None
    uid: Count | None = None
    failures: tuple[Instant, ...] = ()
    streak: Count = 0
    restarts: Count = 0
    failed: str = ""
    stopping: str = ""
    interrupt_mode: str = ""
    deaths: tuple[RecordedDeath, ...] = field(default=())

    def __repr__(self) -> str:
        # Never the key, never an environment value: a repr ends up in logs.
        return f"Record(name={self.name!r}, generation={self.generation}, process={self.process!r})"


class Damaged(Struct, frozen=True):
    """A record that could not be read, why, where it is now, and whether the one before it stands in."""

    name: str
    reason: str
    moved_to: Path | None
    is_replaced: bool

    def __str__(self) -> str:
        stands_in = "the one before it stands in" if self.is_replaced else "there is no other"
        return f"{self.name}: its record was damaged ({self.reason}), set aside; {stands_in}"


class Newer(Struct, frozen=True):
    """A record of a newer version: neither it nor its kernel may be touched."""

    name: str
    version: int

    def __str__(self) -> str:
        return (
            f"{self.name}: its record is of version {self.version}, this program knows {VERSION}: "
            "the kernel is left alone; upgrade, or stop it with the newer program"
        )


class NewerRecord(OSError):
    """The record of this kernel was written by a newer version and is not overwritten."""


class _Unreadable(Exception):
    """Not a record; the message says why."""


class RecordStore:
    """The records in a directory, for the one daemon that holds the lock of the state directory.

    Makes the directory (0700) if need be.  Raises UnsafeDirectory, OSError.
    """

    def __init__(self, directory: Path) -> None:
        make_private_directory(directory)
        self.directory = directory
        self._newer: dict[str, int] = {}

    def path(self, name: str) -> Path:
        """Where the record of a kernel is."""
        return self.directory / f"{name}{_SUFFIX}"

    def write(self, record: Record) -> None:
        """Replace the record of its kernel, durably; the one before it becomes ``.previous``.

        At every moment there is a valid one.  Raises OSError, with the record
        on disk unchanged, and NewerRecord.
        """
        self._refuse_newer(record.name)
        path, content = self.path(record.name), msgspec.json.encode(record)
        try:
            write_atomically(path, content, before=lambda: _keep_previous(path))
        except FileNotFoundError:  # somebody has cleaned up
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(path, content)

    def read_all(self) -> tuple[list[Record], list[Damaged | Newer]]:
        """Every record, by name, and what was wrong.

        Damaged ones are renamed to ``NAME.json.damaged-N``; the version before
        stands in if it is valid.  To be called before the first write, once.
        Raises OSError if the directory cannot be read.
        """
        remove_temporaries(self.directory)
        found = [self._read(name) for name in self._names()]
        troubles = [trouble for _, trouble in found if trouble is not None]
        return [record for record, _ in found if record is not None], troubles

    def remove(self, name: str) -> None:
        """Forget the kernel; no error if there is no record.  Raises OSError and NewerRecord."""
        self._refuse_newer(name)
        # The older first: alone, it would be taken for the record of a live kernel.
        _previous(self.path(name)).unlink(missing_ok=True)
        self.path(name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            sync_directory(self.directory)

    def _names(self) -> list[str]:
        names = {
            path.name.removesuffix(".previous").removesuffix(_SUFFIX)
            for path in self.directory.iterdir()
            if path.name.endswith((_SUFFIX, f"{_SUFFIX}.previous"))
        }
        return sorted(name for name in names if _VALID_NAME.fullmatch(name))

    def _read(self, name: str) -> tuple[Record | None, Damaged | Newer | None]:
        path = self.path(name)
        try:
            found = _load(path, name)
        except _Unreadable as error:
            return self._stand_in(name, str(error))
        if isinstance(found, Newer):
            self._newer[name] = found.version
            return None, found
        return found, None

    def _stand_in(self, name: str, reason: str) -> tuple[Record | None, Damaged | Newer]:
        """Set the damaged record aside and put the one before it into its place, if that is valid."""
        path = self.path(name)
        moved_to = _set_aside(path)
        try:
            found = _load(_previous(path), name)
        except _Unreadable:
            if os.path.lexists(_previous(path)):
                _set_aside(_previous(path))
            return None, Damaged(name, reason, moved_to, is_replaced=False)
        if isinstance(found, Newer):
            self._newer[name] = found.version
            return None, found
        with suppress(OSError):  # It stays where it is, and is found there the next time.
            _copy(_previous(path), path)
        return found, Damaged(name, reason, moved_to, is_replaced=True)

    def _refuse_newer(self, name: str) -> None:
        if name in self._newer:
            raise NewerRecord(str(Newer(name, self._newer[name])))


def mark(state_dir: Path, name: str, generation: int) -> str:
    """The value of ``MARK_VARIABLE`` in the environment of one run of one kernel of one state directory."""
    return f"{_digest(state_dir)}/{name}/{generation}"


def helper_mark(state_dir: Path, what: str) -> str:
    """The mark of a process that is the supervisor's own, and of no run."""
    return f"{_digest(state_dir)}/+{what}"


def is_helper_mark(value: str, state_dir: Path) -> bool:
    """Whether a mark is of a process that a supervisor of this state directory had for itself."""
    return value.startswith(helper_mark(state_dir, ""))


def marked_run(value: str, state_dir: Path) -> tuple[str, int] | None:
    """The kernel and the generation that a mark is of, ``None`` if it is of another state directory."""
    digest, _, rest = value.partition("/")
    name, _, generation = rest.rpartition("/")
    if digest != _digest(state_dir) or not re.fullmatch("[0-9]{1,18}", generation):
        return None
    return (name, int(generation)) if _VALID_NAME.fullmatch(name) else None


def _digest(state_dir: Path) -> str:
    # Of the real path: the same directory by another name is the same.
    return hashlib.sha256(os.fsencode(os.path.realpath(state_dir))).hexdigest()[:16]


def _load(path: Path, name: str) -> Record | Newer:
    try:
        content = msgspec.json.decode(read_own(path))
    except FileNotFoundError:
        raise _Unreadable("it is missing") from None
    except OSError as error:
        raise _Unreadable(f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unreadable(f"not valid JSON: {error}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise _Unreadable("it has no version")
    if version > VERSION:
        return Newer(name, version)
    launched = content.pop("launched", None)
    try:
        record = msgspec.convert({**content, "version": VERSION}, Record)
    except msgspec.ValidationError as error:
        raise _Unreadable(str(error)) from error
    if record.name != name:
        raise _Unreadable(f'it is of the kernel "{record.name}"')
    process, begin = record.process, record.output_from
    if process is not None and not (process.pid in _PID and 0 <= process.start_time < _LARGEST):
        raise _Unreadable(f"no process has the pid {process.pid} and the start time {process.start_time}")
    if begin is not None and not all(0 <= number < _LARGEST for number in astuple(begin)):
        raise _Unreadable("no file has such a place in it")
    return replace(record, launched=_launched(launched))


def _launched(content: object) -> KernelConfig | None:
    try:
        return msgspec.convert(content, KernelConfig | None)
    except msgspec.ValidationError:
        return None


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def _keep_previous(path: Path) -> None:
    if os.path.lexists(path):
        _copy(path, _previous(path))


def _copy(path: Path, to: Path) -> None:
    """Give the content a second name, in one step that leaves the first as it is."""
    link = to.with_name(f".{to.name}.link.tmp")
    try:
        link.unlink(missing_ok=True)
        link.hardlink_to(path)
    except OSError:
        # A file system without hard links.
        write_atomically(to, read_own(path))
        return
    link.replace(to)
    # rename(2) does nothing, and leaves both, when they are the same file.
    link.unlink(missing_ok=True)


def _set_aside(path: Path) -> Path | None:
    number = 1
    base = path.name.removesuffix(".previous")
    while os.path.lexists(aside := path.with_name(f"{base}.damaged-{number}")):
        number += 1
    try:
        path.rename(aside)
    except OSError:
        return None  # It is missing, or the directory is read-only.
    return aside
