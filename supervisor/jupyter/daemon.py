"""The daemon, as an asyncio program may ask it: in threads, so that nothing holds up the loop.

Owns the threads and the stream of events.  Knows no kernel; a thread is a
daemon thread, because a server that exits waits for no order.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from math import inf
from typing import Any

from supervisor.control.asking import UNREACHED, ask
from supervisor.control.client import STATUS_PATH, Answer, Broken, Client, Unresponsive, target
from supervisor.control.follow import Refused as NotFollowed
from supervisor.control.follow import open_events
from supervisor.control.lookup import lead

Fields = dict[str, Any]

# Seconds: between tries to reach a daemon, of silence until its state is looked at anew, and
# for an order, in which a kernel may be stopped and started.
RETRY_INTERVAL = 1.0
SILENCE = 30.0
ORDER_TIMEOUT = 120.0


class Away(Exception):
    """No daemon answers at the moment."""


class Refused(Exception):
    """The daemon did not do it, with an HTTP status and what it said."""

    def __init__(self, answer: Answer) -> None:
        hint = answer.body.get("hint")
        super().__init__(f"{answer.body.get('error')}" + (f": {hint}" if hint else ""))
        self.status = answer.status
        self.view: Fields | None = answer.body.get("kernel")


class Daemon:
    """Asks the daemon at ``socket``, of ``config``, or of the usual places where neither is given."""

    def __init__(self, socket: str | None = None, config: str | None = None) -> None:
        self._named = {"socket": socket or None, "config": config or None}
        self._closed = threading.Event()

    def client(self) -> Client:
        """A client of the daemon as it is to be found now.  Raises BadPath and NoConfig."""
        return Client(found=lead(os.environ, **self._named))

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float = 10.0
    ) -> Fields:
        """What the daemon answers.  Raises Away and Refused."""
        try:
            answer = await ask(self.client, method, path, body, timeout)
        except UNREACHED as error:
            raise Away(f"the daemon of kernel-supervisor does not answer: {error}") from None
        if answer.is_error:
            raise Refused(answer)
        return answer.body

    async def order(self, kernel: str, verb: str, **fields: Any) -> Fields:
        """Have an order carried out; the view of the kernel after it.  Raises Away and Refused."""
        body = {"timeout": ORDER_TIMEOUT, **fields}
        answer = await self.ask("POST", target(f"/v1/kernels/{kernel}/{verb}"), body, ORDER_TIMEOUT + 10)
        return dict(answer.get("kernel") or {})

    def follow(self, looked: Callable[[Fields], object], lost: Callable[[str], object]) -> None:
        """Tell the state of the daemon now and after each event, and begin again whenever that breaks off.

        Both are called on the running loop, from now on until ``close``.
        """
        loop = asyncio.get_running_loop()

        def work() -> None:
            while not self._closed.is_set():
                try:
                    self._follow(lambda status: self._tell(loop, looked, status))
                except (*UNREACHED, NotFollowed) as error:
                    self._tell(loop, lost, str(error))
                    self._closed.wait(RETRY_INTERVAL)

        threading.Thread(target=work, name="kernel-supervisor-events", daemon=True).start()

    def _follow(self, looked: Callable[[Fields], object]) -> None:
        client = self.client()

        def look() -> int:
            status = client.ask("GET", STATUS_PATH)
            if status.is_error:
                raise Broken(f"{STATUS_PATH}: {status.body.get('error')}")
            looked(status.body)
            return int(status.body.get("seq", 0))  # an older daemon tells none

        with open_events(client, {"follow": True, "last": 0, "brief": True}) as stream:
            # Subscribed first, looked next: nothing falls between the two.
            seen = look()
            try:
                for event in stream.lines(SILENCE):
                    # Of many at once the first look has seen all; a gap has no number.
                    if event.get("seq", inf) > seen:
                        seen = look()
            except Unresponsive:
                return  # nothing happened for a while: its state tells whether it is well
        raise Broken(f"{stream.path}: the daemon has left")

    def _tell(self, loop: asyncio.AbstractEventLoop, whom: Callable[[Any], object], what: Any) -> None:
        try:
            loop.call_soon_threadsafe(whom, what)
        except RuntimeError:
            self._closed.set()  # the loop is closed

    def close(self) -> None:
        """Follow no longer."""
        self._closed.set()
