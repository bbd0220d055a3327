"""The checks made in the container, one after the other, under a real systemd.

Each is a function whose name is the sentence that is true.  They run with the
container's own Python and the standard library; ``test_in_a_container`` tells
what came of them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from service import (
    PROGRAM,
    SETTINGS,
    TWO_KERNELS,
    Service,
    Skipped,
    is_there,
    processes_of,
    run,
    until,
    write,
)

CHECKS: list[Callable[[], None]] = []
ACCOUNT = "kernel-supervisor"
SUPERVISOR = Service("kernel-supervisor")
BAD = TWO_KERNELS + "[kernels.third]\nkernelspec = 3\n"


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Add a check to those that are made, in this order."""
    CHECKS.append(function)
    return function


# Installation


@check
def the_steps_that_install_tells_bring_the_service_up() -> None:
    write(TWO_KERNELS)

    told = run(PROGRAM, "systemd", "install")

    assert Path("/units/kernel-supervisor.service").read_text() == _installed("kernel-supervisor.service")
    steps = re.findall(r"^  (\S.*)$", told, re.MULTILINE)
    assert any(step.startswith("useradd") for step in steps), told
    for step in steps:
        command = shlex.split(step, comments=True)
        if command[0] != "journalctl":  # which does not end
            run(*command)
    # systemctl has just returned from the start, so READY was told: the door is open, the orders are out.
    assert {"starting", "running"} >= {view["phase"] for view in SUPERVISOR.kernels().values()}
    assert {"analysis", "robot"} == SUPERVISOR.pids().keys()


def _installed(name: str) -> str:
    return (Path("/etc/systemd/system") / name).read_text()


@check
def systemd_finds_nothing_wrong_with_the_units() -> None:
    run(PROGRAM, "systemd", "install", "--instance", "team")

    for unit in ("kernel-supervisor.service", "kernel-supervisor@team.service"):
        assert "" == run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{unit}")
    home = {"XDG_RUNTIME_DIR": "/run", "HOME": "/root"}
    for unit in ("kernel-supervisor.service", "kernel-supervisor@team.service"):
        source = Path("/units/user") / unit.replace("team", "")
        Path("/tmp", unit).write_text(source.read_text())
        assert "" == run("systemd-analyze", "--user", "verify", "--man=no", f"/tmp/{unit}", env=home)


@check
def the_kernels_run_as_the_account_and_their_files_are_its_own() -> None:
    pids = SUPERVISOR.settle()

    assert {*pids.values(), SUPERVISOR.pid} <= set(processes_of(ACCOUNT))
    for directory in ("/run/kernel-supervisor", "/var/lib/kernel-supervisor"):
        status = Path(directory).stat()
        assert 0o700 == status.st_mode & 0o777, directory
    assert Path("/run/kernel-supervisor/jupyter/kernel-analysis.json").is_file()
    code = "import os; print(os.getcwd(), sorted(n for n in os.environ if 'NOTIFY' in n or 'DIRECTORY' in n))"
    assert "/home/kernel-supervisor []" == SUPERVISOR.ask("exec", "analysis", code).strip()


@check
def user_code_finds_the_machine_as_it_is() -> None:
    SUPERVISOR.settle()
    Path("/srv/results").mkdir(exist_ok=True)
    Path("/srv/results").chmod(0o777)

    assert "it all works" == SUPERVISOR.ask("exec", "analysis", _USER_CODE).strip()
    assert Path("/tmp/seen-by-all").exists()


