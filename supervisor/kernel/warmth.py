"""How warm a launch can be: forked, prepared, or cold with the reason why.

Owns the zygotes of a host, and what a run is told at its begin.  All of it blocks, for as long as a launch
may; it is called in threads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.core.model import AS_EVER, Begun, Cause, Executing, Exit
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import Command, Launcher, environment, format_argv, open_output, spawn, start
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig
from supervisor.warm.command import LAUNCH, IPython, NotWarm, prepared, read_command, write_order
from supervisor.warm.inside import pending
from supervisor.warm.zygotes import Forked, Tell, Zygotes, cause_of
from supervisor.wording import CAUSES, span, written

# As much of the code that is executed is kept, in characters.
CODE = 200
# How long a launch waits for a zygote that imports, in seconds: at first it would have to import as well,
# later somebody waits for it.
FIRST_PATIENCE = 10.0
LATER_PATIENCE = 1.0
# How long the stub answers where there is no next run, in seconds.
STUB_LIFE = 5.0


@dataclass(frozen=True, slots=True)
class Launching:
    """What is to be launched: the parts that every way to launch needs."""

    config: KernelConfig
    command: Command
    connection_file: Path
    output: Path
    pending: Path
    mark: str
    helper_mark: str
    run: int
    death: Mapping[str, Any] | None

    @property
    def argv(self) -> list[str]:
        """The command line as it would be cold."""
        return format_argv(self.command.argv, str(self.connection_file), self.command.resource_dir)

    def order(self, parts: IPython, startup: tuple[str, str]) -> dict[str, Any]:
        """What the kernel is told, by ``warm/inside``."""
        return {
            "run": self.run,
            "mark": self.mark,
            "pending": str(self.pending),
            "code": CODE if self.config.executing else 0,
            "grace": self.config.reconnect_grace,
            "death": self.death,
            "module": parts.module,
            "argv": self.argv,
            "startup": startup[0],
            "startup_name": startup[1],
        }


@dataclass(frozen=True, slots=True)
class Way:
    """How a run begins: forked already, or by which command; ``order`` is a descriptor of its own."""

    begun: Begun
    startup: tuple[str, str]
    parts: IPython | None = None
    order: int = -1
    forked: Forked | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether what it is told is carried out by what runs in it."""
        return self.parts is not None


class Warmth:
    """The warm launches of one host."""

    def __init__(self) -> None:
        self._zygotes = Zygotes(_spawn)

    def way(self, wanted: Launching, tell: Tell) -> Way:
        """As warm as is wished and possible; waits for a zygote.  Raises LaunchError."""
        config, startup = wanted.config, startup_of(wanted.config)
        if config.warm_start == "off":
            return Way(AS_EVER, startup)
        try:
            parts = read_command(wanted.argv)
        except NotWarm as reason:
            return Way(Begun("cold", str(reason)), startup)
        wanted.pending.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        order = write_order(wanted.order(parts, startup))
        way = Way(Begun("prepared"), startup, parts, order)
        if config.warm_start == "prepared":
            return way
        try:
            forked = self._fork(wanted, parts, order, tell)
        except NotWarm as reason:
            return replace(way, begun=Begun("prepared", str(reason)))
        except BaseException:
            os.close(order)
            raise
        os.close(order)
        return replace(way, begun=Begun("fork"), order=-1, forked=forked)

    def spawn(self, launcher: Launcher, wanted: Launching, way: Way) -> subprocess.Popen[bytes]:
        """Start the process of a way that was not forked.  Raises LaunchError."""
        mark = {MARK_VARIABLE: wanted.mark}
        if way.parts is None:
            return launcher.spawn(wanted.command, wanted.connection_file, wanted.output, mark)
        command = replace(wanted.command, argv=tuple(prepared(way.parts, way.order)))
        try:
            options = {"pass_fds": [way.order]}
            return spawn(command, wanted.connection_file, wanted.output, mark, options)
        finally:
            os.close(way.order)

    def _fork(self, wanted: Launching, parts: IPython, order: int, tell: Tell) -> Forked:
        command = wanted.command
        cause = cause_of(parts, environment(command, {}), command.cwd, wanted.config.preload)
        patience = FIRST_PATIENCE if wanted.death is None else LATER_PATIENCE
        zygote = self._zygotes.get(cause, wanted.helper_mark + "zygote", patience, tell)
        shown = {"mark": wanted.mark, "shown": wanted.argv, "words": parts.words, "park": False}
        output = open_output(wanted.output)
        try:
            return zygote.fork(shown, output, order)
        finally:
            os.close(output)

    def answer(self, wanted: Launching, about: Mapping[str, Any]) -> subprocess.Popen[bytes] | None:
        """Have what the last run left answered where there is no next one; ``None`` if there is nothing."""
        try:
            if all(one.replied and one.idle for one in pending.read(str(wanted.pending)).requests):
                wanted.pending.unlink()
                return None
            parts = read_command(wanted.argv)
        except (OSError, NotWarm):
            return None
        order = write_order({**wanted.order(parts, ("", "")), "about": dict(about), "for": STUB_LIFE})
        argv = [*parts.python, LAUNCH, "stub", str(order)]
        env = environment(wanted.command, {MARK_VARIABLE: wanted.helper_mark + "stub"})
        try:
            return _spawn(argv, env, wanted.command.cwd, order)
        except LaunchError:
            return None
        finally:
            os.close(order)

    def close(self) -> None:
        """End the zygotes; the kernels live on."""
        self._zygotes.close()


