"""Which part of the cgroup tree is ours, and who is where in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from supervisor.cgroups import tree as trees
from supervisor.cgroups.group import Group
from supervisor.cgroups.tree import DELEGATED_VARIABLE, NOWHERE, Level, RunId, Tree, open_tree
from tests.cgroups.conftest import Machine

ME = os.getpid()
UNIT = {DELEGATED_VARIABLE: "delegated"}
SERVICE = "system.slice/kernel-supervisor.service"


def nobody(_: int) -> None:
    """The run of a process, where none has a mark."""


def refuse_controllers(machine: Machine, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """Have no cgroup take controllers for those below it."""

    def write(group: Group, name: str, text: str) -> None:
        if name == "cgroup.subtree_control":
            raise error
        machine.write(group.path, name, text)

    monkeypatch.setattr(Group, "write", write)


def mine(
    machine: Machine,
    place: str,
    environ: dict[str, str] = UNIT,
    run_of: Callable[[int], RunId | None] = nobody,
) -> Tree:
    machine.enter(machine.mount / place, ME)
    return open_tree(environ, run_of)


@pytest.fixture(autouse=True)
def unlocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let go of the trees that are ours "for the life of the process"."""
    opened: list[int] = []

    def noted(*arguments: object, real: Callable[..., int] = os.open) -> int:
        opened.append(real(*arguments))
        return opened[-1]

    with monkeypatch.context() as patched:
        patched.setattr(trees.os, "open", noted)
        yield
    for fd in opened:
        try:
            os.close(fd)
        except OSError:
            pass


# Which state


def test_below_the_subgroup_that_systemd_starts_us_in_limits_are_enforced(machine: Machine) -> None:
    found = mine(machine, f"{SERVICE}/daemon")

    assert (Level.ENFORCED, "") == (found.level, found.advice)
    assert (machine.mount / SERVICE, machine.mount / SERVICE / "daemon") == (found.root, found.home)
    assert (f"{SERVICE}/cgroup.subtree_control", "+cpu +memory +pids") in machine.written


def test_a_service_that_an_older_systemd_starts_beside_its_kernels_gets_no_limits(machine: Machine) -> None:
    found = mine(machine, SERVICE)

    assert (Level.TRACKING, machine.mount / SERVICE) == (found.level, found.home)
    assert "systemd 254" in found.advice
    assert [] == machine.written, "219/CGROUP, at every start from then on"


def test_in_a_scope_we_move_aside_first(machine: Machine) -> None:
    found = mine(machine, "user.slice/run-u7.scope")

    assert Level.ENFORCED is found.level
    assert [ME] == Group(found.root / "daemon").pids()


def test_in_a_containers_root_all_others_move_aside_too(machine: Machine) -> None:
    machine.enter(machine.mount, 1, 17)

    found = mine(machine, ".", {})

    assert Level.ENFORCED is found.level
    assert [1, 17, ME] == sorted(Group(machine.mount / "daemon").pids())


def test_the_machines_own_root_is_left_alone(machine: Machine) -> None:
    machine.enter(machine.mount, ME)
    (machine.mount / "cgroup.events").unlink()

    assert Level.NONE is open_tree({}, nobody).level
    assert [] == machine.written


def test_kernels_of_a_version_without_cgroups_are_moved_by_their_mark(machine: Machine) -> None:
    machine.enter(machine.mount / SERVICE, 7, 8)

    found = mine(machine, f"{SERVICE}/daemon", run_of={7: RunId("a", 3)}.get)

    assert ([7], [8, ME]) == (found.group(RunId("a", 3)).pids(), sorted(Group(found.home).pids()))


def test_without_delegation_there_is_nothing_and_the_way_to_it_is_told(machine: Machine) -> None:
    found = mine(machine, "user.slice/session-1.scope", {})

    assert Level.NONE is found.level
    # A user's manager leaves no sign of that itself.
    assert "Delegate=yes -E KERNEL_SUPERVISOR_CGROUP=delegated" in found.advice
    assert (None, []) == (found.run_of(ME), list(found.runs()))


@pytest.mark.parametrize("line", ["4:memory:/x\n", "0::/../outside\n", ""])
def test_version_1_and_what_is_outside_of_our_namespace_is_nothing(machine: Machine, line: str) -> None:
    machine.enter(machine.mount / SERVICE, ME)
    (machine.proc / str(ME) / "cgroup").write_text(line)

    assert Level.NONE is open_tree(UNIT, nobody).level


