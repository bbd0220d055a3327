"""Orders outlive the daemon: what was accepted before it was killed is done by the next one."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import wait_for

# It hears the order, and takes no notice: the order is under way when the daemon is killed.
DEAF = ("--ignore-shutdown", "--ignore", "SIGTERM")


def _being_restarted(scene: Scene, *flags: str, **keys: str) -> int:
    """Have a kernel whose restart is under way, and nobody to go on with it; returns its pid.

    Were its end a death, it would not be started again.
    """
    scene.write(scene.mini("a", *flags, restart='"never"', **keys))
    scene.start("a")
    pid = scene.pids()["a"]
    assert "accepted" == scene.order("restart", "a", wait=False).body["message"]
    scene.kill()
    return pid


def test_a_restart_that_the_killed_daemon_had_accepted_is_no_death_and_not_lost(scene: Scene) -> None:
    pid = _being_restarted(scene)

    scene.start()
    scene.wait_running("a", after=1)

    assert [scene.pids()["a"]] == scene.leaders("a") != [pid]
    assert {"ordered"} == {event["reason"] for event in scene.events("kernel.restarting", kernel="a")}
    assert [] == scene.events("kernel.died")
    assert scene.connection_file("a").exists()


def test_a_restart_is_gone_on_with_until_the_kernel_that_does_not_exit_is_ended(scene: Scene) -> None:
    pid = _being_restarted(scene, *DEAF, stop_timeout="1.0")
    assert [pid] == scene.leaders("a")

    scene.start()
    scene.wait_running("a", after=1)

    assert [pid] == [event["pid"] for event in scene.events("kernel.adopted")]
    assert [scene.pids()["a"]] == scene.leaders("a") != [pid]
    assert ["ordered"] == [event["reason"] for event in scene.events("kernel.restarting", kernel="a")]
    assert [] == scene.events("kernel.died")


def test_a_busy_kernel_whose_restart_is_gone_on_with_is_interrupted_as_by_the_daemon_that_began(
    scene: Scene,
) -> None:
    scene.write(scene.mini("a", stop_timeout="600.0"))
    scene.start("a")
    pid, at_work = scene.pids()["a"], scene.connection_file("a").with_name("at-work")
    with scene.client("a") as client:
        client.execute(f"import pathlib, time; pathlib.Path({str(at_work)!r}).touch(); time.sleep(600)")
        wait_for(at_work.exists, "it is busy")
    assert "accepted" == scene.order("restart", "a", wait=False).body["message"]
    scene.kill()

    scene.start()
    # Nothing else ends it: it heeds no shutdown while it executes.
    scene.wait_running("a", after=1)

    assert [scene.pids()["a"]] == scene.leaders("a") != [pid]


def test_a_restart_whose_kernel_ended_while_nobody_watched_is_due_at_the_next_start(scene: Scene) -> None:
    pid = _being_restarted(scene, *DEAF)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [] == scene.leaders("a"), "it is dead")

    scene.start()
    scene.wait_running("a", after=1)

    (told,) = scene.events("kernel.restarting", kernel="a")
    assert ("ordered", pid, True) == (told["reason"], told["pid"], told["while_unsupervised"])
    assert [] == scene.events("kernel.died")


def test_a_start_during_a_stop_is_not_lost_with_the_daemon(scene: Scene) -> None:
    scene.write(scene.mini("a", *DEAF, restart='"never"', stop_timeout="1.0"))
    scene.start("a")
    pid = scene.pids()["a"]
    for verb in ("stop", "start"):
        assert "accepted" == scene.order(verb, "a", wait=False).body["message"]
    scene.kill()

    scene.start()
    scene.wait_running("a", after=1)

    assert [scene.pids()["a"]] == scene.leaders("a") != [pid]
    assert [] == scene.events("kernel.died")


@pytest.mark.parametrize("autostart", ["true", "false"])
def test_a_daemon_killed_amid_its_shutdown_leaves_the_decision_to_the_file(
    scene: Scene, autostart: str
) -> None:
    scene.write(scene.mini("a", *DEAF, restart='"never"', autostart=autostart, stop_timeout="2.0"))
    daemon = scene.start()
    assert 200 == scene.order("start", "a").status
    scene.wait_recorded("a")
    pid = scene.pids()["a"]
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: scene.record("a").get("stopping"), "the stop is on record")
    scene.kill()
    assert [pid] == scene.leaders("a")

    scene.start()
    if autostart == "true":
        scene.wait_running("a", after=1)
        assert [scene.pids()["a"]] == scene.leaders("a") != [pid]
    else:
        scene.wait_phase("a", "stopped")
        assert [] == scene.leaders("a")

    assert [pid] == [event["pid"] for event in scene.events("kernel.adopted")]
    assert [] == scene.events("kernel.died")
    assert [] == scene.events("kernel.failed")


def test_a_death_while_nobody_watched_is_judged_by_the_file_of_the_next_start(scene: Scene) -> None:
    scene.write(scene.mini("kept", restart='"never"'), scene.mini("left", restart='"always"'))
    scene.start("kept", "left")
    scene.wait_recorded("kept", "left")
    pids = scene.pids()
    scene.kill()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: [] == scene.leaders(), "they are dead")

    scene.write(scene.mini("kept", restart='"always"'), scene.mini("left", restart='"never"'))
    scene.start()
    scene.wait_running("kept", after=1)

    scene.wait_phase("left", "failed")
