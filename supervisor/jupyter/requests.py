"""What the clients of a kernel have asked of it and was not answered.

Owns the open requests, through whichever page or server they came: each gets
the kernel's answer, or one in its place that tells why none will come.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from supervisor.jupyter.recorder import Message, Recorder

Fields = dict[str, Any]

# What a message may be that is none.
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, struct.error)
# What may wait for an answer of a kernel.
MOST_OPEN = 1000

_LOST = "its answer came while no server was there to hear it"


def key_of(header: Fields) -> tuple[str, str]:
    """What tells a request from those of all clients."""
    return str(header.get("session") or ""), str(header.get("msg_id") or "")


def error_of(reason: str) -> Fields:
    """The error of a cell that no kernel executes to its end, for this reason."""
    return {"ename": "KernelDied", "evalue": reason, "traceback": [f"KernelDied: {reason}"]}


class Asked(NamedTuple):
    """What the page of a session asked; ``is_gone``: through a server that is gone, as the answer is."""

    session: str
    channel: str
    header: Fields
    is_request: bool = True
    is_cell: bool = False
    is_gone: bool = False

    @classmethod
    def of(cls, session: str, channel: str, parts: list[bytes]) -> Asked:
        """Raises one of MALFORMED."""
        header, content = json.loads(parts[0]), json.loads(parts[3])
        is_request = channel != "stdin" and header["msg_type"].endswith("_request") and header["msg_id"]
        is_cell = header["msg_type"] == "execute_request" and not content.get("silent")
        return cls(session, channel, header, bool(is_request), is_cell)

    @property
    def is_execution(self) -> bool:
        """Whether a cell waits for it, or a client that executes silently."""
        return bool(self.header["msg_type"] == "execute_request")


class Requests:
    """The open requests of one kernel; ``tell`` says in its place what it cannot say."""

    def __init__(self, recorder: Recorder, tell: Callable[..., None]) -> None:
        self._recorder, self._tell = recorder, tell
        self._open: dict[tuple[str, str], Asked] = {}

    def note(self, asked: Asked, parts: list[bytes]) -> None:
        """The kernel is being asked this."""
        if len(self._open) >= MOST_OPEN:
            del self._open[next(iter(self._open))]  # a kernel that does not answer such
        self._open[key_of(asked.header)] = asked
        if asked.is_cell:
            self._recorder.add("shell", asked.session, asked.header, asked.header, parts, missed=False)

    def hear(self, channel: str, parent: Fields) -> str:
        """The kernel has said something in answer to a request; the session whose it is."""
        key = key_of(parent)
        asked = self._open.get(key)
        if asked is not None and channel in ("shell", "control"):
            del self._open[key]
        return asked.session if asked is not None else key[0]

    def end(self, reason: str) -> set[str]:
        """The run is over, for this reason: every request is answered; the sessions whose cells tell it."""
        told = set()
        for asked in list(self._open.values()):
            if asked.is_execution and asked.session in told:
                self._answer(asked, {"status": "aborted"})
            else:
                self.give_up(asked, reason)
            if asked.is_execution:
                told.add(asked.session)
        return told

    async def resume(self, session: str) -> None:
        """Learn what this session asked through a server that is gone."""
        for request in await self._recorder.open_requests(session):
            header = request.said(0)
            self._open.setdefault(key_of(header), Asked(session, "shell", header, is_gone=True))

    async def settle(self, state: Callable[[], str]) -> None:
        """Something has ended: see to what was asked through a server that is gone."""
        for key, asked in [each for each in self._open.items() if each[1].is_gone]:
            told = await self._recorder.told(key[1])
            if self._open.get(key) is not asked:
                continue
            if any(message.kind == "status" and "idle" in message.content.values() for message in told):
                self._answer(asked, _reply_of(told))
            elif state() in ("idle", "dead"):
                self.give_up(asked, _LOST)

    def give_up(self, asked: Asked, reason: str) -> None:
        """No kernel will answer it, for this reason."""
        error = error_of(reason)
        if asked.is_execution:
            self._tell(asked.session, "error", error, asked.header)
        self._answer(asked, {"status": "error", "execution_count": 0, "user_expressions": {}, **error})

    def _answer(self, asked: Asked, content: Fields) -> None:
        self._open.pop(key_of(asked.header), None)
        kind = asked.header["msg_type"].replace("_request", "_reply")
        self._tell(asked.session, kind, content, asked.header, asked.channel)
        self._tell(asked.session, "status", {"execution_state": "idle"}, asked.header)


def _reply_of(told: list[Message]) -> Fields:
    """The answer to an execution that told all this."""
    # Without a number JupyterLab takes the cell for one that still runs.
    counts = (m.content.get("execution_count") for m in told)
    count = next(filter(None, counts), 0)
    error: Fields = next(({"status": "error", **m.content} for m in told if m.kind == "error"), {})
    return {"status": "ok", "execution_count": count, "payload": [], "user_expressions": {}, **error}
