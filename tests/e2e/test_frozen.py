"""A file system that freezes, or breaks: all else goes on, and after a thaw nothing is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import ROOT, Scene
from tests.e2e.disk import Disk, NoDisk
from tests.waiting import wait_for

STOP_TIMEOUT = 2.0
# What an exit may take beyond the longest stop_timeout, in seconds, and what a busy machine may add.
LAST_PATIENCE, SLACK = 5.0, 10.0


@pytest.fixture
def disk(tmp_path: Path, scene: Scene) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path)
        made.mount(tmp_path / "probe")
        made.close()
    except NoDisk as reason:
        pytest.skip(str(reason))
    try:
        yield made
    finally:
        made.ease()
        scene.clean_up()
        made.close()


def begin(scene: Scene, disk: Disk, place: str) -> None:
    """A daemon and two kernels, with its state, its runtime directory or its file on the disk."""
    disk.mount(scene.directory / place)
    scene.write(
        *(scene.mini(name, backoff="{ initial = 0.05 }") for name in "ab"),
        defaults=f"stop_timeout = {STOP_TIMEOUT}",
    )
    if place == "settings":
        text = scene.config.read_text()
        for name in ("state", "runtime"):
            text = text.replace(f'"{name}"', f'"{scene.directory / name}"')
        scene.config = scene.directory / place / "kernels.toml"
        scene.config.write_text(text)
    scene.start("a", "b")


@pytest.mark.parametrize("place", ["state", "runtime", "settings"])
def test_while_a_disk_is_frozen_the_dead_are_told_and_restarted_and_nothing_is_missing_after_it(
    scene: Scene, disk: Disk, place: str
) -> None:
    begin(scene, disk, place)
    pids = scene.pids()

    disk.freeze()
    for generation in (1, 2):
        for name in "ab":
            os.kill(scene.pids()[name], signal.SIGKILL)
        scene.wait_running("a", "b", after=generation)
    assert not set(pids.values()) & set(scene.pids().values())
    assert 1 == scene.order("restart", "a", wait=True).body["ok"]
    assert ["a", "b"] == [view["name"] for view in scene.status()["kernels"]]
    disk.thaw()

    scene.wait_event("kernel.ready", 4, kernel="a")
    for name in "ab":
        names = [event["event"] for event in scene.events(kernel=name) if event["event"] != "kernel.stopping"]
        life = ["kernel.starting", "kernel.ready"]
        assert [*life, *2 * ["kernel.died", "kernel.restarting", *life]] == names[:10]
    assert sorted(event["timestamp"] for event in scene.events()) == [
        event["timestamp"] for event in scene.events()
    ]
    assert 0 == scene.stop()


@pytest.mark.parametrize("place", ["state", "runtime"])
def test_a_frozen_disk_does_not_keep_the_daemon_from_leaving(scene: Scene, disk: Disk, place: str) -> None:
    begin(scene, disk, place)
    assert scene.daemon is not None
    # A freeze in the middle of a write keeps the process until the thaw (docs/reliability.md).
    for name in "ab":
        scene.wait_event("kernel.ready", kernel=name)
    scene.wait_recorded("a", "b")
    disk.freeze()

    scene.daemon.send_signal(signal.SIGTERM)

    assert 0 == scene.daemon.wait(STOP_TIMEOUT + LAST_PATIENCE + SLACK)

    assert [] == scene.leaders()
    disk.thaw()


def test_on_a_disk_that_has_become_read_only_kernels_come_back_and_status_says_what_is_lost(
    scene: Scene, disk: Disk
) -> None:
    begin(scene, disk, "state")
    disk.break_down()

    for generation in (1, 2):
        os.kill(scene.pids()["a"], signal.SIGKILL)
        scene.wait_running("a", after=generation)

    told = "\n".join(scene.status()["degraded"])
    assert "what kernel a writes is lost until its next launch" in told
    assert "cannot write the record of kernel a" in told
    assert "events wait in memory" in told
    assert "SIGKILL" == scene.kernel("a")["last_death"]["signal"]
    assert 0 == scene.stop()


def test_a_disk_is_thawed_and_unmounted_when_who_froze_it_is_killed(tmp_path: Path, disk: Disk) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.e2e.disk import Disk\n"
        f"disk = Disk(Path({str(tmp_path)!r}), 'other'); disk.mount(Path({str(tmp_path / 'place')!r}))\n"
        "disk.freeze(); print('frozen', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as frozen:
        assert frozen.stdout is not None
        assert b"frozen\n" == frozen.stdout.readline()
        assert (tmp_path / "place").is_mount()

        frozen.kill()

    wait_for(lambda: not (tmp_path / "place").is_mount(), "it is unmounted")
    (tmp_path / "place" / "file").touch()
