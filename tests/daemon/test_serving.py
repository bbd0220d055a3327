"""The door is opened behind the first launches: what it needs delays none, and nobody is told less."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.e2e.conftest import scene
from tests.e2e.daemon import Scene
from tests.waiting import wait_for

__all__ = ["scene"]


def test_what_the_door_alone_needs_is_not_loaded_before_the_first_launch() -> None:
    code = "import supervisor.daemon.life, sys; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {"tornado", "watchdog", "psutil", "http.client"} & set(loaded.stdout.split())


def test_who_calls_before_the_door_is_open_is_told_of_the_kernels_that_are_being_started(
    scene: Scene,
) -> None:
    scene.write(scene.mini("a"))
    scene.begin()
    wait_for(scene.socket.exists, "it is bound")

    status, order = scene.ask("GET", "/v1/status"), scene.order("stop", "a")

    assert [("a", "up")] == [(view["name"], view["want"]) for view in status.body["kernels"]]
    assert 200 == order.status
    assert [] == scene.processes()


def test_a_launch_that_hangs_keeps_the_door_closed_for_a_moment_only(scene: Scene) -> None:
    os.mkfifo(scene.directory / "startup.py")
    scene.write(
        scene.mini("a", startup_file=json.dumps(str(scene.directory / "startup.py"))), scene.mini("b")
    )

    scene.start("b")

    assert "starting" == scene.kernel("a")["phase"]
    (scene.directory / "startup.py").write_text("")  # whoever reads goes on
    scene.wait_running("a")
