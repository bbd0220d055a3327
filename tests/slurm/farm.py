"""A cluster of one process: it stands in for Slurm's commands, its nodes, and a kernel for each job.

``python farm.py DIRECTORY`` serves what the programs in DIRECTORY/bin ask, until it is ended.  A kernel of it
answers the heartbeat and ``kernel_info``, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
KINDS = (zmq.ROUTER, zmq.PUB, zmq.ROUTER, zmq.ROUTER, zmq.REP)
DELIMITER = b"<IDS|MSG>"

# Small and quick: there are thousands of calls.  A job has the end of its mark for a number.
COMMANDS = {
    "sbatch": (
        'for word; do case "$word" in --comment=*) n=${{word##*+}} ;; esac; done; '
        '(cat; printf "%s\\n" "$@") >{d}/new/.$n && mv {d}/new/.$n {d}/new/$n; '
        "while [ -e {d}/new/$n ]; do sleep 0.02; done; echo $n"
    ),
    "squeue": "exec cat {d}/rows",
    "scancel": 'case "$*" in *--signal*) ;; *) for last; do :; done; : >{d}/cancelled/$last ;; esac',
}


def build(directory: Path) -> Path:
    """The directory of the commands."""
    for name in ("new", "cancelled", "bin"):
        (directory / name).mkdir(parents=True)
    (directory / "rows").touch()
    for name, script in COMMANDS.items():
        path = directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{script.format(d=directory)}\n")
        path.chmod(0o755)
    return directory / "bin"


@contextmanager
def serving(directory: Path) -> Iterator[Path]:
    """One that serves; the directory of its commands."""
    commands = build(directory)
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, __file__, str(directory)], stderr=log)
    try:
        yield commands
    finally:
        process.kill()
        process.wait(10)


class Kernel:
    """A job that has begun."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], told: str) -> None:
        self.name = re.findall(r"^--job-name=(.*)$", told, re.M)[0]
        self.mark = re.findall(r"^--comment=(.*)$", told, re.M)[0]
        self.run = Path(re.findall(r"^exec \S+ \S+ (\S+)$", told, re.M)[0])
        self.submitted = int(time.time())
        self.key = json.loads((self.run / "run.json").read_text())["key"].encode()
        self.sockets = dict(zip(CHANNELS, map(context.socket, KINDS), strict=True))
        self.state = "RUNNING"
        ports = {
            f"{name}_port": each.bind_to_random_port("tcp://127.0.0.1") for name, each in self.sockets.items()
        }
        self.put("place.json", ip="127.0.0.1", transport="tcp", **ports)

    def put(self, name: str, **fields: object) -> None:
        fresh = self.run / f".{name}.fresh"
        fresh.touch(mode=0o600)
        fresh.write_text(
            json.dumps({"version": 1, "mark": self.mark, "node": "n1", "at": time.time(), **fields})
        )
        fresh.rename(self.run / name)

    def row(self, number: str) -> str:
        return (
            f"{number}|{self.submitted}|{self.state}|None|{self.submitted}|N/A|n1|{self.name}|{self.mark}\n"
        )

    def answer(self, socket: zmq.Socket[bytes]) -> None:
        frames = socket.recv_multipart()
        if socket is self.sockets["hb"]:
            socket.send_multipart(frames)
            return
        at = frames.index(DELIMITER)
        header = {
            "msg_type": "kernel_info_reply",
            "msg_id": os.urandom(8).hex(),
            "session": "s",
            "version": "5.3",
        }
        content = {
            "status": "ok",
            "protocol_version": "5.3",
            "implementation": "farm",
            "language_info": {"name": "none"},
        }
        parts = [json.dumps(header).encode(), frames[at + 2], b"{}", json.dumps(content).encode()]
        made = hmac.new(self.key, b"".join(parts), hashlib.sha256).hexdigest().encode()
        socket.send_multipart([*frames[:at], DELIMITER, made, *parts])

    def end(self) -> None:
        self.state = "CANCELLED"
        for socket in self.sockets.values():
            socket.close(linger=0)
        self.put("end.json", returncode=-15, state="CANCELLED", oom=0, error=None)


def main(directory: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 10_000)
    kernels: dict[str, Kernel] = {}
    poller, owner = zmq.Poller(), dict[zmq.Socket[bytes], Kernel]()
    while True:
        for socket, _ in poller.poll(100):
            owner[socket].answer(socket)
        changes = [*directory.glob("new/[0-9a-f]*"), *directory.glob("cancelled/*")]
        for path in changes:
            number = path.name
            if path.parent.name == "new":
                kernel = kernels[number] = Kernel(context, path.read_text())
                for channel in ("shell", "control", "hb"):
                    owner[kernel.sockets[channel]] = kernel
                    poller.register(kernel.sockets[channel], zmq.POLLIN)
            elif (kernel := kernels[number]).state == "RUNNING":
                for channel in ("shell", "control", "hb"):
                    poller.unregister(kernel.sockets[channel])
                    del owner[kernel.sockets[channel]]
                kernel.end()
        if changes:
            fresh = directory / ".rows"
            fresh.write_text("".join(kernel.row(number) for number, kernel in kernels.items()))
            fresh.rename(directory / "rows")
        for path in changes:
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
