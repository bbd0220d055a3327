"""Clients that ask their manager whether the kernel lives.

Owns what is laid over a client of jupyter_client, which has nobody to ask but the
heartbeat, and takes a kernel that boots for two seconds for a dead one.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any, Protocol

from supervisor.core.model import ProcessId
from supervisor.process.identity import is_running


class Manager(Protocol):
    """What is asked."""

    def _hearer(self) -> ProcessId | None: ...
    def _is_kept(self) -> bool | None: ...
    async def _ask(self, question: Any) -> Any: ...


def attend(client: Any, manager: Manager) -> None:
    """Have ``client.is_alive`` ask the manager, if that has ever started a kernel and somebody holds it.

    It is True while a kernel runs or is to come back, also one that is not ready; but
    False once the process has ended to which the last ``execute_request`` went: the
    answer will never come.  Another request, or ``wait_for_ready``, begins anew.
    """
    asked = weakref.ref(manager)
    waiting = _Waiting(client.session, asked)
    by_heartbeat = client.is_alive

    def is_alive() -> bool:
        kept = None if (known := asked()) is None else known._is_kept()
        return not waiting.in_vain and bool(by_heartbeat() if kept is None else kept)

    async def is_kept() -> bool | None:
        return None if (known := asked()) is None else await known._ask(known._is_kept)

    async def is_alive_soon() -> bool:
        kept = await is_kept()
        return not waiting.in_vain and bool(await by_heartbeat() if kept is None else kept)

    async def may_come() -> bool:
        return await is_kept() is not False

    client.is_alive = is_alive_soon if inspect.iscoroutinefunction(type(client).is_alive) else is_alive
    # What wait_for_ready asks, in clients of all kinds.
    client._async_is_alive = may_come


class _Waiting:
    """The request of a session that is not answered yet, and the process that has it."""

    def __init__(self, session: Any, manager: weakref.ref[Manager]) -> None:
        self._request: tuple[str, ProcessId] | None = None
        self._manager = manager
        self._send, self._deserialize = session.send, session.deserialize
        session.send, session.deserialize = self.send, self.deserialize

    @property
    def in_vain(self) -> bool:
        """Whether the process has ended."""
        return self._request is not None and not is_running(self._request[1])

    def send(self, stream: Any, msg_or_type: Any, *arguments: Any, **keywords: Any) -> Any:
        """As of the session."""
        header = msg_or_type.get("header", {}) if isinstance(msg_or_type, dict) else {}
        match header.get("msg_type"):
            case "execute_request":
                manager = self._manager()
                process = manager._hearer() if manager is not None else None
                self._request = (header["msg_id"], process) if process is not None else None
            case "kernel_info_request":
                self._request = None
        return self._send(stream, msg_or_type, *arguments, **keywords)

    def deserialize(self, *arguments: Any, **keywords: Any) -> Any:
        """As of the session."""
        message = self._deserialize(*arguments, **keywords)
        answered = message["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id")
        if answered and self._request is not None and answered == self._request[0]:
            self._request = None
        return message
