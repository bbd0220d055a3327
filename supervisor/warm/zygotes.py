"""The zygotes of one supervisor: one for each interpreter, options, environment, directory and preload.

Owns them: they end with it.  Blocks for as long as is said, so it is called in threads.  Linux only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from msgspec import Struct

from supervisor.warm.command import LAUNCH, IPython, NotWarm

# Seconds: how long a launch waits for a fork; how long a zygote may import at all; how long one that is
# unfit is not tried again.
FORK_PATIENCE = 5.0
IMPORT_PATIENCE = 120.0
UNFIT_FOR = 60.0
# The room that a kernel's command line and mark have in what /proc shows of the zygote.
ARGV_ROOM = "." * 4096
MARK_ROOM = 256

Spawn = Callable[[list[str], "dict[str, str]", str, int], "subprocess.Popen[bytes]"]
Tell = Callable[[str, "dict[str, object]"], object]


class Cause(Struct, frozen=True):
    """What a zygote is for; two kernels with the same share one."""

    python: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    cwd: str
    preload: tuple[str, ...]


class Forked(Struct, frozen=True):
    """A process that waits on its cord for "go", and ends if it is cut."""

    pid: int
    pidfd: int
    cord: socket.socket

    def go(self, *fds: int) -> bool:
        """Let it go on; False if it has ended."""
        with suppress(OSError):
            return socket.send_fds(self.cord, [b"go"], list(fds)) > 0
        return False

    def kill(self) -> None:
        """End it, and the group that it leads."""
        with suppress(OSError):  # it has ended
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it: one that still waits ends."""
        self.cord.close()
        os.close(self.pidfd)


class Zygote:
    """One of them, from its start."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process, self._control = process, control
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._prints: dict[str, Any] | None = None
        self.unfit: str | None = None
        self.unfit_since = 0.0

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait_fit(self, patience: float, tell: Tell) -> None:
        """Return once it can fork.  Raises NotWarm."""
        with self._lock:
            if self._prints is None and self.unfit is None:
                self._hear(patience, tell)
        if self.unfit is not None:
            raise NotWarm(self.unfit)

    def _hear(self, patience: float, tell: Tell) -> None:
        heard = select.poll()  # select(2) knows no descriptor above 1023
        heard.register(self._control, select.POLLIN)
        if not heard.poll(patience * 1000):
            if time.monotonic() - self._began < IMPORT_PATIENCE:
                raise NotWarm("its imports take long")
            self._refuse(f"its imports took more than {IMPORT_PATIENCE:g} s", tell)
        data, fds, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
        if not data:
            self._refuse(f"it ended while it imported (status {self._process.wait(FORK_PATIENCE)})", tell)
        hello = json.loads(data)
        with open(fds[0], encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
            file.seek(0)
            self._prints = json.load(file)
        if hello["unfit"]:
            self._refuse(hello["unfit"], tell)
        took = round(time.monotonic() - self._began, 3)
        tell("zygote.ready", {"zygote": self._process.pid, "took": took, "ipykernel": hello["ipykernel"]})

    def _refuse(self, reason: str, tell: Tell) -> NoReturn:
        self.unfit, self.unfit_since = reason, time.monotonic()
        tell("zygote.unfit", {"zygote": self._process.pid, "reason": reason})
        self.kill()
        raise NotWarm(reason)

    def stale(self) -> str | None:
        """The first file that is not as it was imported."""
        for path, known in (self._prints or {}).items():
            try:
                found = os.stat(path)  # noqa: PTH116 - of a thousand files, before each fork
            except OSError:
                return path
            if known != [found.st_mtime_ns, found.st_size, found.st_ino]:
                return path
        return None

    def fork(self, request: dict[str, Any], output: int, order: int) -> Forked:
        """Fork a process that waits for its ``go``.  Raises NotWarm, and then nothing runs."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(FORK_PATIENCE)
        try:
            with theirs:
                socket.send_fds(
                    self._control, [json.dumps(request).encode()], [theirs.fileno(), output, order]
                )
            data, fds, _, _ = socket.recv_fds(ours, 4096, 1)
            said = json.loads(data or b"{}")
            if "pid" in said:
                os.set_inheritable(fds[0], False)
                return Forked(said["pid"], fds[0], ours)
            reason = os.strerror(said["error"]) if "error" in said else "it ended"
        except (OSError, ValueError) as error:
            # Stopped, say, and of no use until it is gone: what it forks yet finds its cord cut.
            self.kill()
            reason = str(error)
        ours.close()
        raise NotWarm(f"no fork: {reason}")

    def retire(self) -> None:
        """Fork no more; it stays until its kernels have ended, as it is their parent."""
        try:
            self._control.send(b'{"retire": true}', socket.MSG_DONTWAIT)
        except OSError:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(FORK_PATIENCE)
        self._control.close()


