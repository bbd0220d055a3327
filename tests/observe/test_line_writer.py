"""Lines written by a thread: what a broken standard output costs."""

import fcntl
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from supervisor.observe.line_writer import LineWriter
from tests.waiting import wait_for


def marker(count: int) -> bytes:
    return b"lost %d\n" % count


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    yield reading, stream
    for close in (lambda: os.close(reading), stream.close):
        try:
            close()
        except OSError:
            pass


def test_a_full_pipe_holds_nobody_up_and_the_loss_is_told_once_it_is_read(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 4096)
    writer = LineWriter(stream, marker, max_lines=100)
    writer.write(b"x" * 10_000 + b"\n")
    wait_for(lambda: not writer._lines)

    for number in range(10_000):
        writer.write(b"%07d\n" % number)
    assert not writer.flush(0.01)
    assert 9900 == writer.dropped

    received = bytearray()

    def read() -> None:
        while data := os.read(reading, 65536):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert writer.flush(30)
    writer.write(b"last\n")
    assert writer.close(30)
    stream.close()
    reader.join(30)

    lines = bytes(received).decode().splitlines()
    lost = [int(line.split()[1]) for line in lines if line.startswith("lost")]
    kept = [int(line) for line in lines if line.isdigit()]
    assert "last" == lines[-1]
    assert [9900] == lost
    assert list(range(9900, 10_000)) == kept


def test_a_reader_that_went_away_costs_lines_only(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    writer = LineWriter(stream, marker)
    os.close(reading)

    for _ in range(10):
        writer.write(b"x\n")
        assert writer.flush(30)

    assert 10 == writer.dropped
    assert writer.close(30)


def test_a_full_disk_is_survived_and_told_later(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, TextIO]
) -> None:
    reading, stream = pipe
    write, full = os.write, threading.Event()

    def fail(fd: int, data: bytes) -> int:
        if full.is_set():
            raise OSError(28, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr("supervisor.observe.line_writer.os.write", fail)
    writer = LineWriter(stream, marker)
    full.set()
    writer.write(b"one\n")
    writer.write(b"two\n")
    assert writer.flush(30)
    full.clear()
    writer.write(b"three\n")

    assert writer.close(30)
    assert b"lost 2\nthree\n" == os.read(reading, 4096)


def test_a_line_cut_by_a_full_disk_does_not_spoil_the_next(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, TextIO]
) -> None:
    reading, stream = pipe
    write, space = os.write, [3, -1]

    def short(fd: int, data: bytes) -> int:
        if space and space[0] < 0:
            space.pop(0)
            raise OSError(28, "No space left on device")
        return write(fd, data[: space.pop(0)] if space else data)

    monkeypatch.setattr("supervisor.observe.line_writer.os.write", short)
    writer = LineWriter(stream, marker)
    writer.write(b"abcdef\n")
    assert writer.flush(30)
    writer.write(b"next\n")

    assert writer.close(30)
    assert b"abc\nlost 1\nnext\n" == os.read(reading, 4096)


def test_a_stream_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = LineWriter(stream, marker)
    line = b"x" * 300_000 + b"\n"

    writer.write(line)

    received = bytearray()
    while len(received) < len(line):
        received += os.read(reading, 65536)
    assert line == bytes(received)
    assert writer.close(30)


def test_the_queue_is_bounded_in_bytes_too(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    writer = LineWriter(stream, marker, max_bytes=1000)
    writer.write(b"x" * 1_000_000)
    wait_for(lambda: not writer._lines)

    for _ in range(50):
        writer.write(b"y" * 100)

    assert 40 == writer.dropped
    assert not writer.close(0.01)


def test_a_descriptor_that_is_used_again_gets_no_lines(pipe: tuple[int, TextIO]) -> None:
    reading, stream = pipe
    writer = LineWriter(stream, marker)
    stream.close()

    writer.write(b"still there\n")

    assert writer.close(30)
    assert b"still there\n" == os.read(reading, 100)


@pytest.mark.parametrize("closed", [False, True])
def test_a_stream_without_a_descriptor_is_written_as_text(*, closed: bool) -> None:
    stream = io.StringIO()
    writer = LineWriter(stream, marker)
    if closed:
        stream.close()

    writer.write("é\n".encode())

    assert writer.close(30)
    assert closed or "é\n" == stream.getvalue()


def test_no_stream_is_no_error() -> None:
    writer = LineWriter(None, marker)

    writer.write(b"x\n")

    assert writer.close(30)
    writer.write(b"after the end\n")
    assert writer.close(30)


def test_no_thread_and_no_descriptor_is_left_after_closing(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    before = open_files()

    for _ in range(20):
        writer = LineWriter(stream, marker)
        writer.write(b"x\n")
        assert writer.close(30)

    wait_for(lambda: before == open_files())
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "log"])