def _spawn(argv: list[str], env: Mapping[str, str], cwd: str, fd: int) -> subprocess.Popen[bytes]:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return start(argv, {**quiet, "env": dict(env), "cwd": cwd, "pass_fds": [fd], "executable": argv[0]})


def startup_of(config: KernelConfig) -> tuple[str, str]:
    """The start-up code and what its tracebacks call it; empty without any.  Raises LaunchError."""
    if config.startup_file is None:
        return config.startup or "", "<startup>"
    path = Path(config.startup_file).expanduser()
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(
            f'startup_file "{path}": {error}: mend it or change the key', Cause.STARTUP
        ) from error


def left_of(file: Path, ended: Exit, *, ready: bool, executing: bool) -> Exit:
    """The end of a run with what its file tells of it: what it executed, why its start failed."""
    try:
        left = pending.read(str(file))
    except OSError:
        return ended
    if not ready and left.reason:
        detail = left.reason.strip().splitlines()[-1]
        tail = tuple(left.reason.splitlines()[-50:])
        return replace(ended, cause=Cause.STARTUP, detail=detail, output_tail=ended.output_tail or tail)
    return replace(ended, executing=executing_in(left.requests) if executing else None)


def executing_in(requests: list[pending.Request]) -> Executing | None:
    """The cell that is executed, of the requests of a run."""
    for request in requests:
        if request.started is not None and not request.idle and b'"execute_request"' in request.header:
            since = written(datetime.fromtimestamp(request.started, UTC))
            return Executing(request.execution_count, since, request.code)
    return None


def death_told(ended: Exit, at: float, uptime: float, run: int, reason: str, startup: bool) -> dict[str, Any]:
    """What the clients are told of the end of the run before, by the next one (``warm/inside/answers``)."""
    then = "the start-up code has run" if startup else "its variables are lost"
    return {
        "at": at,
        "how": f"{reason or _ending(ended)} after {span(uptime)}",
        "then": f"started again as run {run}; {then}" if run else "it is not started again",
    }


def _ending(ended: Exit) -> str:
    why = f" ({CAUSES[ended.cause.value]})" if ended.cause.value in CAUSES else ""
    if ended.signal is not None:
        return f"killed by {ended.signal}{why}"
    return f"exited with code {ended.code}{why}" if ended.code is not None else f"ended{why}"
