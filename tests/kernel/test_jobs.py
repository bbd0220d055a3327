"""The handle of a run that is a job, on a cluster of one process (the real one: tests/slurm)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.kernel import jobs
from supervisor.kernel.connection import CHANNELS, Address
from supervisor.kernel.jobs import JobHandle, Jobs
from supervisor.kernel.launch import Launcher
from supervisor.kernel.warmth import Launching
from supervisor.machines import slurm
from supervisor.settings.config import KernelConfig, SlurmConfig
from tests.machines.test_relay import free_ports
from tests.slurm import farm
from tests.waiting import DEADLINE, until


@contextmanager
def farming(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The directory of the commands of a cluster, which is looked at all the time."""
    with farm.serving(directory) as commands:
        monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
        monkeypatch.setattr(slurm, "INTERVAL", 0.05)
        yield commands


async def begun(cluster: Jobs, directory: Path) -> JobHandle:
    """A kernel that has begun."""
    settings = SlurmConfig(directory=str(directory / "shared"))
    config = KernelConfig(name="a", argv=("python3", "{connection_file}"), slurm=settings, cwd=str(directory))
    ports = {f"{channel}_port": port for channel, (_, port) in zip(CHANNELS, free_ports(), strict=True)}
    address = Address("tcp", "127.0.0.1", **ports, key="k")
    files = (directory / "connection.json", directory / "output", directory / "pending")
    wanted = Launching(config, Launcher().resolve(config), *files, "m/a/1", "m", 1, None)
    return await cluster.submit("a", wanted, address, lambda _: None)


async def test_one_that_the_cluster_has_forgotten_is_not_dead_as_long_as_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ABSENT_PATIENCE", 0.1)
    cluster = Jobs(tmp_path)
    with farming(tmp_path / "farm", monkeypatch) as commands:
        handle = await begun(cluster, tmp_path)
        ended = asyncio.create_task(handle.wait())
        await asyncio.wait_for(handle.wait_begun(), DEADLINE)

        called = tmp_path / "called"
        (commands / "squeue").write_text(f"#!/bin/sh\necho >>{called}\n")
        await until(lambda: called.exists() and called.stat().st_size > 20)
        assert not ended.done()
    await asyncio.wait_for(ended, DEADLINE)

    assert "unknown to the cluster" in handle.describe(()).detail
    await cluster.withdraw("a")
    await cluster.wait_closed()
