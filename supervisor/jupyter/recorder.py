"""What a kernel told its clients, on disk, bounded: for those that were away.

Owns one SQLite file a kernel, written in batches; several servers may write
one.  Knows nothing of connections.  A disk that is full or hangs costs what is
recorded, never a message to a page.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import struct
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from supervisor.disk.off_loop import Hanging, Lane

log = logging.getLogger(__name__)

T = TypeVar("T")
Fields = dict[str, Any]
Statement = tuple[str, tuple[Any, ...]]

# How long messages are gathered before they are written, a look at a file that others write, and
# how long a page that comes waits for what it missed; seconds.
BATCH_INTERVAL = 0.2
BUSY_TIMEOUT = 2.0
PATIENCE = 5.0
MOST_EXECUTIONS = 5000
# The columns are the fields of Message and Request, in their order.
_SCHEMA = """
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS told (
    id TEXT, channel TEXT, session TEXT, request TEXT, kind TEXT, missed INTEGER, frames BLOB, at REAL,
    PRIMARY KEY (id, channel)
);
CREATE INDEX IF NOT EXISTS by_request ON told (request);
CREATE INDEX IF NOT EXISTS by_time ON told (at);
CREATE TABLE IF NOT EXISTS asked (
    id TEXT PRIMARY KEY, session TEXT, cell TEXT, header TEXT, code TEXT, at REAL, ended INTEGER
);
CREATE TABLE IF NOT EXISTS execution (request TEXT PRIMARY KEY, begun REAL, ended REAL);
CREATE INDEX IF NOT EXISTS by_begin ON execution (begun);
"""
# Of a message that several servers heard, none is missed that one of them has passed on.
_TELL = """
INSERT INTO told VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id, channel) DO UPDATE SET missed = missed AND excluded.missed
"""
_ASK = "INSERT OR IGNORE INTO asked VALUES (?, ?, ?, ?, ?, ?, ?)"
_END = "UPDATE asked SET ended = 1 WHERE id = ?"
# Whoever hears the end writes it, be it another server than the one that heard the beginning.
_HEARD = {
    "busy": "INSERT INTO execution (begun, request) VALUES (?, ?) ON CONFLICT DO NOTHING",
    "idle": "UPDATE execution SET ended = ? WHERE request = ? AND ended IS NULL",
}
# What is dropped: what is older than that, and beyond so much, the oldest.
_TRIMMED = {
    "told": ("at", "length(frames)"),
    "asked": ("at", "length(code) + length(header)"),
    "execution": ("begun", "1"),
}
_TOO_OLD = "DELETE FROM {0} WHERE {1} < ?"
_TOO_MUCH = """
DELETE FROM {0} WHERE rowid IN
    (SELECT rowid FROM (SELECT rowid, sum({2}) OVER (ORDER BY rowid DESC) AS total FROM {0}) WHERE total > ?)
