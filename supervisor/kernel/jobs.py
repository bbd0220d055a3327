"""Kernels as jobs of Slurm: how one is handed in, and the handle of its run.

Owns the directory of a run that the nodes share (run.json there, place.json and end.json from
there), and what its job is called.  Loaded with the door, else only where a kernel asks for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.actions import Adopt
from supervisor.core.events import Began, Enqueued, Fact, Noted
from supervisor.core.model import Cause, Exit, JobId, Queue
from supervisor.disk.files import read_own, write_atomically
from supervisor.disk.off_loop import Hanging, Lane
from supervisor.disk.privacy import UnsafeDirectory, make_private_directory
from supervisor.kernel.confinement import Confinement
from supervisor.kernel.connection import CHANNELS, Address
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import format_argv, without_ours
from supervisor.kernel.ports import Place
from supervisor.kernel.warmth import Launching
from supervisor.machines import relay, slurm
from supervisor.machines.relays import RelayError, Relays
from supervisor.machines.slurm import Row, Slurm, SlurmError
from supervisor.output.file import open_for_writer
from supervisor.process.account import expand
from supervisor.process.exit import describe_exit
from supervisor.process.usage import Usage
from supervisor.records.record import MARK_VARIABLE, Record, helper_mark, mark
from supervisor.settings.config import KernelConfig, SlurmConfig
from supervisor.wording import written

log = logging.getLogger(__name__)

# Seconds: between two looks for the place of one that may be about to begin, and how long it may be after
# it was handed in; for the disk that is shared.
GLANCE, EAGER, FILE_PATIENCE = 0.2, 4.0, 10.0
# A controller that answers and does not know a job is believed after so many looks; of one that may be on its
# way to it, or that ran, so many seconds later, unless its kernel greets within some.
ABSENT_LOOKS, ABSENT_PATIENCE, GREETING_PATIENCE = 2, 30.0, 3.0
# How long an end waits for its other half, the state of the job or the file of the node; in seconds.
END_PATIENCE = 10.0
# How many bytes of its output are taken over at a time, as others wait for the same thread.
MOST_AT_ONCE = 4 << 20
# How long before its limit of time a kernel is warned of, in seconds.
WARNING = 600.0

CAUSES: Mapping[str, Cause] = {
    "TIMEOUT": Cause.TIME_LIMIT,
    "DEADLINE": Cause.TIME_LIMIT,
    "NODE_FAIL": Cause.NODE_FAILED,
    "BOOT_FAIL": Cause.NODE_FAILED,
    "PREEMPTED": Cause.PREEMPTED,
    "OUT_OF_MEMORY": Cause.OOM,
    "CANCELLED": Cause.CANCELLED,
}
# What a node tells of a kernel, as of one that is measured here.
_USED = Usage.__struct_fields__
Report = Callable[[Fact], object]


def job_name(state_dir: Path, kernel: str) -> str:
    """What all jobs of a kernel are called."""
    return "ks-" + mark(state_dir, kernel, 0).rpartition("/")[0].replace("/", "-")


def unanswered(record: Record, state_dir: Path) -> JobId | None:
    """The job that may have been handed in before its number was on record; ``None``: it was not; blocks."""
    assert record.launched is not None, "the caller has looked"
    assert record.launched.slurm is not None, "the caller has looked"
    if record.spawned_at is None:
        return None
    name = job_name(state_dir, record.name)
    found = _shared(record.launched.slurm).glob(f"{name}+{record.generation}+*/run.json")
    marks = [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]
    return JobId(name, marks[-1]) if marks else None


def _shared(settings: SlurmConfig) -> Path:
    return Path(expand(settings.directory or "", None))


class Told(Struct, frozen=True):
    """What the node has written of the end of a run; all of it may be missing."""

    returncode: int | None = None
    state: str = ""
    oom: int = 0
    error: str = ""


class Jobs:
    """The cluster, for one supervisor."""

    def __init__(self, state_dir: Path) -> None:
        self.slurm = Slurm()
        self._state_dir = state_dir
        known = {MARK_VARIABLE: f"relay:{helper_mark(state_dir, 'relay')}"}
        self._relays = Relays(state_dir, known, _tell)
        self._taken_up: asyncio.Task[object] | None = None
        self._lanes: dict[Path, Lane] = {}

    def lane(self, shared: Path) -> Lane:
        """Where all look into a directory that is shared: one thread, however many they are."""
        return self._lanes.setdefault(shared, Lane(f"shared directory {shared}"))

    async def relays(self) -> Relays:
        """The addresses here, those of an earlier supervisor among them."""
        if self._taken_up is None:
            self._taken_up = asyncio.create_task(self._relays.take_up())
        await asyncio.shield(self._taken_up)
        return self._relays

    async def submit(
        self, kernel: str, wanted: Launching, address: Address | None, report: Report
    ) -> JobHandle:
        """Hand in the job of a run.  Raises LaunchError."""
        assert wanted.config.slurm is not None, "the caller has looked"
        assert address is not None, "it is chosen before the launch"
        try:
            # From now on its clients are refused, and nobody else gets its ports.
            await (await self.relays()).add(kernel, places(address))
        except RelayError as error:
            raise LaunchError(str(error), Cause.UNKNOWN) from error
        name = job_name(self._state_dir, kernel)
        job = JobId(name, f"{name}+{wanted.run}+{secrets.token_hex(4)}")
        files = Lane(f"shared directory of kernel {kernel}")
        try:
            directory = await files.begin(prepare, job, wanted, address)
        except UnsafeDirectory as error:
            raise LaunchError(f"slurm.directory: {error}") from error
        script, base = _script(directory, wanted.config.slurm), without_ours(os.environ)
        try:
            known = await files.begin(
                slurm.submit, job, wanted.config.slurm, script, f"{directory}/job.out", base
            )
        except SlurmError as error:
            if "timed out" not in str(error):
                cause = Cause.UNKNOWN if error.is_passing else Cause.NOT_FOUND
                raise LaunchError(str(error), cause) from error
            known = job  # whether it was handed in is learnt later
        return JobHandle(self, kernel, wanted.run, known, directory, address, wanted.output, report)

    def adopt(self, effect: Adopt, address: Address | None, output: Path, report: Report) -> JobHandle:
        """The run of an earlier supervisor, whatever has become of it."""
        settings, job = effect.config.slurm, effect.process
        assert isinstance(job, JobId), "the caller has looked"
        assert settings is not None, "it was launched as a job"
        assert address is not None, "it is presumed at least"
        directory = _shared(settings) / job.mark
        return JobHandle(self, effect.kernel, effect.generation, job, directory, address, output, report)

    async def withdraw(self, kernel: str) -> None:
        """The kernel has no address any more."""
        with suppress(RelayError):
            await (await self.relays()).remove(kernel)

    def close(self) -> None:
        """Look after nothing any more: jobs live on."""
        self.slurm.close()

    async def wait_closed(self) -> None:
        """Return once the relay was left, or has ended as it has nothing to pass on."""
        await self._relays.close()


def _tell(event: str, fields: Mapping[str, object]) -> None:
    log.info("%s %s", event, " ".join(f"{key}={value}" for key, value in fields.items()))


def places(address: Address) -> list[Place]:
    """Where clients reach a kernel, in the order of the channels."""
    return [place for _, place in zip(CHANNELS, address.places(), strict=True)]


def prepare(job: JobId, wanted: Launching, address: Address) -> Path:
    """The directory of a run, with all that the node must know; those of earlier runs go.  Blocks."""
    assert wanted.config.slurm is not None, "the caller has looked"
    shared, command = _shared(wanted.config.slurm), wanted.command
    make_private_directory(shared)
    for earlier in shared.glob(f"{job.name}+*"):
        shutil.rmtree(earlier, ignore_errors=True)
    directory = shared / job.mark
    directory.mkdir(mode=0o700)
    node = Path(slurm.__file__).with_name("node.py")
    write_atomically(directory / "node.py", node.read_bytes())
    order = {
        "version": 1,
        "mark": job.mark,
        "key": address.key,
        "signature_scheme": address.signature_scheme,
        "kernel_name": address.kernel_name,
        "argv": format_argv(command.argv, "{connection_file}", command.resource_dir),
        "env": dict(command.env),
        "cwd": command.cwd,
        "output": str(directory / "output"),
        "toward": None,
        "via": wanted.config.slurm.via,
    }
    # Last: it is what tells that a job may have been handed in.
    write_atomically(directory / "run.json", json.dumps(order).encode())
    return directory


def target_of(place: Mapping[str, Any]) -> list[relay.Place]:
    """Where a kernel is, in the order of the channels.  Raises KeyError and ValueError."""
    ports = [int(place[f"{channel}_port"]) for channel in CHANNELS]
    if place.get("transport") == "ipc":
        return [(str(place["node"]), f"{place['ip']}-{port}") for port in ports]
    return [(str(place["ip"]), port) for port in ports]


def _script(directory: Path, settings: SlurmConfig) -> str:
    # A login shell, where ``module`` is known.
    run = shlex.join(["exec", settings.python, f"{directory}/node.py", str(directory)])
    return "\n".join(["#!/bin/bash -l", "set -e", *settings.setup, run, ""])


class JobHandle:
    """A run that is a job: in the queue, on a node, over."""

    beats = None
    tells_stacks = False
    # The cluster limits it.
    confinement = Confinement()

    def __init__(
        self, jobs: Jobs, kernel: str, generation: int, job: JobId, directory: Path, address: Address,
        output: Path, report: Report,
    ) -> None:  # fmt: skip
        self.identity = job
        self._jobs = jobs
        self._run = kernel, generation
        self._directory = directory
        self._local = places(address)
        self._output = output
        self._report = report
        self._files = jobs.lane(directory.parent)
        self._begun = asyncio.Event()
        self._is_unwanted = self._is_given_up = self._is_warned = self._is_unanswered = False
        self._since, self._sign, self._absent = time.monotonic(), 0.0, 0
        self._fetched = -1
        self._last: Fact | None = None
        self._row: Row | None = None
        self._told: Told | None = None
        self._script_output: tuple[str, ...] = ()

    async def wait_begun(self) -> None:
        """Return once its kernel has been started and can be reached."""
        await self._begun.wait()

    async def wait(self) -> None:
        """Return once it has ended, or is not known to a controller that answers."""
        while True:
            found = await self._look()
            self._is_unanswered = found is None
            if found is not None:
                self._note(found.get(self.identity.mark))
            if self._begun.is_set() or self._row is None or self._row.state != "PENDING":
                self._told = await self._do(self._glance) or self._told
            if self._has_ended():
                is_proven = self._told is not None or (self._row is not None and self._row.has_ended)
                if is_proven or self._is_given_up or not await self._do(self._greets):
                    return
                self._sign = 0.0  # whatever the cluster knows, it lives

    async def _look(self) -> dict[str, Row] | None:
        """The next look at all jobs; meanwhile at the place of this one, if it may be there."""
        looking = asyncio.ensure_future(self._jobs.slurm.look())
        try:
            while True:
                # Not of all that wait: each look at a directory takes a thread.
                if self._is_about_to_begin or self._is_unanswered:
                    await self._note_place()
                done, _ = await asyncio.wait({looking}, timeout=GLANCE if self._is_about_to_begin else None)
                if done:
                    return looking.result()
        finally:
            looking.cancel()

    @property
    def _is_about_to_begin(self) -> bool:
        is_new = time.monotonic() - self._since < EAGER
        has_node = self._row is not None and self._row.state == "RUNNING"
        return not self._begun.is_set() and (is_new or has_node)

    def _note(self, row: Row | None) -> None:
        job = self.identity
        if row is not None and (row.name != job.name or job.submitted not in ("", row.submitted)):
            row = None  # another job, though the controller has given its number again
        self._absent = self._absent + 1 if row is None else 0
        if row is None:
            return
        self._row = row
        self.identity = replace(job, number=row.number, submitted=row.submitted)
        if self._is_unwanted:
            self._cancel()
        if row.state in ("PENDING", "CONFIGURING"):
            queue = Queue(row.reason.replace("None", ""), row.estimate)
            self._tell(Enqueued(*self._run, self.identity, queue))
        elif self._begun.is_set():
            self._tell(Began(*self._run, self.identity))
        if row.state == "RUNNING" and row.end is not None and row.end - time.time() < WARNING:
            self._warn(row.end)

    def _tell(self, fact: Fact) -> None:
        if fact != self._last:
            self._last = fact
            self._report(fact)

    def _warn(self, end: float) -> None:
        if not self._is_warned:
            self._is_warned = True
            at = written(datetime.fromtimestamp(end, UTC))
            self._report(Noted(*self._run, "kernel.expiring", {"at": at}))

    async def _note_place(self) -> None:
        """Where it is, once that is known; its address leads there from then on."""
        if self._begun.is_set() or (place := await self._do(partial(self._read, "place.json"))) is None:
            return
        try:
            target = target_of(place)
            known = await self._jobs.relays()
            await known.add(self._run[0], self._local)
            await known.point(self._run[0], target)
        except (RelayError, KeyError, TypeError, ValueError) as error:
            log.warning("kernel %s cannot be reached at its address yet: %s", self._run[0], error)
            return
        number = str(place.get("job") or self.identity.number)
        self.identity = replace(self.identity, number=number, node=str(place.get("node")))
        self._tell(Began(*self._run, self.identity))
        self._begun.set()

    def _read(self, name: str) -> dict[str, Any] | None:
        """What the node has written of this very run."""
        try:
            found = json.loads(read_own(self._directory / name))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("mark") == self.identity.mark else None

    def _glance(self) -> Told | None:
        """What the node has written since, and how it ended, if it has."""
        found = self._read("end.json")
        with suppress(OSError):
            self._fetch(MOST_AT_ONCE)
        if found is None:
            return None
        code, oom = found.get("returncode"), found.get("oom")
        return Told(
            code if isinstance(code, int) else None,
            str(found.get("state") or ""),
            oom if isinstance(oom, int) else 0,
            str(found.get("error") or ""),
        )

    def _has_ended(self) -> bool:
        """Whether enough is known of its end: both halves of it, or the other one does not come."""
        is_ended = self._row is not None and self._row.has_ended
        is_gone = self._absent >= ABSENT_LOOKS and not is_ended
        if not (self._told or is_ended or is_gone):
            self._sign = 0.0
            return False
        now = time.monotonic()
        self._sign = self._sign or now
        if self._told is None and is_gone:
            # Forgotten; but one that ran may run on a while, and one without a number may be on its way.
            is_sure = self.identity.number and not self._begun.is_set()
            return bool(is_sure) or now - self._sign >= ABSENT_PATIENCE
        is_whole = self._told is not None and (is_ended or is_gone)
        was_in_queue = self._row is not None and self._row.state == "CANCELLED" and not self._begun.is_set()
        return is_whole or was_in_queue or now - self._sign >= END_PATIENCE

    def _greets(self) -> bool:
        """Whether a kernel is at its address: what every zmq socket says first (ZMTP, ZeroMQ RFC 23)."""
        with socket.create_connection(self._local[CHANNELS.index("hb")], GREETING_PATIENCE) as connection:
            return connection.recv(1) == b"\xff"

    async def end(self, config: KernelConfig) -> None:  # noqa: ARG002 - of a process of this machine
        """Cut its address first: that a node has failed is no proof that nothing lives there."""
        try:
            await (await self._jobs.relays()).cut(self._run[0])
        except RelayError as error:
            log.warning("the address of kernel %s cannot be cut: %s", self._run[0], error)
        await self._do(self._fetch)
        self._script_output = tuple(await self._do(self._read_script_output) or ())

    async def _do(self, work: Callable[[], Any]) -> Any:
        try:
            return await self._files.do(work, patience=FILE_PATIENCE)
        except (OSError, Hanging):
            return None

    def _fetch(self, most: float = inf) -> None:
        """Take over what the kernel has written since; how far is on record for the next supervisor."""
        source, mark = self._directory / "output", self._directory / "fetched"
        if source.stat().st_size == self._fetched:
            return
        with source.open("rb") as file:
            with suppress(OSError, ValueError):
                file.seek(int(read_own(mark)))
            until = file.tell() + most
            while file.tell() < until and (data := file.read(1 << 20)):
                fd = open_for_writer(self._output)
                with os.fdopen(fd, "ab") as output:
                    output.write(data)
                write_atomically(mark, str(file.tell()).encode())
            self._fetched = file.tell()

    def _read_script_output(self) -> list[str]:
        """What the script of the job wrote, which is in the way where no kernel was started."""
        return (self._directory / "job.out").read_text(errors="replace").splitlines()[-20:]

    def describe(self, output_tail: tuple[str, ...]) -> Exit:
        """Why by the state of the job, how by the file of the node."""
        told, row = self._told or Told(), self._row
        state = row.state if row is not None and row.has_ended else told.state
        cause = CAUSES.get(state)
        number, node = self.identity.number, self.identity.node
        where = f"job {number} on {node}" if node else f"job {number}"
        if cause is None and told.returncode is None and not self._begun.is_set():
            return self._describe_start(told.error, state, where, output_tail)
        ended = describe_exit(told.returncode, oom=told.oom > 0, output_tail=output_tail)
        if cause is None and told.returncode is not None:
            return ended
        detail = f"{where}: {state or 'unknown to the cluster'}"
        return replace(ended, cause=cause or ended.cause, detail=detail)

    def _describe_start(self, error: str, state: str, where: str, output_tail: tuple[str, ...]) -> Exit:
        """There was no kernel."""
        if state or error:
            detail = error or f"{where}: {state}: its script ended before the kernel was started"
            return Exit(Cause.UNKNOWN, output_tail=output_tail or self._script_output, detail=detail)
        detail = f"{where}: the cluster does not know it" if self.identity.number else "it was not handed in"
        return Exit(Cause.UNKNOWN, detail=detail, is_passing=True)

    async def left(self) -> tuple[int, ...]:
        """The cluster ends what is left."""
        return ()

    async def cleanup(self) -> None:
        """Its directory stays until the next run: what ended it may be looked for there."""

    def signal(self, signum: int, config: KernelConfig) -> None:  # noqa: ARG002
        """By the cluster; SIGKILL cancels the job, wherever it is."""
        if signum == signal.SIGKILL:
            self._is_unwanted = self._is_given_up = True
        if self._is_unwanted:
            self._cancel()
        elif self.identity.number:
            self._scancel("--batch", f"--signal={signum}")

    def _cancel(self) -> None:
        # Without a number it may not be there yet: it is cancelled as soon as it is seen.
        if self.identity.number:
            self._is_unwanted = False
            self._scancel()

    def _scancel(self, *how: str) -> None:
        # The name too: a controller that forgot has given the number to another job.
        job = self.identity
        self._jobs.slurm.order(["scancel", *how, f"--jobname={job.name}", job.number])

    def wake(self) -> None:
        """It is not stopped by anyone here."""

    def dump_stacks(self) -> None:
        """Not over this distance."""

    def look(self, config: KernelConfig, is_over: Callable[[], bool]) -> None:
        """The cluster accounts it."""

    def usage(self) -> Mapping[str, float] | None:
        """What its node tells of it, twice a minute, where that can be told."""
        found = self._read("usage.json") or {}
        told = {key: value for key in _USED if isinstance(value := found.get(key), int | float)}
        return told if len(told) == len(_USED) else None
