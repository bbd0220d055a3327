"""What a kernel told its clients, on disk, bounded: for those that were away.

Owns one SQLite file a kernel, written by one thread in batches; several servers
may write one.  Knows nothing of connections.  A disk that is full or hangs
costs what is recorded, never a message to a page.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long messages are gathered before they are written, and a look at a file that others write; seconds.
BATCH_INTERVAL = 0.2
BUSY_TIMEOUT = 2.0
MOST_REQUESTS = 1000
MOST_EXECUTIONS = 5000
_SCHEMA = """
PRAGMA auto_vacuum = FULL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS message (
    id TEXT, channel TEXT, at REAL, session TEXT, request TEXT, kind TEXT, size INTEGER, missed INTEGER,
    parts BLOB, lengths TEXT, PRIMARY KEY (id, channel)
);
CREATE INDEX IF NOT EXISTS by_request ON message (request);
CREATE INDEX IF NOT EXISTS by_time ON message (at);
CREATE TABLE IF NOT EXISTS request (
    id TEXT PRIMARY KEY, at REAL, session TEXT, cell TEXT, header TEXT, code TEXT, ended INTEGER
);
CREATE TABLE IF NOT EXISTS execution (request TEXT PRIMARY KEY, begun REAL, ended REAL);
CREATE INDEX IF NOT EXISTS by_begin ON execution (begun);
"""
# Whoever hears the end writes it, be it another server than the one that heard the beginning.
_HEARD = {
    "busy": "INSERT INTO execution (begun, request) VALUES (?, ?) ON CONFLICT DO NOTHING",
    "idle": "UPDATE execution SET ended = ? WHERE request = ? AND ended IS NULL",
}
_LONGEST_ID = 64


class Message(NamedTuple):
    """A message of a kernel: to whom, in answer to what, and its frames after the signature."""

    id: str
    channel: str
    session: str
    request: str
    kind: str
    missed: bool
    parts: list[bytes]
    at: float = 0.0

    @property
    def content(self) -> dict[str, Any]:
        """What it says."""
        return dict(json.loads(self.parts[3]))


class Request(NamedTuple):
    """A request to execute: by which session, of which cell."""

    id: str
    session: str
    cell: str
    header: dict[str, Any]
    code: str
    at: float = 0.0


class Batch(NamedTuple):
    """What is written at once: requests, messages, what was answered, and what was heard of executions."""

    requests: Sequence[Request] = ()
    messages: Sequence[Message] = ()
    ended: Sequence[str] = ()
    heard: Sequence[tuple[str, float, str]] = ()


class Recorder:
    """Records one kernel.  ``max_bytes`` of 0: nothing; ``max_age`` in seconds."""

    def __init__(self, file: Path, threads: ThreadPoolExecutor, max_bytes: int, max_age: float) -> None:
        self.file = file
        self.max_bytes, self.max_age = max_bytes, max_age
        self._threads = threads
        self._batch: list[Message] = []
        self._requests: list[Request] = []
        self._ended: list[str] = []
        self._heard: list[tuple[str, float, str]] = []
        self._size = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._failing = False
        self._untrimmed = max_bytes
        self._database: sqlite3.Connection | None = None

    def add(self, message: Message) -> None:
        """Record a message, soon."""
        if not self.max_bytes:
            return
        self._batch.append(message._replace(at=time.time()))
        self._size += sum(map(len, message.parts))
        while self._size > self.max_bytes:
            self._size -= sum(map(len, self._batch.pop(0).parts))
        self._set_alarm()

    def ask(self, request: Request) -> None:
        """Record that something was asked."""
        if self.max_bytes:
            self._requests.append(request._replace(at=time.time()))
            self._write_soon()  # at once: it tells the next server what nobody has answered

    def end(self, request: str) -> None:
        """Record that it was answered."""
        if self.max_bytes:
            self._ended.append(request)
            self._set_alarm()

    def hear(self, request: str, state: str) -> None:
        """Record that the execution of a request has begun ("busy"), or is over ("idle")."""
        if self.max_bytes:
            self._heard.append((state, time.time(), request[:_LONGEST_ID]))
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(BATCH_INTERVAL, self._write_soon)

    def _write_soon(self) -> asyncio.Future[None]:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        batch = Batch(self._requests, self._batch, self._ended, self._heard)
        self._requests, self._batch, self._ended, self._heard, self._size = [], [], [], [], 0
        return asyncio.get_running_loop().run_in_executor(self._threads, self._write, batch)

    def _write(self, batch: Batch) -> None:
        self._untrimmed += sum(len(part) for message in batch.messages for part in message.parts)
        room = None
        if self._untrimmed >= self.max_bytes // 8:  # not each time: it reads the whole index
            self._untrimmed, room = 0, self.max_bytes * 7 // 8
        self._guarded(lambda database: write(database, batch, room, self.max_age), None)

    def _guarded(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What the work comes to with the file, which is kept open; in the thread."""
        try:
            if self._database is None or not self.file.exists():
                self._database = connect(self.file)
            with self._database as database:
                found = work(database)
        except (sqlite3.Error, OSError) as error:
            self._database = None
            if not self._failing:
                self._failing = True
                log.warning("cannot record to %s, pages may miss output: %s", self.file, error)
            return otherwise
        self._failing = False
        return found

    async def missed(self, session: str) -> list[Message]:
        """What this session missed, in order; it has it then."""
        return await self._read(lambda database: take_missed(database, session), [])

    async def open_requests(self, session: str) -> list[Request]:
        """What this session asked and was never answered."""
        return await self._read(lambda database: open_requests(database, session), [])

    async def executions(self, cells: Container[str]) -> list[tuple[Request, list[Message]]]:
        """The last that was executed of each of these cells, with what came of it."""
        return await self._read(lambda database: list(executions(database, cells)), [])

    async def spans(self, since: float) -> list[tuple[float, float]]:
        """From when to when it executed, of what ended after ``since``; in seconds since the epoch."""
        return await self._read(lambda database: spans(database, since), [])

    async def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if not self.max_bytes:
            return otherwise
        await self._write_soon()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: self._guarded(work, otherwise))

    def remove(self) -> None:
        """The kernel is no more: forget all of it."""
        self.max_bytes = 0
        for suffix in ("", "-wal", "-shm"):
            self._threads.submit(self.file.with_name(f"{self.file.name}{suffix}").unlink, missing_ok=True)

    async def flush(self) -> None:
        """Write what waits."""
        await self._write_soon()


