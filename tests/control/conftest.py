"""A door on a fake daemon, and a raw client of it."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.control.client import Answer, Client, target
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import DEADLINE


@pytest.fixture
def steering(tmp_path: Path) -> FakeSteering:
    return FakeSteering(tmp_path)


@pytest.fixture
def daemon(steering: FakeSteering, tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(steering, tmp_path / "s") as opened:
        yield opened


def ask(daemon: FakeDaemon, method: str, path: str, body: Any = None, **query: Any) -> Answer:
    return Client([daemon.path]).ask(method, target(path, query), body, timeout=DEADLINE)


def raw(daemon: FakeDaemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(DEADLINE)
    sock.connect(str(daemon.path))
    return sock


def read_all(sock: socket.socket) -> bytes:
    found = b""
    try:
        while piece := sock.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def curl(daemon: FakeDaemon, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = ["curl", "-sS", "-w", "\n%{http_code}", "--unix-socket", str(daemon.path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    text, _, code = done.stdout.rpartition("\n")
    return int(code), json.loads(text) if text.strip() else {}
