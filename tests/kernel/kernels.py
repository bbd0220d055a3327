"""Real kernels for the tests, a fake one that can be hostile, and talking to them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from jupyter_client import AsyncKernelClient

from supervisor.kernel import wire
from supervisor.kernel.channel import Channel
from supervisor.kernel.connection import Address, Connection
from supervisor.settings.config import KernelConfig
from tests.waiting import DEADLINE

IPYKERNEL = (sys.executable, "-m", "ipykernel_launcher", "-f")
BASH_KERNEL = (sys.executable, "-m", "bash_kernel", "-f")
DENO = (
    shutil.which("deno", path=str(Path(sys.executable).parent)) or "deno",
    "jupyter",
    "--kernel",
    "--conn",
)


def connection(tmp_path: Path, name: str = "a", **settings: object) -> Connection:
    """An address chosen, held and written."""
    made = Connection(name, tmp_path / f"kernel-{name}.json", tmp_path / "ipc")
    made.choose(KernelConfig(name=name, **settings), "python3")  # type: ignore[arg-type]
    made.hold()
    made.write()
    return made


def output_of(at: Connection) -> Path:
    """What kernels at this address wrote."""
    return at.path.with_suffix(".output")


@contextmanager
def running(argv: tuple[str, ...], at: Connection) -> Iterator[subprocess.Popen[bytes]]:
    """A real kernel at an address; gone afterwards, with its children."""
    with output_of(at).open("ab") as output:
        process = subprocess.Popen(
            [*argv, str(at.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "IPYTHONDIR": str(at.path.parent / "ipython")},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


Frames = list[bytes]


def signed_reply(key: str, request: Frames, content: bytes = b'{"status": "ok"}') -> Frames:
    """A right answer to a request, both without the identity frame."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "kernel_info_reply"}
    parts = [json.dumps(header).encode(), request[2], b"{}", content]
    return [wire.DELIMITER, wire.signature(key, parts), *parts]


@dataclass
class FakeKernel:
    """Three ROUTER sockets in a thread; what they answer is up to the test.

    ``answer`` gets the channel and the request, and returns the answers.
    ``seen`` counts the channels asked, and the message types on control and shell.
    """

    address: Address
    answer: Callable[[str, Frames], list[Frames]] | None = None
    seen: Counter[str] = field(default_factory=Counter)

    def honest(self, channel: str, request: Frames) -> list[Frames]:
        """As a kernel should."""
        return [request] if channel == "hb" else [signed_reply(self.address.key, request)]

    @contextmanager
    def serving(self) -> Iterator[FakeKernel]:
        """Bound from the first moment inside until the end."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sockets = {}
        try:
            for channel in ("hb", "control", "shell"):
                sockets[channel] = context.socket(zmq.ROUTER)
                sockets[channel].setsockopt(zmq.LINGER, 0)
                sockets[channel].setsockopt(zmq.IPV6, int("[" in self.address.endpoint("hb")))
                sockets[channel].bind(self.address.endpoint(channel))  # type: ignore[arg-type]
            end = threading.Event()
            thread = threading.Thread(target=self._serve, args=(sockets, end))
            thread.start()
            try:
                yield self
            finally:
                end.set()
                thread.join()
        finally:
            for each in sockets.values():
                each.close()
            context.term()

    def _serve(self, sockets: dict[str, zmq.Socket[bytes]], end: threading.Event) -> None:
        poller = zmq.Poller()
        for each in sockets.values():
            poller.register(each, zmq.POLLIN)
        while not end.is_set():
            ready = dict(poller.poll(20))
            for channel, each in sockets.items():
                if each in ready:
                    identity, *request = each.recv_multipart()
                    self.seen[channel] += 1
                    if channel != "hb":
                        self.seen[json.loads(request[2])["msg_type"]] += 1
                    for frames in (self.answer or self.honest)(channel, request):
                        each.send_multipart([identity, *frames])


def channel_to(at: Connection) -> Channel:
    """A channel to the next run there, or to the present one."""
    assert at.address is not None
    return Channel(at.address)


class Talk:
    """A channel that is closed in the end, and a client of jupyter_client."""

    def __init__(self, at: Connection) -> None:
        self.channel = channel_to(at)
        self.client = AsyncKernelClient()
        self.client.load_connection_file(str(at.path))

    async def ready(self) -> Channel:
        async with asyncio.timeout(DEADLINE):
            await self.channel.wait_ready()
        return self.channel

    async def start_client(self) -> AsyncKernelClient:
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=DEADLINE)
        return self.client


def stop(process: subprocess.Popen[bytes]) -> None:
    """Returns once it stands still."""
    os.kill(process.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
