"""The daemon's side of its relay: started with the first address, taken up by the next daemon, mended.

Owns what the relay is to know, and tells it all to a new one when it has died: so it need keep nothing.
What may wait is done off the loop, and has a deadline.  Linux only.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from supervisor.disk.files import open_own
from supervisor.disk.off_loop import Hanging, Lane
from supervisor.machines.relay import SOCKET, Place

Tell = Callable[[str, dict[str, object]], object]

RELAY = Path(__file__).with_name("relay.py")
LOCK, LOG = "relay.lock", "relay.log"
_KEPT = ("PATH", "LD_LIBRARY_PATH", "HOME", "SSH_AUTH_SOCK")
# Seconds: for an answer; for a start, or an end; between starts that fail; between looks whether it answers.
PATIENCE, START_PATIENCE, RETRY, LOOK = 2.0, 5.0, 0.5, 5.0
_FAILURES = (OSError, ValueError, KeyError, TypeError, Hanging)


class RelayError(Exception):
    """An address cannot be had, or no relay; what others have is as it was."""


@dataclass(slots=True)
class Address:
    """The ports of a kernel, in the order of ``CHANNELS``, and where they lead; nowhere: they refuse."""

    local: tuple[Place, ...]
    target: tuple[Place, ...] | None = None


class Relays:
    """The addresses of a daemon, by the names of its kernels, and the relay that keeps them.

    ``directory`` is private; ``mark`` is the variable by which the relay is known for ours.  Told are
    ``relay.started``, ``relay.adopted`` and ``relay.failed``, each with its pid, the last with why.
    """

    def __init__(self, directory: Path, mark: Mapping[str, str], tell: Tell) -> None:
        (variable, value), *_ = mark.items()
        self._directory, self._mark, self._tell = directory, f"{variable}={value}", tell
        self._lane = Lane("relay")
        self._known: dict[str, Address] = {}
        self._pid: int | None = None
        self._turn = asyncio.Lock()
        self._due: set[str] = set()
        self._refused: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def take_up(self) -> dict[str, Address]:
        """Go on with the relay of an earlier daemon; its addresses.  One that does not answer is ended."""
        async with self._turn:
            try:
                pid, addresses = await self._lane.do(_find, self._directory, self._mark)
                self._look_after(pid)
            except _FAILURES:
                with suppress(*_FAILURES):
                    os.close(await self._lane.do(_take_lock, self._directory, self._mark))
            else:
                self._known = addresses
                self._tell("relay.adopted", {"pid": pid})
            return dict(self._known)

    async def add(self, name: str, local: Sequence[Place]) -> None:
        """Keep these five ports for a kernel, and refuse; nothing if it has them.  Raises RelayError."""
        if name in self._known and self._known[name].local == tuple(local):
            return
        await self.remove(name)
        self._known[name] = Address(tuple(local))
        try:
            await self._settle(name)
        except RelayError:
            self._known.pop(name, None)
            raise

    async def point(self, name: str, target: Sequence[Place] | None) -> None:
        """Lead them there, or nowhere; who is connected elsewhere is cut.  Raises RelayError."""
        if name not in self._known:
            raise RelayError(f"{name}: it has no address at the relay")
        self._known[name].target = target if target is None else tuple(target)
        await self._settle(name)

    async def cut(self, name: str) -> None:
        """End all connections, and refuse; the ports are kept.  Raises RelayError."""
        await self.point(name, None)

    async def remove(self, name: str) -> None:
        """Let go of the ports; the relay ends with the last.  Raises RelayError."""
        if self._known.pop(name, None) is not None:
            await self._settle(name)

    async def close(self) -> None:
        """Look after it no more; it lives on if something passes through it."""
        names = list(self._known)
        if self._pid is not None and not any(known.target for known in self._known.values()):
            self._known.clear()
            with suppress(*_FAILURES):
                await self._say(names)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _settle(self, name: str) -> None:
        self._due.add(name)
        # To its end, even if nobody waits any more: else the relay might not know what we think it does.
        await asyncio.shield(self._begin(self._bring(name)))

    async def _bring(self, name: str) -> None:
        async with self._turn:
            if name in self._due:  # else another has brought it along
                self._refused.update(await self._bring_due())
        if (reason := self._refused.pop(name, None)) is not None:
            raise RelayError(f"{name}: {reason}")

    async def _bring_due(self) -> dict[str, str]:
        due, self._due = self._due, set()
        try:
            try:
                refused = await (self._start() if self._pid is None else self._say(due))
            except _FAILURES:
                refused = await self._start()
        except RelayError:
            self._due |= due
            raise
        return {name: reason for name, reason in refused.items() if name in due}

    async def _say(self, names: Iterable[str]) -> dict[str, str]:
        """Tell the relay what is to be with these; what it refuses, and why."""
        known = {name: self._known.get(name) for name in names}
        orders = [{"name": name, **(asdict(of) if of else {"local": None})} for name, of in known.items()]
        _, answers = await self._lane.do(_ask, self._directory, orders, self._pid)
        pairs = zip(orders, answers, strict=True)
        return {order["name"]: answer["error"] for order, answer in pairs if "error" in answer}

    async def _start(self) -> dict[str, str]:
        """Start one, and tell it all; what it refuses.  One that lives but does not answer is ended."""
        self._pid = None
        if not self._known:
            return {}
        try:
            process = await self._lane.do(_spawn, self._directory, self._mark)
            self._look_after(process.pid, process)
            self._tell("relay.started", {"pid": process.pid})
            return await self._say(list(self._known))
        except _FAILURES as error:
            raise RelayError(f"the relay cannot be started: {error}") from error

    def _look_after(self, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        pidfd = os.pidfd_open(pid)
        self._pid = pid
        self._begin(self._mend(pid, pidfd, process))

    async def _wait_ended(self, pid: int, pidfd: int) -> None:
        """Wait for its end, which it is given if it answers no more, stopped say; close its pidfd."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            while not ended.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), LOOK)
                if not ended.is_set() and await self._is_silent(pid):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def _is_silent(self, pid: int) -> bool:
        for _ in range(2):
            with suppress(*_FAILURES):
                await self._lane.do(_ask, self._directory, [{}], pid)
                return False
        return True

    async def _mend(self, pid: int, pidfd: int, process: subprocess.Popen[bytes] | None) -> None:
        """Wait for its end; if it was not to end, start another and tell that until it has all."""
        try:
            await self._wait_ended(pid, pidfd)
        finally:
            if process is not None and process.poll() is None:
                process.returncode = 0  # it is left on purpose, and nobody waits for it
        self._pid = None if self._pid == pid else self._pid
        detail = "it has ended"
        while detail and self._known:
            self._tell("relay.failed", {"pid": pid, "detail": detail})
            async with self._turn:
                try:
                    refused = await (self._start() if self._pid is None else self._say(list(self._known)))
                    detail = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
                except (RelayError, *_FAILURES) as error:
                    detail = str(error)
            await asyncio.sleep(RETRY if detail else 0)


