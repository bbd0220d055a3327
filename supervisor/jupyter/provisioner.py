"""A kernel provisioner that starts nothing: it attaches a client to a supervised kernel, by name.

Owns one attachment, to one run: when that is over, the kernel is dead for this
client, whatever run comes next.  The manager behind a provisioner interrupts a
kernel before each shutdown and sends it a ``shutdown_request``; neither is for
a kernel that others may be using.
"""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.connect import KernelConnectionInfo, port_names
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from traitlets import Unicode

from supervisor.disk.off_loop import begin
from supervisor.jupyter.daemon import Daemon, Refused
from supervisor.wording import how_it_ended

Fields = dict[str, Any]

# How long a client that ends may wait for the end of a run that it has ordered to stop, in seconds.
POLL_INTERVAL = 0.1


async def connect(manager: Any, file: str) -> None:
    """Have a client manager at the address in a connection file.  Raises OSError, TypeError, ValueError."""
    address = dict(json.loads(await begin(Path(file).read_bytes)))
    for port in port_names:
        setattr(manager, port, 0)  # what is not 0 is kept
    manager.load_connection_info(address)


class SupervisedProvisioner(KernelProvisionerBase):  # type: ignore[misc]
    """``name`` is the kernel; ``socket`` or ``configuration`` tell which daemon keeps it."""

    name = Unicode("", config=True)
    socket = Unicode("", config=True)
    configuration = Unicode("", config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._daemon = Daemon(self.socket, self.configuration)
        self._view: Fields = {}
        self._generation = 0
        self._attached = False

    @property
    def has_process(self) -> bool:
        """Whether this client is attached."""
        return self._attached

    async def poll(self) -> int | None:
        """``None`` as long as the run lives that this client is attached to."""
        if not self._attached:
            return 0
        try:
            view = self._view = await self._daemon.look(self.name)
        except Refused as refused:
            return None if refused.status_code == 503 else 1  # of nothing that is known has it died
        if view["generation"] == self._generation and view["phase"] in ("running", "stopping"):
            return None
        self.log.error("kernel-supervisor: %s", how_it_ended(view, self._generation))
        return 1

    async def wait(self) -> int | None:
        """Return once the run is over, or this client has left it."""
        while await self.poll() is None:  # noqa: ASYNC110 - the daemon is asked
            await asyncio.sleep(POLL_INTERVAL)
        return 0

    async def send_signal(self, signum: int) -> None:
        """Have the kernel interrupted or signalled, unless that is only on the way out."""
        if signum == 0 or getattr(self.parent, "shutting_down", False):
            return
        verb, more = ("interrupt", {}) if signum == signal.SIGINT else ("signal", {"signal": int(signum)})
        await self._daemon.order(self.name, verb, if_generation=self._generation, **more)

    async def kill(self, restart: bool = False) -> None:
        """Leave the kernel, or have it restarted."""
        await self._leave(restart, now=True)

    async def shutdown_requested(self, restart: bool = False) -> None:
        """Leave the kernel, or have it restarted."""
        await self._leave(restart, now=False)

    terminate = shutdown_requested

    async def _leave(self, restart: bool, *, now: bool) -> None:
        was_attached, self._attached = self._attached, False
        if not was_attached or not (restart or self._view.get("on_client_shutdown") == "stop"):
            return
        try:
            verb = "restart" if restart else "stop"
            await self._daemon.order(self.name, verb, now=now, if_generation=self._generation)
        except Refused as refused:
            if refused.status_code != 409:
                raise
            # Another run has come already: that is what was wanted, or is not ours to stop.

    async def pre_launch(self, **kwargs: Any) -> Fields:
        """Have the kernel started if it is not up."""
        self._view = await self._daemon.look(self.name)
        if self._view["phase"] != "running":
            self._view = await self._daemon.order(self.name, "start")
        return dict(await super().pre_launch(cmd=[], **kwargs))

    async def launch_kernel(self, cmd: list[str], **_: Any) -> KernelConnectionInfo:  # noqa: ARG002
        """Attach to the run that there is."""
        manager: Any = self.parent
        await connect(manager, self._view["connection_file"])
        # What the manager sends on control is for a kernel of its own; this one takes it and tells nobody.
        manager._control_socket = manager.context.socket(zmq.PUB, socket_class=zmq.Socket)
        self.connection_info = manager.get_connection_info()
        self._attached, self._generation = True, self._view["generation"]
        return self.connection_info

    async def cleanup(self, restart: bool = False) -> None:
        """Nothing is ours to clean up."""
