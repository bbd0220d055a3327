"""A cgroup for each run: limits, causes with figures, nothing left behind.  Needs cgroups of version 2."""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path

from service import (
    CGROUPS,
    DEADLINE,
    PROGRAM,
    SETTINGS,
    SUPERVISOR,
    TWO_KERNELS,
    Service,
    Skipped,
    alice,
    best_cgroups,
    cgroup_of,
    check,
    is_there,
    run,
    until,
    write,
)

LIMITED = TWO_KERNELS + 'limits = { memory = "300M", tasks = 200 }\n'  # of the robot
PYTHON = Path(PROGRAM).with_name("python")
# Children that leave the session at once, and some whose parent ends, before there is a kernel at all:
# a shell is there, and forks, before the daemon has moved it into its cgroup.
STRAYS = f"""\
#!/bin/sh
for number in 1 2 3 4 5 6 7 8 9 10 11 12; do
    setsid sleep 3600 &
    (setsid sh -c 'sleep 3601 &' &)
done
exec {PYTHON} -m ipykernel_launcher -f "$1"
"""
LEAVING = Path("/srv/leaving")
WITH_STRAYS = f"""\
[kernels.analysis]
kernelspec = "python3"
[kernels.robot]
argv = ["{LEAVING}", "{{connection_file}}"]
"""
# A daemon that no unit has begun.
BY_HAND = """\
[defaults]
start_timeout = {1}
[supervisor]
state_dir = "{0}/state"
runtime_dir = "{0}/run"
socket = "{0}/control.sock"
"""
# A unit of the version that knew nothing of cgroups.
BEFORE = """\
[Service]
Delegate=no
DelegateSubgroup=
UnsetEnvironment=KERNEL_SUPERVISOR_CGROUP
"""


def _needs(*states: str) -> None:
    SUPERVISOR.settle()
    if SUPERVISOR.cgroups() not in states:
        raise Skipped(f"cgroups are {SUPERVISOR.cgroups()!r} here")


def _strays() -> list[int]:
    lines = run("pgrep", "--full", "sleep 360[01]", expect=None).split()
    return [int(pid) for pid in lines if is_there(int(pid))]


def _settle_with_strays() -> dict[str, int]:
    """The robot has 24 children that have left it; where all of them are is where it is."""
    LEAVING.write_text(STRAYS)
    LEAVING.chmod(0o755)
    SUPERVISOR.settle()
    write(WITH_STRAYS)
    SUPERVISOR.systemctl("reload")
    SUPERVISOR.ask("restart", "robot")
    pids = SUPERVISOR.pids()
    until("all of them are there", lambda: len(_strays()) == 24)
    assert {cgroup_of(pids["robot"])} == {cgroup_of(pid) for pid in _strays()}
    return pids


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

    assert best_cgroups() == SUPERVISOR.cgroups()
    assert (best_cgroups() == "enforced") != ("cgroups: " in SUPERVISOR.ask("status"))


@check
def each_run_is_in_a_cgroup_of_its_own_with_its_limits_also_after_a_crash_of_the_daemon() -> None:
    _needs("enforced")
    pids = _settle_limited()
    generation = SUPERVISOR.kernels()["robot"]["generation"]
    group = cgroup_of(pids["robot"])

    assert f"kernel-robot.{generation}" == group.name
    assert ("314572800", "200") == tuple((group / f"{c}.max").read_text().strip() for c in ("memory", "pids"))
    SUPERVISOR.crash()
    assert pids == SUPERVISOR.pids()
    assert (group, "314572800") == (cgroup_of(pids["robot"]), (group / "memory.max").read_text().strip())


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
    group = cgroup_of(pids["robot"])
    until("the limit is raised", lambda: (group / "memory.max").read_text().strip() == str(1 << 30))
    # A file beside it: its own would be in force before it is asked.
    lower = LIMITED.replace("300M", "50M")
    write(lower, "lower")
    assert "limits.memory = 50M is below" in SUPERVISOR.ask("plan", str(SETTINGS / "lower.toml"))
    write(lower)
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
        pids = _settle_with_strays()

        if how == "death":
            # What the next run has is its own.
            write(WITH_STRAYS + 'restart = "never"\n')
            SUPERVISOR.systemctl("reload")
            os.kill(pids["robot"], signal.SIGKILL)
        else:
            SUPERVISOR.ask(how, "robot")

        until("none is left", lambda: not _strays())
        assert pids["analysis"] == SUPERVISOR.kernels()["analysis"]["pid"]


