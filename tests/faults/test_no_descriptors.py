"""A daemon that has no file descriptor left, for real (prlimit(2)), and gets some back."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="prlimit(2) is Linux's")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu(pid: int) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_daemon_without_descriptors_lives_does_not_spin_and_restarts_the_dead_once_it_has_some(
    scene: Scene,
) -> None:
    scene.write(
        scene.mini("a", backoff="{ initial = 0.0, next = 0.2, factor = 1.0 }", max_restarts="3"),
        scene.mini("b"),
    )
    daemon = scene.start("a", "b")
    scene.wait_recorded("a", "b")
    pids = scene.pids()
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
    callers = []
    for _ in range(4):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(str(scene.socket))
        callers.append(caller)
    os.kill(pids["a"], signal.SIGKILL)

    before, begin, lines = cpu(daemon.pid), time.monotonic(), scene.log.stat().st_size
    wait_for(lambda: time.monotonic() > begin + 3.0, "three seconds pass")
    spent, written = cpu(daemon.pid) - before, scene.log.stat().st_size - lines

    assert daemon.poll() is None
    assert spent < 1.5
    assert written < 200_000
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for caller in callers:
        caller.close()
    wait_for(scene.answers, "the daemon answers")
    scene.wait_running("a", after=1)
    assert [scene.kernel("a")["pid"]] == scene.leaders("a")
    assert pids["b"] == scene.kernel("b")["pid"]
    wait_for(lambda: not scene.status()["degraded"], "nothing is degraded any more")
    scene.wait_recorded("a", "b")


def under(hard: int) -> tuple[str, ...]:
    """The program, with so many descriptors at most, and an eighth of them at first."""
    text = (
        "import resource, runpy, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({hard // 8}, {hard}))\n"
        "sys.argv[0] = 'supervisor'\n"
        "runpy.run_module('supervisor', run_name='__main__')\n"
    )
    return ("-c", text)


def test_kernels_that_wait_for_room_do_not_take_the_place_of_those_that_die(scene: Scene) -> None:
    backoff = "{ initial = 3.0, jitter = 0.0 }"  # longer than those who wait look away
    scene.write(
        *(scene.mini(f"k{number:02}", backoff=backoff) for number in range(30)),
        supervisor="max_concurrent_starts = 8",
    )
    scene.begin(program=under(256))
    wait_for(scene.answers, "the daemon answers")

    def in_phase(*names: str) -> set[str]:
        return {view["name"] for view in scene.status()["kernels"] if view["phase"] in names}

    wait_for(lambda: len(in_phase("running", "waiting")) == 30, "each kernel runs or waits")
    running = in_phase("running")
    assert len(running) < 30

    for name, pid in scene.pids().items():
        if name in running:
            os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(scene.events("kernel.died")) == len(running), "all are told dead")
    scene.wait_running(*running, after=1)


def test_kernels_that_do_not_fit_wait_and_say_so_and_all_is_served_and_ended(scene: Scene) -> None:
    names = [f"k{number:02}" for number in range(30)]
    scene.write(*(scene.mini(name) for name in names), supervisor="max_concurrent_starts = 8")
    scene.begin(program=under(256))
    wait_for(scene.answers, "the daemon answers")

    def settled() -> bool:
        return all(view["phase"] in ("running", "waiting") for view in scene.status()["kernels"])

    wait_for(settled, "each kernel runs or waits")
    waiting = [view for view in scene.status()["kernels"] if view["phase"] == "waiting"]
    running = [view for view in scene.status()["kernels"] if view["phase"] == "running"]
    assert len(running) > 12
    assert all(
        re.fullmatch(r"needs 10 descriptors, \d+ are left: raise LimitNOFILE", view["reason"])
        for view in waiting
    )
    assert {view["name"] for view in waiting} <= {line["kernel"] for line in scene.events("kernel.waiting")}
    limits = resource.prlimit(running[0]["pid"], resource.RLIMIT_NOFILE)
    assert (32, 256) == limits, "kernels get what the daemon was given"

    for view in running[:4]:  # each keeps its ports, which are nearly half of what it needs
        assert scene.order("stop", view["name"]).body["ok"]
    names = [view["name"] for view in waiting]
    wait_for(lambda: any(scene.kernel(name)["phase"] == "running" for name in names), "one has its turn")
    scene.stop()
    assert [] == scene.leaders()


def test_a_daemon_with_too_few_descriptors_for_the_kernels_that_it_finds_serves_and_misses_no_death(
    scene: Scene,
) -> None:
    names = [f"k{number:02}" for number in range(40)]
    scene.write(*(scene.mini(name) for name in names), supervisor="max_concurrent_starts = 8")
    scene.start(*names)
    scene.wait_recorded(*names)
    pids = scene.pids()
    scene.kill()

    scene.begin(program=under(128))
    wait_for(scene.answers, "the daemon answers")
    unwatched = [
        name
        for name in names
        if any(f"cannot watch kernel {name} yet" in d for d in scene.status()["degraded"])
    ]
    assert unwatched
    assert pids == scene.pids()
    os.kill(pids[unwatched[-1]], signal.SIGKILL)
    scene.wait_event("kernel.died", kernel=unwatched[-1])

    scene.kill()
    scene.start(*names)
    assert {**pids, unwatched[-1]: 0} == {**scene.pids(), unwatched[-1]: 0}
    wait_for(lambda: not scene.status()["degraded"], "nothing is degraded any more")

    scene.kill()
    daemon = scene.begin(program=under(128))
    wait_for(scene.answers, "the daemon answers")
    daemon.terminate()
    assert 0 == daemon.wait(DEADLINE), scene.log_end()
    assert [] == scene.leaders()
