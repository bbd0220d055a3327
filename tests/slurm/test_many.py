"""As many kernels as a lab has, as jobs of a cluster that is one process; the rest is the real thing."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene, table
from tests.slurm import farm
from tests.waiting import DEADLINE, wait_for

# How many.
MANY = int(os.environ.get("MANY", "1000"))
PATIENCE = max(DEADLINE, MANY * 1.5)

log = logging.getLogger(__name__)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(5 * PATIENCE)]


class Lab(Scene):
    """A scene whose Slurm is a farm."""

    def __init__(self, directory: Path, commands: Path) -> None:
        super().__init__(directory)
        self.commands = commands

    def environment(self, **more: str) -> dict[str, str]:
        return super().environment(**{"PATH": f"{self.commands}:{os.environ['PATH']}", **more})

    def jobs(self, state: str) -> int:
        """How many jobs are in this state."""
        return (self.directory / "farm" / "rows").read_text().count(f"|{state}|")

    def told(self, event: str) -> int:
        """How often an event was told: asking the daemon all the time would slow it down."""
        file = self.state_dir / "events.jsonl"
        return file.read_text().count(f'"event":"{event}"') if file.exists() else 0


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with farm.serving(tmp_path / "farm") as commands:
        made = Lab(tmp_path, commands)
        try:
            yield made
        finally:
            made.clean_up()


def usage(pid: int) -> str:
    """What a process has, in words for the log."""
    status = Path(f"/proc/{pid}/status").read_text()
    memory = status.partition("VmRSS:")[2].split()[0]
    return f"{int(memory) // 1024} MB, {len(list(Path(f'/proc/{pid}/fd').iterdir()))} descriptors"


def test_they_all_run_are_taken_up_and_are_cancelled(lab: Lab) -> None:
    slurm = f"directory = {json.dumps(str(lab.directory / 'shared'))}"
    names = [f"k{number}" for number in range(MANY)]
    argv = json.dumps(["python", "{connection_file}"])
    lab.write(*(f"{table(name, argv=argv)}\n[kernels.{name}.slurm]\n{slurm}" for name in names))
    begun = time.monotonic()
    lab.begin()
    wait_for(lab.answers, "the daemon answers", PATIENCE)

    wait_for(lambda: MANY == lab.told("kernel.ready"), lab.log_end, PATIENCE)
    assert lab.daemon is not None
    relay = int((lab.state_dir / "relay.lock").read_text())
    log.info(f"{MANY} run after {time.monotonic() - begun:.1f} s")
    log.info(f"daemon: {usage(lab.daemon.pid)}; relay: {usage(relay)}")

    lab.kill()
    begun = time.monotonic()
    lab.begin()
    wait_for(lab.answers, "the next daemon answers", PATIENCE)
    wait_for(lambda: MANY == lab.told("kernel.adopted"), lab.log_end, PATIENCE)
    log.info(f"taken up after {time.monotonic() - begun:.1f} s")
    assert MANY == lab.jobs("RUNNING")
    assert {1} == {view["generation"] for view in lab.status()["kernels"]}
    assert [] == lab.events("kernel.died")

    begun = time.monotonic()
    lab.daemon.send_signal(signal.SIGTERM)
    assert 0 == lab.daemon.wait(PATIENCE), lab.log_end()
    log.info(f"cancelled after {time.monotonic() - begun:.1f} s")
    assert 0 == lab.jobs("RUNNING")
