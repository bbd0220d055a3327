"""A daemon that gets no thread any more, as where its account has too many (setrlimit(2), RLIMIT_NPROC)."""

from __future__ import annotations

import os
import signal

from tests.e2e.daemon import Scene
from tests.waiting import wait_for

PROGRAM = """
import pathlib, runpy, sys, threading
start, scarce = threading.Thread.start, pathlib.Path(sys.argv[1])
def scarcely(thread):
    if scarce.exists():
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = scarcely
sys.argv[:2] = ["supervisor"]
runpy.run_module("supervisor", run_name="__main__")
"""


def test_a_daemon_without_threads_restarts_the_dead_obeys_and_keeps_its_socket_and_their_files(
    scene: Scene,
) -> None:
    scarce = scene.directory / "scarce"
    scene.write(scene.mini("a"), scene.mini("b"), scene.mini("c"))
    scene.begin(program=("-c", PROGRAM, str(scarce)))
    wait_for(scene.answers, "the daemon answers")
    scene.wait_running("a", "b", "c")
    scene.wait_recorded("a", "b", "c")
    pids = scene.pids()

    scarce.touch()
    os.kill(pids["a"], signal.SIGKILL)
    scene.wait_running("a", after=1)
    assert scene.order("restart", "b").body["ok"]
    assert scene.order("stop", "c").body["ok"]
    assert not scene.connection_file("c").exists()
    scene.connection_file("a").unlink()
    wait_for(scene.connection_file("a").exists, "the connection file is written again")
    scene.socket.unlink()
    wait_for(scene.answers, "the daemon answers at its socket")
    scene.write(scene.mini("a"), scene.mini("b"), scene.mini("c"), scene.mini("d"))
    scene.wait_running("d")
    scene.wait_event("kernel.ready", 2, kernel="b")

    scarce.unlink()
    scene.wait_recorded("a", "b", "d")
    assert [] == scene.status()["degraded"]
    assert [[scene.pids()[name]] for name in "abd"] == [scene.leaders(name) for name in "abd"]
    assert [] == scene.leaders("c")
    scene.stop()
