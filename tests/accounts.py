"""Two accounts of this machine that can do nothing to each other, for as long as a test needs them.

Owns their making and their end.  Only root can make accounts: elsewhere the tests say so and are skipped.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.waiting import wait_for

FIRST_UID = 200_000
_NUMBERS = itertools.count()
PACKAGES = f"{sysconfig.get_path('purelib')}:{Path(__file__).parents[1]}"


@contextmanager
def made_accounts(*names: str) -> Iterator[list[pwd.struct_passwd]]:
    """Accounts of these names with homes of their own, made and removed; else the test is skipped."""
    if os.geteuid() != 0 or sys.platform != "linux" or not shutil.which("useradd"):
        pytest.skip("accounts are made by root, with useradd")
    names = tuple(f"ks-{name}-{os.getpid()}" for name in names)
    homes = Path(mkdtemp(prefix="ks-homes-"))
    homes.chmod(0o755)
    try:
        for name in names:
            # In the end all of theirs is killed: nobody else, in a container say, is to have the number.
            uid = FIRST_UID + 100 * os.getpid() + next(_NUMBERS)
            words = [
                "--uid",
                str(uid),
                "--create-home",
                "--base-dir",
                str(homes),
                "--key",
                "HOME_MODE=0700",
                "--user-group",
            ]
            _retried("useradd", *words, "--shell", "/bin/sh", name)
        made = [pwd.getpwnam(name) for name in names]
        find_python(made[0])
        yield made
    finally:
        for name in names:
            _remove(name)
        shutil.rmtree(homes)


def find_python(account: pwd.struct_passwd) -> str:
    """An interpreter that the account can run, with our ``PACKAGES``; else the test is skipped."""
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            if (
                as_account(account, program, "-c", "import ipykernel, zmq.backend, supervisor").returncode
                == 0
            ):
                return program
        except PermissionError:
            continue
    pytest.skip("the interpreter, or this checkout, can be read by root alone")


@contextmanager
def made_group(name: str, *members: str) -> Iterator[str]:
    """A group with these members."""
    name = f"ks-{name}-{os.getpid()}"
    _retried("groupadd", name)
    try:
        for member in members:
            _retried("usermod", "--append", "--groups", name, member)
        yield name
    finally:
        _retried("groupdel", name)


def as_account(
    account: pwd.struct_passwd, *command: str, cwd: str = "/", **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as the account would that has logged in."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": account.pw_dir, "USER": account.pw_name, "PYTHONPATH": PACKAGES}
        | env,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _remove(name: str) -> None:
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    wait_for(lambda: not _kill_all(uid), f"nothing of {name} lives")
    _retried("userdel", "--force", name)  # also where init has not reaped what it ran


def _kill_all(uid: int) -> bool:
    """Kill what the account runs; whether there was anything."""
    found = False
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _is_of(entry, uid):
            found = True
            os.kill(int(entry.name), 9)
    return found


def _is_of(process: Path, uid: int) -> bool:
    try:
        status = (process / "status").read_text()
        state, uids = (
            next(line for line in status.splitlines() if line.startswith(k)) for k in ("State", "Uid")
        )
    except (OSError, StopIteration):
        return False
    return "Z" not in state and str(uid) in uids.split()[1:]


def _retried(*command: str) -> None:
    """Run a command that others may run at the same time: one of them has the lock on /etc/passwd."""

    done: list[subprocess.CompletedProcess[str]] = []

    def run() -> bool:
        done[:] = [subprocess.run(command, capture_output=True, text=True, check=False)]
        return done[0].returncode == 0

    wait_for(run, lambda: f"{command} works: {done[0].stderr}")
