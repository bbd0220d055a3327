"""What a server must know of supervised kernels before it has reached the daemon: their ids and sessions.

Owns one small file for each root directory and daemon.  A session of a kernel
that a server does not know is deleted by it, and the page with it: this way it
knows them all from its first moment.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

from supervisor.disk.files import write_atomically

log = logging.getLogger(__name__)

Fields = dict[str, Any]

# What is remembered of a view of the daemon's, and of a row of the server's table.
_KEPT = {
    "views": (
        *("id", "name", "display_name", "language", "launch"),
        *("connection_file", "on_client_shutdown", "recorder", "record"),
    ),
    "sessions": ("session_id", "path", "name", "type", "kernel_id"),
}


class Remembered:
    """The kernels and sessions of the last server of this root directory."""

    def __init__(self, root_dir: str, daemon: str) -> None:
        which = hashlib.sha256(os.fsencode(f"{root_dir}\0{daemon}")).hexdigest()[:16]
        self._file = Path(jupyter_data_dir()) / "kernel-supervisor" / f"server-{which}.json"
        self._content: dict[str, list[Fields]] = {"views": [], "sessions": []}
        try:
            content = json.loads(self._file.read_bytes()) if self._file.exists() else self._content
            self._content = {key: _rows(key, content[key]) for key in _KEPT}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot read %s, open pages must be reloaded: %s", self._file, error)

    def __getitem__(self, key: str) -> list[Fields]:
        """The ``views`` of the kernels that there were, but for how they are now, and their ``sessions``."""
        return self._content[key]

    def keep(self, key: str, found: Iterable[Any]) -> None:
        """These there are."""
        rows = _rows(key, found)
        if rows == self._content[key]:
            return
        self._content[key] = rows
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(self._content).encode())
        except OSError as error:
            log.warning("cannot write %s, a restart of this server will lose sessions: %s", self._file, error)


def _rows(key: str, found: Iterable[Any]) -> list[Fields]:
    return [{column: row[column] for column in _KEPT[key]} for row in found]
