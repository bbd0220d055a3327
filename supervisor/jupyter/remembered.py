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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir

from supervisor.disk.files import write_atomically

log = logging.getLogger(__name__)

Fields = dict[str, Any]

# What of a view is remembered.
_KEPT = (
    "id",
    "name",
    "display_name",
    "language",
    "launch",
    "connection_file",
    "on_client_shutdown",
)


class Remembered:
    """The kernels and sessions of the last server of this root directory."""

    def __init__(self, root_dir: str, daemon: str) -> None:
        which = hashlib.sha256(os.fsencode(f"{root_dir}\0{daemon}")).hexdigest()[:16]
        self._file = Path(jupyter_data_dir()) / "kernel-supervisor" / f"server-{which}.json"
        self._content: dict[str, list[Fields]] = {"views": [], "sessions": []}
        try:
            content = json.loads(self._file.read_bytes())
            self._content = {key: [dict(one) for one in content[key]] for key in self._content}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot read %s, open pages must be reloaded: %s", self._file, error)

    @property
    def views(self) -> list[Fields]:
        """The kernels that there were; how they are now is not known."""
        return [
            {**view, "phase": "unknown", "generation": 0, "want": "up"} for view in self._content["views"]
        ]

    @property
    def sessions(self) -> list[Fields]:
        """The sessions of them, as rows of the server's table."""
        return self._content["sessions"]

    def keep_views(self, views: Iterable[Mapping[str, Any]]) -> None:
        """These kernels there are."""
        self._keep("views", [{key: view[key] for key in _KEPT} for view in views])

    def keep_sessions(self, sessions: Iterable[Fields]) -> None:
        """These sessions of them there are."""
        self._keep("sessions", list(sessions))

    def _keep(self, key: str, found: list[Fields]) -> None:
        if found == self._content[key]:
            return
        self._content[key] = found
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._file, json.dumps(self._content).encode())
        except OSError as error:
            log.warning("cannot write %s, a restart of this server will lose sessions: %s", self._file, error)
