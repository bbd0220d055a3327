"""The group of a process: signals to it, and what an ended process leaves behind in it or outside.

Never starts a process, never reaps a child, and decides nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from contextlib import suppress

from supervisor.core.model import ProcessId
from supervisor.process.exit import wait_exit
from supervisor.process.identity import (
    LINUX,
    PROC,
    all_pids,
    current_boot_id,
    gone,
    has_ended,
    identify,
    is_running,
    looks_running,
    open_pidfd,
    opened,
    read_proc,
    read_stat,
)

_PIDFD_SIGNALPROCESS_GROUP = 1 << 2  # Linux 6.9


# Signals


def signal_group(process: ProcessId, signum: int) -> None:
    """Send a signal to the process group of a process; 0 only asks whether that is possible.

    The group, because a kernel's children keep its ports open; the process
    alone if it does not lead a group of its own.  Never reaches a process that
    merely has the same pid.  Raises ProcessLookupError after the end of the
    process, be it a zombie, and PermissionError as kill(2) does.
    """
    try:
        pidfd = open_pidfd(process)
    except ProcessLookupError:
        raise
    except OSError:
        if not looks_running(process):
            raise gone(process.pid) from None
        _send(process.pid, None, signum)
        return
    try:
        if has_ended(pidfd):
            raise gone(process.pid)
        _send(process.pid, pidfd, signum)
    finally:
        os.close(pidfd)


def signal_process(process: ProcessId, signum: int) -> None:
    """Signal a process, not its group; one that has ended, or that is another user's, is no error."""
    with suppress(OSError), opened(process) as pidfd:
        signal.pidfd_send_signal(pidfd, signum)


def continue_group(process: ProcessId) -> None:
    """Let a stopped process and its group go on (SIGCONT); raises as ``signal_group`` does."""
    signal_group(process, signal.SIGCONT)


def _send(pid: int, pidfd: int | None, signum: int) -> None:
    # Neither our own group nor, by killpg(1), every process there is.
    leads = pid > 1 and os.getpgid(pid) == pid != os.getpgrp()
    if pidfd is None:
        (os.killpg if leads else os.kill)(pid, signum)
        return
    if not leads:
        signal.pidfd_send_signal(pidfd, signum)
        return
    try:
        signal.pidfd_send_signal(pidfd, signum, None, _PIDFD_SIGNALPROCESS_GROUP)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.9 there is no such flag
            raise
        os.killpg(pid, signum)


# What an ended process leaves behind


async def end_group(process: ProcessId, patience: float = 1.0) -> bool:
    """Kill what is left in the group of a leader that has ended, since it keeps the ports.

    Waits up to ``patience`` seconds; ``True`` if nothing lives in the group any
    more.  A leader that still lives is killed with it.
    """
    if not _group_remains(process):
        return True
    deadline = time.monotonic() + patience
    while True:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:  # not ours; they may end by themselves
            pass
        living = living_members(process.pid)
        if not living:
            return True
        for member in living:
            if time.monotonic() >= deadline:
                return False
            await _wait_ended(member, deadline)


def _group_remains(process: ProcessId) -> bool:
    """Whether its group has members, zombies included; the pid of a group is not used again while it has."""
    if process.pid <= 1:
        return False
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    if process.boot_id != current_boot_id() or process.pid == os.getpgrp():
        return False
    try:
        return read_stat(process.pid).start_time == process.start_time
    except ProcessLookupError:
        return True


def living_members(group: int) -> list[ProcessId]:
    """Who lives in a process group."""
    living = []
    for pid in all_pids():
        try:
            if read_stat(pid).group == group and is_running(member := identify(pid)):
                living.append(member)
        except OSError:  # ended meanwhile, or hidden from us
            continue
    return living


async def _wait_ended(process: ProcessId, deadline: float) -> None:
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            with opened(process) as pidfd:
                await wait_exit(pidfd)
    except (ProcessLookupError, TimeoutError):
        pass
    except OSError:  # no pidfd is to be had
        await asyncio.sleep(0.01)


def marked_processes(variable: str, value: str, uid: int | None = None) -> list[ProcessId]:
    """The processes of a user (ours) that were started with exactly this environment variable.

    Finds children that left the group and the session of their kernel; zombies
    have no environment.  Never names the calling process.
    """
    found = []
    for pid in all_pids():
        try:
            # Asked first and of the few it is true for again: this goes through all processes of the
            # machine at every death. The pid may have gone to another process before it was identified.
            if pid != os.getpid() and is_marked(pid, variable, value, uid):
                process = identify(pid)
                if is_marked(pid, variable, value, uid):
                    found.append(process)
        except OSError:  # ended meanwhile, or another user's
            continue
    return found


def variable_of(pid: int, variable: str) -> str | None:
    """What an environment variable was when a process was started; ``None`` if that is not to be seen."""
    prefix = os.fsencode(f"{variable}=")
    try:
        variables = read_proc(pid, "environ").split(b"\0")
        return next((v[len(prefix) :].decode() for v in variables if v.startswith(prefix)), None)
    except (OSError, UnicodeDecodeError):
        return None  # ended meanwhile, or another user's


def is_marked(pid: int, variable: str, value: str, uid: int | None = None) -> bool:
    """Whether a process of a user (ours) began with exactly this environment variable.  Raises OSError."""
    if LINUX:
        owner = os.geteuid() if uid is None else uid
        if os.stat(f"{PROC}/{pid}").st_uid != owner:  # noqa: PTH116 - half the time of a Path
            return False
        mark, environment = os.fsencode(f"{variable}={value}"), read_proc(pid, "environ")
        return mark in environment and mark in environment.split(b"\0")
    import psutil

    try:
        return psutil.Process(pid).environ().get(variable) == value
    except psutil.Error:
        return False
