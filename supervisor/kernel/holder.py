"""Who has a port that a kernel needs, as far as the system tells.

Owns the look and its wording.  Blocks for as long as it takes to look at every
process; ends nobody.
"""

from __future__ import annotations

from supervisor.disk.off_loop import Hanging, Lane
from supervisor.process.group import variable_of
from supervisor.records.record import MARK_VARIABLE
from supervisor.wording import one_line

WAY_OUT = "give the kernel another port"

_LONGEST_COMMAND = 80


def holder(place: int | str, the_mark: str, way_out: str = WAY_OUT) -> str:
    """Who listens on a TCP port or at the path of a socket, in words that follow its name; maybe none.

    Whoever belongs to a run of the kernel that ``the_mark`` is of is told apart: a child that left it.
    """
    pid = _listener(place)
    if pid is None:
        return ""
    who = f": pid {pid} ({_command(pid)})"
    if _is_of_same_kernel(pid, the_mark):
        return f"{who}, a child of this kernel that has left it: end it (kill {pid})"
    return f"{who}: end it, or {way_out}"


async def look_for(lane: Lane, place: int | str, the_mark: str, way_out: str = WAY_OUT) -> str:
    """The same, looked for in a lane; "" where the system does not answer."""
    try:
        return await lane.do(holder, place, the_mark, way_out)
    except (Hanging, OSError):
        return ""


def _listener(place: int | str) -> int | None:
    import psutil  # only where somebody is in the way

    kind = "unix" if isinstance(place, str) else "tcp"
    try:
        for found in psutil.net_connections(kind):
            at = found.laddr if isinstance(place, str) else found.laddr and found.laddr.port
            if at == place and found.pid and (isinstance(place, str) or found.status == psutil.CONN_LISTEN):
                return int(found.pid)
    except (psutil.Error, OSError):
        pass  # another user's, or a system that does not tell
    return None


def _command(pid: int) -> str:
    import psutil

    try:
        words = psutil.Process(pid).cmdline() or [psutil.Process(pid).name()]
    except (psutil.Error, OSError):
        return "?"
    text = one_line(" ".join(words))
    return text if len(text) <= _LONGEST_COMMAND else f"{text[:_LONGEST_COMMAND]}…"


def _is_of_same_kernel(pid: int, the_mark: str) -> bool:
    kernel, _, _ = the_mark.rpartition("/")
    return (variable_of(pid, MARK_VARIABLE) or "").startswith(f"{kernel}/")
