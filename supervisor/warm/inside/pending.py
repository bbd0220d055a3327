"""What a kernel has read and not answered, and what it executes, in a small file that outlives it.

Owns the form of the file; knows no message and no socket.  Page 0 tells how far the start came and why it
failed; each slot after it is one request.  A slot counts only if the checksum in its head fits its payload,
so a process that is killed within a write leaves it as it was: free before, taken until it is zeroed.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import struct
import time
import zlib
from typing import NamedTuple

SLOTS, SLOT, PAGE = 1024, 2048, 4096
SIZE = PAGE + SLOTS * SLOT
MAGIC = b"KSpend1\n"
# Magic, checksum and length of the reason, which follows.
_TOP = struct.Struct("<8sII")
# Checksum, length; replied, idle, started (single bytes, each written by one store); execution count,
# when an answer was first tried, when it was started.
_HEAD = struct.Struct("<IHBBBxHIId")
# Run, number, received at, and the lengths of identities (how many), header, code.
_FIXED = struct.Struct("<IQdBHH")
REPLIED, IDLE, _STARTED = 6, 7, 8
# Who replied or went idle: the kernel that took it, or one after it.
BY_ITSELF, FOR_IT = 1, 2
# So many that have ended without a reply are kept: theirs may be on its way; older ones get none, ever.
UNREPLIED = 64


@dataclasses.dataclass(eq=False)
class Request:
    """One request that was read, by where its slot begins; instants are seconds since the epoch."""

    slot: int
    run: int
    number: int
    received: float
    idents: list[bytes]
    header: bytes
    code: str
    replied: int
    idle: int
    started: float | None
    execution_count: int
    told: int


class Left(NamedTuple):
    """What a file says: why the start failed, if it did, and the requests in the order of their arrival."""

    reason: str
    requests: list[Request]


def read(path: str) -> Left:
    """What the file says, whoever writes it meanwhile.  Raises OSError."""
    with open(path, "rb") as file:
        data = file.read(SIZE)
    return Left(_reason(data), _requests(data)) if data[:8] == MAGIC else Left("", [])


def _reason(data: bytes) -> str:
    if len(data) < PAGE:
        return ""
    _, crc, length = _TOP.unpack_from(data)
    text = data[_TOP.size : PAGE][:length]
    return text.decode("utf-8", "replace") if length and (zlib.crc32(text) or 1) == crc else ""


def _requests(data: bytes) -> list[Request]:
    found = (
        _parse(at, data[at : at + SLOT])
        for at in range(PAGE, len(data) - SLOT + 1, SLOT)
        if data[at : at + 4] != b"\0\0\0\0"
    )
    return sorted((one for one in found if one is not None), key=lambda one: (one.run, one.number))


def _parse(slot: int, block: bytes) -> Request | None:
    crc, length, replied, idle, started, _, count, told, when = _HEAD.unpack_from(block)
    payload = block[_HEAD.size : _HEAD.size + length]
    if len(payload) != length or length < _FIXED.size or (zlib.crc32(payload) or 1) != crc:
        return None
    run, number, received, many, header_length, code_length = _FIXED.unpack_from(payload)
    at, idents = _FIXED.size, []
    for _ in range(many):
        size = payload[at] if at < length else 0
        idents.append(payload[at + 1 : at + 1 + size])
        at += 1 + size
    header, code = payload[at : at + header_length], payload[at + header_length :][:code_length]
    if not idents:
        return None
    return Request(
        *(slot, run, number, received, idents, header, code.decode("utf-8", "replace")),
        *(replied, idle, when if started else None, count, told),
    )


def _map(path: str) -> mmap.mmap:
    nofollow = getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | nofollow, 0o600)
    try:
        if os.fstat(fd).st_size != SIZE or os.pread(fd, 8, 0) != MAGIC:
            os.ftruncate(fd, 0)
            os.ftruncate(fd, SIZE)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, SIZE)  # a full disk is an error here, no SIGBUS later
        return mmap.mmap(fd, SIZE)
    finally:
        os.close(fd)


class Pending:
    """The file of one kernel, of this run on; ``left`` is what earlier ones did not answer."""

    def __init__(self, path: str | None, run: int) -> None:
        """Open it, or make it (0600); ``None``: in memory, and gone with the process.  Raises OSError."""
        self._map = mmap.mmap(-1, SIZE) if path is None else _map(path)
        self._run, self._number = run & 0xFFFFFFFF, 0
        self._slot_of: dict[str, int] = {}
        self._unreplied: dict[str, None] = {}
        self._pid = os.getpid()
        self._map[: _TOP.size] = _TOP.pack(MAGIC, 0, 0)
        # Not through the map: every page of it that is touched is memory of this process.
        self.left = [] if path is None else read(path).requests
        kept = {request.slot for request in self.left}
        # The lowest first: the same page again and again.
        self._free = [at for at in range(SIZE - SLOT, PAGE - 1, -SLOT) if at not in kept]

    def fail(self, reason: str) -> None:
        """Put on record why the start failed."""
        text = reason.encode("utf-8", "replace")[-(PAGE - _TOP.size) :]
        self._map[_TOP.size : _TOP.size + len(text)] = text
        self._map[: _TOP.size] = _TOP.pack(MAGIC, zlib.crc32(text) or 1, len(text))

    def take(self, msg_id: str, idents: list[bytes], header: bytes, code: bytes = b"") -> None:
        """Note a request, before it goes on to the kernel; one that does not fit is not noted."""
        fixed = _FIXED.pack(self._run, self._number, time.time(), len(idents), len(header), len(code))
        payload = b"".join([fixed, *(bytes([len(ident)]) + ident for ident in idents), header, code])
        if len(payload) > SLOT - _HEAD.size or not self._free or msg_id in self._slot_of:
            return
        self._number += 1
        at = self._free.pop()
        self._map[at + _HEAD.size : at + _HEAD.size + len(payload)] = payload
        _HEAD.pack_into(self._map, at, zlib.crc32(payload) or 1, len(payload), 0, 0, 0, 0, 0, 0, 0.0)
        self._slot_of[msg_id] = at

    def start(self, msg_id: str, execution_count: int) -> None:
        """It is executed from now on."""
        at = self._slot_of.get(msg_id)
        if at is not None and os.getpid() == self._pid:
            struct.pack_into("<I", self._map, at + 12, execution_count & 0xFFFFFFFF)
            struct.pack_into("<d", self._map, at + 20, time.time())
            self._map[at + _STARTED] = 1

    def mark(self, msg_id: str, what: int) -> None:
        """REPLIED or IDLE; with both, the slot is free again.

        A kernel replies before it is idle or, to what it does not know and where it fails itself, never.
        """
        at = self._slot_of.get(msg_id)
        if at is None or os.getpid() != self._pid:  # a forked child shares the map
            return
        self._map[at + what] = BY_ITSELF
        if self._map[at + REPLIED] and self._map[at + IDLE]:
            self._unreplied.pop(msg_id, None)
            self._free_slot(msg_id)
        elif what == IDLE:
            self._unreplied[msg_id] = None
            if len(self._unreplied) > UNREPLIED:
                oldest = list(self._unreplied)[0]  # noqa: RUF015 - other threads change it
                self._unreplied.pop(oldest, None)
                self._free_slot(oldest)

    def _free_slot(self, msg_id: str) -> None:
        at = self._slot_of.pop(msg_id, None)
        if at is not None:
            self._wipe(at)

    def taken(self, msg_id: str) -> Request | None:
        """A request that this run has taken."""
        at = self._slot_of.get(msg_id)
        return None if at is None else _parse(at, self._map[at : at + SLOT])

    def executing(self) -> list[Request]:
        """What is executed now."""
        found = [self.taken(msg_id) for msg_id in list(self._slot_of)]
        return [one for one in found if one and one.started and not one.idle]

    def tell(self, request: Request, what: int, *, undo: bool = False) -> None:
        """An earlier run's request is being answered, or could not be after all."""
        request.told = request.told or int(time.time())
        struct.pack_into("<I", self._map, request.slot + 16, request.told)
        self._map[request.slot + what] = 0 if undo else FOR_IT

    def adopt(self, msg_id: str, request: Request) -> None:
        """The new kernel answers this one as if it had taken it."""
        self._slot_of[msg_id] = request.slot

    def settle(self, request: Request) -> None:
        """Nothing more is to be done about it."""
        self._wipe(request.slot)

    def _wipe(self, at: int) -> None:
        length = min(_HEAD.unpack_from(self._map, at)[1], SLOT - _HEAD.size)
        self._map[at : at + _HEAD.size] = bytes(_HEAD.size)
        self._map[at + _HEAD.size : at + _HEAD.size + length] = bytes(length)
        self._free.append(at)
