"""Asks kernels for ``kernel_info``, or to execute something: the same way for every contestant.

Owns the sockets and the signing.  Uses nothing of the program that is measured.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from pathlib import Path

import zmq

from benchmarks.processes import Late

# How often a socket tries to connect, in milliseconds: the grain of what is measured.
RECONNECT = 2


def address(connection_file: Path) -> dict[str, object] | None:
    """What a connection file says; ``None`` if it is not there (or half written)."""
    try:
        found: dict[str, object] = json.loads(connection_file.read_text())
    except (OSError, ValueError):
        return None
    return found


class Question:
    """``kernel_info`` on the shell channel of one address, or a cell, until it is answered."""

    def __init__(self, where: dict[str, object], code: str) -> None:
        self._kind = "execute_request" if code else "kernel_info_request"
        self._content = json.dumps({"code": code} if code else {}).encode()
        self._key = str(where["key"]).encode()
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IMMEDIATE, 1),
            (zmq.RECONNECT_IVL, RECONNECT),
        ):
            self.socket.setsockopt(option, value)
        self.socket.connect(f"tcp://{where['ip']}:{where['shell_port']}")
        self.sent_at: float | None = None

    def send(self, now: float) -> None:
        """Send it as soon as the socket is connected, again after a second."""
        if self.sent_at is not None and now - self.sent_at < 1.0:
            return
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": self._kind,
            "session": "benchmark",
            "username": "",
            "date": "2000-01-01T00:00:00Z",
            "version": "5.3",
        }
        parts = [json.dumps(header).encode(), b"{}", b"{}", self._content]
        signature = hmac.new(self._key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        try:
            self.socket.send_multipart([b"<IDS|MSG>", signature, *parts], zmq.DONTWAIT)
        except zmq.Again:
            return
        self.sent_at = now


def wait_answers(addresses: list[dict[str, object]], timeout: float, code: str = "") -> float:
    """Ask all of these at once, to execute ``code`` if given; when the last had answered.  Raises Late."""
    deadline = time.perf_counter() + timeout
    poller = zmq.Poller()
    open_questions = {
        question.socket: question for question in (Question(where, code) for where in addresses)
    }
    for socket in open_questions:
        poller.register(socket, zmq.POLLIN)
    try:
        while open_questions:
            now = time.perf_counter()
            if now > deadline:
                raise Late(
                    f"{len(open_questions)} of {len(addresses)} kernels did not answer within {timeout:g} s"
                )
            for question in open_questions.values():
                question.send(now)
            for socket, _ in poller.poll(2 if len(open_questions) == 1 else 10):
                socket.recv_multipart()
                poller.unregister(socket)
                open_questions.pop(socket)
                socket.close()
    finally:
        for socket in open_questions:
            socket.close()
    return time.perf_counter()
