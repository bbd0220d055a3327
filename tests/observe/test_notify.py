"""Telling systemd, with a socket in its place."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.observe.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@supervisor-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        listening.settimeout(30)
        yield name, listening


def test_each_message_is_one_datagram(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})

    assert notifier.is_active
    for told, expected in [
        (notifier.ready(), b"READY=1"),
        (notifier.ready("2 running"), b"READY=1\nSTATUS=2 running"),
        (notifier.status("3 running,\n1 failed"), b"STATUS=3 running, 1 failed"),
        (notifier.stopping("bye"), b"STOPPING=1\nSTATUS=bye"),
        (notifier.extend_timeout(1.5), b"EXTEND_TIMEOUT_USEC=1500000"),
        (notifier.watchdog(), b"WATCHDOG=1"),
    ]:
        assert told
        assert expected == listening.recv(4096)


def test_reloading_carries_the_monotonic_time(manager: tuple[str, socket.socket]) -> None:
    name, listening = manager
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    assert Notifier.from_environ({"NOTIFY_SOCKET": name}).reloading()

    first, second = listening.recv(4096).decode().split("\n")
    assert "RELOADING=1" == first
    at = int(second.removeprefix("MONOTONIC_USEC="))
    assert before <= at <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_manager_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))

        told = [notifier.watchdog() for _ in range(2000)]

    assert told[0]
    assert not told[-1]


@pytest.mark.parametrize(
    "name", ["", "relative", "vsock:2:1", "/no/such/socket", "@no-such-supervisor", "/with\0nul"]
)
def test_without_a_manager_nothing_happens(name: str) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": name})

    assert [False] * 5 == [
        notifier.ready(),
        notifier.status("x"),
        notifier.reloading(),
        notifier.stopping(),
        notifier.watchdog(),
    ]


@pytest.mark.parametrize(
    ("expected", "environ"),
    [
        (15.0, {"WATCHDOG_USEC": "30000000"}),
        (15.0, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}),
        (None, {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}),
        (None, {"WATCHDOG_USEC": "soon"}),
        (None, {"WATCHDOG_USEC": "0"}),
        (None, {}),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_needed(
    expected: float | None, environ: dict[str, str]
) -> None:
    assert expected == Notifier.from_environ({"NOTIFY_SOCKET": "/x", **environ}).watchdog_interval
