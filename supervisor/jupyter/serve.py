"""``kernel-supervisor serve``: a Jupyter server with the supervised kernels and nothing else.

Owns the token of it.  It reads no configuration of other servers and loads no
extension but ours: what it offers does not depend on what else is installed.
"""

from __future__ import annotations

import os
import secrets
import sys
from argparse import Namespace
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.auth.identity import PasswordIdentityProvider
from jupyter_server.serverapp import ServerApp
from tornado import web
from traitlets.config import Config


class HeadlessServer(ServerApp):  # type: ignore[misc]
    """A server without what other packages or files would add."""

    @property
    def config_file_paths(self) -> list[str]:
        """None, of any kind: what is configured for a JupyterLab is not for this one."""
        return []


class HeadlessIdentity(PasswordIdentityProvider):  # type: ignore[misc]
    """Forbids pages of other sites what they ask for without the token; upstream says that it is nowhere."""

    def should_check_origin(self, handler: Any) -> bool:
        """Whether the server has to; it will find nothing that was not found here."""
        checked = bool(super().should_check_origin(handler))
        headers = handler.request.headers
        origin = headers.get("Origin", "").lower()
        is_ours = not origin or urlsplit(origin).netloc == headers.get("Host")
        if checked and not is_ours and origin != handler.allow_origin:
            raise web.HTTPError(403)
        return checked


def token_file() -> Path:
    """Where the token is, unless a file is named."""
    return Path(jupyter_data_dir()) / "kernel-supervisor" / "token"


def read_token(file: Path) -> str:
    """The token in a file, which is made at first use.  Raises OSError, also for a bad one."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError), open(file, "x", opener=partial(os.open, mode=0o600)) as new:
        new.write(secrets.token_urlsafe(32) + "\n")
    if file.stat().st_mode & 0o077:
        raise PermissionError(f"{file} can be read by others: chmod 600 it, or remove it to get a new one")
    token = file.read_text().strip()
    if len(token) < 16:
        raise OSError(f"{file} has no token of at least 16 characters: remove it to get a new one")
    return token


def settings(arguments: Namespace, token: str, daemon: dict[str, str]) -> Config:
    """The configuration of the server."""
    config = Config()
    server = config.ServerApp
    server.ip, server.port, server.port_retries = arguments.ip, arguments.port, 0
    server.root_dir = str(Path(arguments.root or Path.cwd()).absolute())
    server.terminals_enabled = False
    server.jpserver_extensions = {"supervisor.jupyter": True}
    server.allow_root = True  # as whoever runs it; it gives nobody more than the socket does
    server.default_url = "/supervisor/"
    if arguments.allow_origin:
        server.allow_origin = arguments.allow_origin
        server.allow_credentials = True
    server.identity_provider_class = HeadlessIdentity
    config.IdentityProvider.token = token
    config.SupervisedKernels = Config(daemon)
    return config


def run(arguments: Namespace, daemon: dict[str, str]) -> int:
    """Serve until a signal.  Raises OSError."""
    file = Path(arguments.token_file) if arguments.token_file else token_file()
    token = read_token(file)
    app = HeadlessServer.instance(config=settings(arguments, token, daemon))
    app.initialize(argv=[])
    url = f"http://{app.ip}:{app.port}/"
    # The token goes to a terminal alone: what is not one may be a log.
    whole = f"{url}?token={token}" if sys.stdout.isatty() else f"{url}?token=$(cat {file})"
    print(f"kernel-supervisor serves its kernels at {whole}", flush=True)
    app.start()
    return 0
