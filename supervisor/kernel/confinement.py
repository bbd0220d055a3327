"""What confines one run: its cgroup, where the daemon has a tree of them, else nothing.

Owns how a run comes into its cgroup, and what is done with that on its way.  What
touches the system is for a thread; ``kill`` alone is not worth one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from supervisor.cgroups.group import Group, Memory
from supervisor.cgroups.tree import NOWHERE, Level, RunId, Tree
from supervisor.process.account import uid_of
from supervisor.process.group import is_marked, living_members
from supervisor.process.priority import favour
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)


class Confinement:
    """The cgroup of one run; of nothing, where none is delegated.

    ``memory`` is what it used in all, known after ``end``; ``pressed`` what it uses and may
    use, in bytes, as long as that is more than ``limits.warn`` of the limit; ``refused`` is
    which limit is not in force, and why; ``uid`` is whose it is, if not ours: others may have any mark.
    """

    def __init__(
        self,
        tree: Tree = NOWHERE,
        group: Group | None = None,
        pid: int | None = None,
        uid: int | None = None,
    ) -> None:
        self.uid = uid
        self._group = group
        self._pid = pid
        self._is_limited = group is not None and tree.level is Level.ENFORCED
        self.memory = Memory()
        self.pressed: tuple[int, int] | None = None
        self.refused = ""

    @classmethod
    def of(cls, tree: Tree, run: RunId, pid: int, mark: str, config: KernelConfig) -> Confinement:
        """Have a process in the cgroup of its run, with what it has forked, and within its limits.

        One of an earlier daemon is there already, with its limits.  Raises OSError.
        """
        uid = uid_of(config.user)
        if tree.run_of(pid) == run:
            return cls(tree, tree.group(run), pid, uid)

        def is_its(other: int) -> bool:
            try:
                return os.getsid(other) == pid or is_marked(other, MARK_VARIABLE, mark, uid)
            except OSError:
                return False  # it has ended

        group = None if tree.level is Level.NONE else tree.place(run, pid, is_its)
        found = cls(tree, group, pid, uid)
        found.limit(config)
        return found

    @classmethod
    def of_adopted(cls, tree: Tree, run: RunId, pid: int, mark: str, config: KernelConfig) -> Confinement:
        """The same for one that is not to be ended where that cannot be."""
        try:
            return cls.of(tree, run, pid, mark, config)
        except OSError as error:
            log.warning("kernel %s is without a cgroup until its next start: %s", run.kernel, error)
            return cls()

    def limit(self, config: KernelConfig) -> None:
        """Put the limits of these settings in force, and whom the system favours, as far as they can be."""
        refused = [favour(self._pids(), config.nice, config.oom_score_adj)]
        if self._group is not None and self._is_limited:
            try:
                refused.append(self._group.limit(config.limits))
            except OSError as error:
                refused.append(f"limits cannot be set: {error.strerror}")
        self.refused = "; ".join(filter(None, refused))

    def too_low(self, config: KernelConfig) -> str:
        """Which limit of these settings would not be put in force at present, and why."""
        return self._group.too_low(config.limits) if self._group is not None and self._is_limited else ""

    def _pids(self) -> Iterator[int]:
        if self._group is not None:
            yield from self._group.pids()
        elif self._pid is not None:
            yield from (member.pid for member in living_members(self._pid))

    def look(self, config: KernelConfig) -> None:
        """See what it uses; a limit that was too low may be in force by now."""
        if self._group is None or not self._is_limited:
            return
        if self.refused:
            self.limit(config)
        used, limit = self._group.used(), self._group.memory().limit
        is_pressed = used is not None and limit is not None and used >= config.limits.warn * limit
        self.pressed = (used, limit) if is_pressed and used is not None and limit is not None else None

    def kill(self, config: KernelConfig) -> None:
        """Kill all that belongs to the run, unless its settings leave those alone that left its group."""
        if self._group is not None and config.kill_mode == "tree":
            try:
                self._group.kill()
            except OSError as error:
                log.warning("cannot kill all of %s: %s", self._group.path.name, error)

    def end(self, config: KernelConfig) -> None:
        """Once the kernel itself has ended: note what it used, end what it has left, let its cgroup go."""
        if (group := self._group) is None:
            return
        self.memory = group.memory()
        try:
            if config.kill_mode == "tree" and not group.end():
                log.warning("%s has processes that cannot be killed: %s", group.path.name, group.pids())
            elif config.kill_mode == "group" and not group.is_populated:
                group.remove()
        except OSError as error:
            log.warning("cannot end what %s has left: %s", group.path.name, error)
