"""An effect that fails or stalls: the daemon lives, says so, and is well again once the fault is gone."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from tests.e2e.daemon import Scene
from tests.faults.conftest import FaultyScene
from tests.waiting import wait_for

RECORDS = ("record.intent", "record.identity", "record.ready", "record.rest")
AT_ONCE = "{ initial = 0.0, next = 0.05, factor = 1.0, jitter = 0.0 }"


def kill_and_wait(scene: Scene, name: str) -> None:
    """Kernels are kept alive meanwhile, whatever else goes wrong."""
    before = scene.kernel(name)
    os.kill(before["pid"], signal.SIGKILL)
    scene.wait_running(name, after=before["generation"])
    assert [scene.kernel(name)["pid"]] == scene.leaders(name)


def test_records_that_cannot_be_written_are_told_and_written_later(scene: Scene, faults: FaultyScene) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE, max_restarts="0"))
    faults.start("a")
    scene.wait_recorded("a")
    for error in ("ENOSPC", "EROFS", "EIO", "EMFILE"):
        faults.set_all(*RECORDS, "last-good", **{"raise": error})

        kill_and_wait(scene, "a")

        faults.wait_degraded("cannot write the record of kernel a")
        faults.lift()
        faults.wait_well()
        scene.wait_recorded("a")


def test_a_daemon_that_could_write_no_record_leaves_no_second_process_when_it_is_killed(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a"))
    faults.set_all(*RECORDS, **{"raise": "ENOSPC"})
    faults.start("a")
    pids, address = scene.leaders("a"), scene.connection_file("a").read_bytes()
    scene.kill()

    scene.start("a")

    assert pids == scene.leaders("a")
    assert address == scene.connection_file("a").read_bytes()
    scene.wait_recorded("a")
    assert [] == faults.degraded()


def test_a_last_good_configuration_that_cannot_be_kept_is_told_and_kept_later(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a"))
    faults.start("a")
    faults.set("last-good", **{"raise": "ENOSPC"})
    scene.write(scene.mini("a"), scene.mini("b"))
    scene.wait_running("a", "b")

    faults.wait_degraded("cannot keep the configuration for the next start")
    kill_and_wait(scene, "b")
    faults.lift()

    faults.wait_well()
    assert "kernels.b" in (scene.state_dir / "last-good.toml").read_text()


def test_events_that_cannot_be_written_wait_in_memory_and_are_written_later_in_order(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE, max_restarts="0"))
    faults.start("a")
    for number, error in enumerate(("ENOSPC", "EROFS", "EACCES", "EMFILE"), 1):
        scene.wait_event("kernel.ready", number, kernel="a")
        faults.set("events", **{"raise": error})

        kill_and_wait(scene, "a")

        faults.wait_degraded("events wait in memory")
        assert number == len(scene.events("kernel.ready", kernel="a"))
        faults.lift()
        # By itself: nothing happens that would be told.
        faults.wait_well()
        told = [line["event"] for line in scene.events(kernel="a")]
        assert ["kernel.died", "kernel.restarting", "kernel.starting", "kernel.ready"] == told[-4:]


def test_an_events_file_that_is_made_read_only_costs_no_event(scene: Scene) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE))
    scene.start("a", weak=True)
    events = scene.state_dir / "events.jsonl"
    events.chmod(0o400)

    kill_and_wait(scene, "a")

    wait_for(lambda: scene.status()["degraded"], "degraded")
    events.chmod(0o600)
    wait_for(lambda: not scene.status()["degraded"], "well")
    assert 2 == len(scene.events("kernel.ready", kernel="a"))


@pytest.mark.parametrize("point", ["spawn", "connection.write"])
def test_a_machine_that_has_no_room_for_a_process_is_asked_again_until_it_has(
    scene: Scene, faults: FaultyScene, point: str
) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE, max_restarts="5"), scene.mini("b"))
    faults.start("a", "b")
    other = scene.kernel("b")["pid"]
    for error in ("EAGAIN", "ENOMEM", "ENOSPC", "EMFILE"):
        before, struck = scene.kernel("a"), len(faults.struck())
        faults.set(point, **{"raise": error})

        os.kill(before["pid"], signal.SIGKILL)
        faults.wait_struck(struck + 8)

        assert "failed" != scene.kernel("a")["phase"]
        assert os.strerror(getattr(errno, error)) in scene.kernel("a")["last_death"]["detail"]
        assert other == scene.kernel("b")["pid"]
        faults.lift()
        scene.wait_running("a", after=before["generation"])
        assert [scene.kernel("a")["pid"]] == scene.leaders("a")


def test_a_process_that_cannot_be_watched_is_not_left_behind(scene: Scene, faults: FaultyScene) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE))
    faults.set("watch", **{"raise": "EMFILE"})
    faults.begin()
    faults.wait_struck(3)

    faults.lift()

    scene.wait_running("a")
    assert [scene.kernel("a")["pid"]] == scene.leaders("a")


def test_a_kernel_to_which_no_socket_can_be_opened_is_not_to_blame(scene: Scene, faults: FaultyScene) -> None:
    checks = "{ interval = 0.2, misses = 2, action = 'restart' }"
    scene.write(scene.mini("a", heartbeat=checks, probe=checks), scene.mini("b", autostart="false"))
    faults.start("a")
    scene.wait_recorded("a")
    pid = scene.kernel("a")["pid"]
    scene.kill()
    faults.set("zmq.socket", **{"raise": "EMFILE"})
    faults.begin()
    wait_for(scene.answers, "the daemon answers")
    faults.wait_struck(10)

    scene.order("start", "b", wait=False)
    wait_for(lambda: scene.leaders("b"), "b is launched")
    faults.wait_degraded("no socket")
    assert pid == scene.kernel("a")["pid"]
    assert [] == scene.events("kernel.unresponsive")
    assert "Traceback" not in scene.log.read_text()
    faults.lift()

    scene.wait_running("a", "b")
    faults.wait_well()
    assert pid == scene.kernel("a")["pid"]
    # The checks work again.
    os.kill(pid, signal.SIGSTOP)
    scene.wait_event("kernel.unresponsive", kernel="a")
    scene.wait_running("a", after=1)


def test_a_slow_disk_delays_no_answer_and_no_other_kernel(scene: Scene, faults: FaultyScene) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE), scene.mini("b", autostart="false"))
    faults.start("a")
    scene.wait_recorded("a")
    faults.set("fsync", stall=4.0)
    scene.write(scene.mini("a", backoff=AT_ONCE, stop_timeout="5.0"), scene.mini("b", autostart="false"))
    scene.wait_event("config.loaded", count=2)
    os.kill(scene.kernel("a")["pid"], signal.SIGKILL)

    longest, seen = 0.0, ("", 0)
    until = time.monotonic() + 60
    while seen != ("running", 2):
        before = time.monotonic()
        view = scene.kernel("a")
        longest = max(longest, time.monotonic() - before)
        seen = (view["phase"], view["generation"])
        assert before < until

    assert longest < 2.0
    assert len(faults.struck()) >= 2


def test_an_accepted_order_is_obeyed_by_the_next_daemon_though_this_one_is_killed_at_once(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a"))
    faults.start("a")
    scene.wait_recorded("a")
    faults.set_all("record.identity", "record.ready", "record.rest", stall=0.3)
    assert 202 == scene.order("stop", "a", wait=False).status
    scene.kill()

    scene.start()

    scene.wait_phase("a", "stopped")
    assert [] == scene.leaders("a")


def test_the_lock_is_held_even_if_the_pid_cannot_be_written_into_it(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a"))
    faults.set("lock", **{"raise": "ENOSPC"})
    faults.start("a")

    refused = scene.command("run", str(scene.config))

    assert (1, True) == (refused.code, "a daemon runs already" in refused.err)


def test_a_full_disk_from_the_first_moment_keeps_no_kernel_from_being_taken_up(
    scene: Scene, faults: FaultyScene
) -> None:
    scene.write(scene.mini("a", backoff=AT_ONCE))
    faults.start("a")
    scene.wait_recorded("a")
    pids = scene.leaders("a")
    scene.kill()
    faults.set_all(*RECORDS, "last-good", "events", "lock", **{"raise": "ENOSPC"})

    faults.start("a")

    assert pids == scene.leaders("a")
    kill_and_wait(scene, "a")
    faults.wait_degraded("No space left on device")
    faults.lift()
    faults.wait_well()
    scene.wait_recorded("a")
