"""One life of the daemon, from the words of the command line to the exit code.

The composition root.  Owns where the daemon has its directories and its socket: as given, as
the file says, or as is usual.
"""

from __future__ import annotations

import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, cast

from jupyter_core.paths import jupyter_runtime_dir

from supervisor.control.binding import Bound
from supervisor.control.client import STATUS_PATH, Broken, Client, NoDaemon, Unresponsive
from supervisor.control.lookup import (
    BadPath,
    default_socket,
    default_state_dir,
    expand,
    lead,
    named_in,
    state_socket,
)
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.settings_file import SettingsFile
from supervisor.disk.canary import Canaries
from supervisor.disk.lock import AlreadyLocked
from supervisor.disk.privacy import UnsafeDirectory
from supervisor.observe.journald import Journal
from supervisor.observe.log import Format, Log, configure
from supervisor.process.descriptors import raise_limit
from supervisor.process.memory import share_arena
from supervisor.settings.config import Config
from supervisor.settings.file import ConfigError
from supervisor.supervision.supervision import Supervision

if TYPE_CHECKING:
    from supervisor.control.door import Door
    from supervisor.control.watch import FileWatch

EXIT_CONFIG = 78
ANSWER_TIMEOUT = 2.0
"""Seconds in which another daemon tells whether it runs the same file."""


def live(named: Path, arguments: Namespace, canaries: Canaries) -> int:
    """Run the daemon in the foreground until it is told to leave; returns its exit code.

    The options stand in for the keys of the file with the same names.
    """
    file = SettingsFile(named.absolute())
    given = Path(arguments.state_dir).absolute() if arguments.state_dir else None
    try:
        config = file.load_first(lambda: given or named_state_dir(file.path))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    settings, base = config.supervisor, file.path.parent
    state_given = given or (expand(settings.state_dir, base) if settings.state_dir else None)
    state_dir = (state_given or default_state_dir(os.environ)).absolute()
    runtime_dir = expand(settings.runtime_dir, base) if settings.runtime_dir else Path(jupyter_runtime_dir())
    socket = default_socket(os.environ, state_dir, state_dir_is_given=state_given is not None)
    if arguments.socket or settings.socket:
        socket = (
            Path(arguments.socket).absolute() if arguments.socket else expand(settings.socket or "", base)
        )
    if state_given is None and (other := who_runs(file.path, {socket, state_socket(state_dir)})):
        print(f"kernel-supervisor: {file.path}: is run by {other}", file=sys.stderr)
        return 1
    form = cast("Format", arguments.log_format or settings.log_format)
    log = configure(settings.log_level, form, journal=Journal.from_environ())

    raise_limit()
    share_arena()
    supervision = Supervision(config, state_dir, runtime_dir, canaries, has_cgroups=True)
    try:
        return asyncio.run(_serve(file, config, supervision, log, socket))
    except (AlreadyLocked, UnsafeDirectory, OSError) as error:
        log.flush()
        print(f"kernel-supervisor: {_refusal(error, state_dir)}", file=sys.stderr)
        return 1
    finally:
        log.close()


def _refusal(error: Exception, state_dir: Path) -> str:
    if isinstance(error, OSError) and error.filename and Path(error.filename).is_relative_to(state_dir):
        return f"{error.filename}: {error.strerror}: what the daemon must keep has no place in this state_dir"
    if isinstance(error, OSError) and error.filename is None:
        return error.strerror or str(error)
    return str(error)


async def _serve(file: SettingsFile, config: Config, supervision: Supervision, log: Log, socket: Path) -> int:
    def serve(daemon: Daemon, bound: Bound) -> tuple[Door, FileWatch]:
        from supervisor.daemon.serving import serving

        return serving(daemon, bound)

    return await Daemon(file, config, supervision, log).run(socket, serve)


def who_runs(file: Path, ours: Set[Path]) -> str:
    """Which daemon runs this file with another state directory, and what to do; ``""`` for none.

    As when root calls ``run`` beside the machine's service: that would start a second set of kernels.
    """
    found = lead(os.environ, config=str(file))
    others = tuple(path for path in found.sockets if path not in ours)
    try:
        running = Client(found=found._replace(sockets=others)).ask("GET", STATUS_PATH, timeout=ANSWER_TIMEOUT)
        who = f"another daemon (pid {running.body.get('pid')}) already"
    except Unresponsive as silent:
        who = f"another daemon perhaps ({silent})"
    except (NoDaemon, Broken):
        return ""
    return (
        f"{who}: ask that one (kernel-supervisor status --config {file}), "
        "or give this one a --state-dir of its own"
    )


def named_state_dir(file: Path) -> Path:
    """The state directory of a file that has mistakes: what it names all the same, else the usual one."""
    try:
        return named_in(file).state_dir or default_state_dir(os.environ)
    except BadPath:
        return default_state_dir(os.environ)
