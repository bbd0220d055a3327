"""The sessions of a server whose supervised kernels outlive it.

Owns their rows beyond the end of the server, and a session for each kernel
that nobody has opened: VS Code lists kernels by their sessions.
"""

from __future__ import annotations

import uuid
from typing import Any

from jupyter_server.services.sessions.sessionmanager import SessionManager

from supervisor.jupyter.kernels import SupervisedKernel

Fields = dict[str, Any]

_REMOVE = "DELETE FROM session WHERE session_id = :session_id"
_RESTORE = "INSERT INTO session VALUES (:session_id, :path, :name, :type, :kernel_id)"


class SupervisedSessions(SessionManager):  # type: ignore[misc]
    """Rows of supervised kernels are remembered; all else is as ever."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for statement in (_REMOVE, _RESTORE):  # a file of its own may have them
            self.cursor.executemany(statement, self.kernel_manager.remembered["sessions"])

    def _remember(self) -> None:
        kernels = self.kernel_manager
        # Whoever has made, changed or deleted one asks for it next, or for all.
        rows = self.cursor.execute("SELECT * FROM session").fetchall()
        kernels.remembered.keep("sessions", [row for row in rows if kernels.of(row["kernel_id"])])

    async def list_sessions(self) -> list[Fields]:
        """Those that were opened, and one for each running kernel that nobody has opened."""
        found = list(await super().list_sessions())
        self._remember()
        opened = {session["kernel"]["id"] for session in found}
        kernels = self.kernel_manager.supervised.values()
        return found + [self._own(k) for k in kernels if k.kernel_id not in opened and k.up.is_set()]

    async def get_session(self, **kwargs: Any) -> Fields:
        """One of either sort."""
        self._remember()
        for kernel in self.kernel_manager.supervised.values():
            if kwargs.get("session_id") == _own_id(kernel):
                return self._own(kernel)
        return dict(await super().get_session(**kwargs))

    def _own(self, kernel: SupervisedKernel) -> Fields:
        name = kernel.kernel_name
        model = self.kernel_manager.kernel_model(kernel.kernel_id)
        return {"id": _own_id(kernel), "path": name, "name": name, "type": "console", "kernel": model}


def _own_id(kernel: SupervisedKernel) -> str:
    return str(uuid.uuid5(uuid.UUID(kernel.kernel_id), "session"))
