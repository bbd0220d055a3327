"""SIGKILL of the daemon between every two steps of a launch: the next one converges."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.daemon import Scene
from tests.faults.conftest import FaultyScene
from tests.waiting import DEADLINE, wait_for

# In the order in which a launch comes to them.
STEPS = [
    ("address", "before"),
    ("record.intent", "before"),
    ("record.intent.rename", "before"),
    ("record.intent.rename", "after"),
    ("record.intent", "after"),
    ("connection.write", "before"),
    ("connection.write", "after"),
    ("spawn", "before"),
    ("spawn", "after"),
    ("watch", "before"),
    ("watch", "after"),
    ("record.identity", "before"),
    ("record.identity.rename", "before"),
    ("record.identity.rename", "after"),
    ("record.identity", "after"),
    ("record.ready", "before"),
    ("record.ready.rename", "before"),
    ("record.ready", "after"),
]
NAMES = [f"{point} {when}" for point, when in STEPS]


def has_converged(scene: Scene) -> None:
    """One process, the one that is told of, that answers at the address in its file."""
    scene.wait_running("a")
    assert [scene.kernel("a")["pid"]] == scene.leaders("a")
    assert "2" == scene.run("a", "print(1 + 1)")
    scene.wait_recorded("a")
    assert [] == scene.doubles()
    assert [] == scene.status()["degraded"]


@pytest.mark.parametrize(("point", "when"), STEPS, ids=NAMES)
def test_a_daemon_killed_during_the_first_launch_is_followed_by_one_that_converges(
    scene: Scene, faults: FaultyScene, point: str, when: str
) -> None:
    scene.write(scene.mini("a"))
    faults.set(point, when, kill=True)
    faults.begin()
    faults.wait_dead()
    left = scene.leaders("a")
    file = scene.connection_file("a")
    address = file.read_bytes() if file.exists() else None

    scene.start("a")

    has_converged(scene)
    assert left in ([], scene.leaders("a"))
    # Once it was there to be read, it is for good.
    assert address in (None, file.read_bytes())
    assert [f"{point} {when}"] == faults.struck()
    if (point, when) in STEPS[STEPS.index(("spawn", "after")) :]:
        assert 1 == len(left) == len(scene.events("kernel.adopted"))
    assert 200 == scene.order("restart", "a").status
    assert 0 == scene.stop()
    assert [] == scene.processes()


@pytest.mark.timeout(300)
def test_a_daemon_killed_during_a_restart_is_followed_by_one_that_converges_at_the_same_address(
    scene: Scene, faults: FaultyScene
) -> None:
    at_once = "{ initial = 0.0, next = 0.0 }"
    scene.write(scene.mini("a", max_restarts="0", backoff=at_once))
    faults.start("a")
    scene.wait_recorded("a")
    address = scene.connection_file("a").read_bytes()
    # The daemon that has converged is the one that is killed at the next step.
    for point, when in STEPS:
        faults.set(point, when, kill=True)

        os.kill(scene.kernel("a")["pid"], signal.SIGKILL)
        faults.wait_dead()
        left = scene.leaders("a")
        faults.lift()
        faults.start("a")

        has_converged(scene)
        assert left in ([], scene.leaders("a")), f"{point} {when}"
        assert address == scene.connection_file("a").read_bytes(), f"{point} {when}"
        assert f"{point} {when}" == faults.struck()[-1]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_daemon_killed_while_it_adopts_is_followed_by_one_that_adopts(
    scene: Scene, faults: FaultyScene, when: str
) -> None:
    scene.write(scene.mini("a"))
    faults.start("a")
    scene.wait_recorded("a")
    scene.kill()
    pids = scene.leaders("a")
    faults.set("adopt", when, kill=True)
    faults.begin()
    faults.wait_dead()

    scene.start("a")

    has_converged(scene)
    assert pids == scene.leaders("a")


def test_a_daemon_killed_before_it_records_the_process_loses_none_of_many(
    scene: Scene, faults: FaultyScene
) -> None:
    names = [f"k{number}" for number in range(6)]
    scene.write(*(scene.mini(name) for name in names), supervisor="max_concurrent_starts = 6")
    faults.set("record.identity", kill=True)
    faults.begin()
    faults.wait_dead()

    scene.start(*names)

    assert sorted(scene.pids().values()) == sorted(scene.leaders())
    assert 0 == scene.stop()
    wait_for(lambda: not scene.processes(), "all have ended", DEADLINE)


def test_what_killed_daemons_were_writing_is_gone_after_the_next_start(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a"))
    for point in ("rename of last-good.toml", "rename of kernel-a.json"):
        faults.set(point, kill=True)
        faults.begin()
        faults.wait_dead()
        scene.connection_file("a").unlink(missing_ok=True)
    left = [*scene.state_dir.glob(".*.tmp"), *scene.runtime_dir.glob(".*.tmp")]
    assert left
    (scene.state_dir / ".control.sock.99999999").touch()

    scene.start("a")

    wait_for(lambda: "last-good.toml" in {path.name for path in scene.state_dir.iterdir()}, "it is kept")
    assert [] == [*scene.state_dir.glob(".*"), *scene.runtime_dir.glob(".*")]
