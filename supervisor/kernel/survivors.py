"""What an earlier supervisor left: records read, processes verified, one verdict a kernel.

Owns the way from a record to a ``Survivor`` and from a kernel to its record.
Starts and ends nothing.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from supervisor.cgroups.tree import NOWHERE, RunId, Tree
from supervisor.core.events import Survivor
from supervisor.core.lifecycle import DEATHS_KEPT
from supervisor.core.model import (
    Cause,
    Course,
    Death,
    Exit,
    Failed,
    JobId,
    Kernel,
    ProcessId,
    Reason,
    Running,
    Starting,
    State,
    Stopping,
    Want,
    identity_of,
    launched_of,
    process_of,
)
from supervisor.disk.off_loop import Lane
from supervisor.kernel.aftermath import exit_of
from supervisor.kernel.confinement import Confinement
from supervisor.kernel.connection import Address, listened_port, read_address
from supervisor.kernel.run import OutputOfRun
from supervisor.output.file import OutputFile
from supervisor.output.stream import Position
from supervisor.process.account import uid_of
from supervisor.process.group import variable_of
from supervisor.process.identity import (
    all_pids,
    current_boot_id,
    identify,
    is_running,
    owner_of,
    read_proc,
)
from supervisor.records.places import Places
from supervisor.records.record import (
    MARK_VARIABLE,
    Damaged,
    Newer,
    Record,
    RecordedDeath,
    RecordStore,
    is_helper_mark,
    marked_run,
)
from supervisor.settings.config import KernelConfig


class Stock(Struct, frozen=True):
    """What was found: kernels to take up, names to leave alone, and what a person should know.

    ``helpers`` are processes that it had for itself.
    ``ended`` are the processes on record that are gone, and of whose groups something is left,
    which may hold ports.
    """

    survivors: tuple[Survivor, ...] = ()
    ended: tuple[ProcessId, ...] = ()
    helpers: tuple[ProcessId, ...] = ()
    records: tuple[Record, ...] = ()
    strangers: frozenset[str] = frozenset()
    troubles: Mapping[str, str] = field(default_factory=dict)


class Marked(Struct, frozen=True):
    """A process that carries the mark of a run of a kernel of this state directory."""

    process: ProcessId
    generation: int
    is_leader: bool


def record_of(
    kernel: Kernel,
    state: State,
    address: Address | None,
    output_from: Position | None,
    dates: Mapping[Death, float],
    interrupt_mode: str = "",
) -> Record | None:
    """What the next supervisor must know of a kernel; ``None`` if it is on its way out of the records.

    ``dates`` are the wall-clock instants of its deaths, in seconds since the epoch.
    """
    launched = launched_of(kernel) or kernel.declared
    if launched is None:
        return None
    return Record(
        name=kernel.name,
        generation=kernel.generation,
        boot_id=current_boot_id(),
        # After an orderly stop the file alone says what is wanted.
        want=None if state.course is Course.CLOSING else kernel.want.value,
        launched=launched,
        process=process_of(kernel),
        job=job if isinstance(job := identity_of(kernel), JobId) else None,
        ready=_was_ready(kernel),
        spawned_at=_spawned_at(kernel),
        output_from=output_from,
        address=address.to_mapping() if address is not None else None,
        failures=kernel.failures,
        streak=kernel.streak,
        restarts=kernel.restarts,
        failed=kernel.phase.reason if isinstance(kernel.phase, Failed) else "",
        stopping=kernel.phase.reason.value if isinstance(kernel.phase, Stopping) else "",
        interrupt_mode=interrupt_mode,
        deaths=tuple(_recorded(death, dates[death]) for death in kernel.deaths),
    )


def _was_ready(kernel: Kernel) -> bool:
    """Whether the run has been ready; one that is stopped while it executes must be interrupted first."""
    match kernel.phase:
        case Running() | Stopping(ready=True):
            return True
        case _:
            return False


def _spawned_at(kernel: Kernel) -> float | None:
    """When the run began; without a process on record it means that one may exist all the same."""
    match kernel.phase:
        case Starting(since=since) | Running(since=since) | Stopping(spawned_at=since):
            return since
        case _:
            return None


def _recorded(death: Death, date: float) -> RecordedDeath:
    ended = death.exit
    return RecordedDeath(
        at_wall=round(date, 3),
        generation=death.generation,
        pid=death.pid,
        cause=ended.cause.value,
        exit_code=ended.code,
        signal=ended.signal,
        detail=ended.detail,
        uptime=death.uptime,
    )


async def take_stock(
    store: RecordStore,
    places: Places,
    now: float,
    wall: float,
    declared: Mapping[str, KernelConfig],
    cgroups: Tree = NOWHERE,
) -> Stock:
    """Read and verify all records; ``now`` is monotonic, ``wall`` in seconds since the epoch.

    A kernel that no record tells of, as after a disk was full, counts as
    launched with the settings in ``declared``.
    """
    look = Lane("records")
    records, troubles = await look.begin(store.read_all)
    own = os.geteuid()
    # As it was launched: its account may be called otherwise by now, or be gone.
    uids: dict[str, int | None] = {r.name: own if r.uid is None else r.uid for r in records}
    anew = {name: kernel.user for name, kernel in declared.items() if name not in uids}
    uids |= await look.begin(lambda: {name: uid_of(user) for name, user in anew.items()})
    marked, helpers = await look.begin(_marked, places.state_dir, uids)
    survivors: list[Survivor] = []
    told = {f"record of {trouble.name}": str(trouble) for trouble in troubles}
    strangers = {trouble.name for trouble in troubles if isinstance(trouble, Newer)}
    lost = {trouble.name for trouble in troubles if isinstance(trouble, Damaged) and not trouble.is_replaced}
    unrecorded = _unrecorded(marked, {record.name for record in records} | strangers, places)
    # Those of which it cannot be told what they are.
    strangers |= lost & marked.keys() - unrecorded.keys()
    for name, leader in unrecorded.items():
        if name in declared:
            records.append(_record_anew(name, leader, declared[name], uids[name]))
        else:
            strangers.add(name)
            told[f"record of {name}"] = (
                f"{name}: pid {leader.process.pid} is a kernel that neither a record nor the file knows; "
                "it is left alone: end it, or declare it and start the daemon again"
            )
    for record in records:
        found = marked.get(record.name, [])
        if (refusal := _reason_to_refuse(record, found, cgroups, uids[record.name])) is not None:
            strangers.add(record.name)
            told[f"record of {record.name}"] = refusal
        elif record.launched is not None:
            job = await look.begin(_job_of, record, places.state_dir) if record.launched.slurm else None
            survivors.append(_verdict(record, found, places, now, wall, job))
    ended = tuple(r.process for r in records if r.process and _has_left(r.process, marked.get(r.name, [])))
    return Stock(tuple(survivors), ended, helpers, tuple(records), frozenset(strangers), told)


def _job_of(record: Record, state_dir: Path) -> JobId | None:
    """The job of the latest run, if that is one; whether it lives is learnt by whoever watches it."""
    if record.job is not None:
        return record.job
    # Loaded where a kernel is a job, and nowhere else.
    from supervisor.kernel.jobs import unanswered

    return unanswered(record, state_dir)


def _reason_to_refuse(record: Record, marked: list[Marked], cgroups: Tree, uid: int | None) -> str | None:
    """Why a kernel on record that may live cannot be taken up; ``uid`` is whose it is."""
    process = record.process if record.process and is_running(record.process) else None
    if process is not None:
        what, owner = "", owner_of(process)
        if owner not in (None, uid):
            # As after ``User=`` of the service was changed: it could neither be ended nor believed.
            what = f"belongs to user {owner} instead of {uid}"
        elif cgroups.run_of(process.pid) not in (None, RunId(record.name, record.generation)):
            what = "on record is not its own, by its cgroup"
        elif not marked and not _is_its_run(process, []):
            # It may be the kernel all the same, launched with an empty environment: never a second
            # one beside it.
            what = "on record does not carry the mark of its run"
        if what:
            todo = f"end it (kill {process.pid}), or run the daemon as before, and start the daemon anew"
            return f"{record.name}: pid {process.pid} {what}: it is left alone: {todo}"
    if record.launched is None and (marked or process):
        return f"{record.name}: its settings on record are not understood"
    return None


def _is_its_run(process: ProcessId, marked: list[Marked]) -> bool:
    """Whether a process that lives may be the one on record: it carries our mark, or none can be read there.

    As of one that has written its title over its environment, or may not be looked into.
    """
    if any(m.process == process for m in marked):
        return True
    try:
        environ = read_proc(process.pid, "environ")
    except OSError:
        return True
    return not any(re.match(rb"[A-Za-z_]\w*=", variable) for variable in environ.split(b"\0"))


def end_leftovers(cgroups: Tree, stock: Stock) -> None:
    """End what runs have left that ended while nobody watched, as at every death; blocks.

    Of a kernel that is left alone, or whose settings on record say so, nothing is ended.
    """
    living = {RunId(s.kernel, s.generation) for s in stock.survivors if s.process is not None}
    modes = {record.name: record.launched.kill_mode for record in stock.records if record.launched}
    for run in cgroups.runs():
        if run not in living and run.kernel not in stock.strangers:
            Confinement(cgroups.group(run)).end(modes.get(run.kernel, "tree"))


def _has_left(process: ProcessId, marked: list[Marked]) -> bool:
    """Whether a process has ended, and others of its group have not.

    By the mark: days later, the number of a group that has ended may be another program's.
    """
    return not is_running(process) and any(_group_of(m.process) == process.pid for m in marked)


def _group_of(process: ProcessId) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _unrecorded(marked: Mapping[str, list[Marked]], known: set[str], places: Places) -> dict[str, Marked]:
    """The kernels of which there is no record."""
    found: dict[str, Marked] = {}
    for name in sorted(marked.keys() - known):
        leader = _leader(marked[name], Record(name=name), places)
        # Of a kernel that was stopped or removed the file is gone; children that escaped are none of ours.
        if leader is not None and places.connection_file(name).exists():
            found[name] = leader
    return found


def _record_anew(name: str, leader: Marked, config: KernelConfig, uid: int | None) -> Record:
    """What would be on record of a living kernel, as far as it can still be known."""
    return Record(
        name=name,
        generation=leader.generation,
        boot_id=current_boot_id(),
        want=Want.UP.value,
        launched=config,
        process=leader.process,
        uid=None if uid == os.geteuid() else uid,
        ready=_has_outlived_its_start(leader.process, config),
        spawned_at=time.monotonic() - _age(leader.process),
    )


def _has_outlived_its_start(process: ProcessId, config: KernelConfig) -> bool:
    """Whether it must have become ready: it would have been ended otherwise.  It may be busy now."""
    return _age(process) > config.start_timeout


def _age(process: ProcessId) -> float:
    """For how many seconds the process has existed; 0 where that is not told."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    began = process.start_time / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def _marked(
    state_dir: Path, uids: Mapping[str, int | None]
) -> tuple[dict[str, list[Marked]], tuple[ProcessId, ...]]:
    """The living processes that belong to runs of kernels of this state directory, whoever recorded them.

    And those that a supervisor had for itself.  Each account can make any mark: what counts is that of the
    kernel's own (``uids``, else ours).
    """
    found: dict[str, list[Marked]] = {}
    helpers: list[ProcessId] = []
    for pid in all_pids():
        try:
            value = variable_of(pid, MARK_VARIABLE)
            if value is None:
                continue
            process = identify(pid)
            is_leader, own = os.getsid(pid) == pid, os.geteuid()
        except OSError:
            continue  # ended meanwhile
        run = marked_run(value, state_dir)
        if owner_of(process) not in (None, own if run is None else uids.get(run[0], own)):
            continue
        if run is not None:
            found.setdefault(run[0], []).append(Marked(process, run[1], is_leader))
        elif is_helper_mark(value, state_dir):
            helpers.append(process)
    return found, tuple(helpers)


