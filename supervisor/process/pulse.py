"""What the system tells of a process without waking it: whether it may be another than it was.

Owns the comparison of its processor time and its state with those at its last
answer.  Asks the process nothing, signals nothing, and decides nothing.
"""

from __future__ import annotations

import time

from supervisor.core.model import ProcessId
from supervisor.process.identity import LINUX, read_stat

# An idle ipykernel uses half a millisecond in 10 s for itself; whatever it is asked to do costs several.
_OWN_BUSINESS = 0.0008
# The states of a main thread that waits for something to do (proc(5)).
_WAITING = "SI"


class Pulse:
    """One process, as it is felt between the answers to one kind of question."""

    def __init__(self, process: ProcessId) -> None:
        self._process = process
        self._last: float | None = None
        self._asked: float | None = None

    def ask(self) -> None:
        """It is asked now."""
        self._asked = self._used()

    def answer(self) -> None:
        """It has answered now: what it was until this moment is well.

        A process that answers uses the processor.  If this one has not, it is
        another that does, as behind a script, and there is nothing to be felt here.
        """
        used = self._used()
        is_it = used is not None and self._asked is not None and used > self._asked
        self._last = used if is_it else None

    def is_doubtful(self) -> bool:
        """Whether it may be another than at its last answer or look: it worked, stands still, or hides."""
        used, before = self._used(), self._last
        if used is None or before is None:
            return True
        self._last = used
        return used - before > _OWN_BUSINESS or not self._is_waiting()

    def _used(self) -> float | None:
        """The processor time of all its threads in seconds, which is exact, and read without a file."""
        if not LINUX:
            return None
        try:
            # clock_getcpuclockid(3) for another process: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
            return time.clock_gettime(~self._process.pid << 3 | 2)
        except OSError:
            return None

    def _is_waiting(self) -> bool:
        try:
            return read_stat(self._process.pid).state in _WAITING
        except OSError:
            return False
