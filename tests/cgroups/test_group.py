"""The cgroup of one run: memory, limits, the end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.cgroups import group as groups
from supervisor.cgroups.group import NOBODY, Group
from supervisor.settings.config import LimitsConfig, size_of
from tests.cgroups.conftest import Machine, crowd

USE = [("memory.current", "700"), ("memory.stat", "anon 5\nactive_file 150\ninactive_file 50\n")]


@pytest.mark.parametrize("place", ["kernel-a.1", None])
def test_a_cgroup_that_is_gone_has_nobody_in_it_and_counts_nothing(tmp_path: Path, place: str | None) -> None:
    gone = NOBODY if place is None else Group(tmp_path / place)

    assert ([], False, "", 0) == (gone.pids(), gone.is_populated, gone.figures(), gone.used())
    gone.kill()
    gone.remove()
    assert gone.end(0.0) is True


def test_what_is_used_does_not_count_the_cache_of_files(machine: Machine) -> None:
    assert 500 == machine.fill(machine.mount / "g", USE).used()


@pytest.mark.parametrize(
    ("peak", "limit", "told"),
    [
        ("314572800\n", "314572800\n", "peak 300 MiB, limit 300 MiB"),
        ("1610612736\n", "max\n", "peak 1.5 GiB"),
        # memory.peak came with Linux 5.19.
        ("", "1024\n", "limit 1 KiB"),
    ],
)
def test_memory_is_told_as_people_read_it(machine: Machine, peak: str, limit: str, told: str) -> None:
    figures = [("memory.peak", peak), ("memory.max", limit)]

    assert told == machine.fill(machine.mount / "a", figures).figures()


def test_who_is_outside_of_our_namespace_of_pids_is_nobody(machine: Machine) -> None:
    assert [7] == machine.fill(machine.mount / "g", [("cgroup.procs", "0\n7\n")]).pids()


def test_limits_are_in_force_and_go_when_the_file_names_them_no_more(machine: Machine) -> None:
    group = machine.fill(machine.mount / "g", USE)

    assert "" == group.limit(LimitsConfig(memory="1K", cpu=1.5, tasks=40))
    assert [("g/pids.max", "40"), ("g/cpu.max", "150000 100000"), ("g/memory.max", "1024")] == machine.written
    machine.written.clear()
    assert "" == group.limit(LimitsConfig())
    assert [("g/pids.max", "max"), ("g/cpu.max", "max 100000"), ("g/memory.max", "max")] == machine.written


def test_a_limit_below_what_is_used_is_refused_and_the_others_are_in_force(machine: Machine) -> None:
    group = machine.fill(machine.mount / "g", USE)

    assert "limits.memory = 499 is below the 500 B in use" == group.limit(LimitsConfig(memory="499", tasks=4))
    assert ["g/pids.max", "g/cpu.max"] == [name for name, _ in machine.written]


def test_what_is_not_delegated_is_told_where_it_is_to_be_limited_and_the_rest_is_in_force(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(group: Group, name: str, text: str) -> None:
        if name == "cpu.max":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        machine.write(group.path, name, text)

    monkeypatch.setattr(Group, "write", write)
    group = machine.fill(machine.mount / "g", USE)

    assert "" == group.limit(LimitsConfig(memory="1K"))
    told = group.limit(LimitsConfig(memory="2K", cpu=2.0))

    assert "limits.cpu cannot be set: No such file or directory" == told
    assert 2048 == group.number("memory.max")


def test_the_end_takes_everybody_and_the_cgroup(machine: Machine) -> None:
    machine.enter(machine.mount / "g", 7, 8)

    assert Group(machine.mount / "g").end() is True
    assert not (machine.mount / "g").exists()


def test_who_cannot_be_killed_is_waited_for_so_long_only(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "LOOK_INTERVAL", 0.0)
    machine.enter(machine.mount / "g", 7)
    machine.deaf = True

    assert Group(machine.mount / "g").end(0.01) is False
    assert (machine.mount / "g").exists()


@pytest.mark.parametrize(
    ("text", "number"), [(None, None), ("512", 512), ("2K", 2048), ("48G", 48 << 30), ("1T", 1 << 40)]
)
def test_a_size_has_a_unit_or_none(text: str | None, number: int | None) -> None:
    assert number == size_of(LimitsConfig(memory=text).memory)


# For real, where there is a tree of version 2 that we may write to


def test_all_of_a_thousand_processes_end_with_it_and_no_other(cgroup: Group) -> None:
    with crowd(cgroup, 1000):
        assert 1000 <= len(cgroup.pids())

        assert cgroup.end()

    assert not cgroup.path.exists()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EOPNOTSUPP])
def test_where_the_system_does_not_kill_all_at_once_they_are_killed_one_by_one(
    cgroup: Group, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As before Linux 5.14."""
    real = Group.write

    def refuse(group: Group, name: str, text: str) -> None:
        if name == "cgroup.kill":
            raise OSError(number, os.strerror(number))
        real(group, name, text)

    monkeypatch.setattr(Group, "write", refuse)
    below = Group(cgroup.path / "of-its-own")
    with crowd(cgroup, 20), crowd(below, 20):
        assert cgroup.end()

    assert not cgroup.path.exists()
