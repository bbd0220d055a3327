"""The kernels of this machine by their names: which run an effect reaches, and how one is forgotten."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from supervisor.core.actions import AskToExit, Forget, InterruptKernel, SignalGroup
from supervisor.core.events import Exited
from supervisor.core.model import Kernel, State, Stopped, Want
from supervisor.records import keeper
from supervisor.records.record import Record
from tests.kernel.hosting import Hosting, config
from tests.kernel.test_entry import address, can_bind, ports
from tests.waiting import outlast, until


async def test_what_is_meant_for_another_run_is_not_carried_out(hosting: Hosting) -> None:
    spawned = await hosting.run(config())

    await hosting.perform(SignalGroup("a", 7, 9))
    await hosting.perform(AskToExit("a", 0))
    await hosting.perform(InterruptKernel("a", 2))

    os.kill(spawned.process.pid, 0)
    assert [] == hosting.of(Exited)


async def test_forgotten_is_all_but_the_output(hosting: Hosting) -> None:
    spawned = await hosting.run(config("--say", "last words"))
    await hosting.kill(spawned)
    held = ports(address(hosting))

    hosting.host.dismiss("a")
    await hosting.perform(Forget("a"))

    assert not hosting.places.connection_file("a").exists()
    assert None is hosting.record()
    # Nobody was connected to these, so nothing of theirs lingers (TIME_WAIT).
    assert [True] * 3 == [can_bind(port) for port in held[:3]]
    assert "last words\n" == hosting.places.output_file("a").read_text()
    assert [] == hosting.entries()
    await until(lambda: "Trimming" not in str(asyncio.all_tasks()))


async def test_a_kernel_that_is_declared_anew_before_it_is_forgotten_is_not_forgotten(
    hosting: Hosting,
) -> None:
    await hosting.kill(await hosting.run(config()))
    hosting.host.dismiss("a")
    forgetting = hosting.begin(Forget("a"))

    await hosting.run(config(), 1)
    await forgetting

    found = hosting.record()
    assert found is not None
    assert found.process is not None
    assert hosting.places.connection_file("a").exists()


async def test_a_removal_that_the_disk_refuses_never_hits_the_kernel_that_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        is_broken = True

        def __init__(self) -> None:
            self.on_disk: dict[str, Record] = {}

        def write(self, record: Record) -> None:
            self._check()
            self.on_disk[record.name] = record

        def remove(self, name: str) -> None:
            self._check()
            self.on_disk.pop(name, None)

        def _check(self) -> None:
            if self.is_broken:
                raise OSError(30, "Read-only file system")

    monkeypatch.setattr(keeper, "RETRY_INTERVAL", 0.02)
    store = ReadOnly()
    hosting = Hosting(tmp_path, store)
    kernel = Kernel("a", config(), Want.DOWN, Stopped())
    hosting.host.remember(kernel, State())
    hosting.host.dismiss("a")
    await hosting.perform(Forget("a"))

    hosting.host.remember(kernel, State())
    store.is_broken = False
    await until(lambda: "a" in store.on_disk)
    await outlast(keeper.RETRY_INTERVAL)

    assert "a" in store.on_disk
    await hosting.close()
