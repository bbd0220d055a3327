"""Other accounts of this machine: who they are, and being one for a moment, in one thread."""

from __future__ import annotations

import os
import platform
import pwd
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from supervisor.process.account import Account, account_of, acting, expand, may, uid_of

NOBODY = pwd.getpwnam("nobody")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@pytest.fixture
def nobody() -> Account:
    found = account_of("nobody")
    assert found is not None
    return found


@as_root
def test_an_account_is_as_the_system_has_it_and_ours_is_none(nobody: Account) -> None:
    assert (NOBODY.pw_uid, NOBODY.pw_gid, NOBODY.pw_dir) == (nobody.uid, nobody.gid, nobody.home)
    assert NOBODY.pw_gid in nobody.groups
    assert account_of(None) is account_of("root") is None
    assert (0, NOBODY.pw_uid, None) == (uid_of(None), uid_of("nobody"), uid_of("no such user"))
    with pytest.raises(KeyError):
        account_of("no such user")


@as_root
def test_its_environment_has_nothing_of_ours_but_where_programs_are_and_how_we_speak(
    nobody: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TOKEN", "s3cret"), ("LC_TIME", "C"), ("XDG_RUNTIME_DIR", "/run/user/0")):
        monkeypatch.setenv(name, value)

    found = nobody.environment()

    assert {"LC_TIME", "PATH", "HOME", "USER", "LOGNAME", "SHELL"} <= set(found)
    assert not {"TOKEN", "XDG_RUNTIME_DIR"} & set(found)
    assert (NOBODY.pw_dir, "nobody") == (found["HOME"], found["USER"])
    assert f"{NOBODY.pw_dir}/x" == expand("~/x", nobody)
    assert "/root" == expand("~root", nobody)


@as_root
def test_while_a_thread_acts_it_sees_and_makes_files_as_the_account_does(
    nobody: Account, open_path: Path
) -> None:
    tmp_path = open_path
    tmp_path.chmod(0o777)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with acting(nobody):
        (tmp_path / "made").write_text("x")
        assert not may(closed, os.X_OK)
        with pytest.raises(PermissionError):
            list(closed.iterdir())
        with pytest.raises(PermissionError):
            Path("/etc/shadow").read_bytes()

    with acting(nobody):
        with acting(account_of("daemon")):
            assert not may(closed, os.X_OK)
        assert not may(closed, os.X_OK), "it acts as the one before"
    assert (nobody.uid, nobody.gid) == ((tmp_path / "made").stat().st_uid, (tmp_path / "made").stat().st_gid)
    assert may(closed, os.X_OK)
    assert [] == list(closed.iterdir())


@as_root
def test_no_other_thread_is_affected_nor_is_this_one_afterwards_whatever_happens(nobody: Account) -> None:
    begun, seen = threading.Event(), threading.Event()

    def act() -> None:
        with acting(nobody):
            begun.set()
            seen.wait(30)

    def own_groups() -> str:
        status = Path("/proc/thread-self/status").read_text()
        return "".join(
            line for line in status.splitlines() if line.startswith(("Uid", "Gid", "Groups", "CapE"))
        )

    before = own_groups()
    thread = threading.Thread(target=act)
    thread.start()
    begun.wait(30)
    assert Path("/etc/shadow").read_bytes()
    seen.set()
    thread.join(30)
    with pytest.raises(ZeroDivisionError), acting(nobody):
        raise ZeroDivisionError
    assert before == own_groups()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of tgkill(2) is that of x86_64")
@as_root
def test_the_account_cannot_signal_a_thread_that_acts_as_it(nobody: Account) -> None:
    with acting(nobody):
        ours = f"{os.getpid()} {threading.get_native_id()}"
    script = f"""
import ctypes, sys
pid, tid = map(int, {ours!r}.split())
libc = ctypes.CDLL(None, use_errno=True)
sys.exit((libc.syscall(234, pid, tid, 0), ctypes.get_errno()) != (-1, 1))  # tgkill(2): EPERM
"""
    with acting(nobody):
        done = subprocess.run(["/usr/bin/python3", "-c", script], check=False, **nobody.popen_options())

    assert 0 == done.returncode


@as_root
def test_a_process_of_it_has_none_of_our_rights_left(nobody: Account) -> None:
    with acting(nobody):
        told = subprocess.run(
            ["cat", "/proc/self/status"],
            check=True,
            capture_output=True,
            text=True,
            cwd="/",
            **nobody.popen_options(),
        ).stdout
    fields = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)

    assert {str(nobody.uid)} == set(fields["Uid"].split())
    assert {str(nobody.gid)} == set(fields["Gid"].split())
    assert set(map(str, nobody.groups)) == set(fields["Groups"].split())
    assert {"0" * 16} == {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}


def test_acting_as_nobody_else_is_nothing() -> None:
    with acting(None), socket.socket():
        assert may("/", os.X_OK)
