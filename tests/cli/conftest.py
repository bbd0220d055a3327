"""A daemon without kernels, and the command line that asks it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tools import Cli, Done, run
from tests.control.conftest import daemon, steering
from tests.control.fake_steering import FakeDaemon, FakeSteering

__all__ = ["daemon", "steering"]


@pytest.fixture
def cli(daemon: FakeDaemon, tmp_path: Path) -> Cli:
    def asking(*words: str, stdin: str = "") -> Done:
        return run(tmp_path, *words, "--socket", str(daemon.path), stdin=stdin)

    return asking


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """The socket of a daemon that hangs: it listens, and that is all."""
    path = tmp_path / "hanging"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


@pytest.fixture
def usual(tmp_path: Path) -> Iterator[FakeSteering]:
    """A daemon of ``kernels.toml`` at the usual place."""
    steering = FakeSteering(tmp_path)
    with FakeDaemon(steering, tmp_path / ".local/state/kernel-supervisor/control.sock"):
        yield steering
