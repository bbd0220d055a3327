"""A process that waits for a disk in our stead."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from supervisor.disk import canary
from supervisor.disk.canary import Canaries
from tests.waiting import DEADLINE, wait_for


def processes() -> list[int]:
    """Those of this process."""
    mine = ["pgrep", "-P", str(os.getpid()), "-f", str(Path(canary.__file__).name)]
    found = subprocess.run(mine, capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_the_first_is_there_before_it_is_asked_for(tmp_path: Path) -> None:
    canaries = Canaries()
    canaries.begin()
    begun = processes()
    canaries.wait(tmp_path)

    assert 1 == len(begun)
    assert begun == processes()
    canaries.close()
    canaries.begin()
    canaries.close()
    assert [] == processes()


def test_one_process_waits_for_each_disk_and_ends_when_it_is_let_go(tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / "below").mkdir()
    canaries.wait(tmp_path / "missing")

    for directory in (tmp_path, tmp_path / "below", tmp_path):
        canaries.wait(directory)

    assert 1 == len(processes())
    assert [tmp_path / "below"] == list(tmp_path.iterdir())
    canaries.close()
    wait_for(lambda: not processes())


def test_whoever_waits_for_a_hanging_one_is_kept_until_it_goes_on_and_a_dead_one_is_replaced(
    tmp_path: Path,
) -> None:
    canaries = Canaries()
    canaries.wait(tmp_path)
    (pid,) = processes()
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    waiting = threading.Thread(target=canaries.wait, args=(tmp_path,), daemon=True)
    waiting.start()
    assert waiting.is_alive()

    subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=True)
    waiting.join(DEADLINE)

    assert not waiting.is_alive()
    canaries.wait(tmp_path)
    assert [pid] != processes()
    canaries.close()