"""
_LONGEST_ID = 64


def _size_of(values: tuple[Any, ...]) -> int:
    return 100 + sum(len(value) for value in values if isinstance(value, str | bytes))


class Message(NamedTuple):
    """A message of a kernel: to whom, in answer to what, and as WebSockets have it."""

    id: str
    channel: str
    session: str
    request: str
    kind: str
    missed: bool
    frames: bytes
    at: float = 0.0

    @classmethod
    def of(cls, channel: str, session: str, header: Fields, parent: Fields, frames: bytes) -> Message:
        """A message for a session, with this header, in answer to ``parent``."""
        id_, kind, request = header.get("msg_id"), header.get("msg_type"), parent.get("msg_id")
        return cls(str(id_), channel, session, str(request or ""), str(kind), False, frames)

    @property
    def parts(self) -> list[bytes]:
        """Header, parent header, metadata, content and buffers."""
        # As jupyter_server does, which is not there wherever somebody replays.
        (count,) = struct.unpack_from("<Q", self.frames)
        _, *offsets = struct.unpack_from(f"<{count}Q", self.frames, 8)
        return [self.frames[begin:end] for begin, end in pairwise(offsets)]

    @property
    def content(self) -> Fields:
        """What it says; nothing, if that is not what a message says."""
        try:
            found = json.loads(self.parts[3])
        except (ValueError, IndexError, RecursionError):
            found = None
        return found if isinstance(found, dict) else {}


class Request(NamedTuple):
    """A request to execute, with its header as JSON: by which session, of which cell."""

    id: str
    session: str
    cell: str
    header: str
    code: str
    at: float = 0.0
    ended: bool = False


class Recorder:
    """Records one kernel, once it is told where."""

    def __init__(self, name: str) -> None:
        self.file = Path()
        self.max_bytes, self.max_age = 0, 0.0
        self._lane = Lane(f"recording of {name}")
        # Statements with their values, and how much they take.
        self._waiting: deque[Statement] = deque()
        self._size = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._failing = False
        self._untrimmed = inf
        self._database: sqlite3.Connection | None = None

    def record_to(self, file: Path, max_bytes: int, max_age: float) -> None:
        """Record so many bytes, at most (0: nothing), of so many seconds."""
        self.file, self.max_bytes, self.max_age = file, max_bytes, max_age

    def add(self, message: Message) -> None:
        """Record a message, soon."""
        self._put(_TELL, message._replace(at=time.time()))

    def ask(self, request: Request) -> None:
        """Record that something was asked."""
        self._put(_ASK, request._replace(at=time.time()))
        self._ring()  # at once: it tells the next server what nobody has answered

    def end(self, request: str) -> None:
        """Record that it was answered."""
        self._put(_END, (request,))

    def hear(self, request: str, state: str) -> None:
        """Record that the execution of a request has begun ("busy"), or is over ("idle")."""
        self._put(_HEARD[state], (time.time(), request[:_LONGEST_ID]))

    def _put(self, statement: str, values: tuple[Any, ...]) -> None:
        if (size := _size_of(values)) > self.max_bytes:
            return
        # A lone surrogate is JSON, but no text to SQLite.
        values = tuple(v.encode(errors="replace").decode() if isinstance(v, str) else v for v in values)
        self._waiting.append((statement, values))
        self._size += size
        while self._size > self.max_bytes:
            self._size -= _size_of(self._waiting.popleft()[1])
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(BATCH_INTERVAL, self._ring)

    def _ring(self) -> None:
        self._stop_alarm()
        if self._lane.busy_for:  # a disk that hangs gets no more, and what waits here is bounded
            self._set_alarm()
        else:
            with suppress(OSError):  # no thread is to be had
                self._lane.put(self._write_what_waits())

    def _stop_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _write_what_waits(self) -> Callable[[], None]:
        """The work of it; nothing waits any more."""
        self._stop_alarm()
        write = partial(self._write, self._waiting, self._size)
        self._waiting, self._size = deque(), 0
        return partial(self._guarded, write, None)

    def _write(self, batch: Iterable[Statement], size: int, database: sqlite3.Connection) -> None:
        """Write a batch, and drop the oldest beyond the bounds."""
        for statement, values in batch:
            database.execute(statement, values)
        self._untrimmed += size
        is_much = self._untrimmed >= self.max_bytes // 8  # not each time: it reads the whole index
        most = {"told": self.max_bytes * 7 // 8, "asked": self.max_bytes // 8, "execution": MOST_EXECUTIONS}
        for table, columns in _TRIMMED.items():
            database.execute(_TOO_OLD.format(table, *columns), (time.time() - self.max_age,))
            if is_much:
                self._untrimmed = 0.0
                database.execute(_TOO_MUCH.format(table, *columns), (most[table],))

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
        whose = "WHERE session = ? AND missed", (session,)

        def work(database: sqlite3.Connection) -> list[Message]:
            found = _messages(database, *whose)
            database.execute(f"UPDATE told SET missed = 0 {whose[0]}", whose[1])  # noqa: S608
            return found

        return await self._read(work, [])

    async def open_requests(self, session: str) -> list[Request]:
        """What this session asked and was never answered."""
        return await self._read(
            lambda database: _requests(database, "WHERE session = ? AND NOT ended", (session,)), []
        )

    async def told(self, request: str) -> list[Message]:
        """What it told of a request."""
        return await self._read(lambda database: _messages(database, "WHERE request = ?", (request,)), [])

    async def executions(self, cells: Container[str]) -> list[tuple[Request, list[Message]]]:
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
        write = self._write_what_waits()

        def both() -> T:
            write()
            return self._guarded(work, otherwise)

        try:
            return await self._lane.do(both, patience=PATIENCE)
        except (Hanging, OSError) as error:
            log.warning("cannot read %s, pages may miss output: %s", self.file, error)
            return otherwise

    def remove(self) -> None:
        """The kernel is no more: forget all of it."""
        self.max_bytes = 0
        self._write_what_waits()  # by nobody
        self._lane.begin(self._unlink)

    def _unlink(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self.file}{suffix}").unlink()


def file_of(state_dir: str, id_: str) -> Path:
    """Where a kernel is recorded, as the daemon tells of its directory and of the kernel."""
    return Path(state_dir, "recorder", f"{id_}.sqlite")


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


def _messages(database: sqlite3.Connection, which: str, values: tuple[str, ...]) -> list[Message]:
    found = database.execute(f"SELECT * FROM told {which} ORDER BY rowid", values)  # noqa: S608
    return list(map(Message._make, found))


def _requests(database: sqlite3.Connection, which: str = "", values: tuple[str, ...] = ()) -> list[Request]:
    found = database.execute(f"SELECT * FROM asked {which} ORDER BY rowid", values)  # noqa: S608
    return list(map(Request._make, found))


def executions(
    database: sqlite3.Connection, cells: Container[str] | None = None
) -> Iterator[tuple[Request, list[Message]]]:
    """What was executed, the oldest first, with what came of it; of ``cells`` the last of each.

    Raises sqlite3.Error.
    """
    asked = _requests(database)
    if cells is not None:
        asked = list({request.cell: request for request in asked if request.cell in cells}.values())
    for request in asked:
        yield request, _messages(database, "WHERE request = ?", (request.id,))
