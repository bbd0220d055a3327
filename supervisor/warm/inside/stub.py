"""Where there is no next run: it listens at the kernel's address for a while and answers what is left.

Neither heartbeat nor ``kernel_info``: nobody shall take it for a kernel.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import zmq
from jupyter_client.session import Session

from .answers import ASK_AGAIN, Answers, read_message
from .pending import Pending

PEER_PATIENCE = 1000  # ms that the last answers may take to leave


def main(fd: int, _: list[str]) -> None:
    """Answer for ``order["for"]`` seconds at ``order["about"]``, a connection file."""
    with open(fd, encoding="utf-8") as file:
        order = json.load(file)
    about = order["about"]
    with zmq.Context() as context:
        context.linger = PEER_PATIENCE
        shell, iopub = _bind(context, about, "shell", zmq.ROUTER), _bind(context, about, "iopub", zmq.XPUB)
        iopub.setsockopt(zmq.XPUB_VERBOSE, 1)
        shell.router_handover = 1
        _answer(shell, iopub, Session(key=about["key"].encode()), order)
        shell.close()
        iopub.close()
    os.unlink(order["pending"])


def _bind(context: Any, about: dict[str, Any], channel: str, kind: int) -> Any:
    socket = context.socket(kind)
    separator = "-" if about["transport"] == "ipc" else ":"
    socket.bind(f"{about['transport']}://{about['ip']}{separator}{about[channel + '_port']}")
    return socket


def _answer(shell: Any, iopub: Any, session: Session, order: dict[str, Any]) -> None:
    pending = Pending(order["pending"], order["run"])

    def publish(kind: str, content: Any, parent: Any, metadata: Any) -> None:
        if content.get("execution_state") not in ("restarting", "starting"):
            session.send(
                iopub, kind, content, parent=parent, ident=b"kernel." + kind.encode(), metadata=metadata
            )

    answers = Answers(shell, publish, pending, session, order["death"], time.time())
    answers.wait_subscribed(order["grace"])
    _drain(iopub)
    answers.give(None)
    poller = zmq.Poller()
    for socket in (shell, iopub):
        poller.register(socket, zmq.POLLIN)
    end = time.monotonic() + order["for"]
    while (left := end - time.monotonic()) > 0:
        ready = dict(poller.poll(min(left * 1000, answers.retry() or 1000)))
        if iopub in ready and any(frames[0].bytes[:1] == b"\1" for frames in _drain(iopub)):
            answers.tell_again()
        for frames in _drain(shell) if shell in ready else ():
            _refuse(frames, session, pending, answers)


def _refuse(frames: list[zmq.Frame], session: Session, pending: Pending, answers: Answers) -> None:
    """Answer a request that comes only now."""
    try:
        message = read_message(frames, session)
    except Exception:
        return  # no message of the protocol
    if message is not None and message.kind != ASK_AGAIN:
        pending.take(message.msg_id, message.idents, message.header)
        request = pending.taken(message.msg_id)
        if request is not None:
            answers.answer(request)


def _drain(socket: Any) -> list[list[zmq.Frame]]:
    found = []
    while socket.poll(0):
        found.append(socket.recv_multipart(copy=False))
    return found
