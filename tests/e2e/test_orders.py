"""Many orders at once, signals to the daemon, two daemons, and the end of one."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import wait_for


@pytest.mark.parametrize("last", ["stop", "start"])
def test_twenty_restarts_at_once_and_a_last_order_end_as_the_last_order_says(scene: Scene, last: str) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    scene.start("a", "b")
    other = scene.kernel("b")["pid"]
    begin = threading.Barrier(20)
    accepted: list[int] = []

    def restart(number: int) -> None:
        begin.wait(30)
        accepted.append(scene.order("restart", "a", wait=False, now=number % 2 == 0).status)

    threads = [threading.Thread(target=restart, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [202] * 20 == accepted
    if last == "start":
        scene.order("stop", "a", wait=False)

    assert 200 == scene.order(last, "a").status

    assert ("stopped" if last == "stop" else "running") == scene.kernel("a")["phase"]
    assert (last == "start") == scene.connection_file("a").exists()
    assert [scene.kernel("a")["pid"]] * (last == "start") == scene.leaders("a")
    assert other == scene.kernel("b")["pid"]


def test_a_second_daemon_on_the_same_state_directory_names_the_first_and_disturbs_nothing(
    scene: Scene,
) -> None:
    scene.write(scene.mini("a"))
    first = scene.start("a")
    scene.wait_recorded("a")
    before = _files(scene.state_dir)
    pids = scene.pids()

    second = scene.command("run", str(scene.config))

    assert 1 == second.code
    assert str(first.pid) in second.err
    assert "Traceback" not in second.err
    assert before == _files(scene.state_dir)
    assert pids == scene.pids()
    assert 200 == scene.order("restart", "a").status


def _files(directory: Path) -> dict[str, tuple[int, int, int]]:
    stats = {str(file.relative_to(directory)): file.lstat() for file in directory.rglob("*")}
    return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def test_of_two_daemons_with_one_kernel_of_a_name_and_a_directory_the_first_is_not_disturbed(
    scene: Scene, tmp_path: Path
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    other = Scene(beside)
    try:
        scene.write(scene.mini("a"))
        scene.start("a")
        was = scene.connection_file("a").read_bytes()
        runtime = f'runtime_dir = "{scene.runtime_dir}"'
        other.config.write_text(other.toml(other.mini("a")).replace('runtime_dir = "runtime"', runtime))

        other.start()
        told = other.wait_event("kernel.died", kernel="a")["detail"]
        assert "is of a kernel of another program, in" in told
        assert f"pid {scene.pids()['a']}" in told
        assert told.endswith("end it, or choose another name or runtime_dir")
        other.stop()

        assert was == scene.connection_file("a").read_bytes()
        assert [] == scene.events("kernel.restored")
    finally:
        other.clean_up()


def test_a_storm_of_signals_loads_next_to_nothing_and_sigterm_ends_it_all(scene: Scene) -> None:
    scene.write(scene.mini("a"), scene.mini("b"))
    daemon = scene.start("a", "b")
    pids = scene.pids()
    scene.write(scene.mini("a", max_restarts="9"), scene.mini("b"))

    for number in range(500):
        daemon.send_signal(signal.SIGHUP)
        daemon.send_signal((signal.SIGUSR1, signal.SIGWINCH, signal.SIGCHLD)[number % 3])
    scene.wait_event("config.loaded", 2)
    assert pids == scene.pids()
    for _ in range(500):
        daemon.send_signal(signal.SIGHUP)
    assert 0 == scene.stop()

    assert 2 == len(scene.events("config.loaded"))
    assert [] == scene.processes()
    assert 1 == len(scene.events("daemon.stopped"))


def test_sigterm_stops_all_kernels_and_leaves_no_connection_file(scene: Scene) -> None:
    scene.write(*(scene.mini(name) for name in "abcd"))
    scene.start(*"abcd")

    assert 0 == scene.stop()

    assert [] == scene.processes()
    assert [] == list(scene.runtime_dir.glob("kernel-*.json"))
    assert 4 == len(scene.events("kernel.stopped", exit_code=0))
    assert 3 == scene.command("status", "--config", str(scene.config)).code


def test_a_second_sigterm_does_not_wait_for_a_kernel_that_refuses(scene: Scene) -> None:
    stubborn = ("--ignore", "SIGTERM,SIGINT", "--ignore-shutdown")
    scene.write(scene.mini("a", *stubborn, stop_timeout="3600.0"))
    daemon = scene.start("a")
    daemon.send_signal(signal.SIGTERM)
    scene.wait_event("daemon.stopping")

    assert 0 == scene.stop()

    assert "SIGKILL" == scene.wait_event("kernel.stopped", kernel="a")["signal"]
    assert [] == scene.processes()


def test_a_kernel_that_is_stopped_while_it_boots_hears_it_as_soon_as_it_listens(scene: Scene) -> None:
    scene.write(scene.mini("slow", "--start-delay", "1.0"), scene.mini("b"))
    scene.start("b")
    wait_for(lambda: scene.leaders("slow"), "it is launched")

    assert 200 == scene.order("stop", "slow").status

    (stopped,) = scene.events("kernel.stopped", kernel="slow")
    assert 0 == stopped["exit_code"], stopped


def test_an_interrupt_that_ended_the_kernel_has_failed_and_tells_what_to_set(scene: Scene) -> None:
    scene.write(scene.mini("frail", "--fragile"), scene.mini("well"))
    scene.start("frail", "well")

    done = scene.command("interrupt", "frail", "well", "--config", str(scene.config))

    assert 1 == done.code
    assert done.out.startswith("well: ")
    hint = 'if it understands messages, set interrupt_mode = "message" in its table'
    assert f"kernel-supervisor: frail: the interrupt ended it, SIGINT (killed): {hint}\n" == done.err


def test_a_stop_that_takes_its_time_is_told_in_the_log_with_what_comes_next(scene: Scene) -> None:
    stubborn = ("--ignore", "SIGTERM,SIGINT", "--ignore-shutdown")
    scene.write(scene.mini("a", *stubborn, stop_timeout="3600.0"))
    daemon = scene.start("a")

    scene.order("stop", "a", wait=False)
    wait_for(lambda: "still being stopped: a: SIGTERM in 59 min" in scene.log.read_text(), "it is told")
    assert "SIGTERM" == scene.kernel("a")["stopping"]["next"]
    daemon.send_signal(signal.SIGTERM)
    wait_for(lambda: any("awaited" in line for line in scene.events("daemon.stopping")), "what is awaited")
    assert scene.events("daemon.stopping")[-1]["awaited"][0].startswith("a: SIGTERM in 59 min")
    assert 0 == scene.stop()
