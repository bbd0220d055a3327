"""A scene whose daemon has fault points."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import scene
from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

__all__ = ["scene"]

PROGRAM = Path(__file__).with_name("daemon_with_faults.py")


class FaultyScene:
    """What goes wrong in the daemons of a scene; ``daemon_with_faults`` has the points."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._file = scene.directory / "faults.json"
        self._struck = scene.directory / "faults.json.struck"

    def begin(self) -> subprocess.Popen[bytes]:
        """Start a daemon with fault points, and do not wait."""
        return self.scene.begin(program=(str(PROGRAM), str(self._file)))

    def start(self, *running: str) -> subprocess.Popen[bytes]:
        """Start a daemon with fault points; wait until it answers and these kernels run."""
        daemon = self.begin()
        wait_for(lambda: daemon.poll() is not None or self.scene.answers(), "the daemon answers")
        assert daemon.poll() is None, self.scene.log_end()
        self.scene.wait_running(*running)
        return daemon

    def set(self, point: str, when: str = "before", **fault: Any) -> None:
        """From now on this happens there, and nothing elsewhere."""
        self._write({point: {when: fault}})

    def set_all(self, *points: str, **fault: Any) -> None:
        """From now on this happens before each of these."""
        self._write({point: {"before": fault} for point in points})

    def lift(self) -> None:
        """Nothing goes wrong any more."""
        self._write({})

    def _write(self, faults: dict[str, Any]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(faults))
        fresh.replace(self._file)

    def struck(self) -> list[str]:
        """Which faults have struck, each ``POINT WHEN``."""
        return self._struck.read_text().splitlines() if self._struck.exists() else []

    def wait_struck(self, count: int = 1) -> None:
        """Wait until faults have struck so many times."""
        wait_for(lambda: len(self.struck()) >= count, f"{count} faults strike; {self.scene.log_end()}")

    def wait_dead(self) -> None:
        """Wait until a fault has ended the daemon."""
        assert self.scene.daemon is not None
        assert -9 == self.scene.daemon.wait(DEADLINE)

    def degraded(self) -> list[str]:
        """What the daemon says is wrong."""
        return list(self.scene.status()["degraded"])

    def wait_degraded(self, words: str) -> None:
        wait_for(lambda: any(words in line for line in self.degraded()), f"degraded: {words}")

    def wait_well(self) -> None:
        wait_for(lambda: not self.degraded(), lambda: f"still degraded: {self.degraded()}")


@pytest.fixture
def faults(scene: Scene) -> FaultyScene:
    return FaultyScene(scene)
