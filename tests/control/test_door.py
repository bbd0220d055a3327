"""The open door: who may come in, how many, what is too large, too slow or no HTTP, and its closing."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.control import door
from supervisor.control.door import Limits
from tests.control.conftest import ask, curl, raw, read_all
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import DEADLINE, wait_for

HUGE = 100_000_000


def is_well(daemon: FakeDaemon) -> bool:
    return ask(daemon, "GET", "/v1/status").status == 200


@pytest.fixture
def hasty(steering: FakeSteering, tmp_path: Path) -> Iterator[FakeDaemon]:
    """A door that loses its patience soon."""
    limits = Limits(
        idle_timeout=0.2,
        body_timeout=0.2,
        stalled_timeout=0.2,
        parting_timeout=0.2,
        connections=4,
        followers=2,
    )
    with FakeDaemon(steering, tmp_path / "hasty", limits) as opened:
        yield opened


def post(path: str, length: int) -> bytes:
    """The head of a request, after whose answer the door hangs up."""
    fields = f"Host: x\r\nConnection: close\r\nContent-Length: {length}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_body_of_100_mb_is_refused_without_being_kept(daemon: FakeDaemon, steering: FakeSteering) -> None:
    before = memory()
    piece = b"x" * 100_000
    with raw(daemon) as sock:
        sock.sendall(f"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: {HUGE}\r\n\r\n".encode())
        try:
            for _ in range(HUGE // len(piece)):
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        head, _, body = read_all(sock).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 413 ")
    assert "the body is larger than 1048576 bytes" == json.loads(body)["error"]
    assert memory() - before < HUGE // 2
    assert is_well(daemon)


def test_a_body_of_100_mb_in_chunks_is_refused_without_being_kept(daemon: FakeDaemon) -> None:
    before = memory()
    piece = b"186a0\r\n" + b"x" * 100_000 + b"\r\n"
    with raw(daemon) as sock:
        sock.sendall(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(HUGE // 100_000):
                sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_all(sock)

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert memory() - before < HUGE // 2
    assert is_well(daemon)


def test_curl_reads_why_its_large_body_is_refused(daemon: FakeDaemon, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * 5_000_000)

    code, body = curl(daemon, "--data-binary", f"@{large}", "http://localhost/v1/plan")

    assert (413, "no request needs that") == (code, body["hint"])


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff" * 500 + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"y" * 5_000_000,
    ],
)
def test_garbage_is_refused_and_hung_up_on(daemon: FakeDaemon, garbage: bytes) -> None:
    with raw(daemon) as sock:
        try:
            sock.sendall(garbage)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = read_all(sock)

    assert b"" == answer or answer.startswith(b"HTTP/1.1 400 ")
    assert is_well(daemon)


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"now":' * 10_000])
def test_a_body_that_is_not_json_is_told_so(daemon: FakeDaemon, body: bytes) -> None:
    with raw(daemon) as sock:
        sock.sendall(post("/v1/kernels/robot/stop", len(body)) + body)
        head, _, told = read_all(sock).decode().partition("\r\n\r\n")

    assert head.startswith("HTTP/1.1 400 ")
    assert json.loads(told)["error"].startswith("the body is not JSON")
    assert is_well(daemon)


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET /v1/sta",
        b"GET /v1/status HTTP/1.1\r\nHost:",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    ],
)
def test_half_a_request_is_hung_up_on_after_a_while(hasty: FakeDaemon, half: bytes) -> None:
    with raw(hasty) as sock:
        sock.sendall(half)

        assert b"" == read_all(sock)
    assert is_well(hasty)


def test_an_idle_connection_is_hung_up_on_after_its_answer(hasty: FakeDaemon) -> None:
    with raw(hasty) as sock:
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")

        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


def test_one_connection_too_many_is_told_so(steering: FakeSteering, tmp_path: Path) -> None:
    with FakeDaemon(steering, tmp_path / "few", Limits(connections=4)) as few:
        held = [raw(few) for _ in range(4)]
        for sock in held:
            sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
        with raw(few) as sock:
            assert read_all(sock).startswith(b"HTTP/1.1 503 ")
        for sock in held:
            sock.close()

        wait_for(lambda: ask(few, "GET", "/v1/status").status == 200)


def test_one_follower_too_many_is_told_so(hasty: FakeDaemon, steering: FakeSteering) -> None:
    held = []
    for number in range(2):
        sock = raw(hasty)
        sock.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        held.append(sock)
        wait_for(lambda number=number: steering.followers == number + 1)

    answer = ask(hasty, "GET", "/v1/events", follow=True)

    assert (503, "too many clients follow already") == (answer.status, answer.body["error"])
    for sock in held:
        sock.close()
    wait_for(lambda: steering.followers == 0)


def test_a_follower_that_does_not_read_is_dropped_with_a_gap_marker(
    hasty: FakeDaemon, steering: FakeSteering
) -> None:
    steering.flood = True
    before = memory()
    with raw(hasty) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: steering.followers == 1)
        assert is_well(hasty)
        wait_for(lambda: steering.followers == 0)
        assert memory() - before < 50_000_000
        told = read_all(sock)
    steering.flood = False

    assert b'"event":"kernel.ready"' in told
    assert is_well(hasty)


def test_a_dropped_follower_that_reads_again_finds_the_gap_last(
    steering: FakeSteering, tmp_path: Path
) -> None:
    steering.flood = True
    limits = Limits(stalled_timeout=0.2, parting_timeout=DEADLINE)
    with FakeDaemon(steering, tmp_path / "patient", limits) as patient, raw(patient) as sock:
        sock.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: steering.followers == 1)
        exchange = next(iter(patient.door.exchanges))
        wait_for(lambda: exchange._connection._write_finished)

        told = read_all(sock)

    last = [line for line in told.splitlines() if line.startswith(b"{")][-1]
    assert "stream.gap" == json.loads(last)["event"]


def test_a_stream_that_does_not_end_by_itself_is_broken_off_when_the_door_closes(
    hasty: FakeDaemon, steering: FakeSteering
) -> None:
    with raw(hasty) as sock:
        sock.sendall(b"GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: steering.followers == 1)

        hasty.run(hasty.door.close())

        assert not read_all(sock).endswith(b"0\r\n\r\n"), "that would be an orderly end"
    assert 0 == steering.followers


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory into which every user may look, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_by_the_mode_of_the_file_and_by_the_door(
    steering: FakeSteering, passable: Path
) -> None:
    path = passable / "s"
    script = (
        "import os, socket, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        "    sock.connect(sys.argv[1])\n"
        "except PermissionError:\n"
        "    print('refused by the mode'); raise SystemExit\n"
        "try:\n"
        "    sock.sendall(b'POST /v1/shutdown HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\n\\r\\n')\n"
        "except BrokenPipeError:\n"
        "    pass  # it was turned away before it could say anything\n"
        "print(sock.recv(1000).decode())\n"
    )
    command = [sys.executable, "-c", script, str(path)]

    with FakeDaemon(steering, path):
        by_mode = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        path.chmod(0o666)
        by_door = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout

    assert "refused by the mode\n" == by_mode
    assert by_door.startswith("HTTP/1.1 403 Forbidden")
    assert "this daemon belongs to another user" in by_door
    assert [] == steering.ended


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_socket_that_was_removed_is_there_again(
    steering: FakeSteering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(door, "LOOK_INTERVAL", 0.05)
    path = tmp_path / "run" / "door"
    with FakeDaemon(steering, path) as daemon:
        keeping = daemon.begin(daemon.door.keep_open())
        path.unlink()
        if what == "directory":
            path.parent.rmdir()
        wait_for(path.exists, "it is bound anew")

        assert is_well(daemon)
        assert 0o600 == path.stat().st_mode & 0o777
        assert 0o700 == path.parent.stat().st_mode & 0o777
        keeping.cancel()
    assert not path.exists()


def test_one_in_whose_place_another_daemon_is_drives_nobody_out(
    steering: FakeSteering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(door, "LOOK_INTERVAL", 0.05)
    path = tmp_path / "door"
    with FakeDaemon(steering, path) as daemon:
        path.unlink()
        with FakeDaemon(FakeSteering(tmp_path / "other"), path) as other:
            keeping = daemon.begin(daemon.door.keep_open())
            wait_for(lambda: "a daemon answers there already" in caplog.text, "it is told")

            assert ask(other, "GET", "/v1/status").status == 200
        wait_for(lambda: path.exists() and is_well(daemon), "its place is free again")
        keeping.cancel()