_USER_CODE = """
import ctypes, mmap, os, pathlib, socket, subprocess, tempfile, threading
from multiprocessing import shared_memory
pathlib.Path("/tmp/seen-by-all").touch()
for directory in ("~", "/srv/results", "/dev/shm", "/var/tmp"):
    path = os.path.join(os.path.expanduser(directory), "shared")
    os.mkdir(path)
    os.chmod(path, 0o2775)
    os.rmdir(path)
shared_memory.SharedMemory(create=True, size=4096).unlink()
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)()
assert socket.create_server(("127.0.0.1", 0)).getsockname()[1]
assert "x" == subprocess.run(["sh", "-c", "echo x"], capture_output=True, text=True).stdout.strip()
assert os.sched_setaffinity(0, os.sched_getaffinity(0)) is None
assert len([open("/dev/null") for _ in range(5000)]) == 5000
print("it all works")
"""


@check
def the_status_line_counts_the_kernels() -> None:
    SUPERVISOR.settle()

    until("STATUS", lambda: "2 running" == SUPERVISOR.show("StatusText"))

    assert 'Status: "2 running"' in SUPERVISOR.systemctl("status", "--no-pager")


# Reload


@check
def a_good_file_is_in_force_when_reload_returns() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    write(TWO_KERNELS + "[kernels.third]\nkernelspec = 'python3'\n")

    SUPERVISOR.systemctl("reload")

    assert "third" in SUPERVISOR.kernels()
    assert SUPERVISOR.is_active()
    assert pids.items() <= SUPERVISOR.pids().items()
    assert daemon == SUPERVISOR.pid


@check
def a_bad_file_makes_reload_fail_and_nothing_else() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    write(BAD)

    SUPERVISOR.systemctl("reload", expect=1)

    assert SUPERVISOR.is_active()
    assert (pids, daemon) == (SUPERVISOR.pids(), SUPERVISOR.pid)
    assert any("kernels.third.kernelspec" in str(entry["MESSAGE"]) for entry in SUPERVISOR.journal())
    until("STATUS", lambda: "2 running; the file has mistakes" == SUPERVISOR.show("StatusText"))
    write(TWO_KERNELS)
    SUPERVISOR.systemctl("reload")
    until("STATUS", lambda: "2 running" == SUPERVISOR.show("StatusText"))


@check
def a_file_that_is_no_toml_makes_reload_fail_as_well() -> None:
    pids = SUPERVISOR.settle()
    write("[kernels.analysis\n")

    SUPERVISOR.systemctl("reload", expect=1)

    assert SUPERVISOR.is_active()
    assert pids == SUPERVISOR.pids()


# The daemon goes, the kernels stay