def _ask(directory: Path, orders: list[dict[str, Any]], pid: int | None) -> tuple[int, list[dict[str, Any]]]:
    """Who the relay is, if it is ours (and that process), and its answers.  Raises OSError and ValueError."""
    at = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(f"/proc/self/fd/{at}/{SOCKET}")  # a longer path does not fit (unix(7))
            found, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.geteuid() or pid not in (None, found):
                raise ConnectionError(
                    f"{directory / SOCKET}: pid {found} listens there, which is not the relay"
                )
            with sock.makefile("rwb") as file:
                file.write(b"".join(json.dumps(order).encode() + b"\n" for order in orders))
                file.flush()
                return found, [json.loads(file.readline()) for _ in orders]
    finally:
        os.close(at)


def _find(directory: Path, mark: str) -> tuple[int, dict[str, Address]]:
    """The relay that serves, and its addresses.  Raises OSError, ValueError and TypeError."""
    pid, (answer,) = _ask(directory, [{"list": True}], None)
    if not _is_marked(pid, mark):
        raise ConnectionError(f"{directory / SOCKET}: pid {pid} is not of this directory")
    return pid, {name: _read(**told) for name, told in answer["addresses"].items()}


def _read(local: list[Any], target: list[Any] | None, **_: object) -> Address:
    return Address(tuple(map(_place, local)), None if target is None else tuple(map(_place, target)))


def _place(value: Any) -> Place:
    ip, port = value
    return ip, port


def _is_marked(pid: int, mark: str) -> bool:
    return os.fsencode(mark) in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _take_lock(directory: Path, mark: str, flags: int = 0) -> int:
    """The lock that a relay has as long as it lives, once any that has it was ended.  Raises OSError."""
    lock = open_own(directory / LOCK, os.O_RDWR | flags)
    deadline = time.monotonic() + START_PATIENCE
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        with suppress(OSError, ValueError):  # it has ended, or has not written its pid yet
            pid = int(os.pread(lock, 20, 0))
            if _is_marked(pid, mark):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    os.close(lock)
    raise TimeoutError(f"{directory / LOCK}: whoever has it does not end: end it")


def _spawn(directory: Path, mark: str) -> subprocess.Popen[bytes]:
    """Start a relay, and return once it serves.  Raises OSError."""
    variable, _, value = mark.partition("=")
    with ExitStack() as left:
        lock = _take_lock(directory, mark, os.O_CREAT)
        left.callback(os.close, lock)
        log = open_own(directory / LOG, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        left.callback(os.close, log)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(RELAY), str(directory), str(lock)],
            env={**{name: os.environ[name] for name in _KEPT if name in os.environ}, variable: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=[lock],
            start_new_session=True,
        )
        assert process.stdout is not None, "it was asked for"
        with process.stdout as said:
            ready = select.poll()  # select(2) knows no descriptor above 1023
            ready.register(said, select.POLLIN)
            if ready.poll(START_PATIENCE * 1000) and said.read(1):
                return process
        process.kill()
        process.wait(START_PATIENCE)
        reason = os.pread(log, 1 << 16, 0).decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildProcessError(reason or "it does not answer")
