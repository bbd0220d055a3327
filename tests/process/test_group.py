"""Signals to groups, the end and what is left after it, with real processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisor.core.model import ProcessId
from supervisor.process import group as process
from supervisor.process.group import end_group, marked_processes, signal_group
from supervisor.process.identity import current_boot_id, identify, is_running
from tests.cli.tools import ROOT
from tests.kernel.programs import (
    SLEEPER,
    SUCCESSFUL,
    end,
    name_of,
    open_files,
    start,
    state_of,
)
from tests.waiting import DEADLINE, wait_for

FOREVER = "sleep 600 & sleep 600 & "  # two children in the group, before what the leader does


@pytest.fixture
def family() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Leaders of groups with children, which are ended for certain."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for leader in started:
        try:
            os.killpg(leader.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        end(leader)


def group_of(pid: int) -> list[int]:
    """The living processes of a group, as ps(1) sees them."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    rows = (line.split() for line in listed.stdout.splitlines())
    return [int(row[0]) for row in rows if int(row[1]) == pid and row[2][0] != "Z"]


def test_a_signal_reaches_only_the_process_if_its_group_is_ours() -> None:
    popen = start(SLEEPER, start_new_session=False)
    try:
        assert os.getpgid(popen.pid) == os.getpgrp()

        signal_group(identify(popen.pid), signal.SIGTERM)

        assert popen.wait(DEADLINE) == -signal.SIGTERM
    finally:
        end(popen)


def test_our_own_group_is_never_signalled_even_if_the_process_leads_it() -> None:
    script = (
        "import os, signal, subprocess, sys\n"
        "from supervisor.process.group import signal_group\n"
        "from supervisor.process.identity import identify\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "signal_group(identify(os.getpid()), signal.SIGTERM)\n"
        "print(child.poll())\n"
        "child.kill(); print(child.wait())"
    )
    leader = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        start_new_session=True,
        check=True,
        cwd=ROOT,
    )

    assert ["None", "-9"] == leader.stdout.split()


def test_a_signal_that_does_not_exist_is_an_error(sleeper: subprocess.Popen[bytes]) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        signal_group(identify(sleeper.pid), 4242)


def test_groups_are_signalled_without_the_flag_of_newer_kernels(
    family: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = signal.pidfd_send_signal

    def older(pidfd: int, signum: int, info: None = None, flags: int = 0) -> None:
        if flags:
            raise OSError(errno.EINVAL, "no such flag")
        real(pidfd, signum)

    monkeypatch.setattr(signal, "pidfd_send_signal", older)
    leader = start(("sh", "-c", FOREVER + "wait"))
    family.append(leader)
    wait_for(lambda: len(group_of(leader.pid)) == 3)

    signal_group(identify(leader.pid), signal.SIGTERM)

    wait_for(lambda: group_of(leader.pid) == [])


def test_groups_are_signalled_without_pidfds(
    family: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    leader = start(("sh", "-c", FOREVER + "wait"))
    family.append(leader)
    wait_for(lambda: len(group_of(leader.pid)) == 3)
    found = identify(leader.pid)

    signal_group(found, signal.SIGTERM)

    wait_for(lambda: group_of(leader.pid) == [])
    wait_for(lambda: state_of(leader.pid) == "Z")
    assert not is_running(found)
    with pytest.raises(ProcessLookupError):
        signal_group(found, 0)


async def test_an_empty_group_costs_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = start(SUCCESSFUL)
    found = identify(popen.pid)
    popen.wait(DEADLINE)

    def too_much(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(process, "read_stat", too_much)
    monkeypatch.setattr(process, "all_pids", too_much)
    ending = end_group(found)
    with pytest.raises(StopIteration) as returned:  # without one await
        ending.send(None)

    assert returned.value.value is True


@pytest.mark.parametrize("pidfds", [True, False])
async def test_what_is_left_in_the_group_is_ended_before_it_returns(
    family: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, pidfds: bool
) -> None:
    if not pidfds:
        monkeypatch.delattr(os, "pidfd_open")
    leader = start(("sh", "-c", "trap '' TERM; " + FOREVER + "exit 0"))
    family.append(leader)
    found = identify(leader.pid)
    leader.wait(DEADLINE)
    assert 2 == len(group_of(leader.pid))
    files = open_files()

    assert await end_group(found, DEADLINE) is True

    assert [] == group_of(leader.pid)
    assert files == open_files()


async def test_a_leader_that_nobody_reaped_is_not_waited_for(zombie: subprocess.Popen[bytes]) -> None:
    assert await end_group(identify(zombie.pid), DEADLINE) is True


async def test_a_group_that_does_not_end_in_time_is_told(
    family: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = start(("sh", "-c", FOREVER + "exit 0"))
    family.append(leader)
    found = identify(leader.pid)
    leader.wait(DEADLINE)
    real = os.killpg
    monkeypatch.setattr(
        os, "killpg", lambda group, signum: real(group, 0)
    )  # as if they hung in a system call

    assert await end_group(found, 0.05) is False

    assert 2 == len(group_of(leader.pid))


async def test_a_group_whose_number_is_another_process_now_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    found = identify(sleeper.pid)

    assert await end_group(replace(found, start_time=found.start_time - 1)) is True

    assert sleeper.poll() is None


@pytest.mark.parametrize("pid", [0, 1])
async def test_no_group_is_everybody(pid: int) -> None:
    assert await end_group(ProcessId(pid, 1, current_boot_id())) is True


def test_an_escapee_is_found_by_its_mark(family: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {note}; exec sleep 600' & wait"
    leader = start(("sh", "-c", script), env={"PATH": os.environ["PATH"], "MARK": "one/kernel/3"})
    family.append(leader)
    wait_for(lambda: note.exists() and note.read_text().strip())
    escapee = int(note.read_text())
    try:
        wait_for(lambda: name_of(escapee) == "sleep")
        found = identify(leader.pid)
        signal_group(found, signal.SIGKILL)
        leader.wait(DEADLINE)
        asyncio.run(end_group(found))

        assert [identify(escapee)] == marked_processes("MARK", "one/kernel/3")
        assert [] == marked_processes("MARK", "one/kernel/")
        assert [] == marked_processes("ARK", "one/kernel/3")
    finally:
        os.kill(escapee, signal.SIGKILL)
    wait_for(lambda: state_of(escapee) in {"", "Z"})
    assert [] == marked_processes("MARK", "one/kernel/3")
