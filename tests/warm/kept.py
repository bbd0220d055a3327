"""A kernel that is started again at the same address by hand, without a daemon: what is inside alone."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

from jupyter_client import BlockingKernelClient

from supervisor.warm.command import prepared, read_command, write_order
from supervisor.warm.zygotes import Forked, Zygotes, cause_of

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# A kernel that has used multiprocessing takes 29 s to exit.
PATIENCE = 60.0
How = Literal["cold", "prepared", "fork", "standby"]


def spawn(argv: list[str], env: dict[str, str], cwd: str, fd: int) -> subprocess.Popen[bytes]:
    """As the daemon starts a zygote."""
    return subprocess.Popen(argv, env=env, cwd=cwd, pass_fds=[fd], start_new_session=True)


class Kept:
    """Runs of one kernel at one address; ``more`` is what each of them is told besides."""

    def __init__(
        self,
        folder: Path,
        python: str = sys.executable,
        how: How = "prepared",
        preload: tuple[str, ...] = (),
        **more: Any,
    ) -> None:
        self.folder, self.how, self.preload = folder, how, preload
        self.file, self.output, self.pending = folder / "kernel-a.json", folder / "output", folder / "pending"
        sockets = [socket.socket() for _ in CHANNELS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = {f"{name}_port": s.getsockname()[1] for name, s in zip(CHANNELS, sockets, strict=True)}
        for one in sockets:
            one.close()
        about = {"ip": "127.0.0.1", "transport": "tcp", "key": "k" * 32, "signature_scheme": "hmac-sha256"}
        self.file.write_text(json.dumps({**ports, **about, "kernel_name": ""}))
        self.run = 0
        self.argv = [python, "-m", "ipykernel_launcher", "-f", str(self.file)]
        self.parts = read_command(self.argv)
        self.order = {
            "code": 200,
            "grace": 0.215,
            "startup": "",
            "startup_name": "startup",
            "death": None,
            **more,
        }
        self.env = {
            **os.environ,
            "PYTEST_CURRENT_TEST": "",
            "IPYTHONDIR": str(folder / "ipython"),
            "KERNEL_SUPERVISOR_RUN": "run/1",
        }
        self.pid, self.pidfd = 0, -1
        self.zygotes = Zygotes(spawn)
        self.told: list[tuple[str, dict[str, object]]] = []
        self.spare: Forked | None = None
        self.clients: list[BlockingKernelClient] = []

    def start(self, death: str = "killed by SIGKILL after 3 s") -> None:
        """Begin the next run; ``death`` is how the last one ended."""
        self.run += 1
        order = {
            **self.order,
            **self._shape(),
            "pending": str(self.pending),
            "run": self.run,
            "mark": f"run/{self.run}",
        }
        if self.run > 1:
            then = f"started again as run {self.run}; its variables are lost"
            order["death"] = {"at": time.time(), "how": death, "then": then}
        order_fd = write_order(order)
        with self.output.open("ab") as output:
            if self.spare is not None:
                forked, self.spare = self.spare, None
                forked.go(order_fd, output.fileno())
                assert b"taken" in forked.cord.recv(64)
                self.pid, self.pidfd = forked.pid, os.dup(forked.pidfd)
                forked.close()
            elif self.how in ("fork", "standby"):
                forked = self._fork(order_fd, output.fileno(), park=False)
                forked.go()
                self.pid, self.pidfd = forked.pid, os.dup(forked.pidfd)
                forked.close()
            else:
                command = self.argv if self.how == "cold" else prepared(self.parts, order_fd)
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self.env,
                    cwd=self.folder,
                    pass_fds=[order_fd],
                    start_new_session=True,
                )
                self.pid, self.pidfd, self.process = process.pid, os.pidfd_open(process.pid), process
        os.close(order_fd)

    def _shape(self) -> dict[str, Any]:
        return {"module": self.parts.module, "argv": self.argv}

    def _fork(self, order_fd: int, output: int, *, park: bool) -> Forked:
        cause = cause_of(self.parts, self.env, str(self.folder), self.preload)
        zygote = self.zygotes.get("a", cause, "zygote", PATIENCE, self.note)
        mark = "standby" if park else f"run/{self.run}"
        return zygote.fork(
            {"park": park, "mark": mark, "shown": self.argv, "words": self.parts.words}, output, order_fd
        )

    def fork_spare(self) -> Forked:
        """A process that is to be a spare."""
        order_fd, output = write_order({**self.order, **self._shape()}), os.memfd_create("standby")
        try:
            return self._fork(order_fd, output, park=True)
        finally:
            os.close(order_fd)
            os.close(output)

    def note(self, event: str, fields: dict[str, object]) -> None:
        self.told.append((event, fields))

    def park(self) -> dict[str, Any]:
        """Have a spare; what it said of itself."""
        self.spare = self.fork_spare()
        self.spare.cord.settimeout(PATIENCE)
        return json.loads(self.spare.cord.recv(1 << 16))

    def park_if_wished(self) -> None:
        """Where a spare is part of it."""
        if self.how == "standby":
            assert {"parked": True} == self.park()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        os.kill(self.pid, signum)
        self.wait()

    def wait(self) -> None:
        assert select.select([self.pidfd], [], [], PATIENCE)[0]
        if (process := getattr(self, "process", None)) is not None:
            process.wait(PATIENCE)

    def client(self) -> BlockingKernelClient:
        """A stock client that is connected; closed in the end."""
        client = BlockingKernelClient(connection_file=str(self.file))
        client.load_connection_file()
        self.clients.append(client)
        client.start_channels(hb=False)  # it would judge a slow start by it
        client.kernel_info()
        client.get_shell_msg(timeout=PATIENCE)
        return client

    def close(self) -> None:
        for client in self.clients:
            client.stop_channels()
            client.context.destroy(linger=0)
        if self.spare is not None:
            self.spare.close()
        if self.pidfd >= 0 and not select.select([self.pidfd], [], [], 0)[0]:
            self.kill()
        self.zygotes.close()
