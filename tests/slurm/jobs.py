"""Runs whose script is a job of a cluster."""

from __future__ import annotations

import sys

from supervisor.machines import node
from tests.machines.nodes import IPYKERNEL, Job
from tests.slurm.cluster import Cluster
from tests.waiting import wait_for

PASSING = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}


class Submitted(Job):
    """A run of an ipykernel that was handed to Slurm, with further options of ``sbatch``."""

    def __init__(self, cluster: Cluster, name: str, *options: str) -> None:
        super().__init__(cluster.shared / name, IPYKERNEL)
        self.cluster = cluster
        script = self.directory / "job.sh"
        script.write_text(f"#!/bin/sh\nexec {sys.executable} {node.__file__} {self.directory}\n")
        output = f"--output={self.directory / 'job.output'}"
        told = cluster.run("sbatch", "--parsable", "--no-requeue", output, *options, str(script))
        self.id = told.strip()

    @property
    def state(self) -> str:
        """What Slurm says of it; nothing of one that it has forgotten."""
        states = dict(
            line.split() for line in self.cluster.run("squeue", "-h", "-t", "all", "-o", "%i %T").splitlines()
        )
        return states.get(self.id, "")

    def ended(self, deadline: float = 60) -> tuple[str, int, str | None]:
        """Slurm's state, how the kernel ended, and the state that its own script knows."""
        end = wait_for(lambda: self.file("end.json"), lambda: f"an end, but {self.state}", deadline)
        state = wait_for(lambda: (now := self.state) not in PASSING and now, "Slurm to know it", deadline)
        return str(state), end["returncode"], end["state"]

    def cancel(self) -> None:
        """Have Slurm end it."""
        self.cluster.run("scancel", self.id)
