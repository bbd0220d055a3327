"""Restart callbacks of the embedding API, with real processes and a real file."""

from __future__ import annotations

import os
import signal

from supervisor import Supervisor
from tests.e2e.daemon import Scene
from tests.waiting import wait_for


async def test_a_death_calls_restart_once_and_giving_up_calls_dead_once(scene: Scene) -> None:
    import asyncio

    scene.write(scene.mini("a", max_restarts="1", backoff="{ initial = 0.0, next = 0.0 }"))
    called: list[str] = []

    async def until(condition) -> None:  # type: ignore[no-untyped-def]
        await asyncio.to_thread(wait_for, condition, "it is so")

    async with Supervisor.from_toml(scene.config) as supervised:
        supervised.add_restart_callback("a", lambda: called.append("restart"), "restart")
        supervised.add_restart_callback("a", lambda: called.append("dead"), "dead")
        await until(lambda: scene.events("kernel.ready", generation=1))
        os.kill(scene.leaders("a")[0], signal.SIGKILL)
        await until(lambda: scene.events("kernel.ready", generation=2))
        assert ["restart"] == called

        os.kill(scene.leaders("a")[0], signal.SIGKILL)
        await until(lambda: called[1:])
    assert ["restart", "dead"] == called
    assert [] == scene.leaders("a")
