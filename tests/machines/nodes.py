"""Runs of ``node.py`` here, as an engine would start them on another machine; and stock clients of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from jupyter_client import AsyncKernelClient, BlockingKernelClient, KernelClient

from supervisor.machines import node
from supervisor.machines.relay import CHANNELS
from tests.kernels.using import MINI, hear
from tests.waiting import DEADLINE, wait_for

Client = TypeVar("Client", bound=KernelClient)
Target = tuple[tuple[str, int], ...]

KEY = "0123456789abcdef"
IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class Job:
    """A run directory and the process that a job would be."""

    def __init__(self, directory: Path, argv: list[str] = MINI, **told: object) -> None:
        directory.mkdir(mode=0o700)
        self.directory = directory
        self.environment = {**os.environ, "SLURM_SUBMIT_HOST": "127.0.0.1"}
        names = {
            "version": 1,
            "mark": "m/a/1",
            "key": KEY,
            "signature_scheme": "hmac-sha256",
            "kernel_name": "x",
        }
        run = {**names, "argv": argv, "env": {}, "output": str(directory / "output"), **told}
        (directory / "run.json").write_text(json.dumps(run))

    def start(self) -> subprocess.Popen[bytes]:
        """Start the script; again for a second job of the same run."""
        with (self.directory / "job.output").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, node.__file__, str(self.directory)],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self.process

    def file(self, name: str) -> dict[str, Any] | None:
        """What is in one of the files of the run, if it is there."""
        try:
            content: dict[str, Any] = json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return None
        return content

    def place(self) -> dict[str, Any]:
        """Where the kernel is, once it is anywhere."""
        return wait_for(lambda: self.file("place.json"), lambda: f"a place: {self.file('end.json')}")

    def target(self) -> tuple[tuple[str, int], ...]:
        """The same for a relay."""
        place = self.place()
        return tuple((place["ip"], place[f"{channel}_port"]) for channel in CHANNELS)

    def end(self) -> dict[str, Any]:
        """How it ended, once the script has."""
        self.process.wait(DEADLINE)
        end = self.file("end.json")
        assert end is not None
        return end


@contextmanager
def running(directory: Path, argv: list[str] = MINI, **told: object) -> Iterator[Job]:
    """A job that runs; nothing of it is left afterwards."""
    job = Job(directory, argv, **told)
    job.start()
    try:
        yield job
    finally:
        if (place := job.file("place.json")) is not None:
            try:
                os.killpg(place["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        if job.process.poll() is None:
            job.process.terminate()
        job.process.wait(DEADLINE)


@contextmanager
def _connected(made: Client, target: Target) -> Iterator[Client]:
    ports = {f"{channel}_port": port for channel, (_, port) in zip(CHANNELS, target, strict=True)}
    where = {"ip": target[0][0], "transport": "tcp", "key": KEY, "signature_scheme": "hmac-sha256"}
    made.load_connection_info({**where, **ports})
    made.start_channels()
    try:
        yield made
    finally:
        made.stop_channels()


def client(target: Target) -> AbstractContextManager[BlockingKernelClient]:
    """A stock client of an address."""
    return _connected(BlockingKernelClient(), target)


@contextmanager
def direct_client(target: Target) -> Iterator[BlockingKernelClient]:
    """A stock client of the kernel itself, once it has subscribed: what is published before is lost."""
    with client(target) as made:
        hear(made)
        yield made


def async_client(target: Target) -> AbstractContextManager[AsyncKernelClient]:
    """The same beside other things on a loop."""
    return _connected(AsyncKernelClient(), target)


class Written(list[str]):
    """What a cell has written to its standard output so far."""

    def hear(self, message: dict[str, Any]) -> None:
        """Take note of a message."""
        if message["msg_type"] == "stream":
            self.append(message["content"]["text"])


def value_of(client: BlockingKernelClient, code: str) -> str:
    """All that a cell writes."""
    written = Written()
    client.execute_interactive(code, timeout=DEADLINE, output_hook=written.hear)
    return "".join(written)


async def async_value_of(client: AsyncKernelClient, code: str) -> str:
    """The same."""
    written = Written()
    await client.execute_interactive(code, timeout=DEADLINE, output_hook=written.hear)
    return "".join(written)
