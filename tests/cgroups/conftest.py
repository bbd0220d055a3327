"""A small cgroup tree of plain files, which does what the system's does as far as it is used."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.cgroups import tree
from supervisor.cgroups.group import Group

CONTROLLERS = "cpuset cpu io memory hugetlb pids"


class Machine:
    """``/sys/fs/cgroup`` and ``/proc`` below a directory."""

    def __init__(self, root: Path) -> None:
        self.mount, self.proc = root / "cgroup", root / "proc"
        self.written: list[tuple[str, str]] = []
        self.controllers = CONTROLLERS
        self.deaf = False
        """Whether who is killed lives on, as in an uninterruptible wait."""
        self.make(self.mount)

    def make(self, path: Path) -> None:
        if path != self.mount:
            self.make(path.parent)
        path.mkdir(parents=True, exist_ok=True)
        for name in ("cgroup.procs", "cgroup.kill", "cgroup.subtree_control"):
            (path / name).touch()
        (path / "cgroup.controllers").write_text(self.controllers)
        self._tell_populated(path)

    def enter(self, path: Path, *pids: int) -> None:
        """Have processes in a cgroup, which is made if need be."""
        self.make(path)
        for pid in pids:
            self._move(path, pid)

    def write(self, path: Path, name: str, text: str) -> None:
        if not path.is_dir() or (name.startswith("cgroup.") and not (path / name).exists()):
            raise FileNotFoundError(errno.ENOENT, "no such cgroup", name)
        self.written.append((f"{path.relative_to(self.mount)}/{name}", text))
        if name == "cgroup.procs":
            self._move(path, int(text))
        elif name == "cgroup.kill" and not self.deaf:
            (path / "cgroup.procs").write_text("")
            self._tell_populated(path)
        elif name == "cgroup.subtree_control" and Group(path).pids():
            raise OSError(errno.EBUSY, "Device or resource busy")
        else:
            (path / name).write_text(text)

    def remove(self, path: Path) -> None:
        """As rmdir: a cgroup with nobody in it goes with its files."""
        assert not Group(path).pids()
        for file in path.iterdir():
            file.unlink()
        path.rmdir()

    def _move(self, path: Path, pid: int) -> None:
        for procs in self.mount.rglob("cgroup.procs"):
            pids = [word for word in procs.read_text().split() if word != str(pid)]
            procs.write_text("\n".join([*pids, str(pid)] if procs.parent == path else pids))
            self._tell_populated(procs.parent)
        (self.proc / str(pid)).mkdir(parents=True, exist_ok=True)
        (self.proc / str(pid) / "cgroup").write_text(
            f"0::/{path.relative_to(self.mount)}\n".replace("/.", "/")
        )

    @staticmethod
    def _tell_populated(path: Path) -> None:
        (path / "cgroup.events").write_text(f"populated {int(bool(Group(path).pids()))}\nfrozen 0\n")

    def fill(self, path: Path, lines: Iterable[tuple[str, str]]) -> Group:
        self.make(path)
        for name, text in lines:
            (path / name).write_text(text)
        return Group(path)


@pytest.fixture
def cgroup() -> Iterator[Group]:
    """A real one of version 2, without controllers where those are version 1's (hybrid)."""
    for mount in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (mount / "cgroup.controllers").exists() and os.access(mount / "cgroup.procs", os.W_OK):
            break
    else:
        pytest.skip("there is no tree of cgroups of version 2 that we may write to")
    made = Group(mount / f"kernel-supervisor-tests-{os.getpid()}")
    made.make()
    try:
        yield made
    finally:
        made.end()


@contextmanager
def crowd(group: Group, count: int) -> Iterator[None]:
    """So many processes in a cgroup, all but one of them forked in it."""
    group.make()
    script = f"read go; n=0; while [ $n -lt {count - 1} ]; do sleep 600 & n=$((n+1)); done; echo; wait"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdin=pipe, stdout=pipe, start_new_session=True
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        try:
            group.add(shell.pid)
            shell.stdin.write(b"go\n")
            shell.stdin.close()
            assert b"\n" == shell.stdout.readline()
            yield
        finally:
            shell.kill()
            group.kill()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setattr(tree, "MOUNT", made.mount)
    monkeypatch.setattr(tree, "PROC", made.proc)
    monkeypatch.setattr(Group, "make", lambda group: made.make(group.path))
    monkeypatch.setattr(Group, "write", lambda group, name, text: made.write(group.path, name, text))
    monkeypatch.setattr(Group, "remove", lambda group: made.remove(group.path))
    monkeypatch.setattr(os, "getxattr", lambda *_: b"0")
    return made
