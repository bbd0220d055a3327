"""A doorkeeper for the shell channel of an ipykernel: each request is noted before the kernel has it.

Owns the ROUTER from its binding on, in a thread that reads eagerly; the kernel has an inproc PAIR in its
place and never notices.  First of all it answers what the run before it left unanswered.
"""

from __future__ import annotations

import collections
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import zmq
from jupyter_client.session import DELIM, Session
from zmq.eventloop.zmqstream import ZMQStream

from .answers import TELL_AGAIN_FOR, Answers, read_message
from .pending import REPLIED, Pending, Request

EX_SOFTWARE = 70
# Frames that are taken at once, and how many requests are known again if they come twice.
BATCH = 64
KNOWN = 4096


class _Thread(threading.Thread):
    """With a ``run`` of its own: ipykernel 6 replaces Thread.run by one that skips threads made before."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="Doorkeeper", daemon=True)
        self._work = work
        self.pydev_do_not_trace = self.is_pydev_daemon_thread = True

    def run(self) -> None:
        self._work()


def _take_all(source: Any, limit: int = 1 << 30) -> Iterator[list[zmq.Frame]]:
    try:
        for _ in range(limit):
            yield source.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        pass


class Doorkeeper:
    """Between the clients and the kernel; ``order`` is what the supervisor said of this run."""

    def __init__(self, app: Any, record_fd: int) -> None:
        self._app, self._record_fd = app, record_fd
        self.outer = app.shell_socket
        self._inner, self.kernel_side = app.context.socket(zmq.PAIR), app.context.socket(zmq.PAIR)
        for end in (self._inner, self.kernel_side):
            end.sndhwm = end.rcvhwm = end.linger = 0
        self._inner.bind(f"inproc://doorkeeper-{id(self)}")
        self.kernel_side.connect(f"inproc://doorkeeper-{id(self)}")
        # The kernel's Session is not for several threads.
        self._session = Session(key=app.session.key, signature_scheme=app.session.signature_scheme)
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._bell_in, self._bell = socket.socketpair()
        self._thread = _Thread(self._guarded)
        self._answers: Answers | None = None
        self._ended = False
        self.bound = time.time()
        self.pending: Pending | None = None
        self._order: dict[str, Any] = {}

    def start(self, order: dict[str, Any], pending: Pending) -> None:
        """Let the clients in; not before the kernel reads."""
        self._order, self.pending = order, pending
        if order.get("death"):
            about = pending, self._session, order["death"], self.bound
            self._answers = Answers(self.outer, self._publish, *about)
        self._thread.start()

    def stop(self) -> None:
        """Hand over what the kernel has said, and close."""
        self._ended = True
        self._bell.send(b"x")
        if self._thread.is_alive():
            self._thread.join(2)

    def _guarded(self) -> None:
        try:
            self._work()
        except BaseException:  # a kernel without its door is of no use to anyone
            os.write(self._record_fd, traceback.format_exc().encode())
            os._exit(EX_SOFTWARE)

    def _work(self) -> None:
        if self._answers:
            self._answer(self._answers)
        poller = zmq.Poller()
        for source in (self._inner, self._bell_in, self.outer):
            poller.register(source, zmq.POLLIN)
        assert self.pending is not None, "start comes first"
        is_open = True
        while not self._ended:
            ready = dict(poller.poll(self._answers.retry() if self._answers else None))
            if self._inner in ready:
                self._send_all()
            if self.outer in ready:
                # Noted first, all of them: beside a busy interpreter every frame costs a switch interval.
                for frames in [self._noted(frames) for frames in _take_all(self.outer, BATCH)]:
                    self._inner.send_multipart(frames, copy=False)
            has_room = self.pending.room > BATCH
            if has_room is not is_open:  # what is not read is not lost to us only: it stays with its client
                poller.modify(self.outer, zmq.POLLIN if has_room else 0)
                is_open = has_room
        self._send_all()
        for end in (self.outer, self._inner):
            end.close()

    def _send_all(self) -> None:
        for frames in _take_all(self._inner):
            self._outward(frames)

    def _outward(self, frames: list[zmq.Frame]) -> None:
        try:
            self.outer.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            pass  # its client has gone
        try:
            at = next(i for i, frame in enumerate(frames) if frame.buffer == DELIM)
            parent = json.loads(frames[at + 3].bytes)
            if parent and self.pending:
                self.pending.mark(parent["msg_id"], REPLIED)
        except (StopIteration, LookupError, ValueError, TypeError):
            pass  # no message of the protocol

    def _noted(self, frames: list[zmq.Frame]) -> list[zmq.Frame]:
        try:
            self._take(frames)
        except Exception:
            pass  # no message of the protocol; never keep it from the kernel, which refuses it
        return frames

    def _take(self, frames: list[zmq.Frame]) -> None:
        message = read_message(frames, self._session)
        if self._answers:
            self._answers.retry(frames[0].bytes)
        if message is None or message.msg_id in self._seen:
            return
        self._seen[message.msg_id] = None
        if len(self._seen) > KNOWN:
            self._seen.popitem(last=False)
        code = b""
        if self._order["code"] and message.kind == "execute_request":
            code = json.loads(message.content)["code"][: self._order["code"]].encode()
        assert self.pending is not None, "start comes first"
        self.pending.take(message.msg_id, message.idents, message.header, code)

    def _publish(self, kind: str, content: Any, parent: Any, metadata: Any) -> None:
        ident = b"kernel." + kind.encode()
        self._session.send(
            self._app.iopub_socket, kind, content, parent=parent, ident=ident, metadata=metadata
        )

    def _answer(self, answers: Answers) -> None:
        listener: list[Listener] = []
        schedule = self._app.iopub_thread.schedule
        if self.pending and self.pending.left:
            schedule(lambda: listener.append(Listener(self._app.iopub_thread, answers)))

        def begin() -> None:
            for one in listener:
                one.begin()

        answers.wait_subscribed(self._order["grace"])
        schedule(begin)
        answers.give(self._ask_again)
        # And `idle` last: jupyter console takes one without a parent for its own, and waits for that.
        for state in ("starting", "idle"):
            self._publish("status", {"execution_state": state}, None, None)

    def _ask_again(self, request: Request) -> None:
        assert self.pending is not None, "start comes first"
        self.pending.adopt(json.loads(request.header)["msg_id"], request)
        parts = [request.header, b"{}", b"{}", b"{}"]
        self._inner.send_multipart([*request.idents, DELIM, self._session.sign(parts), *parts])


class Listener:
    """Sees subscriptions that come late, in the thread of iopub; ends by itself."""

    def __init__(self, thread: Any, answers: Answers) -> None:
        self._thread, self._answers = thread, answers
        self._until = time.monotonic() + TELL_AGAIN_FOR
        self._due = self._telling = False
        thread.socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # each subscriber's, not the first one's only
        stream = getattr(thread, "_xpub_stream", None)
        self._before = getattr(thread, "_handle_subscription", None) if stream else None
        self._stream = stream or ZMQStream(thread.socket, thread.io_loop)
        self._stream.on_recv(self._note)
        self._look()

    def _note(self, frames: list[bytes]) -> None:
        self._due = self._due or frames[0][:1] == b"\1"
        if self._before is not None:
            self._before(frames)

    def begin(self) -> None:
        """Who has subscribed by now hears what is sent next."""
        self._stream.flush(zmq.POLLIN)
        self._due, self._telling = False, True

    def _look(self) -> None:
        if self._thread.socket is None:
            return
        if time.monotonic() > self._until:
            self._thread.socket.setsockopt(zmq.XPUB_VERBOSE, 0)
            self._stream.on_recv(self._before or (lambda frames: None))
            return
        self._stream.flush(zmq.POLLIN)  # others send on this socket directly, which hides its readiness
        if self._due and self._telling:
            self._due = False
            self._answers.tell_again()
        self._thread.io_loop.call_later(0.02, self._look)
