"""A run in its cgroup: how it gets there, what it may use, how all of it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from supervisor.cgroups.group import Group
from supervisor.cgroups.tree import NOWHERE, Level, RunId, Tree
from supervisor.kernel.confinement import Confinement
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig, LimitsConfig
from tests.cgroups.conftest import Machine, machine

__all__ = ["machine"]

RUN = RunId("a", 3)
PLAIN = KernelConfig(name="a", kernelspec="x")
LIMITED = replace(PLAIN, limits=LimitsConfig(memory="1K", warn=0.5))


@pytest.fixture
def tree(machine: Machine) -> Tree:
    machine.make(machine.mount / "unit/daemon")
    return Tree(Level.ENFORCED, "", machine.mount / "unit", machine.mount / "unit/daemon")


@pytest.fixture
def marked() -> Iterator[int]:
    """A child that has left the session of its kernel, and has its mark."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env={**os.environ, MARK_VARIABLE: "the-mark"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
        child.kill()


def use(group: Group, current: int, peak: int = 0) -> None:
    for name, number in (("memory.current", current), ("memory.peak", peak)):
        (group.path / name).write_text(str(number))


def test_without_a_tree_nothing_is_confined_and_nothing_goes_wrong() -> None:
    found = Confinement.of(NOWHERE, RUN, os.getpid(), "m", None, LIMITED)

    found.limit(LIMITED)
    found.look(LIMITED)
    found.kill("tree")
    found.end("tree")
    assert ("", None, "") == (found.memory, found.pressed, found.refused)


def test_a_new_process_is_in_its_cgroup_with_its_children_and_its_limits(
    machine: Machine, tree: Tree, marked: int
) -> None:
    machine.enter(tree.home, 70, marked, os.getppid())

    Confinement.of(tree, RUN, 70, "the-mark", None, LIMITED)

    assert ([70, marked], [os.getppid()]) == (tree.group(RUN).pids(), Group(tree.home).pids())
    assert ("unit/kernel-a.3/memory.max", "1024") in machine.written


def test_whom_the_system_favours_needs_no_cgroup(marked: int) -> None:
    polite = replace(PLAIN, nice=7, oom_score_adj=600)

    found = Confinement.of(NOWHERE, RUN, marked, "m", None, polite)

    assert (7, "") == (os.getpriority(os.PRIO_PROCESS, marked), found.refused)


def test_one_of_an_earlier_daemon_stays_where_it_is_and_what_is_not_in_force_is_told_again(
    machine: Machine, tree: Tree
) -> None:
    machine.enter(tree.group(RUN).path, 70)
    use(tree.group(RUN), 2000)

    found = Confinement.of(tree, RUN, 70, "m", None, LIMITED)

    assert "limits.memory = 1K is below the 1.95 KiB in use" == found.refused
    assert {"unit/kernel-a.3/pids.max", "unit/kernel-a.3/cpu.max"} == {name for name, _ in machine.written}


def test_a_limit_that_somebody_else_has_written_counts_until_it_is_edited(
    machine: Machine, tree: Tree
) -> None:
    machine.enter(tree.home, 70)
    found = Confinement.of(tree, RUN, 70, "m", None, LIMITED)
    use(tree.group(RUN), 900)
    found.look(LIMITED)
    assert (900, 1024) == found.pressed

    tree.group(RUN).write("memory.max", "4096")
    found.look(LIMITED)
    assert found.pressed is None

    found.limit(LIMITED)
    assert 1024 == tree.group(RUN).number("memory.max")


@pytest.mark.parametrize("what", ["make", "add"])
def test_without_a_place_in_the_tree_it_runs_and_that_is_told(
    machine: Machine, tree: Tree, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As where the tree is gone, or is as deep or as large as it may be (cgroup.max.descendants)."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(Group, what, refuse)
    machine.enter(tree.home, 70)

    found = Confinement.of(tree, RUN, 70, "m", None, LIMITED)
    found.look(LIMITED)
    found.kill("tree")
    found.end("tree")

    told = "it is without a cgroup until its next start: Resource temporarily unavailable"
    assert (told, "", [70]) == (found.refused, found.too_low(LIMITED), Group(tree.home).pids())


def test_where_there_are_no_limits_none_is_written(machine: Machine, tree: Tree) -> None:
    tracking = Tree(Level.TRACKING, "", tree.root, tree.home)
    machine.enter(tree.home, 70)

    found = Confinement.of(tracking, RUN, 70, "m", None, LIMITED)
    found.look(LIMITED)

    assert [("unit/kernel-a.3/cgroup.procs", "70")] == machine.written


def test_a_limit_that_is_too_low_is_tried_again_and_near_a_limit_is_pressed(
    machine: Machine, tree: Tree
) -> None:
    machine.enter(tree.home, 70)
    found = Confinement.of(tree, RUN, 70, "m", None, PLAIN)
    use(tree.group(RUN), 2000)

    assert "limits.memory = 1K is below the 1.95 KiB in use" == found.too_low(LIMITED)
    found.limit(LIMITED)
    assert "limits.memory = 1K is below the 1.95 KiB in use" == found.refused
    use(tree.group(RUN), 600)
    found.look(LIMITED)

    assert ("", (600, 1024)) == (found.refused, found.pressed)
    use(tree.group(RUN), 500)
    found.look(LIMITED)
    assert found.pressed is None


def test_limits_that_the_system_refuses_are_told(
    machine: Machine, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Confinement(tree.group(RUN), is_limited=True)

    found.limit(LIMITED)

    assert "limits.memory cannot be set: no such cgroup" == found.refused


@pytest.mark.parametrize("is_there", [True, False])
def test_its_end_takes_all_and_keeps_the_figures(machine: Machine, tree: Tree, is_there: bool) -> None:
    found = Confinement(tree.group(RUN), is_limited=True)
    if is_there:
        machine.enter(tree.group(RUN).path, 71, 72)
        use(tree.group(RUN), 5, peak=77 << 10)

    found.end("tree")

    assert not tree.group(RUN).path.exists()
    assert ("peak 77 KiB" if is_there else "") == found.memory


def test_with_kill_mode_group_those_who_left_it_live_on(machine: Machine, tree: Tree) -> None:
    found = Confinement(tree.group(RUN), is_limited=True)
    machine.enter(tree.group(RUN).path, 71)

    found.kill("group")
    found.end("group")
    assert [71] == tree.group(RUN).pids()
    machine.enter(machine.mount / "elsewhere", 71)
    found.end("group")
    assert not tree.group(RUN).path.exists()


def test_a_kill_takes_all_at_once(machine: Machine, tree: Tree) -> None:
    machine.enter(tree.group(RUN).path, 71)

    Confinement(tree.group(RUN)).kill("tree")

    assert not tree.group(RUN).is_populated