class Zygotes:
    """All of them, by what they are for."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._zygotes: dict[Cause, Zygote] = {}
        # What each kernel's is for: what is nobody's any more is retired.
        self._users: dict[str, Cause] = {}
        self._retired: list[Zygote] = []
        self._lock = threading.Lock()

    def get(self, user: str, cause: Cause, mark: str, patience: float, tell: Tell) -> Zygote:
        """One that can fork now, or within so many seconds; marked so if it is begun.  Raises NotWarm.

        ``user`` is the kernel that wants it, and wants no other than this from now on.
        """
        if sys.platform != "linux":
            raise NotWarm("forks are made on Linux only")
        for _ in range(2):
            with self._lock:
                self._users[user] = cause
                self._retire_idle()
                found = self._zygotes.get(cause)
                if found is None or _is_over(found):
                    found = self._zygotes[cause] = self._begin(cause, mark)
            found.wait_fit(patience, tell)
            if (path := found.stale()) is None:
                return found
            with self._lock:
                if self._zygotes.get(cause) is found:
                    del self._zygotes[cause]
                    tell("zygote.retired", {"reason": f"changed: {path}"})
                    self._retire(found)
        raise NotWarm("what it imported changes all the time")

    def leave(self, user: str) -> None:
        """The kernel wants none any more."""
        with self._lock:
            if self._users.pop(user, None) is not None:
                self._retire_idle()

    def _retire_idle(self) -> None:
        for cause in self._zygotes.keys() - set(self._users.values()):
            self._retire(self._zygotes.pop(cause))

    def _retire(self, zygote: Zygote) -> None:
        zygote.retire()
        self._retired.append(zygote)

    def bury(self) -> None:
        """Let go of those that have ended."""
        with self._lock:
            for zygote in [zygote for zygote in self._retired if not zygote.is_alive]:
                zygote.kill()
                self._retired.remove(zygote)

    def _begin(self, cause: Cause, mark: str) -> Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [*cause.python, LAUNCH, "zygote", str(theirs.fileno()), ARGV_ROOM]
            env = {**dict(cause.env), "KERNEL_SUPERVISOR_RUN": mark.ljust(MARK_ROOM, ".")}
            try:
                process = self._spawn(argv, env, cause.cwd, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        shown = ["kernel-supervisor-zygote", *cause.preload]
        ours.send(json.dumps({"preload": cause.preload, "mark": mark, "shown": shown}).encode())
        return Zygote(process, ours)

    def close(self) -> None:
        """End them all; the kernels that they forked live on."""
        with self._lock:
            for zygote in (*self._zygotes.values(), *self._retired):
                zygote.kill()
            self._zygotes.clear()


def _is_over(zygote: Zygote) -> bool:
    if zygote.unfit is not None:
        return time.monotonic() - zygote.unfit_since > UNFIT_FOR
    if not zygote.is_alive:
        zygote.kill()
        return True
    return False


def cause_of(parts: IPython, env: dict[str, str], cwd: str, preload: tuple[str, ...]) -> Cause:
    """What a zygote for this kernel would be for."""
    return Cause(parts.python, tuple(sorted(env.items())), cwd, preload)
