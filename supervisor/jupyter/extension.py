"""The extension of Jupyter Server: puts our managers in the place of the default ones.

Owns the decision whether it may, and the two paths of the API whose stock
handlers turn every refusal into "500".
"""

from __future__ import annotations

import json
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.extension.config import ExtensionConfigManager
from jupyter_server.services.kernels.handlers import KernelActionHandler
from jupyter_server.utils import url_path_join
from tornado import web
from traitlets.config import Config

from supervisor.jupyter.channels import SupervisedChannels
from supervisor.jupyter.kernels import SupervisedKernels
from supervisor.jupyter.notebooks import install
from supervisor.jupyter.sessions import SupervisedSessions
from supervisor.jupyter.specs import SupervisedSpecs
from supervisor.page.handlers import rules

# The section of the configuration, and in it the key, that tell which daemon is to be asked.
SECTION, DAEMON = "jupyter_server_config", SupervisedKernels.__name__
CLASSES = {
    "kernel_manager_class": SupervisedKernels,
    "kernel_spec_manager_class": SupervisedSpecs,
    "session_manager_class": SupervisedSessions,
    "kernel_websocket_connection_class": SupervisedChannels,
}


def version_of(package: str) -> str | None:
    """Which version of a package is installed, if any is."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def foreign_supervisor() -> str | None:
    """What is to be told if PyPI's *supervisor* is here too: the two have one import package."""
    if (found := version_of("supervisor")) is None:
        return None
    return (
        f"PyPI's supervisor {found} is installed in this environment, whose import package is ours: "
        "uninstall it here, then install kernel-supervisor anew"
    )


def link(app: Any) -> None:
    """Called before the server makes its managers; classes set in a configuration file come too late."""
    if reason := _reason_to_step_back(app):
        app.log.warning("kernel-supervisor: %s: supervised kernels are not shown", reason)
        return
    if told := foreign_supervisor():
        app.log.warning("kernel-supervisor: %s", told)
    # Not read by the server itself in that directory, as little as classes are.
    files = ExtensionConfigManager(read_config_path=app.config_file_paths).get(SECTION)
    app.config.SupervisedKernels = Config(files.get(DAEMON, {}) | app.config.SupervisedKernels)
    for trait, ours in CLASSES.items():
        setattr(app, trait, ours)


def _reason_to_step_back(app: Any) -> str:
    if app.config.GatewayClient.get("url") or os.environ.get("JUPYTER_GATEWAY_URL"):
        return "this server takes its kernels from a gateway"
    for trait in CLASSES:
        if trait in app.config.ServerApp:
            return f"ServerApp.{trait} is configured to {app.config.ServerApp[trait]}"
    return ""


def load(app: Any) -> None:
    """Called when the managers are made: begin to follow the daemon, once the loop runs."""
    if not isinstance(app.kernel_manager, SupervisedKernels):
        return
    path = r"/api/kernels/(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)/(?P<action>restart)"
    app.web_app.add_handlers(".*$", [(url_path_join(app.base_url, path), RestartHandler)])
    has_lab = "jupyterlab" in app.extension_manager.extensions
    app.web_app.add_handlers(".*$", rules(app.base_url, app.kernel_manager.daemon.client, has_lab=has_lab))
    install(app)
    app.io_loop.add_callback(app.kernel_manager.follow)


class RestartHandler(KernelActionHandler):  # type: ignore[misc]
    """Restarts a supervised kernel; why that was refused is told, with the status that is meant."""

    @web.authenticated
    @authorized
    async def post(self, kernel_id: str, action: str) -> None:
        """Restart it."""
        if self.kernel_manager.of(kernel_id) is None:
            await super().post(kernel_id, action)
            return
        await self.kernel_manager.restart_kernel(kernel_id)
        self.write(json.dumps(self.kernel_manager.kernel_model(kernel_id)))
        self.finish()
