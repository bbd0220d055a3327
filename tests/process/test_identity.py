"""Which process is meant, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from supervisor.core.model import ProcessId
from supervisor.process import group as process
from supervisor.process import identity
from supervisor.process.group import continue_group, end_group, marked_processes, signal_group
from supervisor.process.identity import has_ended, identify, is_running, open_pidfd
from tests.kernel.programs import SLEEPER, end, name_of, open_files, start, state_of
from tests.waiting import DEADLINE, wait_for


def test_an_identity_is_pid_start_time_and_boot(sleeper: subprocess.Popen[bytes]) -> None:
    found = identify(sleeper.pid)

    fields = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert ProcessId(sleeper.pid, int(fields[19]), boot_id) == found
    assert identify(sleeper.pid) == found


def test_the_boot_is_read_once_and_the_handlers_of_a_process_each_time() -> None:
    assert identity.current_boot_id() is identity.current_boot_id()
    program = (
        "import signal\nprint(flush=True)\ninput()\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\nprint(flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdout.readline()
        assert not identity.catches(identify(popen.pid), signal.SIGUSR1)
        popen.stdin.write(b"\n")
        popen.stdin.flush()
        popen.stdout.readline()
        assert identity.catches(identify(popen.pid), signal.SIGUSR1)
        popen.communicate()


def test_a_program_whose_name_looks_like_a_stat_line_is_identified(tmp_path: Path) -> None:
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    popen = start((str(program), "600"))
    try:
        assert is_running(identify(popen.pid))
    finally:
        end(popen)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
def test_a_pid_without_a_process_has_no_identity(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        identify(pid)


def test_the_id_of_a_thread_is_no_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        os.kill(thread.native_id, 0)
        with pytest.raises(ProcessLookupError):
            identify(thread.native_id)
    finally:
        done.set()
        thread.join()


def test_psutil_tells_the_same_process_apart_where_there_is_no_proc(
    sleeper: subprocess.Popen[bytes], zombie: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "LINUX", False)
    found = identify(sleeper.pid)

    assert found == identify(sleeper.pid)
    assert is_running(found)
    assert not is_running(replace(found, start_time=found.start_time + 1))
    assert not is_running(identify(zombie.pid))
    assert not is_running(replace(found, pid=2**22 + 1))


def test_a_process_runs_until_it_is_a_zombie() -> None:
    popen = start(SLEEPER)
    found = identify(popen.pid)
    assert is_running(found)

    popen.kill()
    wait_for(lambda: state_of(popen.pid) == "Z")

    assert not is_running(found)
    popen.wait(DEADLINE)
    assert not is_running(found)


def test_a_process_whose_main_thread_has_ended_still_runs() -> None:
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    popen = start((sys.executable, "-I", "-S", "-c", script))
    try:
        wait_for(lambda: state_of(popen.pid) == "Z")

        assert is_running(identify(popen.pid))
    finally:
        end(popen)


def test_a_zombie_has_an_identity_and_a_pidfd_and_has_ended(zombie: subprocess.Popen[bytes]) -> None:
    pidfd = open_pidfd(identify(zombie.pid))

    assert has_ended(pidfd)
    os.close(pidfd)


@pytest.mark.parametrize("difference", [{"start_time": 1}, {"boot_id": "another"}])
def test_another_process_with_the_same_pid_is_not_touched(
    sleeper: subprocess.Popen[bytes], difference: dict[str, object]
) -> None:
    other = replace(identify(sleeper.pid), **difference)  # type: ignore[arg-type]
    files = open_files()

    with pytest.raises(ProcessLookupError):
        open_pidfd(other)
    with pytest.raises(ProcessLookupError):
        signal_group(other, signal.SIGKILL)
    with pytest.raises(ProcessLookupError):
        continue_group(other)
    assert not is_running(other)
    assert asyncio.run(end_group(other)) is True
    assert files == open_files()
    assert sleeper.poll() is None


def test_psutil_finds_marks_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    leader = start(SLEEPER, env={"PATH": os.environ["PATH"], "MARK": "psutil"})
    try:
        wait_for(lambda: name_of(leader.pid) == "sleep")
        monkeypatch.setattr(identity, "LINUX", False)
        monkeypatch.setattr(process, "LINUX", False)

        assert [leader.pid] == [found.pid for found in marked_processes("MARK", "psutil")]
    finally:
        end(leader)