class Remembered:
    """Kernels with a variable in them, before something happens to the daemon."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.pids = service.settle()
        self.token = str(time.monotonic_ns())
        self.files = self._connection_files()
        for name in self.pids:
            service.ask("exec", name, f"remembered = {self.token}")

    def check_is_kept(self) -> None:
        """Look whether processes, memory and addresses are as before."""
        assert self.pids == self.service.pids()
        assert self.files == self._connection_files()
        for name in self.pids:
            assert self.token == self.service.ask("exec", name, "print(remembered)").strip()

    def _connection_files(self) -> dict[str, bytes]:
        return {name: Path(self.service.ask("connection", name).strip()).read_bytes() for name in self.pids}


@check
def a_restart_keeps_pids_variables_and_ports() -> None:
    before, daemon = Remembered(SUPERVISOR), SUPERVISOR.pid

    SUPERVISOR.systemctl("restart")

    assert daemon != SUPERVISOR.pid
    before.check_is_kept()
    told = SUPERVISOR.journal("KERNEL_EVENT=kernel.adopted", "KERNEL=analysis")
    assert str(before.pids["analysis"]) == told[-1]["KERNEL_PID"]


@check
def ten_restarts_in_a_row_keep_them_too() -> None:
    before = Remembered(SUPERVISOR)

    for _ in range(10):
        SUPERVISOR.systemctl("restart")

    before.check_is_kept()


@check
def a_killed_daemon_is_back_and_has_its_kernels() -> None:
    before = Remembered(SUPERVISOR)

    SUPERVISOR.crash()

    before.check_is_kept()


@check
def a_daemon_that_hangs_is_ended_by_the_watchdog_and_tells_where_it_hung() -> None:
    SUPERVISOR.drop_in("[Service]\nWatchdogSec=3\n")
    SUPERVISOR.systemctl("restart")
    try:
        before, daemon = Remembered(SUPERVISOR), SUPERVISOR.pid

        os.kill(daemon, 19)  # SIGSTOP

        SUPERVISOR.wait_another_daemon(daemon)
        before.check_is_kept()
        told = [str(entry["MESSAGE"]) for entry in SUPERVISOR.journal(f"_PID={daemon}")]
        assert any("Fatal Python error: Aborted" in line for line in told), told
    finally:
        SUPERVISOR.drop_in("")


@check
def a_crash_with_a_bad_file_goes_on_with_what_was_in_force() -> None:
    before = Remembered(SUPERVISOR)
    write(BAD)

    SUPERVISOR.crash()

    before.check_is_kept()


@check
def a_detached_service_is_down_and_its_kernels_are_taken_up_by_the_next_start() -> None:
    before = Remembered(SUPERVISOR)

    SUPERVISOR.ask("detach")

    until("the service is down", lambda: "inactive" == SUPERVISOR.show("ActiveState"))
    assert all(map(is_there, before.pids.values()))
    SUPERVISOR.systemctl("start")
    before.check_is_kept()


# A kernel dies, the service goes on


@check
def a_killed_kernel_is_revived_and_the_service_goes_on() -> None:
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    restarts = SUPERVISOR.show("NRestarts")

    os.kill(pids["robot"], 9)

    until("another robot", lambda: SUPERVISOR.pids()["robot"] != pids["robot"])
    assert pids["analysis"] == SUPERVISOR.pids()["analysis"]
    assert (daemon, restarts) == (SUPERVISOR.pid, SUPERVISOR.show("NRestarts"))


@check
def the_journal_is_filtered_by_kernel_and_by_event() -> None:
    pids = SUPERVISOR.settle()
    os.kill(pids["analysis"], 9)
    until("another analysis", lambda: SUPERVISOR.pids()["analysis"] != pids["analysis"])

    of_kernel = SUPERVISOR.journal("KERNEL=analysis")
    deaths = SUPERVISOR.journal("KERNEL_EVENT=kernel.died", "KERNEL=analysis")

    assert {"kernel.starting", "kernel.ready", "kernel.died"} <= {line["KERNEL_EVENT"] for line in of_kernel}
    assert {"analysis"} == {line["KERNEL"] for line in of_kernel}
    assert ("SIGKILL", "killed") == (deaths[-1]["KERNEL_SIGNAL"], deaths[-1]["KERNEL_CAUSE"])
    assert str(pids["analysis"]) == deaths[-1]["KERNEL_PID"]
    assert "kernel-supervisor.service" == deaths[-1]["_SYSTEMD_UNIT"]


@check
def a_kernel_that_runs_out_of_memory_is_told_as_such_and_the_service_goes_on() -> None:
    assert "continue" == SUPERVISOR.show("OOMPolicy")
    group = Path("/sys/fs/cgroup") / SUPERVISOR.show("ControlGroup").lstrip("/")
    if not (group / "memory.max").exists():
        raise Skipped("no memory controller in this container: it needs a host with cgroups of version 2")
    pids, daemon = SUPERVISOR.settle(), SUPERVISOR.pid
    SUPERVISOR.systemctl("set-property", "--runtime", "MemoryMax=600M", "MemorySwapMax=0")
    try:
        SUPERVISOR.ask("exec", "robot", "x = bytearray(2_000_000_000)", expect=None)

        until("another robot", lambda: SUPERVISOR.pids()["robot"] != pids["robot"])
        assert daemon == SUPERVISOR.pid
        assert "oom" == SUPERVISOR.journal("KERNEL_EVENT=kernel.died", "KERNEL=robot")[-1]["KERNEL_CAUSE"]
    finally:
        SUPERVISOR.systemctl("set-property", "--runtime", "MemoryMax=infinity")


# Stop


def _assert_all_gone(pids: dict[str, int]) -> None:
    assert ("inactive", "success") == (SUPERVISOR.show("ActiveState"), SUPERVISOR.show("Result"))
    assert [] == [pid for pid in pids.values() if is_there(pid)]
    assert [] == processes_of(ACCOUNT)
    assert not list(Path("/run/kernel-supervisor/jupyter").glob("kernel-*.json"))


@check
def stop_ends_every_kernel() -> None:
    pids = SUPERVISOR.settle()

    SUPERVISOR.systemctl("stop")

    _assert_all_gone(pids)


@check
def stop_ends_the_kernels_of_a_daemon_that_crashed_as_well() -> None:
    pids = SUPERVISOR.settle()
    SUPERVISOR.crash()

    SUPERVISOR.systemctl("stop")

    _assert_all_gone(pids)


@check
def a_stop_that_meets_a_daemon_on_its_way_up_after_a_crash_ends_them_too() -> None:
    pids, crashed = SUPERVISOR.settle(), SUPERVISOR.pid
    os.kill(crashed, 9)
    daemon = until("another daemon", lambda: SUPERVISOR.pid if SUPERVISOR.pid != crashed else 0)
    until("it has begun", lambda: _holds_back(daemon, 15))  # SIGTERM

    SUPERVISOR.systemctl("stop")

    _assert_all_gone(pids)


def _holds_back(pid: int, signum: int) -> bool:
    """Whether a process has blocked a signal, or catches it."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = [int(mask, 16) for mask in re.findall(r"^Sig(?:Blk|Cgt):\s+(\w+)$", status, re.MULTILINE)]
    return any(mask >> (signum - 1) & 1 for mask in masks)


