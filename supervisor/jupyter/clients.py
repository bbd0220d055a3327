"""A client inside the server, which executes for pages: jupyter-server-nbmodel has one for each kernel.

Owns what it must know beyond a stock client: that a run is over, which no kernel tells.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient

from supervisor.jupyter.requests import error_of

Fields = dict[str, Any]


class SupervisedClient(AsyncKernelClient):
    """A stock client of a supervised kernel, whose executions end when the run does."""

    parent: Any  # its SupervisedKernel

    async def execute_interactive(self, *args: Any, **kwargs: Any) -> Fields:
        """The answer to an execution, or one that tells why none will come."""
        run = await self.parent.wait_up()
        executing: asyncio.Future[Any] = asyncio.ensure_future(super().execute_interactive(*args, **kwargs))
        try:
            await asyncio.wait([executing, run.is_over], return_when=asyncio.FIRST_COMPLETED)
            if executing.done():
                return dict(executing.result())
        finally:
            executing.cancel()
        error = error_of(run.is_over.result())
        if hook := kwargs.get("output_hook"):
            hook({"header": {"msg_type": "error"}, "content": error})
        return {"content": {"status": "error", **error}}