def run_of(pid: int, state_dir: Path) -> RunId | None:
    """To which run of a kernel of this state directory a process belongs, by its mark."""
    value = variable_of(pid, MARK_VARIABLE)
    found = marked_run(value, state_dir) if value is not None else None
    return RunId(*found) if found else None


def _verdict(
    record: Record, marked: list[Marked], places: Places, now: float, wall: float, job: JobId | None = None
) -> Survivor:
    assert record.launched is not None, "the caller has looked"
    this_boot = record.boot_id == current_boot_id()
    process = record.process
    generation, ready = record.generation, record.ready
    if process is None or not (is_running(process) and _is_its_run(process, marked)):
        process = None
        # Born between the two writes of its record, or after the version of it that could be read.
        if (unrecorded := _leader(marked, record, places)) is not None:
            process, generation = unrecorded.process, unrecorded.generation
            ready = _has_outlived_its_start(process, record.launched)
    began = record.spawned_at if this_boot and record.spawned_at is not None else now
    unseen = record.process if process is None and this_boot else None
    return Survivor(
        record.name,
        record.launched,
        generation,
        Want(record.want) if record.want is not None else None,
        job or process,
        ready,
        max(0.0, now - began),
        _unseen_exit(record, places) if unseen is not None else None,
        record.failures if this_boot else (),
        record.streak if this_boot else 0,
        record.restarts,
        record.failed if process is None else "",
        tuple(_death(death, now - (wall - death.at_wall)) for death in record.deaths[-DEATHS_KEPT:]),
        unseen,
        _stopping(record) if generation == record.generation else None,
    )


