"""The daemon, as a program of Jupyter asks and follows it.

Owns what it is asked with, and what becomes of refusals.  Knows no kernel.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from math import inf
from typing import Any

from tornado import web

from supervisor.control.asking import UNREACHED, ask, listen
from supervisor.control.client import STATUS_PATH, Client, target
from supervisor.control.lookup import lead

Fields = dict[str, Any]

# Seconds: between tries to reach a daemon, of silence until its state is looked at anew, and
# for an order, in which a kernel may be stopped and started.
RETRY_INTERVAL = 1.0
SILENCE = 30.0
ORDER_TIMEOUT = 120.0
_EVENTS = target("/v1/events", {"follow": True, "last": 0, "brief": True})


class Refused(web.HTTPError):
    """The daemon did not do it, and why; with status 503 where none answers."""

    def __str__(self) -> str:
        return str(self.log_message)


class Daemon:
    """Asks the daemon at ``socket``, of ``config``, or of the usual places where neither is given."""

    def __init__(self, socket: str | None = None, config: str | None = None) -> None:
        self._named = {"socket": socket or None, "config": config or None}

    def client(self) -> Client:
        """A client of the daemon as it is to be found now.  Raises BadPath and NoConfig."""
        return Client(found=lead(os.environ, **self._named))

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float = 10.0
    ) -> Fields:
        """What the daemon answers.  Raises Refused."""
        try:
            answer = await ask(self.client, method, path, body, timeout)
        except UNREACHED as error:
            raise Refused(503, f"the daemon of kernel-supervisor does not answer: {error}") from None
        if answer.is_error:
            told = filter(None, (answer.body.get("error"), answer.body.get("hint")))
            raise Refused(answer.status, ": ".join(told))
        return answer.body

    async def look(self, kernel: str) -> Fields:
        """The view of a kernel.  Raises Refused."""
        return dict((await self.ask("GET", target(f"/v1/kernels/{kernel}")))["kernel"])

    async def order(self, kernel: str, verb: str, **fields: Any) -> Fields:
        """Have an order carried out; the view of the kernel after it.  Raises Refused."""
        timeout = 0.0 if verb in ("interrupt", "signal") else ORDER_TIMEOUT
        body = {"timeout": timeout, **fields} if timeout else fields
        answer = await self.ask("POST", target(f"/v1/kernels/{kernel}/{verb}"), body, timeout + 10)
        return dict(answer.get("kernel") or {})

    async def follow(self, looked: Callable[[Fields], object], lost: Callable[[str], object]) -> None:
        """Tell the state of the daemon now and after each event, and begin again whenever that breaks off."""
        while True:
            try:
                await self._follow(looked)
            except Exception as error:  # whatever it answers, the next one may do better
                lost(f"{error}")
                await asyncio.sleep(RETRY_INTERVAL)

    async def _follow(self, looked: Callable[[Fields], object]) -> None:
        # Subscribed first, looked next: nothing falls between the two.
        events: list[Fields] | None = []
        seen = 0
        with closing(await listen(self.client, _EVENTS)) as lines:
            while events is not None:
                # Of many at once the first look has seen all; a gap has no number.
                if not events or any(event.get("seq", inf) > seen for event in events):
                    status = await self.ask("GET", STATUS_PATH)
                    looked(status)
                    seen = int(status.get("seq", 0))  # an older daemon tells none
                events = await lines.next(SILENCE)
        raise ConnectionError("the daemon has left")
