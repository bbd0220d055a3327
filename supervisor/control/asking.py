"""A daemon, asked by a program that has an event loop, which nothing of it holds up.

Owns that it is done in a thread: finding the daemon looks on the disk, and a daemon
may hang.  Knows nothing of what is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from supervisor.control.client import QUICK_TIMEOUT, Answer, Broken, Client, Connection, NoDaemon
from supervisor.control.follow import open_stream
from supervisor.control.lookup import BadPath, NoConfig
from supervisor.disk.off_loop import begin

MakeClient = Callable[[], Client]

# What is raised where no daemon can be asked.
UNREACHED = (NoDaemon, Broken, BadPath, NoConfig, OSError)


async def ask(
    make_client: MakeClient,
    method: str,
    where: str,
    body: Mapping[str, Any] | None = None,
    timeout: float | None = QUICK_TIMEOUT,
) -> Answer:
    """What the daemon answers within ``timeout`` seconds.  Raises ``UNREACHED``."""
    return await begin(lambda: make_client().ask(method, where, body, timeout=timeout))


async def listen(make_client: MakeClient, where: str) -> Connection:
    """A connection from which the lines of this target may be read.  Raises ``UNREACHED`` and Refused."""
    return await begin(lambda: open_stream(make_client(), where))