def connect(file: Path) -> sqlite3.Connection:
    """The file, made if need be, for its owner alone.  Raises sqlite3.Error and OSError."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = sqlite3.connect(file, timeout=BUSY_TIMEOUT, check_same_thread=False)
    try:
        database.executescript(_SCHEMA)
    except sqlite3.Error as error:
        database.close()
        if not isinstance(error, sqlite3.OperationalError):
            # Not a database: what is recorded is worth less than the recording.
            file.unlink()
        raise
    return database


def write(database: sqlite3.Connection, batch: Batch, max_bytes: int | None, max_age: float) -> None:
    """Write a batch, and drop the oldest beyond the bounds.  Raises sqlite3.Error."""
    asked = [(r.id, r.at, r.session, r.cell, json.dumps(r.header), r.code) for r in batch.requests]
    database.executemany("INSERT OR IGNORE INTO request VALUES (?, ?, ?, ?, ?, ?, 0)", asked)
    database.executemany(
        "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [_row(message) for message in batch.messages],
    )
    database.executemany("UPDATE request SET ended = 1 WHERE id = ?", [(id_,) for id_ in batch.ended])
    for state, at, request in batch.heard:
        database.execute(_HEARD[state], (at, request))
    oldest = (time.time() - max_age,)
    database.execute("DELETE FROM message WHERE at < ?", oldest)
    database.execute("DELETE FROM request WHERE at < ?", oldest)
    database.execute("DELETE FROM execution WHERE begun < ?", oldest)
    if max_bytes is not None:
        database.execute(
            "DELETE FROM message WHERE rowid IN (SELECT rowid FROM (SELECT rowid,"
            " sum(size) OVER (ORDER BY rowid DESC) AS total FROM message) WHERE total > ?)",
            (max_bytes,),
        )
        database.execute(
            "DELETE FROM request WHERE id NOT IN (SELECT id FROM request ORDER BY at DESC LIMIT ?)",
            (MOST_REQUESTS,),
        )
        database.execute(
            "DELETE FROM execution WHERE begun <="
            " (SELECT begun FROM execution ORDER BY begun DESC LIMIT 1 OFFSET ?)",
            (MOST_EXECUTIONS,),
        )


def _row(message: Message) -> tuple[Any, ...]:
    lengths = [len(part) for part in message.parts]
    content = b"".join(message.parts)
    who = (message.id, message.channel, message.at, message.session, message.request, message.kind)
    return (*who, len(content), message.missed, content, json.dumps(lengths))


_COLUMNS = "id, channel, session, request, kind, missed, parts, lengths, at"


def _message(row: Sequence[Any]) -> Message:
    parts, at = [], 0
    for length in json.loads(row[7]):
        parts.append(row[6][at : at + length])
        at += length
    return Message(row[0], row[1], row[2], row[3], row[4], bool(row[5]), parts, row[8])


_ASKED = "id, session, cell, header, code, at"


def _request(row: Sequence[Any]) -> Request:
    return Request(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5])


def take_missed(database: sqlite3.Connection, session: str) -> list[Message]:
    """What a session missed, and has from now on.  Raises sqlite3.Error."""
    found = database.execute(
        f"SELECT {_COLUMNS} FROM message WHERE session = ? AND missed ORDER BY rowid",  # noqa: S608
        (session,),
    ).fetchall()
    database.execute("UPDATE message SET missed = 0 WHERE session = ? AND missed", (session,))
    return [_message(row) for row in found]


def open_requests(database: sqlite3.Connection, session: str) -> list[Request]:
    """What a session asked and was never answered.  Raises sqlite3.Error."""
    rows = database.execute(
        f"SELECT {_ASKED} FROM request WHERE session = ? AND NOT ended ORDER BY at",  # noqa: S608
        (session,),
    )
    return [_request(row) for row in rows]


def executions(
    database: sqlite3.Connection, cells: Container[str] | None = None
) -> Iterator[tuple[Request, list[Message]]]:
    """What was executed, the oldest first, with what came of it; of ``cells`` the last of each.

    Raises sqlite3.Error.
    """
    asked = list(map(_request, database.execute(f"SELECT {_ASKED} FROM request ORDER BY at")))  # noqa: S608
    if cells is not None:
        asked = list({request.cell: request for request in asked if request.cell in cells}.values())
    for request in asked:
        told = database.execute(
            f"SELECT {_COLUMNS} FROM message WHERE request = ? ORDER BY rowid",  # noqa: S608
            (request.id,),
        )
        yield request, [_message(one) for one in told]


def spans(database: sqlite3.Connection, since: float) -> list[tuple[float, float]]:
    """The executions that ended after ``since``, whose begin was heard as well.  Raises sqlite3.Error."""
    found = database.execute(
        "SELECT begun, ended FROM execution WHERE ended > ? AND ended >= begun ORDER BY begun", (since,)
    )
    return found.fetchall()
