"""Answering what a run that died left unanswered: words, order, and trying again until the clients are back.

Owns the messages.  Needs a ROUTER that is bound to the kernel's shell address and a way to publish on its
iopub; whose thread that is, is the affair of ``door`` (the next run) or ``stub`` (where there is none).
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import zmq
from jupyter_client.session import DELIM, Session

from .pending import BY_ITSELF, IDLE, REPLIED, Pending, Request

# Seconds.  Who failed to reconnect once tries again 100 to 200 ms later; JupyterLab cancels what it waits
# for when it hears `restarting`, so that comes after; how long late subscribers are told, and a reply waits
# for its client; a run that lived this long after its answers was heard.
SECOND_TRY = 0.08
SETTLE = 0.05
TELL_AGAIN_FOR = 30.0
ROUTE_FOR = 600.0
TOLD_LONG_AGO = 2.0
# Without content and effect: the new kernel answers it itself.
ASK_AGAIN = "kernel_info_request"
# What nobody waits for.
SILENT = ("shutdown_request", "interrupt_request")

Publish = Callable[[str, "dict[str, Any]", "dict[str, Any] | None", "dict[str, Any] | None"], None]


class Message(NamedTuple):
    """A request as it was read: who asks, and what."""

    idents: list[bytes]
    header: bytes
    kind: str
    msg_id: str
    content: bytes


def read_message(frames: list[zmq.Frame], session: Session) -> Message | None:
    """A request that is to be answered, and signed with our key; raises what it likes at other frames."""
    at = next(i for i, frame in enumerate(frames) if frame.buffer == DELIM)
    header = json.loads(frames[at + 2].bytes)
    kind, msg_id = header["msg_type"], header["msg_id"]
    if not kind.endswith("_request") or kind in SILENT:
        return None
    if session.auth is not None:
        right = session.sign([frame.buffer for frame in frames[at + 2 : at + 6]])
        if not hmac.compare_digest(right, frames[at + 1].bytes):
            return None
    return Message(
        [frame.bytes for frame in frames[:at]], frames[at + 2].bytes, kind, msg_id, frames[at + 5].bytes
    )


@dataclasses.dataclass(eq=False)
class Answers:
    """What is left of earlier runs, and how it is answered.

    ``death``: ``at`` (epoch), ``how``, ``then``; ``bound``: when clients could connect again, in seconds
    of the epoch.
    """

    _router: zmq.Socket[bytes]
    _publish: Publish
    _pending: Pending
    _session: Session
    _death: dict[str, Any]
    _bound: float
    _unroutable: list[Request] = dataclasses.field(default_factory=list)
    _told: list[Request] = dataclasses.field(default_factory=list)

    def wait_subscribed(self, grace: float) -> None:
        """Return once the subscriptions of those who were connected are back."""
        is_late = self._bound - self._death["at"] > SECOND_TRY
        begin = self._bound if is_late else self._death["at"]
        time.sleep(min(max(0.0, begin + grace - time.time()), grace))

    def give(self, ask_again: Callable[[Request], None] | None) -> None:
        """Answer all that is left, in the order in which it was read."""
        told = False
        for request in self._pending.left:
            if request.told and self._death["at"] - request.told > TOLD_LONG_AGO:
                self._pending.settle(request)
                continue
            if json.loads(request.header)["msg_type"] == ASK_AGAIN and not request.replied:
                (ask_again or self._pending.settle)(request)
                continue
            told |= self.answer(request)
        if self._told:
            time.sleep(SETTLE)
        self._publish("status", {"execution_state": "restarting"}, None, {"kernel_supervisor": self._death})
        if not told:
            self._publish("stream", {"name": "stderr", "text": self._notice(None)}, None, None)

    def answer(self, request: Request) -> bool:
        """Error, reply and idle, in this order; True if a cell has been told of the new process."""
        self._told.append(request)
        told = self._publish_error(request, first=True)
        if not request.replied:
            self._unroutable.append(request)
            self._send_due()
        self._publish_idle(request)
        return told

    def _notice(self, request: Request | None) -> str:
        how = self._death["how"] + (f" while executing In [{request.execution_count}]" if request else "")
        return f"kernel-supervisor: {how}; {self._death['then']}\n"

    def _publish_error(self, request: Request, *, first: bool = False) -> bool:
        """True if its cell has been told; error and reply carry the count, which the console indexes."""
        parent = {"header": json.loads(request.header)}
        is_cell = parent["header"]["msg_type"] == "execute_request"
        if not is_cell or BY_ITSELF in (request.replied, request.idle):
            return False
        if first and request.started:
            self._publish("stream", {"name": "stderr", "text": self._notice(request)}, parent, None)
        error = {key: self._content(request)[key] for key in ("ename", "evalue", "traceback")}
        self._publish("error", error, parent, None)
        return request.started is not None

    def _publish_idle(self, request: Request) -> None:
        if request.idle != BY_ITSELF:
            self._pending.tell(request, IDLE)
            parent = {"header": json.loads(request.header)}
            self._publish("status", {"execution_state": "idle"}, parent, None)

    def _content(self, request: Request) -> dict[str, Any]:
        kind = json.loads(request.header)["msg_type"]
        if request.started is None:
            where = " before it came to this request"
        else:
            where = f" while executing In [{request.execution_count}]" if kind == "execute_request" else ""
        evalue = f"{self._death['how']}{where}; {self._death['then']}"
        content: dict[str, Any] = {"status": "error", "ename": "KernelDied", "evalue": evalue}
        content["traceback"] = [f"\x1b[0;31mKernelDied\x1b[0m: {evalue}"]
        if kind == "execute_request":
            content.update(execution_count=request.execution_count, user_expressions={}, payload=[])
        elif kind == "is_complete_request":
            content["status"] = "unknown"
        return content

    def _send_reply(self, request: Request) -> bool:
        """True if it is on its way, or can never be."""
        if request.idents[0].startswith(b"\0"):
            return True  # zmq made it up for a connection: whoever has it now is another
        header = json.loads(request.header)
        kind = header["msg_type"].replace("_request", "_reply")
        content = self._content(request)
        msg = self._session.msg(kind, content, parent={"header": header}, metadata={"status": "error"})
        self._pending.tell(request, REPLIED)  # before: rather none than two, should we die here
        self._router.router_mandatory = 1
        try:
            self._router.send_multipart(self._session.serialize(msg, ident=request.idents), zmq.NOBLOCK)
            return True
        except zmq.ZMQError:  # EHOSTUNREACH: not back yet; EAGAIN: does not read
            self._pending.tell(request, REPLIED, undo=True)
            return False
        finally:
            self._router.router_mandatory = 0

    def _send_due(self, ident: bytes | None = None) -> None:
        """To each client in the order of its requests."""
        away: set[bytes] = set()
        for request in [r for r in self._unroutable if ident in (None, r.idents[0])]:
            if request.idents[0] not in away and self._send_reply(request):
                self._unroutable.remove(request)
            else:
                away.add(request.idents[0])

    def retry(self, ident: bytes | None = None) -> int | None:
        """Try those that could not be reached, or the one who is back; in how many ms to call again."""
        since = time.time() - self._bound
        self._send_due(ident)
        if since > ROUTE_FOR:
            self._unroutable.clear()
        if not 0 <= since <= TELL_AGAIN_FOR:
            waiting = set(self._unroutable)
            for request in [r for r in self._told if r not in waiting]:
                self._told.remove(request)
                self._pending.settle(request)
        if self._unroutable and since < 20:
            return 5 if since < 1 else 50
        return 1000 if self._told or self._unroutable else None

    def tell_again(self) -> None:
        """For a subscriber that came late; the others know that these requests are done."""
        for request in list(self._told):
            self._publish_error(request)
            self._publish_idle(request)
        for request in self._pending.executing():
            parent = {"header": json.loads(request.header)}
            self._publish("status", {"execution_state": "busy"}, parent, None)
