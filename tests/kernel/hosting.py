"""One host on this machine, its facts, and the small kernels that it launches."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, TypeVar

from supervisor.core.actions import Adopt, Effect, Spawn
from supervisor.core.events import Exited, Fact, Ready, Spawned, SpawnFailed
from supervisor.core.model import Kernel, Running, Starting, State, Want
from supervisor.kernel.entry import Entry
from supervisor.kernel.handle import LocalHandle
from supervisor.kernel.host import Host
from supervisor.kernel.subproc import KernelManager
from supervisor.records.places import Places
from supervisor.records.record import Record, RecordStore
from supervisor.settings.config import BackoffConfig, KernelConfig
from tests.kernels.using import mini
from tests.waiting import DEADLINE, until

F = TypeVar("F", bound=Fact)


def config(*flags: str, name: str = "a", **settings: Any) -> KernelConfig:
    settings = {"backoff": BackoffConfig(next=0.0), "stop_timeout": 1.0, **settings}
    return KernelConfig(name=name, argv=tuple(mini(*flags)), **settings)


class Hosting:
    """A host as a runner would use it, without the runner: the test decides."""

    def __init__(self, directory: Path, store: Any = None) -> None:
        self.places = Places(directory / "state", directory / "runtime")
        self.store = store or RecordStore(self.places.records)
        self.troubles: list[tuple[str, str | None]] = []
        self.facts: list[Fact] = []
        self.host = Host(self.places, self.store, lambda key, text: self.troubles.append((key, text)))
        self.host.open()
        self.pids: list[int] = []
        self.left: list[object] = []

    def entry(self, name: str = "a") -> Entry:
        return self.host.entry(name)

    def report(self, fact: Fact) -> None:
        self.facts.append(fact)
        if isinstance(fact, Spawned):
            self.pids.append(fact.process.pid)

    def begin(self, effect: Effect) -> asyncio.Task[None]:
        """Begin an effect as the runner does, and do not wait."""
        return asyncio.get_running_loop().create_task(self.host.perform(effect, self.report))

    async def perform(self, effect: Effect) -> None:
        await asyncio.wait_for(self.begin(effect), DEADLINE)

    def of(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

    async def first(self, kind: type[F], count: int = 1) -> F:
        await until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def spawn(self, settings: KernelConfig, generation: int = 1) -> Spawned:
        """Launch, and wait until it exists; it is remembered as the runner would have it."""
        kernel = Kernel(settings.name, settings, Want.UP, Starting(settings, 0.0), generation)
        self.host.remember(kernel, State())
        before, failed = len(self.of(Spawned)), self.of(SpawnFailed)
        await self.perform(Spawn(settings.name, generation, settings))
        assert failed == self.of(SpawnFailed)
        return self.of(Spawned)[before]

    async def run(self, settings: KernelConfig, generation: int = 1) -> Spawned:
        """Launch, and wait until it is ready."""
        before = len(self.of(Ready))
        spawned = await self.spawn(settings, generation)
        await self.first(Ready, before + 1)
        running = Running(settings, spawned.process, 0.0)
        self.host.remember(Kernel(settings.name, settings, Want.UP, running, generation), State())
        await self.host.flush()
        return spawned

    async def run_again(self, settings: KernelConfig, generation: int) -> Spawned:
        """The same after launches that failed."""
        self.facts = [fact for fact in self.facts if not isinstance(fact, SpawnFailed)]
        return await self.run(settings, generation)

    async def adopt(self, spawned: Spawned, settings: KernelConfig, *, ready: bool = True) -> None:
        await self.begin_adoption(spawned, settings, ready=ready)

    def begin_adoption(
        self, spawned: Spawned, settings: KernelConfig, *, ready: bool = True
    ) -> asyncio.Task[None]:
        self.pids.append(spawned.process.pid)
        return self.begin(Adopt(settings.name, spawned.generation, spawned.process, settings, ready))

    def record(self, name: str = "a") -> Record | None:
        path = self.places.records / f"{name}.json"
        if not path.exists():
            return None
        found, troubles = RecordStore(self.places.records).read_all()
        assert [] == troubles
        return next(record for record in found if record.name == name)

    async def kill(self, spawned: Spawned, count: int = 1) -> Exited:
        os.kill(spawned.process.pid, signal.SIGKILL)
        return await self.first(Exited, count)

    async def close(self) -> None:
        for pid in self.pids:
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        await until(lambda: all(entry.run is None or entry.run.is_over for entry in self.entries()))
        await asyncio.wait_for(self.host.wait_told(), DEADLINE)
        await self.leave()
        for handle in self.left:
            if isinstance(handle, KernelManager) and isinstance(handle.kernel, subprocess.Popen):
                handle.kernel.wait(DEADLINE)

    async def leave(self) -> None:
        """As a supervisor that detaches."""
        # What a test leaves behind is reaped by the test.
        handles = [entry.run.handle for entry in self.entries() if entry.run is not None]
        self.left += [handle.kernel for handle in handles if isinstance(handle, LocalHandle)]
        await asyncio.wait_for(self.host.flush(), DEADLINE)
        self.host.close()

    def entries(self) -> list[Entry]:
        return list(self.host._entries.values())


async def take_over(hosting: Hosting, next_host: Hosting, settings: KernelConfig) -> Spawned:
    """A run that the one host leaves behind, and the next one has read of."""
    spawned = await hosting.run(settings)
    await hosting.leave()
    found = hosting.record()
    assert found is not None
    next_host.host.recall([found])
    return spawned