@check
def stop_waits_for_a_kernel_that_takes_longer_than_the_unit_allows() -> None:
    SUPERVISOR.settle()
    write(TWO_KERNELS.replace("[kernels.robot]", "[kernels.robot]\nstop_timeout = 30"))
    SUPERVISOR.systemctl("reload")
    SUPERVISOR.drop_in("[Service]\nTimeoutStopSec=3\n")
    try:
        pids = SUPERVISOR.pids()
        SUPERVISOR.ask("exec", "robot", "import atexit, time; atexit.register(time.sleep, 6)")

        begin = time.monotonic()
        SUPERVISOR.systemctl("stop")

        assert time.monotonic() - begin > 6, "it was given the time that it takes"
        _assert_all_gone(pids)
    finally:
        SUPERVISOR.drop_in("")


@check
def a_service_with_a_bad_file_does_not_start_and_is_not_tried_again() -> None:
    SUPERVISOR.settle()
    SUPERVISOR.systemctl("stop")
    write(BAD)

    SUPERVISOR.systemctl("start", expect=1)

    assert "failed" == SUPERVISOR.show("ActiveState")
    assert ("78", "0") == (SUPERVISOR.show("ExecMainStatus"), SUPERVISOR.show("NRestarts"))
    told = SUPERVISOR.journal("--unit=kernel-supervisor")
    assert any("kernels.third.kernelspec" in str(entry["MESSAGE"]) for entry in told[-12:])


# Instances, and users


@check
def an_instance_of_the_template_runs_beside_it_on_a_file_of_its_own() -> None:
    pids = SUPERVISOR.settle()
    socket = "/run/kernel-supervisor-team/control.sock"
    team = Service("kernel-supervisor@team", client=("--socket", socket))
    write('[kernels.analysis]\nkernelspec = "python3"\n', "team")
    team.systemctl("start")
    try:
        (pid,) = team.pids().values()
        assert pid not in pids.values()
        (SETTINGS / "team.toml").write_text("[kernels.analysis]\nkernelspec = 3\n")
        team.systemctl("reload", expect=1)
        (SETTINGS / "team.toml").write_text('[kernels.analysis]\nkernelspec = "python3"\n')
        team.systemctl("reload")
        team.systemctl("restart")
        assert {"analysis": pid} == team.pids()
        assert Path("/var/lib/kernel-supervisor-team/kernels").is_dir()
    finally:
        team.systemctl("stop")
    assert not is_there(pid)
    assert pids == SUPERVISOR.pids()


