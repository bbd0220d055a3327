"""Return codes in words, and the evidence of the OOM killer."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest

from supervisor.core.model import Cause, Exit, ProcessId
from supervisor.process.exit import (
    OomWatch,
    describe_exit,
    stranger_returncode,
    stranger_wait_status,
    wait_exit,
)
from supervisor.process.identity import has_ended, identify, open_pidfd
from tests.kernel.programs import (
    EXITS_7,
    SLEEPER,
    SUCCESSFUL,
    TELLS_STRANGERS,
    Stranger,
    open_files,
)
from tests.waiting import DEADLINE, wait_for

PID = 4242


PROCESS = ProcessId(PID, 1, "boot")


@pytest.mark.parametrize("code", [0, 1, 7, 137, 255])
def test_an_exit_code_is_an_exit(code: int) -> None:
    assert Exit(Cause.EXITED, code=code) == describe_exit(code)
    assert Exit(Cause.EXITED, code=code) == describe_exit(code, oom=True)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGSYS", "SIGTRAP"])
def test_a_fault_is_a_crash(name: str) -> None:
    assert Exit(Cause.CRASHED, signal=name) == describe_exit(-getattr(signal, name), oom=True)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU", "SIGPIPE"])
def test_another_signal_is_a_killing(name: str) -> None:
    assert Exit(Cause.KILLED, signal=name) == describe_exit(-getattr(signal, name))


def test_sigkill_with_evidence_is_oom() -> None:
    assert Exit(Cause.OOM, signal="SIGKILL") == describe_exit(-signal.SIGKILL, oom=True)
    assert Exit(Cause.KILLED, signal="SIGTERM") == describe_exit(-signal.SIGTERM, oom=True)


def test_what_nobody_knows_is_unknown_unless_there_is_evidence() -> None:
    assert Exit(Cause.UNKNOWN) == describe_exit(None)
    assert Exit(Cause.OOM) == describe_exit(None, oom=True)


def test_output_is_kept() -> None:
    expected = Exit(Cause.EXITED, code=1, output_tail=("a", "b"))

    assert expected == describe_exit(1, output_tail=["a", "b"])


class Machine:
    """A small tree of /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / str(PID)).mkdir(parents=True)

    def place(self, lines: str) -> None:
        (self.proc / str(PID) / "cgroup").write_text(lines)

    def count(self, file: str, kills: int) -> None:
        path = self.cgroups / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"low 0\noom 9\noom_kill {kills}\n")

    def watch(self) -> OomWatch:
        return OomWatch(PROCESS, cgroups=self.cgroups, proc=self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


V1 = "9:name=systemd:/\n4:cpu,memory:/user/kernels\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ("0::/app/kernels\n", "app/kernels/memory.events.local"),
        ("0::/app/kernels\n", "app/kernels/memory.events"),
        ("0::/app/kernels\n", "app/memory.events"),  # the memory controller is off below
        ("0::/\n", "memory.events"),  # the root of a container
        ("9:name=systemd:/\n0::/app/kernels\n", "unified/app/kernels/memory.events"),
        (V1, "memory/user/kernels/memory.oom_control"),
        (V1, "memory/memory.oom_control"),  # a container sees its own cgroup as the root
    ],
)
def test_a_new_oom_kill_in_the_cgroup_is_evidence(machine: Machine, lines: str, file: str) -> None:
    machine.place(lines)
    machine.count(file, 3)
    watch = machine.watch()
    assert watch.struck() is False

    machine.count(file, 4)

    assert watch.struck(-signal.SIGKILL) is True


