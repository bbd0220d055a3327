"""What an earlier supervisor left: told from records and from living processes, and never guessed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from supervisor.cgroups.tree import Level, RunId, Tree
from supervisor.core.events import Survivor
from supervisor.core.model import (
    Cause,
    Course,
    Death,
    Exit,
    Failed,
    Kernel,
    ProcessId,
    Queued,
    Reason,
    Running,
    Starting,
    State,
    Step,
    Stopped,
    Stopping,
    Want,
)
from supervisor.kernel import survivors
from supervisor.kernel.connection import CHANNELS, Address
from supervisor.kernel.survivors import Stock, end_leftovers, record_of, take_stock
from supervisor.process.identity import current_boot_id, identify
from supervisor.records.places import Places
from supervisor.records.record import MARK_VARIABLE, Record, RecordedDeath, RecordStore, mark
from supervisor.settings.config import KernelConfig
from tests.cgroups.conftest import Machine, machine

__all__ = ["machine"]

SETTINGS = KernelConfig(name="a", argv=("x", "{connection_file}"))
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
# A leader whose child, of the same group, outlives it.
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    f"subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)']); print('up', flush=True);"
    "time.sleep(600)",
]

Launch = Callable[..., ProcessId]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "state", tmp_path / "runtime")


@pytest.fixture
def store(places: Places) -> RecordStore:
    return RecordStore(places.records)


@pytest.fixture
def launch(places: Places) -> Iterator[Launch]:
    begun: list[subprocess.Popen[bytes]] = []

    def do(
        generation: int = 1,
        argv: list[str] = SLEEP,
        name: str = "a",
        *,
        given_file: bool = True,
        **options: Any,
    ) -> ProcessId:
        env = {**os.environ, MARK_VARIABLE: mark(places.state_dir, name, generation)}
        options = {"start_new_session": True, "stdout": subprocess.PIPE, "env": env, **options}
        file = [str(places.connection_file(name))] if given_file else []
        process = subprocess.Popen([*argv, *file], **options)
        begun.append(process)
        assert process.stdout is not None
        assert b"up\n" == process.stdout.readline()
        return identify(process.pid)

    yield do
    for process in begun:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()
        process.communicate()


def end(process: ProcessId) -> None:
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def record(process: ProcessId | None = None, **fields: Any) -> Record:
    known = {"name": "a", "generation": 1, "boot_id": current_boot_id(), "want": "up", "launched": SETTINGS}
    return Record(**{**known, "process": process, "spawned_at": time.monotonic() - 5.0, **fields})


async def found(store: RecordStore, places: Places, **declared: KernelConfig) -> Stock:
    now = asyncio.get_running_loop().time()
    return await take_stock(store, places, now, time.time(), declared)


async def only(store: RecordStore, places: Places) -> Survivor:
    (survivor,) = (await found(store, places)).survivors
    return survivor


async def test_nothing_on_record_is_nothing(store: RecordStore, places: Places) -> None:
    assert Stock() == await found(store, places)


async def test_a_living_process_on_record_is_a_survivor(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    process = launch()
    store.write(record(process, ready=True, restarts=3, failures=(1.0,), streak=2))

    survivor = await only(store, places)

    assert (process, True, None) == (survivor.process, survivor.ready, survivor.exit)
    assert (1, Want.UP, SETTINGS) == (survivor.generation, survivor.want, survivor.launched)
    assert (3, (1.0,), 2) == (survivor.restarts, survivor.failures, survivor.streak)
    assert 5.0 <= survivor.uptime < 60.0


async def test_the_next_process_with_its_pid_is_not_the_kernel(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    process = launch()
    store.write(record(ProcessId(process.pid, process.start_time - 1, process.boot_id)))

    survivor = await only(store, places)

    assert None is survivor.process
    assert survivor.exit is not None
    assert Cause.UNKNOWN is survivor.exit.cause


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another account")
async def test_a_kernel_of_another_account_is_left_alone_and_told(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    process = launch(argv=["/bin/sh", "-c", "echo up; exec sleep 600"], user=65534)
    store.write(record(process))

    stock = await found(store, places)

    assert ((), frozenset({"a"})) == (stock.survivors, stock.strangers)
    told = f"a: pid {process.pid} belongs to user 65534 instead of 0: it is left alone: "
    assert stock.troubles["record of a"].startswith(told)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another account")
async def test_whose_a_kernel_is_counts_as_it_was_launched_though_no_such_account_is_there_any_more(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    process = launch(argv=["/bin/sh", "-c", "echo up; exec sleep 600"], user=65534)
    gone = KernelConfig(name="a", argv=("x",), user="no-such-account")
    store.write(record(process, launched=gone, uid=65534))

    assert process == (await only(store, places)).process


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another account")
async def test_a_mark_that_another_account_made_is_not_believed(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    launch(argv=["/bin/sh", "-c", "echo up; exec sleep 600 -"], user=65534)
    store.write(record(None))

    assert None is (await only(store, places)).process


async def test_a_process_on_record_of_which_the_environment_tells_nothing_is_the_kernel(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    process = launch(env={})
    store.write(record(process))

    assert process == (await only(store, places)).process


async def test_a_process_in_the_cgroup_of_another_run_is_not_the_kernel(
    store: RecordStore, places: Places, launch: Launch, machine: Machine
) -> None:
    process = launch()
    store.write(record(process))
    tree = Tree(Level.TRACKING, "", machine.mount, machine.mount)
    now = asyncio.get_running_loop().time()
    for run, is_it in ((RunId("a", 1), True), (RunId("a", 2), False), (RunId("b", 1), False)):
        machine.enter(tree.group(run).path, process.pid)

        stock = await take_stock(store, places, now, time.time(), {}, tree)

        assert is_it == bool(stock.survivors)
        assert is_it == ("is not its own, by its cgroup" not in str(stock.troubles))


def test_what_runs_left_that_ended_is_ended_but_not_of_those_that_are_left_alone(machine: Machine) -> None:
    tree = Tree(Level.TRACKING, "", machine.mount, machine.mount)
    runs = [RunId("lives", 2), RunId("lives", 1), RunId("ended", 4), RunId("stranger", 1), RunId("spared", 1)]
    for pid, run in enumerate([*runs, RunId("gone", 1)], 100):
        machine.enter(tree.group(run).path, pid)
    spared = msgspec.structs.replace(SETTINGS, name="spared", kill_mode="group")
    alive = Survivor("lives", SETTINGS, 2, Want.UP, ProcessId(100, 1, "x"))
    records = (Record(name="spared", launched=spared), Record(name="ended", launched=SETTINGS))

    left = (alive, Survivor("ended", SETTINGS, 4, Want.UP))
    end_leftovers(tree, Stock(left, records=records, strangers=frozenset({"stranger"})))

    assert {RunId("lives", 2), RunId("stranger", 1), RunId("spared", 1)} == set(tree.runs())


async def test_of_another_boot_nothing_lives_and_nothing_is_a_death(
    store: RecordStore, places: Places
) -> None:
    gone = ProcessId(os.getpid(), 1, "another boot")
    store.write(record(gone, boot_id="another boot", failures=(1.0,), streak=2, restarts=3))

    survivor = await only(store, places)

    assert (None, None) == (survivor.process, survivor.exit)
    assert ((), 0, 3) == (survivor.failures, survivor.streak, survivor.restarts)


async def test_a_process_born_between_two_writes_is_found_by_its_mark(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    store.write(record(None))
    process = launch()

    survivor = await only(store, places)

    assert (process, False) == (survivor.process, survivor.ready)


@pytest.mark.parametrize("generation", [1, 2])
async def test_a_child_that_left_a_run_that_no_record_knows_is_not_taken_for_the_kernel(
    store: RecordStore, places: Places, launch: Launch, generation: int
) -> None:
    kernel = launch()
    settings = msgspec.structs.replace(SETTINGS, start_timeout=0.001)
    store.write(record(kernel if generation == 2 else None, launched=settings))
    end(kernel)
    launch(generation, given_file=False)

    survivor = await only(store, places)

    assert (None, 1) == (survivor.process, survivor.generation)


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_a_kernel_that_rewrote_its_command_line_is_the_kernel_if_it_listens(
    store: RecordStore, places: Places, launch: Launch, is_recorded: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ports = {f"{channel}_port": listening.getsockname()[1] for channel in CHANNELS}
        address = Address("tcp", "127.0.0.1", **ports, key="k")
        if is_recorded:
            settings = msgspec.structs.replace(SETTINGS, start_timeout=0.001)
            store.write(record(None, launched=settings, address=address.to_mapping()))
        else:
            places.connection_file("a").parent.mkdir(parents=True, exist_ok=True)
            places.connection_file("a").write_bytes(address.to_json())
        kernel = launch(given_file=False)

        (survivor,) = (await found(store, places, a=SETTINGS)).survivors

    assert kernel == survivor.process


async def test_a_kernel_in_flight_that_rewrote_its_command_line_may_yet_listen(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    store.write(record(None))
    kernel = launch(given_file=False)

    assert kernel == (await only(store, places)).process


async def test_the_first_born_of_a_run_that_no_record_knows_is_the_kernel_unless_it_is_a_child_that_left(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    old = launch()
    store.write(record(old))
    end(old)
    launch(2, given_file=False)
    kernel = launch(2)

    survivor = await only(store, places)

    assert (kernel, 2) == (survivor.process, survivor.generation)


async def test_a_group_without_our_mark_is_another_programs(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    kernel = launch(argv=PARENT, env=dict(os.environ))
    store.write(record(kernel))
    end(kernel)

    assert () == (await found(store, places)).ended


async def test_a_kernel_of_another_state_directory_is_none_of_ours(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    env = {**os.environ, MARK_VARIABLE: mark(places.state_dir / "other", "a", 1)}
    launch(env=env)
    store.write(record(None))

    assert None is (await only(store, places)).process


@pytest.mark.parametrize(
    ("told", "reason"),
    [("", None), ("unresponsive", Reason.UNRESPONSIVE), ("a reason of a newer version", Reason.ORDERED)],
)
async def test_a_stop_under_way_is_remembered_of_the_living_and_of_the_dead(
    store: RecordStore, places: Places, launch: Launch, told: str, reason: Reason | None
) -> None:
    process = launch()
    store.write(record(process, stopping=told))
    assert (process, reason) == ((await only(store, places)).process, (await only(store, places)).stopping)

    end(process)
    assert (None, reason) == ((await only(store, places)).process, (await only(store, places)).stopping)


async def test_a_later_run_than_the_one_that_was_being_stopped_is_left_alone(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    store.write(record(None, stopping="ordered"))
    process = launch(2)

    survivor = await only(store, places)

    assert (process, 2, None) == (survivor.process, survivor.generation, survivor.stopping)


async def test_the_last_death_is_remembered_with_its_date(store: RecordStore, places: Places) -> None:
    death = RecordedDeath(at_wall=time.time() - 100, generation=1, pid=7, cause="crashed", signal="SIGSEGV")
    store.write(record(None, deaths=(death,)))

    remembered = (await only(store, places)).deaths[-1]

    assert (1, 7, Cause.CRASHED) == (remembered.generation, remembered.pid, remembered.exit.cause)
    assert 99 < asyncio.get_running_loop().time() - remembered.at < 130


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_kernel_whose_record_is_damaged_is_found_as_one_whose_record_is_missing(
    store: RecordStore, places: Places, launch: Launch, *, is_declared: bool
) -> None:
    store.path("a").write_bytes(b"{")
    places.runtime_dir.mkdir()
    places.connection_file("a").touch()
    kernel = launch(3)

    stock = await found(store, places, **({"a": SETTINGS} if is_declared else {}))

    assert ([(kernel, 3)] if is_declared else []) == [(s.process, s.generation) for s in stock.survivors]
    assert (frozenset() if is_declared else {"a"}) == stock.strangers


async def test_what_is_marked_and_no_kernel_for_sure_is_not_started_a_second_time(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    store.path("a").write_bytes(b"{")
    launch()

    assert frozenset({"a"}) == (await found(store, places, a=SETTINGS)).strangers


async def test_a_process_on_record_without_our_mark_is_neither_believed_nor_doubled(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    kernel = launch(env=dict(os.environ))
    store.write(record(kernel))

    stock = await found(store, places)

    assert ((), frozenset({"a"})) == (stock.survivors, stock.strangers)
    assert f"pid {kernel.pid} on record does not carry the mark" in stock.troubles["record of a"]


async def test_a_kernel_that_wrote_over_its_environment_is_known_by_its_identity(
    store: RecordStore, places: Places, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = launch(env=dict(os.environ))
    store.write(record(kernel))
    read = survivors.read_proc
    monkeypatch.setattr(
        survivors, "read_proc", lambda pid, name: b"titled\0\0" if name == "environ" else read(pid, name)
    )

    assert kernel == (await only(store, places)).process


async def test_settings_that_are_not_understood_leave_a_living_kernel_alone(
    store: RecordStore, places: Places, launch: Launch
) -> None:
    store.write(record(launch()))
    content = msgspec.json.decode(store.path("a").read_bytes())
    content["launched"]["transport"] = "pigeons"
    store.path("a").write_bytes(msgspec.json.encode(content))

    stock = await found(store, places)

    assert frozenset({"a"}) == stock.strangers
    assert "its settings on record are not understood" in stock.troubles["record of a"]


# From a kernel to its record

PROCESS = ProcessId(7, 8, "boot")
DEATH = Death(3, 7, 10.0, 2.0, Exit(Cause.KILLED, signal="SIGKILL", output_tail=("secret?",)))


@pytest.mark.parametrize(
    ("phase", "process", "ready", "spawned_at", "failed"),
    [
        (Stopped(), None, False, None, ""),
        (Queued(1.0), None, False, None, ""),
        (Starting(SETTINGS, 2.0), None, False, 2.0, ""),
        (Starting(SETTINGS, 2.0, PROCESS, 3.0), PROCESS, False, 2.0, ""),
        (Running(SETTINGS, PROCESS, 2.0), PROCESS, True, 2.0, ""),
        (Failed("given up"), None, False, None, "given up"),
    ],
)
def test_a_phase_is_on_record_as_far_as_the_next_supervisor_needs_it(
    phase: Any, process: ProcessId | None, ready: bool, spawned_at: float | None, failed: str
) -> None:
    kernel = Kernel("a", SETTINGS, Want.UP, phase, 3, deaths=(DEATH,))

    made = record_of(kernel, State(), None, None, {DEATH: 1234.5678})

    assert made is not None
    assert (process, ready, spawned_at, failed) == (made.process, made.ready, made.spawned_at, made.failed)
    assert ("up", 3, 1234.568) == (made.want, made.generation, made.deaths[0].at_wall)


def test_a_stop_under_way_is_on_record_with_its_reason() -> None:
    stopping = Stopping(SETTINGS, PROCESS, Step.TERMINATE, 1.0, 2.0, Reason.EDITED, 0.5)

    made = record_of(Kernel("a", SETTINGS, Want.UP, stopping), State(), None, None, {DEATH: 0.0})

    assert made is not None
    assert ("up", PROCESS, "edited") == (made.want, made.process, made.stopping)


@pytest.mark.parametrize("ready", [True, False])
def test_a_kernel_that_was_ready_is_so_on_record_while_it_is_stopped(ready: bool) -> None:
    stopping = Stopping(SETTINGS, PROCESS, Step.ASK, 1.0, 2.0, Reason.ORDERED, 0.5, ready)

    made = record_of(Kernel("a", SETTINGS, Want.UP, stopping), State(), None, None, {DEATH: 0.0})

    assert made is not None
    assert ready is made.ready


def test_what_a_kernel_wrote_is_not_on_record() -> None:
    made = record_of(Kernel("a", SETTINGS, Want.UP, deaths=(DEATH,)), State(), None, None, {DEATH: 0.0})

    assert b"secret?" not in msgspec.json.encode(made)


def test_a_supervisor_that_closes_wants_nothing() -> None:
    made = record_of(Kernel("a", SETTINGS, Want.DOWN), State(course=Course.CLOSING), None, None, 0.0)

    assert made is not None
    assert None is made.want


def test_a_kernel_that_has_left_the_file_is_on_record_until_its_run_has_ended() -> None:
    stopping = Stopping(SETTINGS, PROCESS, Step.ASK, 1.0, 2.0, Reason.REMOVED, 0.5)

    made = record_of(Kernel("a", None, Want.DOWN, stopping), State(), None, None, {DEATH: 0.0})

    assert made is not None
    assert (SETTINGS, PROCESS, 0.5) == (made.launched, made.process, made.spawned_at)
    assert None is record_of(Kernel("a", None, Want.DOWN), State(), None, None, {DEATH: 0.0})
