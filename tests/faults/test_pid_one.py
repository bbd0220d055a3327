"""A daemon that is the first process of its container, for real (unshare(1))."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, and unshare(1)"
)

# The first process of its own namespace of pids.
INSIDE = """
import os, sys
os.execvp("unshare", ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child",
                      sys.executable, "-m", "supervisor", *sys.argv[1:]])
"""


def inner(pid: int) -> int:
    """The daemon, as it is seen from outside."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def zombies(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if ") Z " in Path(f"/proc/{child}/stat").read_text()]


def test_as_pid_one_orphans_are_reaped_and_a_detach_is_refused_with_the_reason(scene: Scene) -> None:
    if subprocess.run(["unshare", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("no namespaces are to be had")
    scene.write(scene.mini("a"))
    outer = scene.begin(program=("-c", INSIDE))
    wait_for(
        lambda: scene.socket.exists() and scene.ask("GET", "/v1/status").body.get("kernels"), "it answers"
    )
    wait_for(lambda: scene.kernel("a")["phase"] == "running", "a runs")
    daemon = inner(outer.pid)

    # A child whose parent is gone is the daemon's.
    enter = ["nsenter", "--target", str(daemon), "--pid", "--mount"]
    subprocess.run([*enter, "sh", "-c", "sleep 0.2 & exit 0"], check=True)
    answer = scene.ask("POST", "/v1/detach", {})
    assert 409 == answer.status
    assert "has pid 1" in str(answer.body)
    os.kill(daemon, signal.SIGUSR2)
    wait_for(lambda: "cannot detach: the daemon has pid 1" in scene.log.read_text(), "the signal is refused")
    wait_for(lambda: not zombies(daemon), "orphans are reaped")
    assert "running" == scene.kernel("a")["phase"]

    os.kill(daemon, signal.SIGTERM)
    assert 0 == outer.wait(DEADLINE)
