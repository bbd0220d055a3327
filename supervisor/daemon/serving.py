"""What the daemon serves with: its door, the watch of its file, and what an edit may ask for.

A module of its own because it is imported behind the first launches, which take as long, and then
whole: by the time that something is asked an upgrade may have exchanged the code.
"""

from __future__ import annotations

from supervisor.control.binding import Bound
from supervisor.control.door import Door
from supervisor.control.lookup import state_socket
from supervisor.control.watch import FileWatch
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.steered import SteeredDaemon
from supervisor.kernel import jobs  # noqa: F401 - an edit may declare the first one


def serving(daemon: Daemon, bound: Bound) -> tuple[Door, FileWatch]:
    """The door behind a socket that is bound; the watch of the file, and of the connection files."""
    supervision, places = daemon.supervision, daemon.supervision.places
    link, wait_disk = state_socket(places.state_dir), supervision.wait_disk
    door = Door(SteeredDaemon(daemon), bound.path, link=link, wait_disk=wait_disk, bound=bound)
    return door, FileWatch(daemon.file.files, daemon.reload_soon, places.runtime_dir, supervision.mend_soon)
