"""Kernels that mean harm, under the real daemon: it and the others work on as if nothing was."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.e2e.conftest import scene
from tests.e2e.daemon import Scene, table
from tests.soak.watch import Usage
from tests.waiting import wait_for

__all__ = ["scene"]

PROGRAM = Path(__file__).with_name("hostile.py")
# Those that say the truth too, and are taken at it.
HEARD = ("lies", "flood", "huge", "deep", "echo")
CHECKS = "{ interval = 0.2, misses = 3 }"


def hostile(mode: str, **keys: str) -> str:
    argv = json.dumps([sys.executable, str(PROGRAM), mode, "{connection_file}"])
    return table(mode, argv=argv, heartbeat=CHECKS, probe=CHECKS, stop_timeout="2.0", **keys)


def test_hostile_kernels_harm_nobody_and_can_be_stopped(scene: Scene) -> None:
    scene.write(
        scene.mini("good", heartbeat=CHECKS, probe=CHECKS),
        *(hostile(mode) for mode in HEARD),
        hostile("noise", start_timeout="3.0", max_restarts="1", backoff="{ initial = 0.0, next = 0.1 }"),
        supervisor="max_concurrent_starts = 8",
    )
    daemon = scene.start("good", "lies", "flood", "deep", "echo")
    good = scene.kernel("good")["pid"]
    longest = 0.0
    begin = time.monotonic()
    while time.monotonic() < begin + 6.0:
        before = time.monotonic()
        scene.status()
        longest = max(longest, time.monotonic() - before)

    assert longest < 1.0
    assert Usage.of(daemon.pid).memory < 150
    assert good == scene.kernel("good")["pid"]
    assert [] == scene.events("kernel.unresponsive", kernel="good")
    scene.wait_phase("noise", "failed")
    # A death among them is noticed as ever.
    os.kill(good, signal.SIGKILL)
    scene.wait_running("good", after=1)
    for mode in HEARD:
        assert scene.order("stop", mode).status == 200, mode
        assert [] == scene.leaders(mode)
    assert "Traceback" not in scene.log.read_text()
    assert 0 == scene.stop()
    wait_for(lambda: not scene.processes(), "all have ended")
