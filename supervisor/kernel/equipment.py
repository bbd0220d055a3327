"""What a host is equipped with: how it launches, where it keeps addresses and records.

Owns the choices in which a daemon and a library that supervises one kernel
differ; the defaults are the daemon's.  Decides nothing about when.
"""

from __future__ import annotations

import errno
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from supervisor.kernel import kernelspec
from supervisor.kernel.connection import Connection
from supervisor.kernel.launch import DEFAULT_KERNELSPEC, Command, resolve, spawn
from supervisor.kernel.line import Context
from supervisor.records.places import Places
from supervisor.records.record import Record
from supervisor.settings.config import KernelConfig


class Launcher:
    """From settings to a process, as the daemon does it; ``supervisor.kernel.launch`` has the rules."""

    def resolve(self, config: KernelConfig) -> Command:
        """The command for these settings.  Raises LaunchError."""
        return resolve(config)

    def interrupt_mode(self, config: KernelConfig) -> str:
        """How such a kernel is interrupted, whether or not it could be launched now.  Raises LaunchError."""
        if config.interrupt_mode is not None:
            return config.interrupt_mode
        if config.argv is not None and config.kernelspec is None:
            return "signal"
        return kernelspec.find(config.kernelspec or DEFAULT_KERNELSPEC).interrupt_mode

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

    def open(self) -> None:
        """Have libzmq make its threads now, while no kernel depends on us.

        It does so for the first socket of a context, and aborts the whole process if
        it cannot; later ones need none.  Raises OSError where that would happen.
        """
        _check_threads(_ZMQ_THREADS)
        try:
            (self.context or zmq.Context.instance()).socket(zmq.DEALER).close(linger=0)
        except zmq.ZMQError:
            pass  # no descriptor is left, say: whoever needs a socket tells


# One for the sockets, and one that closes them (zmq_ctx_set(3), ZMQ_IO_THREADS).
_ZMQ_THREADS = 2


def _check_threads(count: int) -> None:
    enough = threading.Event()
    try:
        for _ in range(count):
            threading.Thread(target=enough.wait, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no more threads are to be had") from error
    finally:
        enough.set()