@check
def what_was_left_while_nobody_watched_is_ended_by_the_next_start() -> None:
    _needs("enforced", "tracking")
    pids = _settle_with_strays()
    left = _strays()
    SUPERVISOR.ask("detach")
    until("the service is down", lambda: "inactive" == SUPERVISOR.show("ActiveState"))
    os.kill(pids["robot"], signal.SIGKILL)
    until("it is dead", lambda: not is_there(pids["robot"]))
    assert left == _strays()

    SUPERVISOR.systemctl("start")

    after = SUPERVISOR.pids()
    assert [] == [pid for pid in left if is_there(pid)]
    assert pids["analysis"] == after["analysis"]


@check
def a_daemon_that_is_killed_again_and_again_starts_beside_its_kernels() -> None:
    pids = SUPERVISOR.settle()

    for _ in range(5):
        SUPERVISOR.crash()

    assert pids == SUPERVISOR.pids()
    assert "219" not in SUPERVISOR.show("ExecMainStatus")


@check
def kernels_that_a_version_without_cgroups_started_get_theirs_from_the_next_one() -> None:
    _needs("enforced", "tracking")
    SUPERVISOR.drop_in(BEFORE)
    try:
        SUPERVISOR.systemctl("stop")
        SUPERVISOR.systemctl("start")
        pids = _settle_limited()
        assert ("none", {CGROUPS / SUPERVISOR.show("ControlGroup").lstrip("/")}) == (
            SUPERVISOR.cgroups(),
            set(map(cgroup_of, pids.values())),
        )
    finally:
        SUPERVISOR.drop_in("")

    SUPERVISOR.systemctl("restart")

    assert pids == SUPERVISOR.pids()
    assert best_cgroups() == SUPERVISOR.cgroups()
    views = SUPERVISOR.kernels()
    assert {f"kernel-{name}.{views[name]['generation']}" for name in pids} == {
        cgroup_of(pid).name for pid in pids.values()
    }
    limit = cgroup_of(pids["robot"]) / "memory.max"
    assert (best_cgroups() == "enforced") == limit.exists()
    assert not limit.exists() or "314572800" == limit.read_text().strip()


# Where there is no unit


def _check_limits(service: Service, file: Path, *command: str) -> None:
    """A daemon that a command begins has limits, and ends all that it has."""
    place = file.parent
    file.write_text(BY_HAND.format(place, DEADLINE) + LIMITED)
    with service.by_hand(*command, PROGRAM, "run", str(file)) as pids:
        assert "enforced" == service.cgroups(), service.ask("status")
        group = cgroup_of(pids["robot"])
        assert "314572800" == (group / "memory.max").read_text().strip()

        service.ask("exec", "robot", f"x = bytearray({600 << 20})", expect=None)

        until("another robot", lambda: service.pids()["robot"] != pids["robot"])
        assert "limit 300 MiB" in str(service.kernels()["robot"]["last_death"]["detail"])
        assert pids["analysis"] == service.pids()["analysis"]
    assert not any(map(is_there, pids.values()))


@check
def a_users_scope_that_is_delegated_has_limits() -> None:
    _needs("enforced", "tracking")
    alice("kernel-supervisor")
    place = Path("/home/alice/by-hand")
    hers = Service("scope", user="alice", client=("--socket", f"{place}/control.sock"))
    hers.as_user("mkdir", "-p", str(place))

    # As docs/systemd.md has it.
    scope = "systemd-run --user --scope -p Delegate=yes -E KERNEL_SUPERVISOR_CGROUP=delegated"
    _check_limits(hers, place / "kernels.toml", *shlex.split(scope))


@check
def so_has_the_root_of_a_container() -> None:
    _needs("enforced", "tracking")
    place = Path("/srv/by-hand")
    place.mkdir(exist_ok=True)
    service = Service("container", client=("--socket", f"{place}/control.sock"))
    # What an engine does: a cgroup that is all the tree there is to see.
    # Not over the other mount: Linux 6.1 refuses that as the same one.
    inside = 'umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
    command = ("systemd-run", "--scope", "-p", "Delegate=yes", "unshare", "--cgroup", "--mount")

    _check_limits(service, place / "kernels.toml", *command, "sh", "-c", inside, "sh")
