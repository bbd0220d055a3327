"""How processes are favoured: their share of a busy processor, and whom a lack of memory takes first.

The rules are those of setpriority(2) and proc(5).  Decides nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor.process.identity import PROC


def favour(pids: Iterable[int], nice: int | None, oom_score_adj: int | None) -> str:
    """Set both for processes and all of their threads; ``None`` leaves it as it is.

    Returns what the system does not let us do, else ``""``.  Who has ended counts as done.
    """
    if nice is None and oom_score_adj is None:
        return ""
    refused: dict[str, None] = {}
    for pid in pids:
        for value, name, put in ((nice, "nice", _put_nice), (oom_score_adj, "oom_score_adj", _put_score)):
            if value is None:
                continue
            try:
                put(pid, value)
            except (FileNotFoundError, ProcessLookupError):
                pass
            except OSError as error:
                refused[f"{name} = {value} cannot be set: {error.strerror}"] = None
    return "; ".join(refused)


def _put_nice(pid: int, value: int) -> None:
    # Linux has it for each thread.
    for thread in (PROC / str(pid) / "task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), value)


def _put_score(pid: int, value: int) -> None:
    (PROC / str(pid) / "oom_score_adj").write_text(str(value))
