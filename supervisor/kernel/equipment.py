"""What a host is equipped with: how it launches, where it keeps addresses and records.

Owns the choices in which a daemon and a library that supervises one kernel
differ; the defaults are the daemon's.  Decides nothing about when.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.config import KernelConfig
from supervisor.kernel.connection import Connection
from supervisor.kernel.launch import Command, resolve, spawn
from supervisor.kernel.line import Context
from supervisor.kernel.places import Places
from supervisor.kernel.record import Record


class Launcher:
    """From settings to a process, as the daemon does it; ``supervisor.kernel.launch`` has the rules."""

    def resolve(self, config: KernelConfig) -> Command:
        """The command for these settings.  Raises LaunchError."""
        return resolve(config)

    def spawn(
        self, command: Command, connection_file: Path, output: Path, mark: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start the process, in a session of its own.  Raises LaunchError."""
        return spawn(command, connection_file, output, mark)


class NoRecords:
    """The records of a supervisor whose kernels nobody is to take up after it: none."""

    def write(self, record: Record) -> None:
        """Forget it."""

    def remove(self, name: str) -> None:
        """There is none."""


def make_connection(kernel: str, places: Places) -> Connection:
    """An address of its own for a kernel, in the runtime directory."""
    return Connection(kernel, places.connection_file(kernel), places.runtime_dir / "ipc")


@dataclass(frozen=True)
class Equipment:
    """``context`` is the zmq context of our own sockets; ``None``: the one of the process."""

    launcher: Launcher = field(default_factory=Launcher)
    connect: Callable[[str, Places], Connection] = make_connection
    context: Context | None = None
