"""What a kernel told its clients, on disk, bounded: for those that were away.

Owns one SQLite file a kernel, written in batches; several servers may write
one.  Knows nothing of connections.  A disk that is full or hangs costs what is
recorded, never a message to a page.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from supervisor.disk.off_loop import Hanging, Lane

log = logging.getLogger(__name__)

T = TypeVar("T")
Fields = dict[str, Any]
Statement = tuple[str, tuple[Any, ...]]

# How long a look at a file may take that others write, and how long a page that comes waits for
# what it missed; seconds.
BUSY_TIMEOUT = 2.0
PATIENCE = 5.0
MOST_EXECUTIONS = 5000
# The columns of message are the fields of Message, in their order.
_SCHEMA = """
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS message (
    id TEXT, channel TEXT, session TEXT, request TEXT, kind TEXT, missed INTEGER, packed BLOB, at REAL,
    PRIMARY KEY (id, channel)
);
CREATE INDEX IF NOT EXISTS by_request ON message (request);
CREATE INDEX IF NOT EXISTS by_time ON message (at);
CREATE TABLE IF NOT EXISTS execution (request TEXT PRIMARY KEY, begun REAL, ended REAL);
CREATE INDEX IF NOT EXISTS by_begin ON execution (begun);
"""
# Of a message that several servers heard, none is missed that one of them has passed on.
_TELL = """
INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, channel) DO UPDATE SET missed = missed AND excluded.missed
"""
# Whoever hears the end writes it, be it another server than the one that heard the beginning.
_HEARD = {
    "busy": "INSERT INTO execution (begun, request) VALUES (?, ?) ON CONFLICT DO NOTHING",
    "idle": "UPDATE execution SET ended = ? WHERE request = ? AND ended IS NULL",
}
_TOO_OLD = ("DELETE FROM message WHERE at < ?", "DELETE FROM execution WHERE begun < ?")
# What was asked, and that it was answered, stays when what came of it is too much.
_ASKED = "kind IN ('execute_request', 'execute_reply')"
_NEWER = f"PARTITION BY {_ASKED} ORDER BY rowid DESC"
_TOO_MUCH = f"""
DELETE FROM message WHERE rowid IN (SELECT rowid FROM (
    SELECT rowid, {_ASKED} AS asked, sum(length(packed)) OVER ({_NEWER}) AS size FROM message
) WHERE size > iif(asked, ?1 / 8, ?1 * 7 / 8))
"""  # noqa: S608
_TOO_MANY = "DELETE FROM execution WHERE rowid <= (SELECT max(rowid) FROM execution) - ?"
_OPEN = """kind = 'execute_request' AND session = ? AND NOT EXISTS
    (SELECT 1 FROM message AS reply WHERE reply.request = message.request AND reply.kind = 'execute_reply')"""
_LONGEST_ID = 64


def _size_of(values: tuple[Any, ...]) -> int:
    return 100 + sum(len(value) for value in values if isinstance(value, str | bytes))


class Message(NamedTuple):
    """A message of a kernel, or an ``execute_request`` to it: of which session, about which request."""

    id: str
    channel: str
    session: str
    request: str
    kind: str
    missed: bool
    packed: bytes
    at: float

    @property
    def parts(self) -> list[bytes]:
        """Header, parent header, metadata, content and buffers."""
        return list(msgspec.msgpack.decode(self.packed))

    def said(self, part: int) -> Fields:
        """What one of the parts says; nothing, if that is not what a message says."""
        try:
            found = json.loads(self.parts[part])
        except (ValueError, IndexError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}

    @property
    def content(self) -> Fields:
        """What it says."""
        return self.said(3)

    @property
    def cell(self) -> str:
        """The cell of a request."""
        return str(self.said(2).get("cellId") or "")


class Recorder:
    """Records one kernel, once it is told where."""

    def __init__(self, name: str) -> None:
        self.file = Path()
        self.max_bytes, self.max_age = 0, 0.0
        self._lane = Lane(f"recording of {name}")
        # Statements with their values, and how much they take; put by the loop, taken in the lane.
        self._waiting: deque[Statement] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._failing = False
        self._untrimmed = inf
        self._database: sqlite3.Connection | None = None

    def record_to(self, file: Path, max_bytes: int, max_age: float) -> None:
        """Record so many bytes, at most (0: nothing), of so many seconds."""
        self.file, self.max_bytes, self.max_age = file, max_bytes, max_age

    def add(
        self, channel: str, session: str, header: Fields, parent: Fields, parts: list[bytes], *, missed: bool
    ) -> None:
        """Record a message that is for a session, with this header, about the request ``parent``."""
        id_, kind, request = str(header.get("msg_id")), str(header.get("msg_type")), str(parent["msg_id"])
        packed = msgspec.msgpack.encode(parts)
        self._put(_TELL, Message(id_, channel, session, request, kind, missed, packed, time.time()))

    def hear(self, request: str, state: str) -> None:
        """Record that the execution of a request has begun ("busy"), or is over ("idle")."""
        self._put(_HEARD[state], (time.time(), request[:_LONGEST_ID]))

    def _put(self, statement: str, values: tuple[Any, ...]) -> None:
        if (size := _size_of(values)) > self.max_bytes:
            return
        # A lone surrogate is JSON, but no text to SQLite.
        values = tuple(v.encode(errors="replace").decode() if isinstance(v, str) else v for v in values)
        with self._lock:
            is_first = not self._waiting
            self._waiting.append((statement, values))
            self._size += size
            while self._size > self.max_bytes:
                self._size -= _size_of(self._waiting.popleft()[1])
        if is_first:
            try:
                self._lane.put(self._write)
            except OSError:  # no thread is to be had
                self._take()

    def _take(self) -> tuple[deque[Statement], int]:
        """What waits; nothing does any more."""
        with self._lock:
            taken = self._waiting, self._size
            self._waiting, self._size = deque(), 0
            return taken

    def _write(self) -> None:
        """Write what waits, and drop the oldest beyond the bounds; in the lane."""
        batch, size = self._take()

        def work(database: sqlite3.Connection) -> None:
            for statement, values in batch:
                database.execute(statement, values)
            for statement in _TOO_OLD:
                database.execute(statement, (time.time() - self.max_age,))
            self._untrimmed += size
            if self._untrimmed >= self.max_bytes // 8:  # not each time: it reads the whole index
                self._untrimmed = 0.0
                database.execute(_TOO_MUCH, (self.max_bytes,))
                database.execute(_TOO_MANY, (MOST_EXECUTIONS,))

        self._guarded(work, None)

    def _guarded(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What the work comes to with the file, which is kept open; in the lane."""
        try:
            if self._database is None or not self.file.exists():
                self._database = connect(self.file)
            with self._database as database:
                found = work(database)
        except (sqlite3.Error, OSError) as error:
            self._database = None
            if type(error) is sqlite3.DatabaseError:
                # No database, or a broken one: what is recorded is worth less than the recording.
                self._unlink()
            if not self._failing:
                self._failing = True
                log.warning("cannot record to %s, pages may miss output: %s", self.file, error)
            return otherwise
        self._failing = False
        return found

    async def missed(self, session: str) -> list[Message]:
        """What this session missed, in order; it has it then."""

        def work(database: sqlite3.Connection) -> list[Message]:
            found = _messages(database, "session = ? AND missed", session)
            database.execute("UPDATE message SET missed = 0 WHERE session = ?", (session,))
            return found

        return await self._read(work, [])

    async def open_requests(self, session: str) -> list[Message]:
        """What this session asked and was never answered."""
        return await self._read(lambda database: _messages(database, _OPEN, session), [])

    async def told(self, request: str) -> list[Message]:
        """What it told of a request."""
        return await self._read(lambda database: _messages(database, "request = ?", request), [])

    async def executions(self, cells: Container[str]) -> list[tuple[Message, list[Message]]]:
        """The last that was executed of each of these cells, with what came of it."""
        return await self._read(lambda database: list(executions(database, cells)), [])

    async def spans(self, since: float) -> list[tuple[float, float]]:
        """From when to when it executed, of what ended after ``since``; in seconds since the epoch."""
        query = "SELECT begun, ended FROM execution WHERE ended > ? AND ended >= begun ORDER BY begun"
        return await self._read(lambda database: database.execute(query, (since,)).fetchall(), [])

    async def flush(self) -> None:
        """Write what waits."""
        await self._read(lambda _: None, None)

    async def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What the work comes to when all that waits is written."""
        if not self.max_bytes:
            return otherwise

        def both() -> T:
            self._write()
            return self._guarded(work, otherwise)

        try:
            return await self._lane.do(both, patience=PATIENCE)
        except (Hanging, OSError) as error:
            log.warning("cannot read %s, pages may miss output: %s", self.file, error)
            return otherwise

    def remove(self) -> None:
        """The kernel is no more: forget all of it."""
        self.max_bytes = 0
        self._take()
        self._lane.begin(self._unlink)

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.file}{suffix}").unlink()


def file_of(state_dir: str, id_: str) -> str:
    """Where a kernel is recorded, as the daemon tells of its directory and of the kernel."""
    return str(Path(state_dir, "recorder", f"{id_}.sqlite"))


def connect(file: Path) -> sqlite3.Connection:
    """The file, made if need be, for its owner alone.  Raises sqlite3.Error and OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(file, timeout=BUSY_TIMEOUT, check_same_thread=False)
    try:
        database.executescript(_SCHEMA)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _messages(database: sqlite3.Connection, which: str, *values: str) -> list[Message]:
    found = database.execute(f"SELECT * FROM message WHERE {which} ORDER BY rowid", values)  # noqa: S608
    return list(map(Message._make, found))


def executions(
    database: sqlite3.Connection, cells: Container[str] | None = None
) -> Iterator[tuple[Message, list[Message]]]:
    """What was asked to be executed, the oldest first, with what came of it; of ``cells`` the last of each.

    Raises sqlite3.Error.
    """
    asked = _messages(database, "kind = 'execute_request'")
    if cells is not None:
        asked = list({each.cell: each for each in asked if each.cell in cells}.values())
    for each in asked:
        yield each, _messages(database, "request = ? AND channel = 'iopub'", each.request)
