"""The page and its part of the daemon's API, for a Jupyter Server to serve.

Owns the paths below ``/supervisor`` and the policy of the page.  Who may look and
who may order is the server's rule: its token or password, XSRF, and origins.
Knows the daemon by its client alone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.utils import ensure_async, url_escape, url_path_join
from tornado import web
from tornado.iostream import StreamClosedError

from supervisor.control.asking import UNREACHED, MakeClient, ask, listen
from supervisor.control.client import Answer, target
from supervisor.control.follow import Refused

T = TypeVar("T")

STATIC = Path(__file__).with_name("static")
# Nothing from elsewhere, nothing that is no file of ours, in no other page's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# What is sent when nothing happens, so that a broken connection is noticed; in seconds.
PULSE = 10.0
ORDER_TIMEOUT = 120.0


def rules(
    base_url: str, make_client: MakeClient, *, has_lab: bool = False
) -> list[tuple[str, Any, dict[str, Any]]]:
    """The handlers to be added to a Jupyter Server; ``has_lab``: there is a JupyterLab to open kernels in."""
    below = url_path_join(base_url, "supervisor")
    shared = {"make_client": make_client}
    return [
        (below, web.RedirectHandler, {"url": f"{below}/", "permanent": False}),
        (f"{below}/", PageHandler, {"has_lab": has_lab}),
        (f"{below}/notebook", NotebookHandler, {}),
        (f"{below}/busy", BusyHandler, {}),
        (f"{below}/metrics", MetricsHandler, shared),
        (f"{below}/static/(.*)", StaticHandler, {"path": str(STATIC)}),
        (f"{below}/v1/(.*)", DoorHandler, shared),
    ]


class PageHandler(JupyterHandler):
    """The page itself."""

    auth_resource = "kernels"

    def initialize(self, has_lab: bool) -> None:
        """Keep whether there is a JupyterLab."""
        self._has_lab = has_lab

    @property
    def content_security_policy(self) -> str:
        """Stricter than the server's own: this page needs nothing else."""
        return POLICY

    @web.authenticated
    @authorized
    def get(self) -> None:
        """Answer with the page."""
        text = (STATIC / "page.html").read_text()
        _ = self.xsrf_token  # which sets the cookie that orders need
        self.set_header("Cache-Control", "no-store")
        self.finish(text.replace("<html ", "<html data-lab ") if self._has_lab else text)


class StaticHandler(JupyterHandler, web.StaticFileHandler):
    """Its modules and its style."""

    auth_resource = "kernels"

    @web.authenticated
    @authorized
    async def get(self, path: str, include_body: bool = True) -> None:  # type: ignore[override]
        """Answer with a file."""
        await web.StaticFileHandler.get(self, path, include_body)

    @property
    def content_security_policy(self) -> str:
        """As of the page."""
        return POLICY

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002
        """An upgrade is to be seen at once."""
        self.set_header("Cache-Control", "no-cache")


class _DaemonHandler(APIHandler):
    """Asks the daemon, in a thread, so that nothing holds up the server."""

    auth_resource = "kernels"

    def initialize(self, make_client: MakeClient) -> None:
        """Keep how the daemon is found."""
        self._make_client = make_client

    async def ask(self, method: str, asked: str, body: dict[str, Any] | None = None) -> Answer:
        """What the daemon answers.  Raises HTTPError 503 where none does."""
        patience = ORDER_TIMEOUT if body is not None else 10.0
        return await self.reach(ask(self._make_client, method, asked, body, patience))

    async def reach(self, asked: Awaitable[T]) -> T:
        """What is told.  Raises HTTPError 503 where no daemon answers."""
        try:
            return await asked
        except UNREACHED as error:
            raise web.HTTPError(503, reason="No daemon", log_message=str(error)) from None


class DoorHandler(_DaemonHandler):
    """The daemon's API, as far as a page may ask: all but what would end the daemon.

    A path comes decoded, and is quoted anew: it could hold a whole request of its own.
    """

    @web.authenticated
    @authorized
    async def get(self, path: str) -> None:
        """Ask, or follow."""
        query = self.request.query
        asked = target(f"/v1/{path}") + (f"?{query}" if query else "")
        if path == "events" or path.endswith("/output"):
            await self._follow(asked)
        else:
            self._pass_on(await self.ask("GET", asked))

    @web.authenticated
    @authorized
    async def post(self, path: str) -> None:
        """Order."""
        if path in ("detach", "shutdown"):
            raise web.HTTPError(403, reason="Not from a page")
        self._pass_on(await self.ask("POST", target(f"/v1/{path}"), self.get_json_body() or {}))

    def _pass_on(self, answer: Answer) -> None:
        self.set_status(answer.status)
        self.finish(json.dumps(answer.body))

    async def _follow(self, asked: str) -> None:
        try:
            lines = await self.reach(listen(self._make_client, asked))
        except Refused as refused:
            self._pass_on(refused.answer)
            return
        self.set_header("Content-Type", "application/x-ndjson")
        try:
            while (told := await lines.next(PULSE)) is not None:
                self.write("".join(f"{json.dumps(line)}\n" for line in told) or "\n")
                await self.flush()
        except StreamClosedError:
            pass  # the page has gone
        finally:
            lines.close()


class NotebookHandler(APIHandler):
    """A notebook on a kernel, to be opened in JupyterLab: the one that there is, else a new one."""

    auth_resource = "contents"

    @web.authenticated
    @authorized
    async def post(self) -> None:
        """Answer with the ``url`` of the notebook on the kernel of an ``id``."""
        kernel = str((self.get_json_body() or {}).get("id"))
        if kernel not in self.kernel_manager:
            raise web.HTTPError(404, reason="No such kernel")
        sessions = [session for session in await self.session_manager.list_sessions()
                    if session["kernel"]["id"] == kernel and session["type"] == "notebook"]  # fmt: skip
        path = str(sessions[0]["path"]) if sessions else await self._new(kernel)
        self.finish(json.dumps({"url": url_path_join(self.base_url, "lab/tree", url_escape(path))}))

    async def _new(self, kernel: str) -> str:
        spec = self.kernel_manager.get_kernel(kernel).kernel_name
        metadata = {"kernelspec": {"name": spec, "display_name": spec}}
        content = {"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        model = {"type": "notebook", "content": content}
        path = await ensure_async(self.contents_manager.increment_filename(f"{spec}.ipynb"))
        await ensure_async(self.contents_manager.new(model, path))
        await self.session_manager.create_session(
            path=path, name=path, type="notebook", kernel_name=spec, kernel_id=kernel
        )
        return str(path)


class BusyHandler(APIHandler):
    """When kernels executed, as far as this server, or one before it, has heard."""

    auth_resource = "kernels"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with spans, as pairs of instants in seconds, of each ``kernel`` after ``since``."""
        try:
            since = float(self.get_argument("since", "0"))
        except ValueError:
            raise web.HTTPError(400, reason="since is a number of seconds") from None
        known = self.kernel_manager.supervised
        asked = [known[name] for name in self.get_arguments("kernel") if name in known]
        spans = await asyncio.gather(*(kernel.busy(since) for kernel in asked))
        names = [kernel.kernel_name for kernel in asked]
        self.finish(json.dumps({"busy": dict(zip(names, spans, strict=True))}))


class MetricsHandler(_DaemonHandler):
    """The metrics, for Prometheus."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the metrics of this moment."""
        from supervisor.page.metrics import exposition

        status, usage, counts = [(await self.ask("GET", f"/v1/{path}")).body for path in _MEASURED]
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(exposition(status, usage.get("usage") or {}, counts))


_MEASURED = ("status", "usage", "counts")
