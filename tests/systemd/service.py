"""What the checks in the container ask, order and wait for.

Standard library only: it runs with the container's own Python.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

PROGRAM = os.environ.get("CHECKS_PROGRAM", "/opt/kernel-supervisor/bin/kernel-supervisor")
DEADLINE = float(os.environ.get("CHECKS_DEADLINE", "60"))
T = TypeVar("T")
SETTINGS = Path("/etc/kernel-supervisor")
CGROUPS = Path("/sys/fs/cgroup")

TWO_KERNELS = """\
[kernels.analysis]
kernelspec = "python3"
[kernels.robot]
kernelspec = "python3"
"""
BAD = TWO_KERNELS + "[kernels.third]\nkernelspec = 3\n"
ACCOUNT = "kernel-supervisor"
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Add a check to those that are made, in this order."""
    CHECKS.append(function)
    return function


class Skipped(Exception):
    """A check that cannot be made here, and why."""


def run(*command: str, expect: int | None = 0, env: dict[str, str] | None = None) -> str:
    """Run a command; its output.  Any exit status is right where ``expect`` is ``None``."""
    done = subprocess.run(
        command,
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat", **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE * 2,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    assert expect is None or done.returncode == expect, f"{command}: status {done.returncode}: {text}"
    return text


def until(what: str, look: Callable[[], T | None], deadline: float = DEADLINE) -> T:
    """Look until there is something; what it is."""
    end = time.monotonic() + deadline
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(0.1)


class Service:
    """One unit, of the system's systemd or of a user's."""

    def __init__(self, name: str, *, user: str | None = None, client: tuple[str, ...] = ()) -> None:
        self.name = name
        self._user = user
        self._client = client

    # systemd

    def as_user(self, *command: str, expect: int | None = 0) -> str:
        """Run a command as the owner of the manager."""
        words, env = self._as_user(command)
        return run(*words, expect=expect, env=env)

    def _as_user(self, command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        if self._user is None:
            return [*command], {}
        account = pwd.getpwnam(self._user)
        session = {"XDG_RUNTIME_DIR": f"/run/user/{account.pw_uid}", "HOME": account.pw_dir}
        return ["runuser", "-u", self._user, "--", *command], session

    @contextmanager
    def by_hand(self, *command: str) -> Iterator[dict[str, int]]:
        """The daemon run by a command, for as long as it is needed; its kernels, once they run."""
        words, env = self._as_user(command)
        process = subprocess.Popen(words, env={**os.environ, **env}, stdin=subprocess.DEVNULL)
        try:
            until("its door is open", lambda: "kernels" in self.ask("status", "--json", expect=None))
            yield self.pids()
            self.ask("shutdown")
            process.wait(DEADLINE)
        finally:
            process.kill()
            process.wait()

    def systemctl(self, verb: str, *arguments: str, expect: int | None = 0) -> str:
        """``systemctl VERB UNIT``."""
        manager = ["--user"] if self._user else []
        return self.as_user("systemctl", *manager, verb, self.name, *arguments, expect=expect)

    def show(self, key: str) -> str:
        """A property of the unit."""
        return self.systemctl("show", f"--property={key}", "--value").strip()

    @property
    def pid(self) -> int:
        """The daemon."""
        return int(self.show("MainPID"))

    def is_active(self) -> bool:
        """Whether the unit is up, that is, READY."""
        return self.show("ActiveState") == "active"

    def wait_another_daemon(self, than: int) -> None:
        """Wait until systemd has started the daemon anew."""
        until("another daemon", lambda: self.pid not in (0, than) and self.is_active())

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The entries of the journal that match, as ``journalctl`` finds them."""
        manager = ["--user"] if self._user else []
        text = self.as_user("journalctl", *manager, "--sync", expect=None)
        text = self.as_user("journalctl", *manager, "--output=json", "--no-pager", "--quiet", *matches)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    # The daemon

    def ask(self, *words: str, expect: int | None = 0) -> str:
        """The command line, asking this service's daemon."""
        return self.as_user(PROGRAM, words[0], *self._client, *words[1:], expect=expect)

    def kernels(self) -> dict[str, dict[str, Any]]:
        """What ``status`` tells, by kernel."""
        return {view["name"]: view for view in json.loads(self.ask("status", "--json"))["kernels"]}

    def cgroups(self) -> str:
        """Whether kernels get cgroups of their own, and limits."""
        return str(json.loads(self.ask("status", "--json"))["cgroups"]["state"])

    def pids(self) -> dict[str, int]:
        """The processes of the kernels, once all of them run."""

        def look() -> dict[str, int] | None:
            views = self.kernels()
            running = all(view["phase"] == "running" for view in views.values())
            return {name: view["pid"] for name, view in views.items()} if running else None

        return until(f"all kernels of {self.name} run", look)

    def settle(self) -> dict[str, int]:
        """Have the service up with its two kernels, whatever the check before left."""
        write(TWO_KERNELS)
        if not self.is_active():
            self.systemctl("reset-failed", expect=None)
            self.systemctl("start")
        self.systemctl("reload")
        self.ask("reset", "analysis", "robot")
        return self.pids()

    def crash(self) -> None:
        """End the daemon with SIGKILL, and wait for the next one."""
        daemon = self.pid
        os.kill(daemon, 9)
        self.wait_another_daemon(daemon)

    def drop_in(self, text: str) -> None:
        """Other settings for the unit, as ``systemctl edit`` makes them; ``""`` takes them back."""
        file = Path(f"/run/systemd/system/{self.name}.service.d/checks.conf")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        run("systemctl", "daemon-reload")


SUPERVISOR = Service(ACCOUNT)


def alice(unit: str) -> Service:
    """A service of a user, who has no rights but her own."""
    if not Path("/home/alice").exists():
        run("useradd", "--create-home", "--shell", "/bin/bash", "alice")
    run("loginctl", "enable-linger", "alice")  # also if another check has made her
    instance = unit.partition("@")[2]
    directory = f"kernel-supervisor-{instance}" if instance else "kernel-supervisor"
    client = ("--socket", f"/run/user/{Path('/home/alice').stat().st_uid}/{directory}/control.sock")
    hers = Service(unit, user="alice", client=client)
    until(
        "her systemd",
        lambda: "running" in hers.as_user("systemctl", "--user", "is-system-running", expect=None),
    )
    hers.as_user("mkdir", "-p", "/home/alice/.config/kernel-supervisor")
    return hers


def write(text: str, name: str = "kernels") -> None:
    """Write a configuration, whole or not at all; a slow machine is given its time."""
    SETTINGS.mkdir(exist_ok=True)
    new = SETTINGS / f".{name}"
    new.write_text(f"[defaults]\nstart_timeout = {DEADLINE}\n{text}")
    new.rename(SETTINGS / f"{name}.toml")


def best_cgroups() -> str:
    """The best state that this systemd gives to a service."""
    if not (CGROUPS / "cgroup.controllers").exists():
        return "none"
    version = int(run("systemctl", "--version").split()[1].split("~")[0])
    return "enforced" if version >= 254 else "tracking"


def cgroup_of(pid: int) -> Path:
    """The directory of the cgroup of a process."""
    return CGROUPS / Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::/")[2]


def is_there(pid: int) -> bool:
    """Whether a process lives; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def processes_of(account: str) -> list[int]:
    """The processes of an account."""
    uid = pwd.getpwnam(account).pw_uid
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers if _owner(pid) == uid and is_there(pid)]


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
