"""Looks at the machine from outside, all the time: what must hold at every moment, and what may not grow.

Owns no process and changes nothing.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from supervisor.control.client import Client
from supervisor.control.follow import open_events
from supervisor.observe.events_file import replay
from tests.e2e.daemon import Marked, Scene
from tests.waiting import DEADLINE

INTERVAL = 0.05


class Violated(AssertionError):
    """Something that must hold did not."""


class Watch:
    """A thread that looks for two processes of one kernel, and for addresses that change."""

    def __init__(self, scene: Scene) -> None:
        self.violations: list[str] = []
        self.looks = 0
        self.removals: Counter[str] = Counter()
        self._scene = scene
        self._addresses: dict[str, list[bytes]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(INTERVAL):
            try:
                self.look()
            except Exception as error:
                self.violations.append(f"the watch failed: {error!r}")
                return

    def look(self) -> None:
        """Look once."""
        self.looks += 1
        self._look_for_two()
        self._look_at_addresses()
        for told in self._scene.doubles():
            self._violate(f"two processes of one kernel: {told.strip()}")

    def _violate(self, what: str) -> None:
        if what not in self.violations:
            self.violations.append(what)

    def _look_for_two(self) -> None:
        seen: dict[str, list[tuple[Marked, str]]] = {}
        for process in self._scene.processes():
            if process.leads and (born := start_time(process.pid)) is not None:
                seen.setdefault(process.kernel, []).append((process, born))
        for kernel, found in seen.items():
            # Seen one after the other: only those that all live now are two.
            living = [each for each, born in found if start_time(each.pid) == born]
            if len(found) > 1 and len(living) > 1:
                self._violate(f"two processes of {kernel}: {living}")

    def _look_at_addresses(self) -> None:
        for file in self._scene.runtime_dir.glob("kernel-*.json"):
            kernel = file.stem.removeprefix("kernel-")
            try:
                content = file.read_bytes()
            except FileNotFoundError:
                continue
            known = self._addresses.setdefault(kernel, [])
            if content not in known:
                known.append(content)
            if len(known) > 1 + self.removals[kernel]:
                self._violate(f"the address of {kernel} has changed")


def missing_events(scene: Scene, after: int) -> tuple[list[str], int]:
    """What was told after this number and is not on disk, or not in order; and the last number there."""
    with open_events(Client([scene.socket]), {"last": 1}) as connection:
        told = next((event["seq"] for event in connection.lines(DEADLINE)), 0)
    events = list(replay(scene.state_dir / "events.jsonl", after=after - 1))
    numbers = [event["seq"] for event in events]
    if not numbers or numbers[-1] < told:
        return [f"events: {told} was told, the last on disk is {numbers[-1:]}"], after
    for before, event in pairwise(events):
        is_first = event["event"] == "daemon.started"
        if not is_first and event["seq"] != before["seq"] + 1:
            return [f"events: after {before} comes {event}"], after
        if not is_first and event["timestamp"] < before["timestamp"]:
            return [f"events: {event} is before {before}"], after
    return [], numbers[-1]


def start_time(pid: int) -> str | None:
    """When the process began, in clock ticks; ``None`` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class Usage:
    """What a daemon holds; memory in MB."""

    descriptors: int
    threads: int
    memory: float
    watches: int
    zombies: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Count what the process holds."""
        proc = Path(f"/proc/{pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        infos = []
        for info in (proc / "fdinfo").iterdir():
            try:
                infos.append(info.read_text())
            except OSError:
                continue  # closed meanwhile
        return cls(
            descriptors=len(infos),
            threads=int(status["Threads"]),
            memory=int(status["VmRSS"].split()[0]) / 1024,
            watches=sum(info.count("inotify wd:") for info in infos),
            zombies=sum(
                _is_zombie_of(int(each.name), pid)
                for each in Path("/proc").iterdir()
                if each.name.isdecimal()
            ),
        )


def _is_zombie_of(pid: int, parent: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] == "Z" and int(fields[1]) == parent


def environment_of(pid: int, variable: str) -> str | None:
    """A variable of a process as it was launched."""
    prefix = f"{variable}=".encode()
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    found = [value for value in content.split(b"\0") if value.startswith(prefix)]
    return os.fsdecode(found[0][len(prefix) :]) if found else None