def _stopping(record: Record) -> Reason | None:
    """Why the run on record was being stopped, ``None`` if it was not."""
    if not record.stopping:
        return None
    try:
        return Reason(record.stopping)
    except ValueError:
        return Reason.ORDERED  # a reason of a newer version


def _unseen_exit(record: Record, places: Places) -> Exit:
    """The end of a run that nobody watched: its status is gone, its last words are not."""
    begin = record.output_from or Position()
    key = str((record.address or {}).get("key", ""))
    tail = OutputOfRun(OutputFile(places.output_file(record.name)), begin, key).tail()
    return Exit(Cause.UNKNOWN, output_tail=tail, detail="ended while no supervisor ran")


def _leader(marked: list[Marked], record: Record, places: Places) -> Marked | None:
    """The kernel among its processes: the first born leader of a session of the latest run.

    Of a run that the record has seen past its launch, the leaders are children
    that left it, which are none of ours.  So is, of one that it has not seen, what was
    not given the connection file; unless the kernel lives, which rewrote its command line.
    """
    is_in_flight = record.process is None and record.spawned_at is not None
    first = record.generation if is_in_flight else record.generation + 1
    leaders = [m for m in marked if m.is_leader and m.generation >= first]
    # By its name: the directory may have been another one at the launch.
    file = places.connection_file(record.name).name
    given = [m for m in leaders if _was_given(m.process, file)]
    if not given and not _may_be_alive(record, leaders, places):
        return None
    return min(given or leaders, key=lambda m: (-m.generation, m.process.start_time), default=None)


def _may_be_alive(record: Record, leaders: list[Marked], places: Places) -> bool:
    """Whether the kernel of an unrecorded run may be among these: it listens, or may be about to."""
    try:
        file = places.connection_file(record.name)
        address = Address.from_mapping(record.address) if record.address else read_address(file)
        if listened_port(address) is not None:
            return True
    except (OSError, ValueError, AttributeError, RecursionError):
        pass  # of no use for the kernel either
    settings = record.launched
    return settings is not None and any(not _has_outlived_its_start(m.process, settings) for m in leaders)


def _was_given(process: ProcessId, file: str) -> bool:
    """Whether the path of a file of this name is on the command line of a process."""
    try:
        return os.fsencode(f"/{file}") in read_proc(process.pid, "cmdline")
    except OSError:
        return False  # ended meanwhile


def _death(recorded: RecordedDeath, at: float) -> Death:
    return Death(recorded.generation, recorded.pid, at, recorded.uptime, exit_of(recorded))
