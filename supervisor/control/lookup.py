"""How a daemon is found: its configuration, its state directory, and the socket in that.

The single source of the defaults, for the daemon and for its clients.
Reads a configuration file only as far as its own places; creates nothing.
Imports stay light, because every verb of the command line passes here.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

APP = "kernel-supervisor"
SOCKET_NAME = "control.sock"
SOCKET_VARIABLE = "KERNEL_SUPERVISOR_SOCKET"
CONFIG_VARIABLE = "KERNEL_SUPERVISOR_CONFIG"
_RUN, _ETC = Path("/run"), Path("/etc") / APP
SYSTEM_SOCKET = _RUN / APP / SOCKET_NAME

SUN_PATH_MAX = 107 if sys.platform == "linux" else 103
"""Bytes of a Unix socket's path, less the final zero (unix(7))."""

Environment = Mapping[str, str]

_HERE = (Path("kernels.toml"), Path("config/kernels.toml"))

# How a place is written in a file that is not valid TOML as a whole.
_NAMED_LINE = re.compile(r"""^[ \t]*(state_dir|socket)[ \t]*=[ \t]*["']([^"'\n]+)["']""", re.MULTILINE)


class BadPath(Exception):
    """A path that was given leads nowhere; the text is for people."""


class NoConfig(Exception):
    """No configuration is named, and none is found that may be taken; the text is for people."""


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
    if sys.platform == "linux":  # as platformdirs has it, which takes 20 ms to import
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


def state_socket(state_dir: Path) -> Path:
    """Where every daemon is found: the socket itself, or a link to it."""
    return state_dir / SOCKET_NAME


def config_places(environ: Environment) -> list[Path]:
    """Where a configuration is looked for when none is named, the first one first."""
    home = Path(environ.get("XDG_CONFIG_HOME") or _home(environ) / ".config")
    return [*_HERE, home / APP / "kernels.toml", _ETC / "kernels.toml"]


def default_config(environ: Environment) -> Path | None:
    """The configuration that is taken when none is named: the first that exists.

    One that $KERNEL_SUPERVISOR_CONFIG names is taken even when it does not
    exist, so that the mistake is told and no other file is run.  Raises NoConfig for
    one in the working directory that others could have put there.
    """
    if given := environ.get(CONFIG_VARIABLE):
        return Path(given)
    # Not is_file(), which raises where a directory may not be entered or a name is too long.
    found = next((place for place in config_places(environ) if os.path.isfile(place)), None)  # noqa: PTH113
    if found in _HERE:
        from supervisor.disk.privacy import reason_not_to_trust  # seldom needed, and not light

        if (reason := reason_not_to_trust(found)) is not None:
            raise NoConfig(f"{found} is not obeyed: {reason}: if you trust it, name it: --config {found}")
    return found


def config_of(environ: Environment, named: str | None) -> Path:
    """The configuration that is named, else the default one.  Raises NoConfig."""
    found = Path(named) if named else default_config(environ)
    if found is None:
        places = ", ".join(map(str, config_places(environ)))
        raise NoConfig(f"no configuration is named, and none is found: name one; looked for {places}")
    return found


class Named(NamedTuple):
    """What a configuration file itself says about its places."""

    state_dir: Path | None = None
    socket: Path | None = None


def named_in(config: Path) -> Named:
    """The places that a configuration file names, also if it has mistakes elsewhere.

    The daemon goes on with the file that it read before, so it is to be found
    by one that is half edited, too.  Raises BadPath when there is no such file.
    """
    import tomli

    try:
        if config.exists() and not config.is_file():  # a FIFO would keep us
            raise BadPath(f"{config}: is not a regular file")
        text = config.read_text("utf-8", "replace")
    except OSError as error:
        raise BadPath(f"{config}: cannot be read: {error.strerror}") from None
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
    """Where a client finds its daemon.

    ``sockets`` are tried in turn: the one that was meant, else the user's and the machine's.  At
    one that is not ``certain``, a daemon counts only if it runs the file ``runs``.  ``state_dir``
    has what an earlier daemon left there, ``None`` where the socket alone was named; a socket that
    was ``named`` is asked whoever serves it.
    """

    sockets: tuple[Path, ...]
    state_dir: Path | None = None
    runs: Path | None = None
    certain: Path | None = None
    named: bool = False


def lead(environ: Environment, *, socket: str | None = None, config: str | None = None) -> Lead:
    """Where the daemon is: ``--socket``, ``--config``, the environment, the usual state directory.

    A configuration that ``run`` would take here counts like ``--config`` where it names places of
    its own.  Raises BadPath for a ``--config`` that cannot be read, Untrusted.
    """
    given = socket or (None if config else environ.get(SOCKET_VARIABLE))
    if given:
        return Lead((Path(given),), named=True)
    file = Path(config) if config else default_config(environ)
    try:
        named = named_in(file) if file else Named()
    except BadPath:
        if config:
            raise
        named = Named()
    state_dir = named.state_dir or default_state_dir(environ)
    sockets: tuple[Path, ...] = (state_socket(state_dir),)
    if named.socket:
        # By the state directory a daemon is found that began before the file named this socket.
        sockets = (named.socket, *sockets)
    elif not named.state_dir and config and (unit := _unit_of(Path(config))):
        sockets, state_dir = (_RUN / unit / SOCKET_NAME, *sockets), Path("/var/lib") / unit
    elif not named.state_dir:
        sockets = (*sockets, SYSTEM_SOCKET)
    is_certain = file is None or named.state_dir or not (config or named.socket)
    return Lead(sockets, state_dir, None if is_certain or file is None else file.absolute(), named.socket)


def _unit_of(file: Path) -> str | None:
    """The systemd unit whose file this is (docs/systemd.md)."""
    if file.absolute().parent != _ETC:
        return None
    return APP if file.name == "kernels.toml" else f"{APP}-{file.stem}"


def is_of_a_service(socket: Path) -> bool:
    """Whether the socket is in a directory that systemd alone makes for a service of ours."""
    return socket.parent.parent == _RUN and socket.parent.name.startswith(APP)


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for a socket's path that fits into a socket address.

    A longer path goes through ``/proc/self/fd`` of its directory, where there
    is one.  Raises BadPath elsewhere, and OSError for no such directory.
    """
    if len(os.fsencode(path)) <= SUN_PATH_MAX:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise BadPath(f"{path}: longer than {SUN_PATH_MAX} bytes: name a shorter one (--socket)")
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
