"""One supervisor at a time on a state directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.disk.lock import AlreadyLocked, StateLock

HOLD = """
import sys
from pathlib import Path
from supervisor.disk.lock import StateLock
lock = StateLock(Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_the_second_is_told_the_pid_of_the_first(path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert b"held\n" == holder.stdout.readline()
    before = descriptors()

    with pytest.raises(AlreadyLocked) as refused:
        StateLock(path).take()

    assert holder.pid == refused.value.pid
    where = path.parent
    told = f"cannot lock state directory {where}: a daemon runs already (pid {holder.pid})"
    assert told == str(refused.value)
    assert before == descriptors()
    holder.kill()
    holder.communicate()
    StateLock(path).take()


def test_a_lock_that_was_let_go_can_be_taken_again(path: Path) -> None:
    first, second = StateLock(path), StateLock(path)
    before = descriptors()
    first.take()
    first.release()
    first.release()

    second.take()

    assert f"{os.getpid()}\n" == path.read_text()
    second.release()
    assert before == descriptors()


def test_one_whose_file_was_removed_is_taken_anew_unless_another_came_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = StateLock(path), StateLock(path)
    before = descriptors()
    first.take()
    assert first.is_in_place()

    path.unlink()
    assert not first.is_in_place()
    first.take()
    assert first.is_in_place()

    path.unlink()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getpid", lambda: 1)
        second.take()
    assert not first.is_in_place()
    with pytest.raises(AlreadyLocked):
        first.take()
    first.release()
    second.release()
    assert before == descriptors()


def test_one_that_is_taken_a_second_time_by_its_holder_stays_his(path: Path) -> None:
    first = StateLock(path)
    first.take()
    before = descriptors()

    first.take()  # it could not be looked at for a moment, say (stat(2), ESTALE)

    assert before == descriptors()
    with pytest.raises(AlreadyLocked):
        StateLock(path).take()
    first.release()


def test_a_holder_that_did_not_tell_its_pid_holds_it_all_the_same(path: Path) -> None:
    lock = StateLock(path)
    lock.take()
    path.write_text("")

    with pytest.raises(AlreadyLocked) as refused:
        StateLock(path).take()

    assert None is refused.value.pid
    assert str(refused.value).endswith("a daemon runs already")
    lock.release()


def test_without_the_directory_there_is_no_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StateLock(tmp_path / "nowhere" / "lock").take()
