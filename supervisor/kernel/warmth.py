"""How warm a launch can be: forked, prepared, or cold with the reason why.

Owns the zygotes of a host, and what a run is told at its begin.  All of it blocks, for as long as a launch
may; it is called in threads.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core.model import AS_EVER, Begun, Cause
from supervisor.disk.files import read_bounded
from supervisor.kernel.kernelspec import LaunchError
from supervisor.kernel.launch import Command, Launcher, environment, format_argv, open_output, spawn, start
from supervisor.process.account import acting, expand
from supervisor.records.record import MARK_VARIABLE
from supervisor.settings.config import KernelConfig
from supervisor.warm.command import LAUNCH, IPython, NotWarm, prepared, read_command, write_order
from supervisor.warm.inside import pending
from supervisor.warm.zygotes import Forked, Tell, Zygote, Zygotes, cause_of

# Bytes of a start-up file: it may be another account's.
LARGEST_STARTUP = 1 << 20
# As much of the code that is executed is kept, in characters.
CODE = 200
# How long a launch waits for a zygote that imports, in seconds: at first it would have to import as well,
# later somebody waits for it.
FIRST_PATIENCE = 10.0
LATER_PATIENCE = 1.0
PARK_PATIENCE = 60.0
FORKED = ("fork", "standby")
# How long a spare may take to say that it takes its place: one that is stopped never does.
TAKE_PATIENCE = 1.0
# How long the stub answers where there is no next run, in seconds.
STUB_LIFE = 5.0


class Launching(Struct, frozen=True):
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

    @property
    def parts(self) -> IPython:
        """The parts of its command.  Raises NotWarm, also for another account's: it might lie about pids."""
        if (account := self.command.account) is not None:
            raise NotWarm(f"it runs as {account.name}: only kernels of the daemon's own account start warm")
        return read_command(self.argv)

    @property
    def startup(self) -> tuple[str, str]:
        """Its start-up code, as its account reads it.  Raises LaunchError."""
        config, account = self.config, self.command.account
        if config.startup_file is None:
            return config.startup or "", "<startup>"
        path = Path(expand(config.startup_file, account))
        try:
            with acting(account):
                data = path.read_bytes() if account is None else read_bounded(path, LARGEST_STARTUP)
            return data.decode().replace("\r\n", "\n"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(
                f'startup_file "{path}": {error}: mend it or change the key', Cause.STARTUP
            ) from error

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


class Way(Struct, frozen=True):
    """How a run begins: forked already, or by which command; ``order`` is a descriptor of its own."""

    begun: Begun
    startup: tuple[str, str]
    parts: IPython | None = None
    order: int = -1
    forked: Forked | None = None


class Spare(Struct, frozen=True):
    """A kernel that is parked, or on its way there."""

    number: int
    forked: Forked
    zygote: Zygote
    argv: list[str]
    startup: tuple[str, str]

    def end(self) -> None:
        """End it, and let go of it."""
        self.forked.kill()
        self.forked.close()


class Warmth:
    """The warm launches of one host."""

    def __init__(self) -> None:
        self._zygotes = Zygotes(_spawn)
        self._stubs: list[subprocess.Popen[bytes]] = []

    def way(self, wanted: Launching, tell: Tell) -> Way:
        """As warm as is wished and possible; waits for a zygote.  Raises LaunchError."""
        config, startup = wanted.config, wanted.startup
        if config.warm_start not in FORKED:
            self.leave(config.name)
        if config.warm_start == "off":
            return Way(AS_EVER, startup)
        try:
            parts = wanted.parts
        except NotWarm as reason:
            return Way(Begun("cold", str(reason)), startup)
        order = _order_for(wanted, parts, startup)
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
        patience = FIRST_PATIENCE if wanted.death is None else LATER_PATIENCE
        zygote = self._zygote(wanted, parts, patience, tell)
        return _ask(zygote, wanted, parts, wanted.mark, order, open_output(wanted.output), park=False)

    def _zygote(self, wanted: Launching, parts: IPython, patience: float, tell: Tell) -> Zygote:
        command = wanted.command
        cause = cause_of(parts, environment(command, {}), command.cwd, wanted.config.preload)
        mark = wanted.helper_mark + "zygote"
        return self._zygotes.get(wanted.config.name, cause, mark, patience, tell)

    def kindle(self, wanted: Launching, tell: Tell) -> None:
        """Return once there is a zygote for the next launch, or can be none."""
        with suppress(NotWarm, LaunchError, OSError):
            self._zygote(wanted, wanted.parts, PARK_PATIENCE, tell)

    def leave(self, kernel: str) -> None:
        """The kernel is not to be forked any more, until it is launched again."""
        self._zygotes.leave(kernel)

    def bury(self) -> None:
        """Let go of the helpers that have ended."""
        self._zygotes.bury()
        self._stubs = [stub for stub in self._stubs if stub.poll() is None]

    def park(self, wanted: Launching, number: int, tell: Tell) -> Spare:
        """Begin a spare, which says on its cord when it is parked.  Raises NotWarm, LaunchError."""
        parts, startup = wanted.parts, wanted.startup
        zygote = self._zygote(wanted, parts, PARK_PATIENCE, tell)
        order = write_order(wanted.order(parts, startup))
        mark = f"{wanted.helper_mark}standby/{wanted.config.name}"
        try:
            forked = _ask(zygote, wanted, parts, mark, order, os.memfd_create("standby"), park=True)
        finally:
            os.close(order)
        return Spare(number, forked, zygote, wanted.argv, startup)

    def promote(self, spare: Spare, wanted: Launching) -> str:
        """Let the spare take the address, and tell it all that is known now; empty, or why it cannot."""
        parts, startup = wanted.parts, wanted.startup
        if (spare.argv, spare.startup) != (wanted.argv, startup):
            return "its start-up code has changed"
        if (path := spare.zygote.stale()) is not None:
            return f"changed: {path}"
        order = _order_for(wanted, parts, startup)
        try:
            return _handed_over(spare, order, open_output(wanted.output))
        finally:
            os.close(order)

    def answer(self, wanted: Launching, about: Mapping[str, Any]) -> subprocess.Popen[bytes] | None:
        """Have what the last run left answered where there is no next one; ``None`` if there is nothing."""
        try:
            if all(one.replied and one.idle for one in pending.read(str(wanted.pending)).requests):
                wanted.pending.unlink()
                return None
            parts = wanted.parts
        except (OSError, NotWarm):
            return None
        order = write_order({**wanted.order(parts, ("", "")), "about": dict(about), "for": STUB_LIFE})
        argv = [*parts.python, LAUNCH, "stub", str(order)]
        env = environment(wanted.command, {MARK_VARIABLE: wanted.helper_mark + "stub"})
        try:
            stub = _spawn(argv, env, wanted.command.cwd, order)
        except LaunchError:
            return None
        finally:
            os.close(order)
        self._stubs = [*self._stubs, stub]
        return stub

    def close(self) -> None:
        """End the zygotes; the kernels live on."""
        self._zygotes.close()


def _order_for(wanted: Launching, parts: IPython, startup: tuple[str, str]) -> int:
    """The order for the next run, to be closed, and a place for what it will have pending."""
    wanted.pending.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return write_order(wanted.order(parts, startup))


def _ask(
    zygote: Zygote, wanted: Launching, parts: IPython, mark: str, order: int, output: int, *, park: bool
) -> Forked:
    """Have a kernel forked that writes to ``output``, which is closed here."""
    try:
        return zygote.fork(
            {"mark": mark, "shown": wanted.argv, "words": parts.words, "park": park}, output, order
        )
    finally:
        os.close(output)


def _handed_over(spare: Spare, order: int, output: int) -> str:
    """Empty, or why a spare does not go on with this order; ``output`` is closed."""
    try:
        spare.forked.cord.settimeout(TAKE_PATIENCE)
        has_taken = spare.forked.go(order, output) and spare.forked.cord.recv(64)
        return "" if has_taken else "it has ended"
    except OSError as error:
        return str(error)
    finally:
        os.close(output)


def _spawn(argv: list[str], env: Mapping[str, str], cwd: str, fd: int) -> subprocess.Popen[bytes]:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    return start(argv, {**quiet, "env": dict(env), "cwd": cwd, "pass_fds": [fd], "executable": argv[0]})
