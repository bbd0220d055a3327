"""Many kernels at once, and many cycles: none lost, none elsewhere, nothing piles up."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import wait_for

AT_ONCE = "{ initial = 0.0, next = 0.0, jitter = 0.0 }"
NAMES = tuple(f"k{number:02}" for number in range(20))


def _all_killed(scene: Scene, tables: list[str], times: int) -> None:
    scene.write(*tables, supervisor="max_concurrent_starts = 8")
    scene.start(*NAMES)
    files = {name: scene.connection_file(name).read_bytes() for name in NAMES}
    for generation in range(1, times + 1):
        before = scene.pids()
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        scene.wait_running(*NAMES, after=generation)

        after = scene.pids()
        assert set(NAMES) == after.keys()
        assert set() == set(before.values()) & set(after.values())
        assert sorted(after.values()) == sorted(scene.leaders())
        assert files == {name: scene.connection_file(name).read_bytes() for name in NAMES}
    assert 20 * times == len(scene.events("kernel.died", signal="SIGKILL"))
    ports = [port for text in files.values() for key, port in json.loads(text).items() if "_port" in key]
    assert 100 == len(set(ports))


def test_twenty_kernels_killed_at_once_five_times_are_all_back_at_their_ports(scene: Scene) -> None:
    _all_killed(scene, [scene.mini(name, max_restarts="0", backoff=AT_ONCE) for name in NAMES], 5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_ipykernels_killed_at_once_five_times_are_all_back_at_their_ports(scene: Scene) -> None:
    _all_killed(scene, [scene.ipykernel(name, max_restarts="0", backoff=AT_ONCE) for name in NAMES], 5)


def _held(pid: int) -> dict[str, int]:
    """What a process holds of the system."""
    proc = Path(f"/proc/{pid}")
    descriptors = list((proc / "fd").iterdir())
    watches = 0
    for info in (proc / "fdinfo").iterdir():
        try:
            watches += info.read_text().count("inotify wd")
        except FileNotFoundError:
            continue
    return {
        "descriptors": len(descriptors),
        "threads": len(list((proc / "task").iterdir())),
        "watches": watches,
    }


def _zombies_of(parent: int) -> list[int]:
    found = []
    for proc in Path("/proc").iterdir():
        try:
            fields = (proc / "stat").read_text().rpartition(")")[2].split() if proc.name.isdecimal() else []
        except OSError:
            continue
        if fields and fields[0] == "Z" and int(fields[1]) == parent:
            found.append(int(proc.name))
    return found


def _memory(pid: int) -> int:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def _cycle(scene: Scene, cycles: int) -> None:
    scene.write(scene.mini("a", max_restarts="0", backoff=AT_ONCE), scene.mini("b"))
    daemon = scene.start("a", "b")
    other = scene.pids()["b"]
    settled: dict[str, int] = {}
    memory = 0
    for number in range(1, cycles + 1):
        os.kill(scene.pids()["a"], signal.SIGKILL)
        scene.wait_running("a", after=number)
        scene.write(
            scene.mini("a", max_restarts="0", backoff=AT_ONCE),
            scene.mini("b", max_restarts=str(number)),
        )
        assert 200 == scene.ask("POST", "/v1/reload", {}).status
        if number == cycles // 4:
            # Thread pools have grown and caches are warm by now.
            settled, memory = _held(daemon.pid), _memory(daemon.pid)

    def as_before() -> bool:
        held = _held(daemon.pid)
        return all(held[what] <= settled[what] + 2 for what in held)

    wait_for(as_before, lambda: f"it holds no more than {settled}; but {_held(daemon.pid)}")
    wait_for(lambda: _zombies_of(daemon.pid) == [], "no zombies")
    assert cycles == len(scene.events("kernel.died", kernel="a"))
    wait_for(lambda: cycles + 1 == len(scene.events("config.loaded")), "each reload is told")
    assert other == scene.pids()["b"]
    if cycles >= 500:
        assert _memory(daemon.pid) <= memory + 10, f"from {memory} MB"


def test_forty_deaths_and_reloads_leave_nothing_behind(scene: Scene) -> None:
    _cycle(scene, 40)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_deaths_and_reloads_leave_nothing_behind(scene: Scene) -> None:
    _cycle(scene, 500)