def test_a_kill_explains_one_death_only(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    first, second, third = machine.watch(), machine.watch(), machine.watch()

    machine.count("app/memory.events", 2)

    assert [True, True, False] == [first.struck(), second.struck(), third.struck()]
    machine.count("app/memory.events", 3)
    assert third.struck() is True


def test_another_death_leaves_the_evidence(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    watch = machine.watch()
    machine.count("app/memory.events", 1)

    assert [False, False] == [watch.struck(code) for code in (0, -signal.SIGTERM)]
    assert watch.struck(None) is True, "an adopted process, of which the status is not known"
    assert watch.struck(-signal.SIGKILL) is False, "a count is evidence once"


def test_what_struck_somebody_else_before_is_no_evidence(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    watch = machine.watch()
    machine.count("app/memory.events", 1)

    watch.renew(lambda: True)

    assert watch.struck() is False


def test_a_kill_that_came_while_the_count_was_read_is_evidence(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    watch = machine.watch()

    def struck_meanwhile() -> bool:
        machine.count("app/memory.events", 1)
        return True

    watch.renew(struck_meanwhile)

    assert watch.struck() is True


def test_what_is_counted_after_its_end_is_evidence_however_often_it_is_looked_at(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    watch = machine.watch()
    machine.count("app/memory.events", 1)

    watch.renew(lambda: False)

    assert watch.struck() is True


@pytest.mark.parametrize("lines", ["0::/app\n", "0::/../outside\n", "", "4:memory:/nowhere\n", "nonsense\n"])
def test_without_a_count_there_is_no_evidence(machine: Machine, lines: str) -> None:
    machine.place(lines)

    assert machine.watch().struck() is False


def test_a_count_that_goes_away_is_no_evidence(machine: Machine) -> None:
    machine.place("0::/app\n")
    machine.count("app/memory.events", 0)
    watch = machine.watch()

    (machine.cgroups / "app/memory.events").unlink()

    assert watch.struck() is False


def test_a_process_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert OomWatch(PROCESS, cgroups=tmp_path, proc=tmp_path).struck() is False


async def test_several_tasks_wait_for_one_pidfd_and_may_be_cancelled(
    sleeper: subprocess.Popen[bytes],
) -> None:
    pidfd = open_pidfd(identify(sleeper.pid))
    files = open_files()
    waiting = [asyncio.create_task(wait_exit(pidfd)) for _ in range(3)]
    await asyncio.wait(waiting, timeout=0.02)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    assert [False, True, False] == [task.done() for task in waiting]

    sleeper.kill()

    await asyncio.wait_for(asyncio.gather(waiting[0], waiting[2]), DEADLINE)
    await wait_exit(pidfd)
    assert files == open_files()
    os.close(pidfd)


async def test_a_wait_goes_on_when_its_pidfd_is_closed(sleeper: subprocess.Popen[bytes]) -> None:
    pidfd = open_pidfd(identify(sleeper.pid))
    waiting = asyncio.create_task(wait_exit(pidfd))
    await asyncio.wait([waiting], timeout=0.02)

    os.close(pidfd)
    sleeper.kill()

    await asyncio.wait_for(waiting, DEADLINE)


@pytest.mark.skipif(not TELLS_STRANGERS, reason="Linux tells how strangers ended since 6.15")
@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (SUCCESSFUL, 0),
        (EXITS_7, 7),
        (("sh", "-c", "exit 255"), 255),
        (("sh", "-c", "kill -KILL $$"), -signal.SIGKILL),
        (("sh", "-c", "kill -SEGV $$"), -signal.SIGSEGV),
    ],
)
async def test_the_exit_status_of_a_stranger_is_told_before_and_after_its_parent_has_reaped_it(
    argv: tuple[str, ...], expected: int
) -> None:
    stranger = Stranger(argv, reap=False)
    try:
        pidfd = open_pidfd(identify(stranger.pid))
        wait_for(lambda: has_ended(pidfd))

        assert expected == await stranger_returncode(pidfd, 0.0)
        stranger.reap()

        assert expected == await stranger_returncode(pidfd, DEADLINE)
        assert expected == stranger_wait_status(pidfd)
        os.close(pidfd)
    finally:
        stranger.close()


@pytest.mark.parametrize("error", [errno.ENOTTY, errno.ESRCH])
async def test_an_older_kernel_tells_of_a_reaped_stranger_nothing_and_is_not_asked_twice(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    asked = []

    def refuse(*arguments: object) -> bytes:
        asked.append(arguments)
        raise OSError(error, "older")

    stranger = Stranger(SLEEPER)
    try:
        pidfd = open_pidfd(identify(stranger.pid))
        os.kill(stranger.pid, signal.SIGKILL)
        wait_for(lambda: not is_there(stranger.pid))
        monkeypatch.setattr(fcntl, "ioctl", refuse)

        assert await stranger_returncode(pidfd) is None
        assert 1 == len(asked)
        assert stranger_wait_status(pidfd) is None
        os.close(pidfd)
    finally:
        stranger.close()


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
