"""Slurm by its own commands: jobs handed in, all of them looked at together, signalled, cancelled.

Owns the words of sbatch, squeue and scancel.  They hang for seconds while the controller is away, so
they run off the loop.  Decides nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from supervisor.core.model import JobId
from supervisor.disk.off_loop import Lane, begin
from supervisor.settings.config import SlurmConfig, size_of
from supervisor.wording import one_line, written

# Seconds: between two looks; for a command, which hangs for 9 while the controller is away.
INTERVAL, PATIENCE = 2.0, 30.0
# A job is in one of these states once it has ended; COMPLETING is not one of them.
ENDED = frozenset(
    [
        "COMPLETED",
        "FAILED",
        "CANCELLED",
        "TIMEOUT",
        "DEADLINE",
        "PREEMPTED",
        "NODE_FAIL",
        "BOOT_FAIL",
        "OUT_OF_MEMORY",
        "REVOKED",
    ]
)
# The comment last: those of other jobs may have any character.
_FORMAT = "%i|%V|%T|%r|%S|%e|%N|%j|%k"
# What sbatch says of a job that no cluster takes, however often it is asked.
_FOR_GOOD = re.compile(r"invalid|not available|not permitted|unrecognized|unable to open|violates", re.I)
# As whoever reads a time expects it, whatever the locale; seconds since the epoch.
_ENVIRONMENT = {"SLURM_TIME_FORMAT": "%s", "LC_ALL": "C"}


class SlurmError(Exception):
    """A command failed: one line.  ``is_passing``: it may do better later."""

    def __init__(self, message: str, *, is_passing: bool) -> None:
        super().__init__(message)
        self.is_passing = is_passing


class Row(Struct, frozen=True):
    """A job as squeue tells it; ``start`` (expected, while it waits) and ``end`` in epoch seconds."""

    number: str
    submitted: str
    state: str
    reason: str
    start: float | None
    end: float | None
    node: str
    name: str
    mark: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs any more, as far as the controller knows."""
        return self.state in ENDED

    @property
    def estimate(self) -> str:
        """When it is expected to begin; empty: not known."""
        return "" if self.start is None else written(datetime.fromtimestamp(self.start, UTC))


def options(slurm: SlurmConfig) -> list[str]:
    """What a kernel asks for, as options of sbatch(1)."""
    memory = size_of(slurm.memory)
    asked = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "time": slurm.time,
        "mem": None if memory is None else f"{-(-memory // 1024)}K",
        "cpus-per-task": slurm.cpus,
        "gpus": slurm.gpus,
        "constraint": slurm.constraint,
        "nodelist": slurm.nodelist,
    }
    return [*(f"--{key}={value}" for key, value in asked.items() if value is not None), *slurm.extra]


def run(argv: Sequence[str], text: str = "", env: Mapping[str, str] | None = None) -> str:
    """What a command writes; for a thread.  Raises SlurmError."""
    environment = {**(os.environ if env is None else env), **_ENVIRONMENT}
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE, env=environment, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise SlurmError(
            f"{argv[0]} is not on the PATH: install Slurm's commands", is_passing=False
        ) from None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SlurmError(one_line(f"{argv[0]}: {error}"), is_passing=True) from error
    if done.returncode == 0:
        return done.stdout
    lines = [line.removeprefix(f"{argv[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines()]
    told = one_line("; ".join(filter(None, lines)) or f"exit code {done.returncode}")
    raise SlurmError(f"{argv[0]}: {told}", is_passing=not _FOR_GOOD.search(told))


def mistake(slurm: SlurmConfig) -> str:
    """Why sbatch would not take such a job; empty if it would, or cannot be asked now; blocks."""
    if slurm.via == "ssh" and shutil.which("ssh") is None:
        return "via: ssh is not on the PATH: install it"
    try:
        run(["sbatch", "--test-only", "--nodes=1", "--ntasks=1", *options(slurm)], "#!/bin/sh\n")
    except SlurmError as error:
        return "" if error.is_passing else str(error)
    return ""


def submit(job: JobId, slurm: SlurmConfig, script: str, output: str, env: Mapping[str, str]) -> JobId:
    """Hand in a job of this identity, which is completed; for a thread.  Raises SlurmError."""
    # By singleton Slurm itself has one job of a name run at a time, whoever hands in another.
    ours = ["--dependency=singleton", "--no-requeue", "--nodes=1", "--ntasks=1", "--export=ALL"]
    named = [f"--job-name={job.name}", f"--comment={job.mark}", "--open-mode=append"]
    named.append("--output=" + output.replace("%", "%%"))
    told = run(["sbatch", "--parsable", *ours, *named, *options(slurm)], script, env).strip()
    number, _, cluster = told.partition(";")
    return JobId(job.name, job.mark, number, cluster)


class Slurm:
    """The jobs of this user, looked at by one command for all kernels, every two seconds at most."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[dict[str, Row] | None] | None = None
        self._next = 0.0
        self._lane = Lane("squeue")

    async def look(self) -> dict[str, Row] | None:
        """All jobs by their marks, as of the next look; ``None``: the controller did not answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> dict[str, Row] | None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next - loop.time()))
        argv = ["squeue", "--noheader", "--states=all", f"--user={os.geteuid()}", f"--format={_FORMAT}"]
        try:
            told = await self._lane.do(run, argv)
        except SlurmError:
            return None
        finally:
            self._next = loop.time() + INTERVAL
        return rows(told)

    def order(self, argv: Sequence[str]) -> None:
        """Have a command done; that it fails shows in what becomes of the job."""
        begin(run, argv)

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()


def rows(told: str) -> dict[str, Row]:
    """The jobs that squeue tells of, by their marks."""
    found = {}
    for line in told.splitlines():
        fields = line.split("|", 8)
        if len(fields) == 9:
            number, submitted, state, reason, start, end, node, name, mark = fields
            row = Row(number, submitted, state, reason, _instant(start), _instant(end), node, name, mark)
            found[mark] = row
    return found


def _instant(text: str) -> float | None:
    return float(text) if text.isdecimal() and len(text) < 12 else None
