"""The output file: no line is lost by rotation, by trimming under a writing process, or by following."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.output import file as module
from supervisor.output import stream
from supervisor.output.file import OutputFile, Reader, clean_lines, follow, read
from supervisor.output.stream import Position
from tests.output.lines import append, line, lines
from tests.waiting import DEADLINE, wait_for

WRITER = """
import os, sys, time
for number in range(int(sys.argv[1])):
    os.write(1, b"line %07d\\n" % number)
"""


def contents(path: Path) -> bytes:
    """All that is on disk, oldest first, as a person would put it together."""
    numbers = sorted((int(p.suffix[1:]) for p in path.parent.glob("a.log.[0-9]*")), reverse=True)
    files = [path.with_name(f"a.log.{number}") for number in numbers] + [path] * path.exists()
    return b"".join(file.read_bytes().lstrip(b"\0") for file in files)


def start_writer(path: Path, count: int) -> subprocess.Popen[bytes]:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        return subprocess.Popen([sys.executable, "-c", WRITER, str(count)], stdout=fd)
    finally:
        os.close(fd)


# Rotation


def test_a_file_below_the_limit_is_left_alone(path: Path) -> None:
    append(path, lines(1, 2))

    assert not OutputFile(path).rotate(1000, 3)
    assert not OutputFile(path).trim(1000, 3)
    assert not OutputFile(path).rotate(0, 3)
    assert not OutputFile(path).trim(0, 3)
    assert lines(1, 2) == path.read_bytes()


def test_a_file_that_is_not_there_is_empty(path: Path) -> None:
    file = OutputFile(path)

    assert not file.rotate(1, 3)
    assert not file.trim(1, 3)
    assert () == file.tail_since(Position())
    assert b"" == read(path)
    assert Position() == file.position()


def test_rotation_keeps_every_line_and_as_many_backups_as_are_wanted(path: Path) -> None:
    file = OutputFile(path)
    for number in range(5):
        append(path, line(number))
        assert file.rotate(1, 3)

    assert not path.exists()
    assert {"a.log.1": line(4), "a.log.2": line(3), "a.log.3": line(2)} == {
        p.name: p.read_bytes() for p in path.parent.iterdir()
    }


def test_fewer_backups_are_kept_when_fewer_are_wanted(path: Path) -> None:
    for number in range(5):
        append(path, line(number))
        OutputFile(path).rotate(1, 5)
    append(path, line(5))
    OutputFile(path).rotate(1, 2)

    assert lines(4, 5) == contents(path)


def test_a_gap_in_the_backups_is_filled_before_one_is_dropped(path: Path) -> None:
    for number in range(3):
        append(path, line(number))
        OutputFile(path).rotate(1, 3)
    path.with_name("a.log.2").unlink()
    append(path, line(3))
    OutputFile(path).rotate(1, 3)

    assert lines(0, 2, 3) == contents(path)


def test_a_writer_that_outlived_its_run_writes_on_into_the_backup(path: Path) -> None:
    with path.open("ab", buffering=0) as escaped:
        escaped.write(line(1))
        OutputFile(path).rotate(1, 3)
        append(path, line(2))
        escaped.write(line(9))

    assert lines(1, 9, 2) == contents(path)


# Trimming


def test_trimming_moves_whole_lines_and_a_writer_goes_on_at_the_end(path: Path) -> None:
    with path.open("ab", buffering=0) as kernel:
        kernel.write(lines(*range(2000)) + b"half a li")
        assert OutputFile(path).trim(10_000, 9)
        kernel.write(b"ne\n")

    assert lines(*range(2000)) + b"half a line\n" == contents(path)
    for backup in path.parent.glob("a.log.*"):
        assert backup.read_bytes().endswith(b"\n")
        assert backup.stat().st_size <= 10_000
        assert 0o600 == stat.S_IMODE(backup.stat().st_mode)


def test_the_room_is_given_back(path: Path) -> None:
    append(path, b"x" * 99 + b"\n")
    for _ in range(9):
        append(path, (b"x" * 99 + b"\n") * 10_000)

        assert OutputFile(path).trim(500_000, 1)
        assert path.stat().st_blocks * 512 < 600_000
    assert ["a.log", "a.log.1"] == sorted(p.name for p in path.parent.iterdir())


def test_where_blocks_can_be_taken_out_the_file_gets_shorter(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    append(path, lines(*range(100_000)))
    try:
        OutputFile(path).trim(100_000, 20)
    except OSError as error:
        pytest.skip(f"this file system has no holes: {error}")

    size = path.stat().st_size
    if size > 1_000_000:
        pytest.skip("this file system cannot take blocks out of a file")
    assert size < 200_000
    assert lines(*range(100_000)) == contents(path)


def test_a_line_without_end_is_cut_rather_than_kept_for_ever(path: Path) -> None:
    append(path, b"x" * 25_000)

    assert OutputFile(path).trim(10_000, 9)
    assert b"x" * 25_000 == contents(path)
    assert path.read_bytes().lstrip(b"\0") == b"x" * 5_000


def test_without_backups_the_newer_half_stays(path: Path) -> None:
    append(path, lines(*range(10_000)))

    assert OutputFile(path).trim(26_000, 0)
    left = path.read_bytes().lstrip(b"\0")
    assert left.endswith(line(9999))
    assert left.startswith(b"line ")
    assert 12_900 <= len(left) <= 13_100
    assert [path] == list(path.parent.iterdir())


def test_a_file_system_without_holes_is_told_and_nothing_changes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(module, "_fallocate", refuse)
    append(path, lines(1, 2))

    with pytest.raises(OSError, match="not supported"):
        OutputFile(path).trim(1, 3)
    assert {"a.log": lines(1, 2)} == {p.name: p.read_bytes() for p in path.parent.iterdir()}
    assert OutputFile(path).rotate(1, 3)


def test_before_a_start_the_newer_half_stays_where_no_room_can_be_given_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(module, "_fallocate", refuse)
    append(path, lines(*range(100)))

    assert OutputFile(path).rotate(650, 0)

    left = path.read_bytes()
    assert lines(*range(100)).endswith(left)
    assert left.startswith(b"line ")
    assert 300 <= len(left) <= 340
    assert [path] == list(path.parent.iterdir())
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert not OutputFile(path).rotate(650, 0)


def test_a_full_disk_gets_room_from_the_oldest_backups_and_then_from_the_oldest_lines(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = OutputFile(path)
    append(path, lines(*range(100)))
    output.trim(600, 3)
    assert 3 == len(list(path.parent.iterdir()))
    left = len(path.read_bytes().lstrip(b"\0"))
    append(path, lines(*range(100, 200)))
    monkeypatch.setattr(module, "write_all", refuse)

    assert output.trim(600, 3)

    assert [path] == list(path.parent.iterdir())
    assert lines(*range(200)).endswith(data := contents(path))
    assert left + len(lines(*range(100, 200))) - output.lost == len(data)
    assert 0 < output.lost


def test_a_file_far_beyond_its_limits_is_not_copied_for_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    write = module.write_all
    monkeypatch.setattr(module, "write_all", lambda fd, data: (copied.append(len(data)), write(fd, data)))
    append(path, lines(*range(10_000)))

    OutputFile(path).trim(1000, 2)

    assert sum(copied) <= 3000
    assert lines(*range(10_000)).endswith(contents(path))
    assert len(contents(path)) > 2000


@pytest.mark.parametrize("directory", ["disk", "memory"])
def test_not_a_line_is_lost_or_repeated_while_a_process_writes_as_fast_as_it_can(
    tmp_path: Path, directory: str
) -> None:
    if directory == "memory" and not os.access("/dev/shm", os.W_OK):
        pytest.skip("no file system in memory")
    with tempfile.TemporaryDirectory(dir=tmp_path if directory == "disk" else "/dev/shm") as place:
        path = Path(place, "a.log")
        writer = start_writer(path, 200_000)
        trims = 0
        while writer.poll() is None:
            trims += OutputFile(path).trim(100_000, 100)
        writer.wait(DEADLINE)

        assert trims > 3
        assert lines(*range(200_000)) == contents(path)
        assert lines(*range(200_000)) == read(path)


def test_a_rotation_just_before_a_trim_leaves_the_rotated_file_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(path, lines(*range(1000)))
    flock = fcntl.flock

    def late_flock(fd: int, operation: int) -> None:
        if not path.with_name("a.log.1").exists():
            path.rename(path.with_name("a.log.1"))
            append(path, line(1000))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late_flock)

    assert not OutputFile(path).trim(3000, 99)
    assert {"a.log": line(1000), "a.log.1": lines(*range(1000))} == {
        p.name: p.read_bytes() for p in path.parent.iterdir()
    }


# Tail


def test_the_tail_is_the_last_lines_also_across_backups(path: Path) -> None:
    file = OutputFile(path)
    append(path, lines(1, 2, 3))
    file.rotate(1, 3)

    assert ("line 0000002", "line 0000003") == file.tail_since(Position(), 2)
    append(path, line(4) + b"no end")
    assert ("line 0000003", "line 0000004", "no end") == file.tail_since(Position(), 3)
    assert () == file.tail_since(Position(), 0)


def test_a_fragment_at_the_beginning_of_the_tail_is_left_out(path: Path) -> None:
    append(path, lines(1, 2, 3))

    assert ("line 0000003",) == OutputFile(path).tail_since(Position(), 20, max_bytes=20)
    assert ("0003",) == OutputFile(path).tail_since(Position(), 20, max_bytes=5)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (b"plain\n", ("plain",)),
        (b"", ()),
        (b"\n\n", ("", "")),
        (b"tab\there\r\n", ("tab\there",)),
        (b" 10%\r 50%\r100%\n", ("100%",)),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07end\n", ("red end",)),
        (b"bell\x07 null\0 esc\x1b\n", ("bell\\x07 null esc\\x1b",)),
        (b"\xff\xfe caf\xc3\xa9\n", ("\ufffd\ufffd café",)),
        ("\u202eback\u2028line\x85\n".encode(), ("\\u202eback\\u2028line\\x85",)),
        (b"y" + b"x" * 500, ("…" + "x" * 500,)),
        (b"x" * 500, ("x" * 500,)),
    ],
)
def test_lines_are_made_fit_for_a_log(raw: bytes, clean: tuple[str, ...]) -> None:
    assert clean == clean_lines(raw, 20)


# Following


class Follower(threading.Thread):
    """Follows in a thread, until told to stop, and keeps what it got."""

    def __init__(self, path: Path, count: int | None = None) -> None:
        super().__init__(daemon=True)
        self.got = b""
        self._over = threading.Event()
        self._pieces = follow(path, count, interval=0.001, is_over=self._over.is_set)
        self.start()

    def run(self) -> None:
        for piece in self._pieces:
            self.got += piece

    def wait(self, condition: Callable[[bytes], bool]) -> None:
        wait_for(lambda: condition(self.got), lambda: f"got only {self.got[-200:]!r}")

    def stop(self) -> bytes:
        self._over.set()
        self.join(DEADLINE)
        assert not self.is_alive()
        return self.got


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (None, lines(1, 2, 3, 4)),
        (0, b""),
        (1, line(4)),
        (2, lines(3, 4)),
        (4, lines(1, 2, 3, 4)),
        (9, lines(1, 2, 3, 4)),
    ],
)
def test_the_last_lines_are_read_raw_also_across_backups(
    path: Path, count: int | None, expected: bytes
) -> None:
    append(path, lines(1, 2))
    OutputFile(path).rotate(1, 3)
    append(path, lines(3, 4))

    assert expected == read(path, count)


def test_a_last_line_without_end_is_a_line(path: Path) -> None:
    append(path, line(1) + b"prompt> ")

    assert b"prompt> " == read(path, 1)


def test_many_long_lines_are_read_too(path: Path) -> None:
    data = b"".join(b"%d" % n + b"x" * 9_000 + b"\n" for n in range(100))
    append(path, data)

    assert data[-50 * 9003 :] == read(path, 50)


def test_a_follower_waits_for_the_file_and_gets_what_is_written(path: Path) -> None:
    follower = Follower(path)
    append(path, b"no end")
    follower.wait(b"no end".__eq__)
    append(path, b" yet")
    follower.wait(b"no end yet".__eq__)

    assert b"no end yet" == follower.stop()


def test_a_follower_goes_on_through_trimming_and_rotation(path: Path) -> None:
    file = OutputFile(path)
    append(path, lines(*range(1000)))
    follower = Follower(path, 2)
    follower.wait(lines(998, 999).__eq__)
    expected = lines(998, 999)
    for begin in range(1000, 9000, 1000):
        append(path, lines(*range(begin, begin + 500)))
        file.trim(3000, 99)
        append(path, lines(*range(begin + 500, begin + 1000)))
        if begin % 3000 == 0:
            file.rotate(1, 99)
        expected += lines(*range(begin, begin + 1000))
        follower.wait(expected.__eq__)

    assert expected == follower.stop()


def test_a_follower_goes_on_where_a_backup_is_moved_while_it_is_being_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(path, line(1))
    OutputFile(path).rotate(1, 3)
    append(path, line(2))
    real, newest, older = stream.open_own, path.with_name("a.log.1"), path.with_name("a.log.2")

    def moved_before(opened: Path, flags: int) -> int:
        if opened == newest and newest.exists():
            newest.replace(older)
        return real(opened, flags)

    reader = Reader(path, None)
    got = [reader.read(), reader.read()]
    with monkeypatch.context() as patched:
        patched.setattr(stream, "open_own", moved_before)
        got.append(reader.read())
    assert older.exists()
    path.replace(newest)
    append(path, line(3))
    got += [reader.read(), reader.read()]
    reader.close()

    assert lines(1, 2, 3) == b"".join(got)


def test_a_follower_is_not_confused_by_a_writer_that_outlived_its_run(path: Path) -> None:
    with path.open("ab", buffering=0) as escaped:
        escaped.write(line(1))
        follower = Follower(path)
        follower.wait(line(1).__eq__)
        OutputFile(path).rotate(1, 3)
        append(path, line(2))
        follower.wait(lines(1, 2).__eq__)
        escaped.write(line(9))
        append(path, line(3))
        follower.wait(lines(1, 2, 3).__eq__)

    assert lines(1, 2, 3) == follower.stop()


def test_a_follower_that_fell_behind_too_far_goes_on_with_what_is_left(path: Path) -> None:
    file = OutputFile(path)
    append(path, line(0))
    file.rotate(1, 2)
    append(path, lines(1, 2))
    over = False
    pieces = follow(path, 1, is_over=lambda: over)
    assert line(2) == next(pieces)
    for number in range(3, 8):
        append(path, line(number))
        file.rotate(1, 2)
    append(path, line(8))
    over = True

    assert lines(6, 7, 8) == b"".join(pieces)


def test_a_follower_loses_and_repeats_nothing_of_a_fast_writer_under_trimming(path: Path) -> None:
    writer = start_writer(path, 100_000)
    follower = Follower(path)
    while writer.poll() is None:
        OutputFile(path).trim(100_000, 50)
    writer.wait(DEADLINE)
    follower.wait(lambda got: len(got) >= 100_000 * len(line(0)))

    assert lines(*range(100_000)) == follower.stop()


def test_a_reader_that_was_stopped_while_it_read_does_not_keep_the_file_from_being_trimmed(
    path: Path,
) -> None:
    append(path, lines(*range(1000)))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f,1); print(1,flush=True); input()",
            path,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert b"1\n" == holder.stdout.readline()

        assert OutputFile(path).trim(3000, 9)
    finally:
        holder.communicate(b"\n", DEADLINE)
    assert lines(*range(1000)) == contents(path)


def test_the_command_line_can_follow_without_the_libraries_of_the_daemon() -> None:
    code = """
import sys, supervisor.output.file
print({'zmq', 'tornado', 'structlog', 'msgspec', 'asyncio'} & set(sys.modules))
"""

    assert (
        b"set()\n" == subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    )


KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (b"x" * 440 + KEY.encode() + b" tail", True),
        (b"x" * 470 + KEY.encode(), True),
        (b"y" * 9 + b"\x1b[0m".join(KEY[at : at + 8].encode() for at in range(0, 64, 8)), True),
        (KEY[5:].encode() + b" tail", False),
        (KEY[50:].encode() + b" tail", False),
    ],
)
def test_a_secret_is_taken_out_before_a_line_is_cut(data: bytes, is_whole: bool) -> None:
    (line,) = clean_lines(data + b"\n", 20, is_whole=is_whole, hide=KEY)

    assert [] == [part for at in range(57) if (part := KEY[at : at + 8]) in line]
