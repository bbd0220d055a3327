"""A process that waits for a disk in our stead."""

from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

from supervisor.disk.canary import Canaries
from tests.waiting import DEADLINE, wait_for


def processes(directory: Path) -> list[int]:
    """The canaries of a directory."""
    found = subprocess.run(
        ["pgrep", "-f", f"canary.py {directory}"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def test_one_process_waits_for_each_disk_and_ends_when_it_is_let_go(tmp_path: Path) -> None:
    canaries = Canaries()
    (tmp_path / "below").mkdir()
    canaries.wait(tmp_path / "missing")

    for directory in (tmp_path, tmp_path / "below", tmp_path):
        canaries.wait(directory)

    assert 1 == len(processes(tmp_path))
    assert [tmp_path / "below"] == list(tmp_path.iterdir())
    canaries.close()
    wait_for(lambda: not processes(tmp_path))


def test_whoever_waits_for_a_hanging_one_is_kept_until_it_goes_on_and_a_dead_one_is_replaced(
    tmp_path: Path,
) -> None:
    canaries = Canaries()
    canaries.wait(tmp_path)
    (pid,) = processes(tmp_path)
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    waiting = threading.Thread(target=canaries.wait, args=(tmp_path,), daemon=True)
    waiting.start()
    assert waiting.is_alive()

    subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=True)
    waiting.join(DEADLINE)

    assert not waiting.is_alive()
    canaries.wait(tmp_path)
    assert [pid] != processes(tmp_path)
    canaries.close()