@check
def a_user_installs_and_runs_it_without_root() -> None:
    alice = _alice("kernel-supervisor")
    alice.as_user("mkdir", "-p", "/home/alice/.config/kernel-supervisor")
    _write_as_alice("kernels")

    told = alice.as_user(PROGRAM, "systemd", "install", "--user")

    assert "/home/alice/.config/systemd/user/kernel-supervisor.service is written" in told
    alice.as_user("systemctl", "--user", "daemon-reload")
    alice.systemctl("start")
    try:
        (pid,) = alice.pids().values()
        assert Path("/home/alice/.local/share/jupyter/runtime/kernel-analysis.json").is_file()
        alice.systemctl("reload")
        alice.systemctl("restart")
        assert {"analysis": pid} == alice.pids()
        alice.crash()
        assert {"analysis": pid} == alice.pids()
        died = run("journalctl", "KERNEL_EVENT=kernel.adopted", f"KERNEL_PID={pid}", "--output=json")
        assert "kernel-supervisor.service" == json.loads(died.splitlines()[-1])["_SYSTEMD_USER_UNIT"]
    finally:
        alice.systemctl("stop")
    assert not is_there(pid)


@check
def an_instance_of_a_users_template_runs_on_a_file_of_its_own() -> None:
    alice = _alice("kernel-supervisor@work")
    _write_as_alice("work")
    alice.as_user(PROGRAM, "systemd", "install", "--user", "--instance", "work")
    alice.as_user("systemctl", "--user", "daemon-reload")
    alice.systemctl("start")
    try:
        (pid,) = alice.pids().values()
        alice.systemctl("restart")
        assert {"analysis": pid} == alice.pids()
    finally:
        alice.systemctl("stop")
    assert not is_there(pid)


def _alice(unit: str) -> Service:
    if not Path("/home/alice").exists():
        run("useradd", "--create-home", "--shell", "/bin/bash", "alice")
        run("loginctl", "enable-linger", "alice")
    instance = unit.partition("@")[2]
    directory = f"kernel-supervisor-{instance}" if instance else "kernel-supervisor"
    client = ("--socket", f"/run/user/{Path('/home/alice').stat().st_uid}/{directory}/control.sock")
    alice = Service(unit, user="alice", client=client)
    until(
        "her systemd",
        lambda: "running" in alice.as_user("systemctl", "--user", "is-system-running", expect=None),
    )
    return alice


def _write_as_alice(name: str) -> None:
    file = Path(f"/home/alice/.config/kernel-supervisor/{name}.toml")
    file.write_text('[kernels.analysis]\nkernelspec = "python3"\n')


# The run of them all


def main(results: str) -> None:
    """Make all checks; a line of JSON for each."""
    with Path(results).open("w") as out:
        for function in CHECKS:
            begin = time.monotonic()
            outcome, text = "passed", ""
            try:
                function()
            except Skipped as skipped:
                outcome, text = "skipped", str(skipped)
            except BaseException:
                outcome, text = "failed", f"{traceback.format_exc()}\n{_journal_since(begin)}"
            took = round(time.monotonic() - begin, 2)
            line = {"name": function.__name__, "outcome": outcome, "text": text, "took": took}
            out.write(json.dumps(line) + "\n")
            out.flush()


def _journal_since(begin: float) -> str:
    seconds = int(time.monotonic() - begin) + 1
    return run("journalctl", "--no-pager", "--output=short-precise", f"--since=-{seconds}s", expect=None)


if __name__ == "__main__":
    main(sys.argv[1])
