"""Where things are: the state directory, the control socket, the configuration.

The single source of the default places, for the daemon and for its clients.
Reads a configuration file only as far as its own places; creates nothing.
Imports stay light, because every verb of the command line passes here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

APP = "kernel-supervisor"
SOCKET_NAME = "control.sock"
SOCKET_VARIABLE = "KERNEL_SUPERVISOR_SOCKET"
CONFIG_VARIABLE = "KERNEL_SUPERVISOR_CONFIG"
SYSTEM_SOCKET = Path("/run") / APP / SOCKET_NAME

SUN_PATH_MAX = 107 if os.uname().sysname == "Linux" else 103
"""Bytes of a Unix socket's path, less the final zero (unix(7))."""

Environment = Mapping[str, str]

# How a place is written in a file that is not valid TOML as a whole.
_NAMED_LINE = re.compile(r"""^[ \t]*(state_dir|socket)[ \t]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)


class PlaceError(Exception):
    """A configuration file cannot be read for its places; the text is for people."""


def _first(environ: Environment, variable: str) -> str:
    """The first path of a colon-separated variable of systemd's, else ``""``."""
    return environ.get(variable, "").split(":")[0]


def _home(environ: Environment) -> Path:
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path.expanduser raises without one
    return Path(home if home != "~" else "/")


def expand(text: str, base: Path) -> Path:
    """A path of the file as an absolute one: ``~`` and ``$NAME`` filled in, relative to ``base``.

    An unknown user's ``~`` stays as it is: reading the file tells it as a mistake.
    """
    return base / os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111 - Path's raises for unknown users


def default_state_dir(environ: Environment) -> Path:
    """Where records, lock and logs are kept unless the file says otherwise."""
    if given := _first(environ, "STATE_DIRECTORY"):
        return Path(given)
    if os.uname().sysname == "Linux":  # as platformdirs has it, which takes 20 ms to import
        return Path(environ.get("XDG_STATE_HOME", "").strip() or _home(environ) / ".local/state") / APP
    import platformdirs

    return Path(platformdirs.user_state_dir(APP, appauthor=False))


def default_socket(environ: Environment, state_dir: Path, *, state_dir_is_given: bool = False) -> Path:
    """The control socket of a daemon whose file names none.

    systemd's $RUNTIME_DIRECTORY belongs to one unit, so it comes first.  Next,
    a state directory that was chosen: two daemons of one user with different
    state directories then never meet on one socket.
    """
    if given := _first(environ, "RUNTIME_DIRECTORY"):
        return Path(given) / SOCKET_NAME
    if not state_dir_is_given and (runtime := environ.get("XDG_RUNTIME_DIR", "")):
        return Path(runtime) / APP / SOCKET_NAME
    return state_dir / SOCKET_NAME


def state_alias(state_dir: Path) -> Path:
    """The name by which the socket is reached below its state directory, wherever it is."""
    return state_dir / SOCKET_NAME


def config_places(environ: Environment) -> list[Path]:
    """Where a configuration is looked for when none is named, the first one first."""
    home = Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config")
    given = environ.get(CONFIG_VARIABLE)
    places = [Path("kernels.toml"), Path("config/kernels.toml"), home / APP / "kernels.toml"]
    return [*([Path(given)] if given else []), *places, Path("/etc") / APP / "kernels.toml"]


def default_config(environ: Environment) -> Path | None:
    """The configuration that is taken when none is named: the first that exists.

    One that $KERNEL_SUPERVISOR_CONFIG names is taken even when it does not
    exist, so that the mistake is told and no other file is run.
    """
    if given := environ.get(CONFIG_VARIABLE):
        return Path(given)
    # Not is_file(), which raises where a directory may not be entered or a name is too long.
    return next((place for place in config_places(environ) if os.path.isfile(place)), None)  # noqa: PTH113


class Named(NamedTuple):
    """What a configuration file itself says about its places."""

    state_dir: Path | None = None
    socket: Path | None = None


def named_in(config: Path) -> Named:
    """The places that a configuration file names, also if it has mistakes elsewhere.

    The daemon goes on with the file that it read before, so it is to be found
    by one that is half edited, too.  Raises PlaceError when there is no such file.
    """
    import tomli

    try:
        if config.exists() and not config.is_file():
            raise PlaceError(f"{config}: is not a regular file")  # a FIFO would keep us
        text = config.read_text("utf-8", "replace")
    except OSError as error:
        raise PlaceError(f"{config}: cannot be read: {error.strerror}") from None
    try:
        table = tomli.loads(text).get("supervisor", {})
    except (ValueError, RecursionError):
        table = dict(_NAMED_LINE.findall(text))
    if not isinstance(table, dict):
        return Named()
    base = config.absolute().parent
    found = {key: table.get(key) for key in ("state_dir", "socket")}
    return Named(**{key: expand(text, base) for key, text in found.items() if isinstance(text, str)})


class Lead(NamedTuple):
    """Where a client is to look for its daemon: sockets to try, and its state directory.

    ``must_run`` has those of the sockets at which the daemon of another file may
    answer, and the file that it must run to be the one that is meant.
    """

    sockets: tuple[Path, ...]
    state_dir: Path
    must_run: Mapping[Path, Path] = {}


def lead(environ: Environment, *, socket: str | None = None, config: str | None = None) -> Lead:
    """Where the daemon may be: ``--socket``, ``--config``, the environment, the default places.

    A configuration that ``run`` would take here counts like ``--config``
    where it names places of its own.  Raises PlaceError for a ``--config``
    that cannot be read.
    """
    usual = default_state_dir(environ)
    if socket:
        return Lead((Path(socket),), usual)
    if config:
        return _lead_of(Path(config), named_in(Path(config)), environ, is_meant=True)
    if given := environ.get(SOCKET_VARIABLE):
        return Lead((Path(given),), usual)
    here = default_config(environ)
    try:
        named = named_in(here) if here else Named()
    except PlaceError:
        named = Named()
    return _lead_of(here, named, environ, is_meant=False)


def _lead_of(file: Path | None, named: Named, environ: Environment, *, is_meant: bool) -> Lead:
    """Where the daemon of a file is; ``is_meant``: of no other file, though it be at a usual place."""
    state_dir = named.state_dir or default_state_dir(environ)
    alias = state_alias(state_dir)
    if named.socket:
        # By the alias a daemon is found that began before the file named this socket.
        sockets, unsure = [named.socket, alias], [alias]
    elif named.state_dir:
        sockets, unsure = [alias, default_socket(environ, state_dir, state_dir_is_given=True)], []
    else:
        sockets = [default_socket(environ, state_dir), alias, SYSTEM_SOCKET]
        unsure = sockets if is_meant else []
    if named.state_dir or file is None:
        unsure = []
    must_run = {place: file.absolute() for place in unsure if place != named.socket} if file else {}
    return Lead(tuple(dict.fromkeys(sockets)), state_dir, must_run)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for a socket's path that fits into a socket address.

    A longer path goes through ``/proc/self/fd`` of its directory, where there
    is one.  Raises PlaceError elsewhere, and OSError for no such directory.
    """
    if len(os.fsencode(path)) <= SUN_PATH_MAX:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise PlaceError(f"{path}: longer than {SUN_PATH_MAX} bytes: name a shorter one (--socket)")
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def is_same_file(one: str, other: Path) -> bool:
    """Whether two paths name one file; one that is gone is known by its name only."""
    try:
        return one == str(other) or other.samefile(one)
    except OSError:
        return False
