"""Stop, in every state; instances, and users."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from service import (
    ACCOUNT,
    BAD,
    DEADLINE,
    PROGRAM,
    SETTINGS,
    SUPERVISOR,
    TWO_KERNELS,
    Service,
    alice,
    best_cgroups,
    cgroup_of,
    check,
    is_there,
    processes_of,
    run,
    until,
    write,
)

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


@check
def what_a_stop_has_left_while_no_daemon_was_there_is_cleaned_in_order() -> None:
    pids = SUPERVISOR.settle()
    SUPERVISOR.drop_in("[Service]\nRestartSec=60\n")
    try:
        os.kill(SUPERVISOR.pid, 9)
        until("it waits", lambda: SUPERVISOR.show("SubState") == "auto-restart")
        SUPERVISOR.systemctl("stop")
        assert all(map(is_there, pids.values()))

        assert "living: analysis, robot" in run(PROGRAM, "systemd", "clean")

        assert not any(map(is_there, pids.values()))
        assert "inactive" == SUPERVISOR.show("ActiveState")
    finally:
        SUPERVISOR.drop_in("")


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
    hers = alice("kernel-supervisor")
    _write_as_her("kernels")

    told = hers.as_user(PROGRAM, "systemd", "install", "--user")

    assert "/home/alice/.config/systemd/user/kernel-supervisor.service is written" in told
    hers.as_user("systemctl", "--user", "daemon-reload")
    hers.systemctl("start")
    try:
        (pid,) = hers.pids().values()
        assert best_cgroups() == hers.cgroups()
        if hers.cgroups() == "enforced":
            assert "314572800" == (cgroup_of(pid) / "memory.max").read_text().strip()
        assert Path("/home/alice/.local/share/jupyter/runtime/kernel-analysis.json").is_file()
        hers.systemctl("reload")
        hers.systemctl("restart")
        assert {"analysis": pid} == hers.pids()
        hers.crash()
        assert {"analysis": pid} == hers.pids()
        died = run("journalctl", "KERNEL_EVENT=kernel.adopted", f"KERNEL_PID={pid}", "--output=json")
        assert "kernel-supervisor.service" == json.loads(died.splitlines()[-1])["_SYSTEMD_USER_UNIT"]
    finally:
        hers.systemctl("stop")
    assert not is_there(pid)


@check
def an_instance_of_a_users_template_runs_on_a_file_of_its_own() -> None:
    hers = alice("kernel-supervisor@work")
    _write_as_her("work")
    hers.as_user(PROGRAM, "systemd", "install", "--user", "--instance", "work")
    hers.as_user("systemctl", "--user", "daemon-reload")
    hers.systemctl("start")
    try:
        (pid,) = hers.pids().values()
        hers.systemctl("restart")
        assert {"analysis": pid} == hers.pids()
    finally:
        hers.systemctl("stop")
    assert not is_there(pid)


def _write_as_her(name: str) -> None:
    file = Path(f"/home/alice/.config/kernel-supervisor/{name}.toml")
    file.write_text(
        f"[defaults]\nstart_timeout = {DEADLINE}\n"
        '[kernels.analysis]\nkernelspec = "python3"\nlimits = { memory = "300M" }\n'
    )
