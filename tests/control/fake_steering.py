"""A daemon without kernels: steers an in-memory story, so that door and command line can be tried."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.control.door import Door, Limits
from supervisor.control.requests import EventsRequest, OutputRequest
from supervisor.control.steering import UnknownKernel
from supervisor.core import events
from supervisor.version import __version__

STARTED = "2025-01-31T12:00:00.000Z"


def stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_counted = itertools.count()


def sequence(moment: datetime) -> int:
    """A number that no other event has, in the order of their moments."""
    return int(moment.timestamp() * 1000) * 1000 + next(_counted) % 1000


def view_of(name: str, tmp: Path, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "phase": "running",
        "want": "up",
        "pid": 4242,
        "generation": 1,
        "since": STARTED,
        "uptime": 10_800.5,
        "restarts": 0,
        "last_death": None,
        "deaths": [],
        "health": "ok",
        "connection_file": str(tmp / f"kernel-{name}.json"),
        "output_file": str(tmp / "output" / f"{name}.log"),
        "pending": [],
        "next_start_at": None,
        "reason": "",
        "launch": "python3",
        "id": "6f3e1f9e-8a2b-4b5e-9f6c-0d6c6b0f5a11",
        "language": "python",
        "interrupt_mode": "signal",
        "display_name": name,
        "on_client_shutdown": "detach",
        "recorder": {"max_bytes": 10_485_760, "max_age": 604_800.0},
    } | fields


class FakeSteering:
    """Kernels as values; an order to a kernel in ``slow`` waits until ``release`` is set."""

    def __init__(self, tmp: Path, names: Sequence[str] = ("analysis", "robot", "stats")) -> None:
        self.tmp = tmp
        self.instance = "instance-1"
        self.version = __version__
        self.views = {name: view_of(name, tmp) for name in names}
        self.orders: list[events.Order] = []
        self.ended: list[str] = []
        self.refused: dict[str, str] = {}
        self.slow: set[str] = set()
        self.release = asyncio.Event()
        self.edited: dict[str, str] = {}
        self.mistakes: list[str] = []
        self.degraded: list[str] = []
        self.planned_path: str | None = None
        self.cgroups_advice = ""
        self.looks = 0
        self.lines: list[dict[str, Any]] = []
        self.flood = False
        self.followers = 0
        self._told = asyncio.Condition()

    def names(self) -> list[str]:
        return list(self.views)

    def _view(self, name: str) -> dict[str, Any]:
        if name not in self.views:
            raise UnknownKernel(name, self.names())
        return self.views[name]

    async def executing(self, name: str) -> dict[str, Any] | None:
        return None

    async def stacks(self, name: str) -> list[str]:
        self._view(name)
        return ["Thread 0x1 (most recent call first):", "  File x, line 1 in f"] if name == "analysis" else []

    def status(self, names: Sequence[str]) -> dict[str, Any]:
        self.looks += 1
        return {
            "instance": self.instance,
            "pid": 1,
            "version": self.version,
            "started_at": STARTED,
            "config": {
                "path": str(self.tmp / "kernels.toml"),
                "loaded_at": STARTED,
                "ahead_since": STARTED if self.mistakes else None,
                "mistakes": self.mistakes,
                "last_good_in_use": False,
            },
            "state_dir": str(self.tmp),
            "events_file": str(self.tmp / "events.jsonl"),
            "cgroups": {"state": "tracking", "advice": self.cgroups_advice},
            "seq": self.lines[-1]["seq"] if self.lines else 0,
            "degraded": self.degraded,
            "kernels": [self._view(name) for name in names or self.names()],
        }

    async def order(self, order: events.Order, *, wait: bool, timeout: float | None) -> dict[str, Any]:
        view = self._view(order.kernel)
        self.orders.append(order)
        if order.kernel in self.refused:
            return {"ok": False, "message": self.refused[order.kernel], "kernel": view}
        if wait and order.kernel in self.slow:
            view["phase"] = "stopping"
            try:
                async with asyncio.timeout(timeout):
                    await self.release.wait()
            except TimeoutError:
                return {"ok": False, "message": f"still stopping after {timeout:g} s", "kernel": view}
        match order:
            case events.Stop():
                view |= {"phase": "stopped", "pid": None, "want": "down"}
            case events.Start() | events.Restart() | events.Reset():
                view |= {"phase": "running", "pid": 4243, "generation": view["generation"] + 1}
        return {"ok": True, "message": f"{order.kernel} is {view['phase']}", "kernel": view}

    async def reload(self) -> dict[str, Any]:
        changes = [{"kernel": "robot", "action": "restart", "keys": ["env"], "note": ""}]
        if self.mistakes:
            return {"accepted": False, "mistakes": self.mistakes, "changes": [], "supervisor": []}
        own = [{"key": key, "action": action} for key, action in self.edited.items()]
        return {"accepted": True, "mistakes": [], "changes": changes, "supervisor": own}

    async def plan(self, path: str | None) -> dict[str, Any]:
        self.planned_path = path
        unchanged = {"kernel": "analysis", "action": "none", "keys": [], "note": ""}
        outcome = await self.reload()
        return {**outcome, "kernels": [unchanged, *outcome.pop("changes")]}

    def connection(self, name: str) -> dict[str, Any]:
        return {"path": self._view(name)["connection_file"], "content": {"ip": "127.0.0.1", "shell_port": 5}}

    def settings(self, name: str) -> list[dict[str, Any]]:
        self._view(name)
        return [{"key": "restart", "value": '"always"', "origin": "built in"}]

    async def usage(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        asked = names or self.names()
        return {name: {"memory": 1 << 20, "threads": 1} for name in asked if self._view(name)}

    async def counts(self) -> dict[str, Any]:
        return {"kernels": {}, "daemon": {}}

    async def output(self, name: str, asked: OutputRequest) -> AsyncIterator[list[dict[str, Any]]]:
        self._view(name)
        yield [{"text": "what it wrote"}]

    async def test_hook(self, label: str) -> dict[str, Any]:
        return {"ok": False, "message": f"no hook is called {label}"}

    async def events(self, asked: EventsRequest) -> AsyncIterator[list[dict[str, Any]]]:
        self.followers += 1
        try:
            past = [line for line in self.lines if _is_wanted(line, asked)]
            sent = len(self.lines)
            yield past if asked.last is None else past[len(past) - asked.last :]
            while self.flood:
                yield [
                    {"timestamp": stamp(), "event": "kernel.ready", "level": "info", "filler": "x" * 10_000}
                ]
            while asked.follow:
                async with self._told:
                    while len(self.lines) == sent:
                        await self._told.wait()
                for line in self.lines[sent:]:
                    if _is_wanted(line, asked):
                        yield [line]
                sent = len(self.lines)
        finally:
            self.followers -= 1

    async def tell(self, **fields: Any) -> None:
        line = {"timestamp": stamp(), "seq": sequence(datetime.now(UTC)), "level": "info", **fields}
        async with self._told:
            self.lines.append(line)
            self._told.notify_all()

    async def detach(self) -> str | None:
        self.ended.append("detach")
        return None

    async def shutdown(self, *, now: bool) -> None:
        self.ended.append("shutdown now" if now else "shutdown")


def _is_wanted(line: dict[str, Any], asked: EventsRequest) -> bool:
    return (
        (not asked.kernel or line.get("kernel") in asked.kernel)
        and asked.event in (None, line["event"])
        and (asked.began is None or datetime.fromisoformat(line["timestamp"]) >= asked.began)
        and (asked.after is None or line.get("seq", 0) > asked.after)
    )


class FakeDaemon:
    """The door on a fake, served by a loop in a thread of its own."""

    def __init__(self, steering: FakeSteering, path: Path, limits: Limits | None = None) -> None:
        self.steering = steering
        self.path = path
        self._limits = limits
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> FakeDaemon:
        self._thread.start()
        self.door = Door(self.steering, self.path, limits=self._limits)
        self.run(self.door.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.door.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def begin(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Any) -> Any:
        return self.begin(work).result(30)

    def call(self, function: Any, *arguments: Any) -> None:
        async def calling() -> None:
            function(*arguments)

        self.run(calling())
