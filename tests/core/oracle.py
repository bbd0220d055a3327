"""What should be wanted of each kernel, told apart from the machine in a few plain rules.

Owns a second opinion: it knows files, orders and ends, and no phases but
whether a kernel has a run.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.core.events import Reset, Restart, Start, Survivor
from supervisor.core.model import Cause, Exit, Reason, Want
from supervisor.settings.config import KernelConfig


class Oracle:
    """The wants that orders, files and clean exits add up to."""

    def __init__(self) -> None:
        self.want: dict[str, Want] = {}
        self.declared: dict[str, KernelConfig] = {}
        # Nobody has decided about these yet: the next file does.
        self.undecided: set[str] = set()
        self.is_closing = False

    def refuses(self, order: object, name: str, *, is_known: bool) -> bool:
        """Whether the order has to be refused; a kernel on its way out is known and not declared."""
        if not is_known:
            return True
        if not isinstance(order, Start | Restart | Reset):
            return False
        return self.is_closing or name not in self.declared or not self.declared[name].enabled

    def ordered(self, name: str, want: Want) -> None:
        """An order that was not refused."""
        self.want[name] = want
        self.undecided.discard(name)

    def loaded(self, file: Mapping[str, KernelConfig], running: set[str]) -> None:
        """A file, while the kernels in ``running`` have a run."""
        for name in [name for name in self.want if name not in file]:
            self.declared.pop(name, None)
            if name in running:
                self.want[name] = Want.DOWN
            else:
                del self.want[name]
        for name, new in file.items():
            old = self.declared.get(name)
            starts = new.enabled and new.autostart
            if name not in self.want or name in self.undecided:
                self.want[name] = Want.UP if starts else Want.DOWN
            elif not new.enabled:
                self.want[name] = Want.DOWN
            elif (old is None or not old.enabled) and starts:
                self.want[name] = Want.UP
        self.declared = dict(file)
        self.undecided.clear()

    def ended(self, name: str, exit: Exit) -> None:
        """A run ended by itself, not on order."""
        clean = exit.cause is Cause.EXITED and exit.code == 0
        if clean and self.declared[name].restart != "always":
            self.want[name] = Want.DOWN

    def closing(self) -> None:
        """Everything is to be stopped."""
        self.is_closing = True
        self.want = dict.fromkeys(self.want, Want.DOWN)

    def taken_up(self, survivors: tuple[Survivor, ...], file: Mapping[str, KernelConfig]) -> None:
        """A new supervisor reads the records, knowing the file."""
        self.is_closing = False
        self.want = {one.kernel: one.want or Want.UP for one in survivors}
        # An end is judged by the file.
        self.declared = {one.kernel: file.get(one.kernel, one.launched) for one in survivors}
        for one in survivors:
            if one.exit is not None and one.want is Want.UP and one.stopping is None:
                self.ended(one.kernel, one.exit)
        self.declared = {one.kernel: one.launched for one in survivors}
        # A run that a shutdown was stopping is none to be kept: there, too, the file decides.
        self.undecided = {
            one.kernel for one in survivors if one.want is None and (one.process is None or one.stopping)
        }
        # So it does of one that was to go because of the file, and that nobody has asked for since.
        of_the_file = (Reason.REMOVED, Reason.DISABLED)
        self.undecided |= {
            one.kernel for one in survivors if one.want is Want.DOWN and one.stopping in of_the_file
        }
