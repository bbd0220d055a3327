"""A daemon whose kernels are jobs of a cluster."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supervisor.kernel.jobs import job_name
from tests.e2e.daemon import Scene
from tests.slurm.cluster import Cluster
from tests.waiting import wait_for


class Lab(Scene):
    """A scene with a cluster."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        super().__init__(directory)
        self.cluster = cluster
        self.shared = cluster.shared / directory.name

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: self.cluster.env[name] for name in ("SLURM_CONF", "PATH")}
        return super().environment(**{**kept, **more})

    def job(self, name: str, *options: str, kernel: str = "mini", keys: str = "", **slurm: object) -> str:
        """The tables of a kernel that is a job."""
        asked = {"directory": str(self.shared), "cpus": 1, "memory": "200M", **slurm}
        lines = [f"{key} = {json.dumps(value)}" for key, value in asked.items()]
        table = self.mini(name, *options) if kernel == "mini" else self.ipykernel(name)
        return "\n".join([table, keys, f"[kernels.{name}.slurm]", *lines])

    def jobs(self, name: str = "a", *states: str) -> list[tuple[str, str, str]]:
        """The jobs of a kernel that have not ended: number, state, node."""
        told = self.cluster.run(
            "squeue", "-h", f"--name={job_name(self.state_dir, name)}", "-o", "%i|%T|%N"
        ).splitlines()
        found = [tuple(line.split("|")) for line in told]
        return [row for row in found if not states or row[1] in states]  # type: ignore[misc]

    def place(self, name: str = "a") -> dict[str, Any]:
        """Where its latest run is."""
        runs = self.shared.glob(f"{job_name(self.state_dir, name)}+*/place.json")
        newest = max(runs, key=lambda path: path.stat().st_mtime)
        return json.loads(newest.read_text())

    @contextmanager
    def without(self, node: str) -> Iterator[None]:
        """Meanwhile nothing new begins on this node."""
        self.cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        try:
            yield
        finally:
            self.cluster.run("scontrol", "update", f"nodename={node}", "state=resume")

    def clean_up(self) -> None:
        super().clean_up()
        wait_for(lambda: not self.cancel_all(), "no job is left")
        self.cluster.wait_until_idle()
        relay = self.state_dir / "relay.lock"
        if relay.exists() and (pid := relay.read_text().strip()):
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def cancel_all(self) -> str:
        self.cluster.run("scancel", "--user=root")
        return self.cluster.run("squeue", "-h", "-o", "%i %T")