def test_a_tree_that_may_not_be_written_is_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: not str(path).endswith("cgroup.procs"))

    assert Level.NONE is mine(machine, f"{SERVICE}/daemon").level


def test_where_limits_cannot_be_enabled_membership_is_known_all_the_same(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_controllers(machine, monkeypatch, PermissionError(1, "Operation not permitted"))

    found = mine(machine, f"{SERVICE}/daemon")

    assert (Level.TRACKING, f"{SERVICE}/daemon") == (found.level, str(found.home.relative_to(machine.mount)))
    assert "Operation not permitted" in found.advice


@pytest.mark.parametrize(
    ("delegated", "level", "advice"),
    [
        # As Debian 11 and Ubuntu 22.04 do for a user.
        ("memory pids", Level.ENFORCED, "nothing limits cpu: it is not delegated"),
        ("", Level.TRACKING, "nothing limits cpu or memory or pids: it is not delegated"),
    ],
)
def test_what_nothing_limits_is_told(machine: Machine, delegated: str, level: Level, advice: str) -> None:
    machine.controllers = delegated

    found = mine(machine, "user.slice/run-u7.scope")

    assert (level, advice, found.root / "daemon") == (found.level, found.advice, found.home)


def test_where_we_have_moved_aside_for_nothing_what_is_beside_us_is_known(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_controllers(machine, monkeypatch, OSError(16, "Device or resource busy"))

    found = mine(machine, "user.slice/run-u7.scope")

    assert (Level.TRACKING, found.root / "daemon") == (found.level, found.home)


def test_a_second_daemon_in_the_same_tree_has_none(machine: Machine) -> None:
    assert Level.ENFORCED is mine(machine, f"{SERVICE}/daemon").level

    assert Level.NONE is open_tree(UNIT, nobody).level


# Who is where


def test_a_run_has_a_cgroup_whatever_its_kernel_is_called(machine: Machine) -> None:
    for run in (RunId("cgroup.kill", 1), RunId("a.2", 13), RunId("daemon", 4)):
        assert run == RunId.of_directory(run.directory)
        assert run.directory not in {"daemon", "cgroup.kill"}
    for name in ("daemon", "kernel-", "kernel-a", "kernel-.3", "kernel-a.x", "a.3", "kernel-a.³"):
        assert RunId.of_directory(name) is None


def test_a_process_is_moved_with_what_it_forked_meanwhile(machine: Machine) -> None:
    found = mine(machine, f"{SERVICE}/daemon")
    machine.enter(found.home, 70, 71, 72, 99)

    group = found.group(RunId("a", 1))
    found.place(RunId("a", 1), 70, {71, 72}.__contains__)

    assert ([70, 71, 72], [99, ME]) == (sorted(group.pids()), sorted(Group(found.home).pids()))
    assert (RunId("a", 1), None) == (found.run_of(71), found.run_of(99))
    machine.enter(group.path / "of-its-own", 71)
    assert RunId("a", 1) == found.run_of(71)
    assert [RunId("a", 1)] == list(found.runs())


def test_one_that_ended_meanwhile_is_no_hindrance(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = mine(machine, f"{SERVICE}/daemon")
    machine.enter(found.home, 70, 71)

    def ends(group: Group, name: str, text: str) -> None:
        if text == "71":
            machine.enter(machine.mount / "elsewhere", 71)
            raise ProcessLookupError
        machine.write(group.path, name, text)

    monkeypatch.setattr(Group, "write", ends)

    found.place(RunId("a", 1), 70, {71}.__contains__)

    assert [70] == found.group(RunId("a", 1)).pids()


def test_one_that_is_there_already_is_left_where_it_is(machine: Machine) -> None:
    found = mine(machine, f"{SERVICE}/daemon")
    machine.enter(found.group(RunId("a", 1)).path / "of-its-own", 70)
    machine.written.clear()

    found.place(RunId("a", 1), 70, {71}.__contains__)

    assert [] == machine.written


def test_one_that_forks_for_ever_does_not_keep_us(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "STRAY_PATIENCE", 0.0)
    monkeypatch.setattr(Group, "pids", lambda _: [71])
    found = mine(machine, f"{SERVICE}/daemon")

    found.place(RunId("a", 1), 70, {71}.__contains__)


def test_nowhere_is_nothing() -> None:
    assert (Level.NONE, [], None) == (NOWHERE.level, list(NOWHERE.runs()), NOWHERE.run_of(ME))
