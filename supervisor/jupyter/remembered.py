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
    "recorder",
)


class Remembered:
    """The kernels and sessions of the last server of this root directory."""

    def __init__(self, root_dir: str, daemon: str) -> None:
        which = hashlib.sha256(os.fsencode(f"{root_dir}\0{daemon}")).hexdigest()[:16]
        self._file = Path(jupyter_data_dir()) / "kernel-supervisor" / f"server-{which}.json"
        self.views: list[Fields] = []
        self.sessions: list[Fields] = []
        self._is_read_only = False
        try:
            content = json.loads(self._file.read_bytes())
            self.views = [
                {**view, "phase": "unknown", "generation": 0, "want": "up"} for view in content["views"]
            ]
            self.sessions = [dict(session) for session in content["sessions"]]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot read %s, open pages must be reloaded: %s", self._file, error)

    def keep_views(self, views: Iterable[Mapping[str, Any]]) -> None:
        """These kernels there are."""
        found = [{key: view[key] for key in _KEPT} for view in views]
        if found != [{key: view.get(key) for key in _KEPT} for view in self.views]:
            self.views = found
            self._write()

    def keep_sessions(self, sessions: Iterable[Fields]) -> None:
        """These sessions of them there are."""
        found = list(sessions)
        if found != self.sessions:
            self.sessions = found
            self._write()

    def _write(self) -> None:
        content = json.dumps({"views": self.views, "sessions": self.sessions})
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._file, content.encode())
        except OSError as error:
            log.warning("cannot write %s, a restart of this server will lose sessions: %s", self._file, error)
