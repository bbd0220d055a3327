"""The handlers of the page and its part of the API: below one path, none without the server's rules."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.web import RedirectHandler

pytest.importorskip("jupyter_server", reason="jupyter_server is not installed: make test-jupyter")

from supervisor.page.handlers import POLICY, PageHandler, StaticHandler, rules


def test_all_is_below_one_path_and_asks_who_is_there() -> None:
    found = rules("/base/", lambda: None)  # type: ignore[arg-type, return-value]
    handlers: list[Any] = [handler for _, handler, _ in found if handler is not RedirectHandler]

    assert all(path.startswith("/base/supervisor") for path, _, _ in found)
    assert all(handler.auth_resource in ("kernels", "contents") for handler in handlers)
    for handler in handlers:
        answers = [getattr(handler, name) for name in ("get", "post") if name in vars(handler)]
        # Of functions that a decorator has wrapped: it is logged in, then it is allowed.
        assert answers
        assert all(hasattr(answer.__wrapped__, "__wrapped__") for answer in answers), handler


def test_the_page_and_its_files_take_nothing_from_elsewhere() -> None:
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(POLICY.split("; "))
    for handler in (PageHandler, StaticHandler):
        assert POLICY == handler.content_security_policy.fget(None)  # type: ignore[attr-defined]
