"""What confines one run: its cgroup, where the daemon has a tree of them, else nothing.

Owns how a run comes into its cgroup, and what is done with that on its way.  What
touches the system is for a thread; ``kill`` alone is not worth one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from msgspec import Struct

from supervisor.cgroups.group import NOBODY, Group
from supervisor.cgroups.tree import Level, RunId, Tree
from supervisor.process.group import is_marked, living_members
from supervisor.process.priority import favour
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig

log = logging.getLogger(__name__)


class Confinement(Struct, eq=False):
    """The cgroup of one run; of nothing, where none is delegated.

    ``uid`` is whose it is, if not ours: others may have any mark.  ``memory`` is what it used in all,
    known after ``end``; ``pressed`` what it uses and may use, in bytes, as long as that is more than
    ``limits.warn`` of the limit; ``lacking`` why it has no cgroup, ``refused`` all that is not in force.
    """

    group: Group = NOBODY
    pid: int | None = None
    uid: int | None = None
    is_limited: bool = False
    lacking: str = ""
    memory: str = ""
    pressed: tuple[int, int] | None = None
    refused: str = ""

    @classmethod
    def of(
        cls, tree: Tree, run: RunId, pid: int, mark: str, uid: int | None, config: KernelConfig
    ) -> Confinement:
        """Have a process in the cgroup of its run, with what it has forked, and within its limits.

        Where that cannot be it runs without, which is told.
        """
        found = cls(tree.group(run), pid, uid, tree.level is Level.ENFORCED)

        def is_its(other: int) -> bool:
            try:
                return os.getsid(other) == pid or is_marked(other, MARK_VARIABLE, mark, uid)
            except OSError:
                return False  # it has ended

        try:
            tree.place(run, pid, is_its)
        except OSError as error:
            found.lacking = f"it is without a cgroup until its next start: {error.strerror}"
            found.is_limited = False
        found.limit(config)
        return found

    def limit(self, config: KernelConfig) -> None:
        """Put the limits of these settings in force, and whom the system favours, as far as they can be."""
        refused = [self.lacking, favour(self._pids(), config.nice, config.oom_score_adj)]
        if self.is_limited:
            refused.append(self.group.limit(config.limits))
        self.refused = "; ".join(filter(None, refused))

    def too_low(self, config: KernelConfig) -> str:
        """Which limit of these settings would not be put in force at present, and why."""
        return self.group.too_low(config.limits) if self.is_limited else ""

    def _pids(self) -> Iterator[int]:
        if self.pid is not None:
            yield from self.group.pids() or [member.pid for member in living_members(self.pid)]

    def look(self, config: KernelConfig) -> None:
        """See what it uses; a limit that was too low may be in force by now."""
        if not self.is_limited:
            return
        if self.refused:
            self.limit(config)
        used, limit = self.group.used(), self.group.number("memory.max")
        is_pressed = limit is not None and used >= config.limits.warn * limit
        self.pressed = (used, limit) if is_pressed and limit is not None else None

    def kill(self, mode: str) -> None:
        """Kill all that belongs to the run; by its ``kill_mode`` not those that left its group."""
        if mode == "tree":
            try:
                self.group.kill()
            except OSError as error:
                log.warning("cannot kill all of %s: %s", self.group.path.name, error)

    def end(self, mode: str) -> None:
        """Once the kernel itself has ended: note what it used, end what it has left, let its cgroup go."""
        group = self.group
        self.memory = group.figures()
        try:
            if mode == "tree" and not group.end():
                log.warning("%s has processes that cannot be killed: %s", group.path.name, group.pids())
            elif mode == "group" and not group.is_populated:
                group.remove()
        except OSError as error:
            log.warning("cannot end what %s has left: %s", group.path.name, error)
