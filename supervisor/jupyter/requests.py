"""What the clients of a kernel have asked of it and was not answered.

Owns the open requests, through whichever page or server they came: each gets
the kernel's answer, or one in its place that tells why none will come.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, NamedTuple, Protocol

from tornado.ioloop import IOLoop

from supervisor.jupyter.recorder import Message, Recorder, Request

Fields = dict[str, Any]

# What a message may be that is none.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error)
# What may wait for a kernel that is not up, or for its answer; requests, and bytes of the first.
MOST_OPEN = 1000
MOST_HELD = 64 << 20

_LOST = "its answer came while no server was there to hear it"


def key_of(header: Fields) -> tuple[str, str]:
    """What tells a request from those of all clients."""
    return str(header.get("session") or ""), str(header.get("msg_id") or "")


def error_of(reason: str) -> Fields:
    """The error of a cell that no kernel executes to its end, for this reason."""
    return {"ename": "KernelDied", "evalue": reason, "traceback": [f"KernelDied: {reason}"]}


class Asked(NamedTuple):
    """A request, as it was asked by the page of a session."""

    session: str
    channel: str
    header: Fields


class Kernel(Protocol):
    """What is asked of the kernel whose requests they are."""

    kernel_name: str
    execution_state: str
    reason: str
    recorder: Recorder
    run: Any
    up: asyncio.Event

    def tell(
        self, session: str, kind: str, content: Fields, asked: Fields | None = None, channel: str = "iopub"
    ) -> None:
        """Say in the kernel's place what it cannot say, to the page of a session, or for it."""


class Requests:
    """The open requests of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._open: dict[tuple[str, str], Asked] = {}
        # Of those, the ones that were asked through a server that is gone: their answer went to it.
        self._unheard: set[tuple[str, str]] = set()
        # What came while there was no run: session, channel, parts.
        self._held: list[tuple[str, str, list[bytes]]] = []

    def ask(self, session: str, channel: str, parts: list[bytes]) -> None:
        """Pass it on, or keep it until the kernel is up again."""
        try:
            header, metadata, content = (json.loads(parts[index]) for index in (0, 2, 3))
            asks = channel != "stdin" and header["msg_type"].endswith("_request") and header["msg_id"]
        except MALFORMED:
            return  # not a message
        asked, kernel = Asked(session, channel, header), self._kernel
        if kernel.run is not None and kernel.up.is_set():
            if asks:
                self._note(asked, metadata, content)
            kernel.run.send(channel, parts)
        elif kernel.execution_state != "dead" and self._has_room(parts):
            self._held.append((session, channel, parts))
        elif asks:
            self._give_up(asked, kernel.reason or f"{kernel.kernel_name} is not running")

    def _has_room(self, parts: list[bytes]) -> bool:
        held = [parts, *(parts for _, _, parts in self._held)]
        return len(held) <= MOST_OPEN and sum(len(part) for parts in held for part in parts) <= MOST_HELD

    def _note(self, asked: Asked, metadata: Fields, content: Fields) -> None:
        if len(self._open) >= MOST_OPEN:
            oldest = next(iter(self._open))  # a kernel that does not answer such
            self._open.pop(oldest)
            self._unheard.discard(oldest)
        self._open[key_of(asked.header)] = asked
        if asked.header["msg_type"] == "execute_request" and not content.get("silent"):
            header = json.dumps(asked.header)
            cell, code = str(metadata.get("cellId") or ""), str(content.get("code"))
            self._kernel.recorder.ask(Request(asked.header["msg_id"], asked.session, cell, header, code))

    def release(self) -> None:
        """What was kept is asked, or refused."""
        held, self._held = self._held, []
        for each in held:
            self.ask(*each)

    def hear(self, channel: str, parent: Fields) -> str:
        """The kernel has said something in answer to a request; the session whose it is."""
        key = key_of(parent)
        asked = self._open.get(key)
        if asked is not None and channel in ("shell", "control"):
            self._close(key, asked)
        return asked.session if asked is not None else key[0]

    def _close(self, key: tuple[str, str], asked: Asked) -> None:
        self._open.pop(key, None)
        self._unheard.discard(key)
        if asked.header["msg_type"] == "execute_request":
            self._kernel.recorder.end(key[1])  # of the others nothing is on record

    def end(self, reason: str) -> set[str]:
        """The run is over, for this reason: every request is answered; the sessions whose cells tell it."""
        told = set()
        for asked in list(self._open.values()):
            is_execution = asked.header["msg_type"] == "execute_request"
            if is_execution and asked.session in told:
                self._answer(asked, {"status": "aborted"})
            else:
                self._give_up(asked, reason)
            if is_execution:
                told.add(asked.session)
        return told

    async def resume(self, session: str) -> None:
        """Learn what this session asked through a server that is gone."""
        for request in await self._kernel.recorder.open_requests(session):
            asked = Asked(session, "shell", json.loads(request.header))
            if self._open.setdefault(key_of(asked.header), asked) is asked:
                self._unheard.add(key_of(asked.header))
        self.settle()

    def settle(self) -> None:
        """Something has ended: see to what was asked through a server that is gone."""
        if self._unheard:
            IOLoop.current().spawn_callback(self._settle)

    async def _settle(self) -> None:
        for key in list(self._unheard):
            told = await self._kernel.recorder.told(key[1])
            if key not in self._unheard:
                continue
            if any(message.kind == "status" and "idle" in message.content.values() for message in told):
                self._answer(self._open[key], _reply_of(told))
            elif self._kernel.execution_state in ("idle", "dead"):
                self._give_up(self._open[key], _LOST)

    # In the kernel's place

    def _give_up(self, asked: Asked, reason: str) -> None:
        error = error_of(reason)
        if asked.header["msg_type"] == "execute_request":
            self._kernel.tell(asked.session, "error", error, asked.header)
        self._answer(asked, {"status": "error", "execution_count": 0, "user_expressions": {}, **error})

    def _answer(self, asked: Asked, content: Fields) -> None:
        self._close(key_of(asked.header), asked)
        kind = asked.header["msg_type"].replace("_request", "_reply")
        self._kernel.tell(asked.session, kind, content, asked.header, asked.channel)
        self._kernel.tell(asked.session, "status", {"execution_state": "idle"}, asked.header)


def _reply_of(told: list[Message]) -> Fields:
    """The answer to an execution that told all this."""
    # Without a number JupyterLab takes the cell for one that still runs.
    counts = (m.content.get("execution_count") for m in told)
    count = next(filter(None, counts), 0)
    error: Fields = next(({"status": "error", **m.content} for m in told if m.kind == "error"), {})
    return {"status": "ok", "execution_count": count, "payload": [], "user_expressions": {}, **error}
