"""The part of the cgroup tree that is ours, if one is: found once, when the daemon begins.

Owns whether there is one, what it can do, the names in it, and how a process gets into the
cgroup of its run.  Never leaves the part that was delegated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from msgspec import Struct

from supervisor.cgroups.group import NO_DIRECTORY, Group, read

MOUNT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
DELEGATED_VARIABLE = "KERNEL_SUPERVISOR_CGROUP"
"""Set to ``delegated`` by our units: a user's manager leaves no other sign (systemd 252, 257)."""

# Ourselves: a cgroup with others below it that have limits has no processes of its own.
LEAF = "daemon"
# So that no kernel's name is one of the system's files.
_PREFIX = "kernel-"
_WANTED = ("cpu", "memory", "pids")
# How long what a new process has forked meanwhile is gathered, in seconds.
STRAY_PATIENCE = 1.0


class Level(StrEnum):
    """What the tree can do: limits, causes, kill and membership; all but limits; nothing."""

    ENFORCED = "enforced"
    TRACKING = "tracking"
    NONE = "none"


class RunId(Struct, frozen=True):
    """Whose cgroup it is."""

    kernel: str
    generation: int

    @property
    def directory(self) -> str:
        """The name of its cgroup."""
        return f"{_PREFIX}{self.kernel}.{self.generation}"

    @classmethod
    def of_directory(cls, name: str) -> RunId | None:
        """The run of a cgroup of this name, ``None`` for another cgroup."""
        kernel, _, generation = name.removeprefix(_PREFIX).rpartition(".")
        is_one = name.startswith(_PREFIX) and kernel and generation.isdecimal()
        return cls(kernel, int(generation)) if is_one else None


class Tree(Struct, frozen=True):
    """The part that is ours: its ``root``, and ``home``, where we are ourselves.

    ``advice`` is how to get a better state.
    """

    level: Level
    advice: str = ""
    root: Path = NO_DIRECTORY
    home: Path = NO_DIRECTORY

    def group(self, run: RunId) -> Group:
        """The cgroup of a run, be it there or not."""
        return Group(self.root / run.directory)

    def run_of(self, pid: int) -> RunId | None:
        """In whose cgroup a process is, at whatever depth."""
        place = _place_of(pid)
        if place is None or self.root not in place.parents:
            return None
        return RunId.of_directory(place.relative_to(self.root).parts[0])

    def place(self, run: RunId, pid: int, is_its: Callable[[int], bool]) -> None:
        """Move a process into the cgroup of its run, if it is not there, and what it has forked since.

        ``is_its`` tells of a process beside us whether it belongs to the run.  Raises OSError.
        """
        if self.level is Level.NONE or self.run_of(pid) == run:
            return
        group, beside = self.group(run), Group(self.home)
        group.make()
        group.add(pid)
        deadline = time.monotonic() + STRAY_PATIENCE
        while time.monotonic() < deadline:
            strays = [stray for stray in beside.pids() if stray != os.getpid() and is_its(stray)]
            if not strays:
                break
            for stray in strays:
                group.add(stray)

    def runs(self) -> list[RunId]:
        """Those that have a cgroup."""
        return [run for entry in self.root.glob("*") if (run := RunId.of_directory(entry.name)) is not None]


NOWHERE = Tree(Level.NONE)


def open_tree(environ: Mapping[str, str], run_of: Callable[[int], RunId | None]) -> Tree:
    """Find the part that is ours, and prepare it; ``run_of`` tells the run of a kernel by its mark.

    Kernels of a version without cgroups are moved into theirs; what they were charged stays
    where it was until their next run.
    """
    here = _place_of(os.getpid())
    if here is None:
        return Tree(Level.NONE, "cgroups of version 1, or none: boot with systemd.unified_cgroup_hierarchy=1")
    is_placed = here.name == LEAF
    root = here.parent if is_placed else here
    if not _is_delegated(root, environ) or not _may_write(root):
        return Tree(
            Level.NONE,
            "no cgroup is delegated to the daemon: run it as a service (docs/systemd.md), or with "
            f"systemd-run --user --scope -p Delegate=yes -E {DELEGATED_VARIABLE}=delegated",
        )
    if not _is_first(root):
        return Tree(Level.NONE, "another daemon has this cgroup: run them as two services")
    if not is_placed and root.suffix == ".service":
        # systemd before 254 could not start the service again (219/CGROUP) if there were limits below.
        return Tree(Level.TRACKING, "limits need systemd 254 or newer", root, root)
    try:
        lacking = _enable(root, run_of)
    except OSError as error:
        why = f"limits cannot be enabled in {root}: {error.strerror}"
        return Tree(Level.TRACKING, why, root, _place_of(os.getpid()) or here)
    level = Level.TRACKING if len(lacking) == len(_WANTED) else Level.ENFORCED
    advice = f"nothing limits {' or '.join(lacking)}: it is not delegated" if lacking else ""
    return Tree(level, advice, root, root / LEAF)


def _enable(root: Path, run_of: Callable[[int], RunId | None]) -> list[str]:
    """Have limits below, but those that are returned: first nobody may be left in the root itself."""
    home = Group(root / LEAF)
    home.make()
    for pid in Group(root).pids():
        run = run_of(pid)
        group = Group(root / run.directory) if run else home
        group.make()
        group.add(pid)
    there = read(root / "cgroup.controllers").split()
    Group(root).write("cgroup.subtree_control", " ".join(f"+{name}" for name in _WANTED if name in there))
    return [name for name in _WANTED if name not in there]


def _place_of(pid: int) -> Path | None:
    """The directory of the cgroup of a process; ``None`` for version 1, and outside of our namespace."""
    if not (MOUNT / "cgroup.controllers").exists():
        return None
    lines = read(PROC / str(pid) / "cgroup").splitlines()
    paths = [line[3:] for line in lines if line.startswith("0::/") and not line.startswith("0::/..")]
    return MOUNT / paths[0].lstrip("/") if paths else None


def _is_delegated(root: Path, environ: Mapping[str, str]) -> bool:
    if environ.get(DELEGATED_VARIABLE) == "delegated":
        return True
    try:
        if os.getxattr(root, "user.delegate") == b"1":
            return True
    except OSError:
        pass  # nobody has said so
    # The root of a container, which is not that of the machine: the latter has no such file.
    return root == MOUNT and (root / "cgroup.events").exists()


def _may_write(root: Path) -> bool:
    return all(os.access(path, os.W_OK) for path in (root, root / "cgroup.procs"))


def _is_first(root: Path) -> bool:
    """Whether no other daemon has it; ours from now on, for the life of this process."""
    import fcntl  # not on Windows

    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return False
    return True
