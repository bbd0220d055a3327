"""The journal, with a socket in its place."""

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.observe.journald import Journal


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "socket"))
        journald.settimeout(30)
        yield journald


@pytest.fixture
def journal(listening: socket.socket) -> Iterator[Journal]:
    sending = Journal(listening.getsockname())
    yield sending
    sending.close()


def parse(payload: bytes) -> dict[str, str]:
    """The fields of an entry, as journald reads them."""
    fields = {}
    while payload:
        head, payload = payload.split(b"\n", 1)
        name, equals, value = head.partition(b"=")
        if not equals:
            size = int.from_bytes(payload[:8], "little")
            value, end, payload = payload[8 : 8 + size], payload[8 + size : 9 + size], payload[9 + size :]
            assert b"\n" == end
        fields[name.decode()] = value.decode()
    return fields


DIED: dict[str, object] = {
    "timestamp": "2026-01-02T03:04:05.678Z",
    "level": "warning",
    "event": "kernel.died",
    "kernel": "analysis",
    "generation": 4,
    "pid": 4242,
    "signal": "SIGKILL",
    "cause": "killed",
    "exit_code": None,
    "output_tail": ["one", "two = 2"],
    "key": "0123456789abcdef",
}


def test_an_event_becomes_fields(journal: Journal, listening: socket.socket) -> None:
    assert journal.send(DIED)

    assert {
        "MESSAGE": "analysis died: killed by SIGKILL (run 4, pid 4242)",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "kernel-supervisor",
        "KERNEL_EVENT": "kernel.died",
        "KERNEL": "analysis",
        "KERNEL_TIMESTAMP": "2026-01-02T03:04:05.678Z",
        "KERNEL_GENERATION": "4",
        "KERNEL_PID": "4242",
        "KERNEL_SIGNAL": "SIGKILL",
        "KERNEL_CAUSE": "killed",
        "KERNEL_OUTPUT_TAIL": "one\ntwo = 2",
        "KERNEL_KEY": "[redacted]",
    } == parse(listening.recv(65536))


def test_fields_of_an_event_about_no_kernel_are_the_supervisors(
    journal: Journal, listening: socket.socket
) -> None:
    journal(
        {"level": "error", "event": "config.rejected", "file": "/k.toml", "a.b-c": True, "mistakes": ["x"]}
    )

    fields = parse(listening.recv(65536))
    assert "KERNEL" not in fields
    assert ("3", "config.rejected", "/k.toml", "true", "x") == tuple(
        fields[name]
        for name in ("PRIORITY", "KERNEL_EVENT", "SUPERVISOR_FILE", "SUPERVISOR_A_B_C", "SUPERVISOR_MISTAKES")
    )


def test_an_event_too_large_for_a_datagram_goes_by_a_sealed_file(
    journal: Journal, listening: socket.socket
) -> None:
    tail = [f"line {number} " + "x" * 100 for number in range(20_000)]

    assert journal.send({**DIED, "output_tail": tail})

    data, ancillary, _, _ = listening.recvmsg(65536, socket.CMSG_SPACE(4))
    assert b"" == data
    received = array.array("i")
    received.frombytes(ancillary[0][2])
    with os.fdopen(received[0], "rb") as file:
        assert "\n".join(tail) == parse(os.pread(file.fileno(), 1 << 24, 0))["KERNEL_OUTPUT_TAIL"]
        with pytest.raises(PermissionError):
            os.pwrite(file.fileno(), b"x", 0)


def test_without_a_file_the_end_of_a_large_value_is_sent(
    journal: Journal, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "memfd_create")

    assert journal.send({**DIED, "output_tail": ["x" * 1_000_000, "the end"]})

    tail = parse(listening.recv(65536))["KERNEL_OUTPUT_TAIL"]
    assert 8192 == len(tail)
    assert tail.endswith("x\nthe end")


def test_a_journal_that_does_not_read_holds_nobody_up(journal: Journal, listening: socket.socket) -> None:
    taken = [journal.send(DIED) for _ in range(2000)]

    assert taken[0]
    assert not taken[-1]
    listening.recv(65536)
    assert journal.send(DIED)


def test_a_journal_that_comes_back_is_found(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "later"))
    assert not journal.send(DIED)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(str(tmp_path / "later"))
        assert journal.send(DIED)
    journal.close()


def test_the_journal_is_used_only_if_our_output_goes_there(tmp_path: Path) -> None:
    check = (
        "import os, sys\n"
        "from supervisor.observe.journald import Journal\n"
        "for fd in (1, 2):\n"
        "    status = os.fstat(fd)\n"
        "    named = {'JOURNAL_STREAM': f'{status.st_dev}:{status.st_ino}'}\n"
        "    assert Journal.from_environ(named) is not None\n"
        "for other in ({}, {'JOURNAL_STREAM': ''}, {'JOURNAL_STREAM': '1:2'}, {'JOURNAL_STREAM': 'x'}):\n"
        "    assert Journal.from_environ(other) is None\n"
    )

    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w+") as err:
        ended = subprocess.run([sys.executable, "-c", check], stdout=out, stderr=err, check=False)
        err.seek(0)
        assert (0, "") == (ended.returncode, err.read())
