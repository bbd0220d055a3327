"""Where there is no next run: what is left is answered by a process that is no kernel, and then goes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

from supervisor.warm.command import LAUNCH, write_order
from supervisor.warm.inside.pending import Pending
from tests.waiting import DEADLINE

KEY = "k" * 32
WHO = b"client"


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def begin(about: dict[str, Any], file: Path, life: float) -> subprocess.Popen[bytes]:
    death = {"at": time.time(), "how": "killed by SIGKILL after 2 s", "then": "it is not started again"}
    order = {"about": about, "pending": str(file), "run": 1, "death": death, "grace": 0.2, "for": life}
    fd = write_order(order)
    try:
        return subprocess.Popen([sys.executable, LAUNCH, "stub", str(fd)], pass_fds=[fd])
    finally:
        os.close(fd)


def dealer(context: zmq.Context[Any], port: int) -> zmq.Socket[bytes]:
    made = context.socket(zmq.DEALER)
    made.setsockopt(zmq.IDENTITY, WHO)
    made.setsockopt(zmq.RCVTIMEO, int(DEADLINE * 1000))
    made.connect(f"tcp://127.0.0.1:{port}")
    return made


def test_what_was_asked_before_the_end_and_after_it_is_answered_once(tmp_path: Path) -> None:
    file, (shell_port, iopub_port) = tmp_path / "pending", free_ports(2)
    about = {"transport": "tcp", "ip": "127.0.0.1", "key": KEY}
    about |= {"shell_port": shell_port, "iopub_port": iopub_port}
    session = Session(key=KEY.encode())
    before = session.msg("execute_request", {"code": "1"})
    pending = Pending(str(file), 1)
    pending.take(before["header"]["msg_id"], [WHO], json.dumps(before["header"], default=str).encode(), b"1")
    pending.start(before["header"]["msg_id"], 3)

    process = begin(about, file, 3.0)
    with zmq.Context() as context, dealer(context, shell_port) as shell:
        _, reply = session.recv(shell, mode=0)
        after = session.send(shell, "execute_request", {"code": "2"})
        _, second = session.recv(shell, mode=0)

    assert before["header"]["msg_id"] == reply["parent_header"]["msg_id"]
    why = "killed by SIGKILL after 2 s while executing In [3]; it is not started again"
    assert ("KernelDied", why, 3) == tuple(
        reply["content"][key] for key in ("ename", "evalue", "execution_count")
    )
    assert after["header"]["msg_id"] == second["parent_header"]["msg_id"]
    assert "before it came to this request" in second["content"]["evalue"]
    assert 0 == process.wait(DEADLINE)
    assert not file.exists()
