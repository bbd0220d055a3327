"""A doorkeeper for the shell channel of an ipykernel: each request is noted before the kernel has it.

First of all it answers what the run before it left unanswered; only then is anything read, as
eagerly as by the kernel itself, though the record be full: what is not read is not aborted after an error.
"""

from __future__ import annotations

import collections
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
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
    """Between the clients and the kernel."""

    def __init__(self, app: Any, record_fd: int) -> None:
        self._app, self._record_fd = app, record_fd
        self.outer = app.shell_socket
        # The kernel's Session is not for several threads.
        self._session = Session(key=app.session.key, signature_scheme=app.session.signature_scheme)
        self._seen: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._answers: Answers | None = None
        self.bound = time.time()
        self.pending: Pending | None = None
        self._order: dict[str, Any] = {}

    def start(self, order: dict[str, Any], pending: Pending) -> None:
        """Let the clients in, once the kernel reads; ``order`` is what the supervisor said of this run."""
        self._order, self.pending = order, pending
        if order.get("death"):
            about = pending, self._session, order["death"], self.bound
            self._answers = Answers(self.outer, self._publish, *about)

    def stop(self) -> None:
        """Hand over what the kernel has said."""
        raise NotImplementedError

    def _guarded(self) -> None:
        try:
            if self._answers:
                self._answer(self._answers)
            self._work()
        except BaseException:  # a kernel without its door is of no use to anyone
            os.write(self._record_fd, traceback.format_exc().encode())
            os._exit(EX_SOFTWARE)

    def _work(self) -> None:
        raise NotImplementedError

    def _note_reply(self, parts: Sequence[Any]) -> None:
        try:
            at = next(i for i, part in enumerate(parts) if memoryview(part) == DELIM)
            parent = json.loads(bytes(parts[at + 3]))
            if parent and self.pending:
                self.pending.mark(parent["msg_id"], REPLIED)
        except Exception:
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
            text = json.loads(message.content)["code"][: self._order["code"]]
            code = text.encode(errors="backslashreplace")
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
        self._hand_in([*request.idents, DELIM, self._session.sign(parts), *parts])

    def _hand_in(self, parts: list[bytes]) -> None:
        """Give the kernel a request."""
        raise NotImplementedError


class InShellThread(Doorkeeper):
    """In the thread that an ipykernel 7 has for its shell channel, which reads eagerly."""

    def __init__(self, app: Any, record_fd: int) -> None:
        super().__init__(app, record_fd)
        self._has_begun, self._loop = threading.Event(), app.shell_channel_thread.io_loop
        self._send, self.outer.send_multipart = self.outer.send_multipart, self._reply
        # First of all: until it has begun and answered, nothing is read.
        self._loop.add_callback(self._guarded)

    def start(self, order: dict[str, Any], pending: Pending) -> None:
        super().start(order, pending)
        self._has_begun.set()

    def stop(self) -> None:
        self._has_begun.set()

    def _guarded(self) -> None:
        self._has_begun.wait()
        if self.pending is not None:
            super()._guarded()

    def _work(self) -> None:
        """Try again what could not be sent."""
        after = self._answers.retry() if self._answers else None
        # Anew: what is sent beside the stream hides from it what has come.
        self._app.kernel.shell_stream.on_recv(self._app.kernel.shell_channel_thread_main, copy=False)
        if after is not None:
            self._loop.call_later(after / 1000, self._work)

    def received(self, frames: list[zmq.Frame]) -> list[list[zmq.Frame]]:
        """A request, and what has come with it: noted, all of them, before the kernel has the first.

        Beside a busy interpreter every frame costs a switch interval.
        """
        return [self._noted(each) for each in chain([frames], _take_all(self.outer, BATCH))]

    def _reply(self, parts: Sequence[Any], *arguments: Any, **options: Any) -> Any:
        sent = self._send(parts, *arguments, **options)
        self._note_reply(parts)
        return sent

    def _hand_in(self, parts: list[bytes]) -> None:
        frames = [zmq.Frame(part) for part in parts]
        self._loop.add_callback(self._app.kernel.shell_channel_thread_main, frames)


class InOwnThread(Doorkeeper):
    """Alone with the ROUTER, in a thread; the kernel, which reads nothing in a cell, has an inproc PAIR."""

    def __init__(self, app: Any, record_fd: int) -> None:
        super().__init__(app, record_fd)
        self._inner, app.shell_socket = app.context.socket(zmq.PAIR), app.context.socket(zmq.PAIR)
        for end in (self._inner, app.shell_socket):
            end.sndhwm = end.rcvhwm = end.linger = 0
        self._inner.bind(f"inproc://doorkeeper-{id(self)}")
        app.shell_socket.connect(f"inproc://doorkeeper-{id(self)}")
        self._bell_in, self._bell = socket.socketpair()
        self._thread = _Thread(self._guarded)
        self._ended = False

    def start(self, order: dict[str, Any], pending: Pending) -> None:
        super().start(order, pending)
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._bell.send(b"x")
        if self._thread.is_alive():
            self._thread.join(2)
        elif self._thread.ident is None:  # the kernel has failed before
            self._close()

    def _work(self) -> None:
        poller = zmq.Poller()
        for source in (self._inner, self._bell_in, self.outer):
            poller.register(source, zmq.POLLIN)
        while not self._ended:
            after = self._answers.retry() if self._answers else None
            ready = dict(poller.poll(after))
            if self._inner in ready:
                self._send_all()
            if self.outer in ready:
                # Noted first, all of them, as above.
                for frames in [self._noted(frames) for frames in _take_all(self.outer, BATCH)]:
                    self._inner.send_multipart(frames, copy=False)
        self._send_all()
        self._close()

    def _close(self) -> None:
        for end in (self.outer, self._inner):
            end.close()

    def _send_all(self) -> None:
        for frames in _take_all(self._inner):
            try:
                self.outer.send_multipart(frames, zmq.NOBLOCK, copy=False)
            except zmq.ZMQError:
                pass  # its client has gone
            self._note_reply(frames)

    def _hand_in(self, parts: list[bytes]) -> None:
        self._inner.send_multipart(parts)


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
