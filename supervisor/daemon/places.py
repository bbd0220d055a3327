"""Where the daemon has its directories and its socket: as given, as the file says, or as is usual.

Owns the order of these.  Makes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.control.places import PlaceError, default_socket, default_state_dir, expand, named_in
from supervisor.settings.config import Config


def named_state_dir(file: Path) -> Path:
    """The state directory of a file that has mistakes: what it names all the same, else the default place."""
    try:
        return named_in(file).state_dir or default_state_dir(os.environ)
    except PlaceError:
        return default_state_dir(os.environ)


def place_state_dir(named: str | None, file: Path) -> Path:
    """The state directory: what the file names, relative to it, else the default place."""
    return expand(named, file.parent) if named else default_state_dir(os.environ)


def place_runtime_dir(named: str | None, file: Path) -> Path:
    """The directory of the connection files: what the file names, else Jupyter's."""
    if named:
        return expand(named, file.parent)
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir())


def place_socket(given: Path | None, config: Config, state_dir: Path, file: Path) -> Path:
    """The control socket: what was given, what the file names, else the default place."""
    if given is not None:
        return given.absolute()
    if config.supervisor.socket:
        return expand(config.supervisor.socket, file.parent)
    return default_socket(os.environ, state_dir, state_dir_is_given=config.supervisor.state_dir is not None)
