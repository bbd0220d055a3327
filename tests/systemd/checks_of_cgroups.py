"""A cgroup for each run: limits, causes with figures, nothing left behind.  Needs cgroups of version 2."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from service import SUPERVISOR, TWO_KERNELS, Skipped, check, is_there, run, until, write

MOUNT = Path("/sys/fs/cgroup")
LIMITED = TWO_KERNELS + 'limits = { memory = "300M", tasks = 200 }\n'  # of the robot
# A child that leaves the session at once, and one whose parent ends; both as early as can be.
STRAYS = """\
import os, subprocess
def leave():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execlp("sleep", "sleep", "3600")
        os._exit(0)
[leave() for _ in range(12)]
[subprocess.Popen(["setsid", "sleep", "3601"]) for _ in range(12)]
"""


def _version() -> int:
    return int(run("systemctl", "--version").split()[1].split("~")[0])


def _state() -> str:
    import json

    return str(json.loads(SUPERVISOR.ask("status", "--json"))["cgroups"]["state"])


def _group(pid: int) -> Path:
    return MOUNT / Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::/")[2]


def _needs(*states: str) -> None:
    SUPERVISOR.settle()
    if _state() not in states:
        raise Skipped(f"cgroups are {_state()!r} here")


def _strays() -> list[int]:
    lines = run("pgrep", "--full", "sleep 360[01]", expect=None).split()
    return [int(pid) for pid in lines if is_there(int(pid))]


def _settle_limited(text: str = LIMITED) -> dict[str, int]:
    SUPERVISOR.settle()
    write(text)
    SUPERVISOR.systemctl("reload")
    SUPERVISOR.ask("restart", "robot")
    return SUPERVISOR.pids()


def _grow(megabytes: int) -> None:
    code = f"x = bytearray({megabytes} << 20)"
    SUPERVISOR.ask("exec", "robot", code, expect=None)


def _last_death() -> dict[str, object]:
    return SUPERVISOR.kernels()["robot"]["last_death"]


@check
def the_state_is_the_best_that_this_systemd_gives() -> None:
    SUPERVISOR.settle()
    is_pure = (MOUNT / "cgroup.controllers").exists()
    expected = "none" if not is_pure else "enforced" if _version() >= 254 else "tracking"

    assert expected == _state()
    assert (expected == "enforced") != ("cgroups: " in SUPERVISOR.ask("status"))


@check
def each_run_is_in_a_cgroup_of_its_own_with_its_limits_also_after_a_crash_of_the_daemon() -> None:
    _needs("enforced")
    pids = _settle_limited()
    generation = SUPERVISOR.kernels()["robot"]["generation"]
    group = _group(pids["robot"])

    assert f"kernel-robot.{generation}" == group.name
    assert ("314572800", "200") == tuple((group / f"{c}.max").read_text().strip() for c in ("memory", "pids"))
    SUPERVISOR.crash()
    assert pids == SUPERVISOR.pids()
    assert (group, "314572800") == (_group(pids["robot"]), (group / "memory.max").read_text().strip())


@check
def a_kernel_that_exceeds_its_limit_dies_of_it_with_figures_and_no_other_does() -> None:
    _needs("enforced")
    for is_adopted in (False, True):
        pids = _settle_limited()
        if is_adopted:
            SUPERVISOR.systemctl("restart")
            SUPERVISOR.pids()

        _grow(600)

        until("another robot", lambda pids=pids: SUPERVISOR.pids()["robot"] != pids["robot"])
        death = _last_death()
        assert "oom" == death["cause"], death
        assert "limit 300 MiB" in str(death["detail"]), death
        assert "peak 300 MiB" in str(death["detail"]), death
        assert pids["analysis"] == SUPERVISOR.pids()["analysis"]


@check
def limits_are_edited_live_up_and_not_below_what_is_used() -> None:
    _needs("enforced")
    pids = _settle_limited()
    _grow(100)

    write(LIMITED.replace("300M", "1G"))
    SUPERVISOR.systemctl("reload")
    group = _group(pids["robot"])
    until("the limit is raised", lambda: (group / "memory.max").read_text().strip() == str(1 << 30))
    write(LIMITED.replace("300M", "50M"))
    assert "limits.memory = 50M is below" in SUPERVISOR.ask("plan")
    SUPERVISOR.systemctl("reload")
    until("it is told", lambda: "limits.memory = 50M is below" in SUPERVISOR.ask("status"))

    assert pids == SUPERVISOR.pids()
    assert str(1 << 30) == (group / "memory.max").read_text().strip()
    write(LIMITED)
    SUPERVISOR.systemctl("reload")
    until("that is over", lambda: "limits.memory" not in SUPERVISOR.ask("status"))


@check
def memory_that_comes_near_its_limit_is_told_once() -> None:
    _needs("enforced")
    _settle_limited(LIMITED.replace("tasks = 200", "warn = 0.5"))

    _grow(150)

    told = until(
        "it is told", lambda: SUPERVISOR.journal("KERNEL_EVENT=kernel.pressed", "KERNEL=robot"), deadline=90
    )
    assert int(told[-1]["KERNEL_USED"]) >= 150 << 20


@check
def children_that_left_are_gone_after_a_stop_a_kill_and_a_death() -> None:
    _needs("enforced", "tracking")
    for how in ("stop", "kill", "death"):
        pids = SUPERVISOR.settle()
        SUPERVISOR.ask("exec", "robot", STRAYS)
        until("all of them are there", lambda: len(_strays()) >= 24)

        if how == "death":
            os.kill(pids["robot"], signal.SIGKILL)
            until("another robot", lambda pids=pids: SUPERVISOR.pids()["robot"] != pids["robot"])
        else:
            SUPERVISOR.ask(how, "robot")

        until("none is left", lambda: not _strays())
        if how != "death":
            SUPERVISOR.ask("start", "robot")


@check
def what_was_left_while_nobody_watched_is_ended_by_the_next_start() -> None:
    _needs("enforced", "tracking")
    pids = SUPERVISOR.settle()
    SUPERVISOR.ask("exec", "robot", STRAYS)
    SUPERVISOR.ask("detach")
    until("the service is down", lambda: "inactive" == SUPERVISOR.show("ActiveState"))
    os.kill(pids["robot"], signal.SIGKILL)
    until("it is dead", lambda: not is_there(pids["robot"]))
    assert _strays()

    SUPERVISOR.systemctl("start")

    SUPERVISOR.pids()
    assert [] == _strays()
    assert pids["analysis"] == SUPERVISOR.pids()["analysis"]


@check
def a_daemon_that_is_killed_again_and_again_starts_beside_its_kernels() -> None:
    pids = SUPERVISOR.settle()

    for _ in range(5):
        SUPERVISOR.crash()

    assert pids == SUPERVISOR.pids()
    assert "219" not in SUPERVISOR.show("ExecMainStatus")
