"""Files are replaced whole or not at all."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.disk.files import (
    TEMPORARY_SUFFIX,
    open_own,
    read_bounded,
    read_own,
    remove_temporaries,
    write_atomically,
)


def test_the_file_has_the_content_and_exactly_the_mode_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "file"
    old = os.umask(0o077)
    try:
        write_atomically(path, b"content", 0o644)
    finally:
        os.umask(old)

    assert b"content" == path.read_bytes()
    assert 0o644 == stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_private_unless_said_otherwise(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")

    assert 0o600 == stat.S_IMODE((tmp_path / "file").stat().st_mode)


def test_whoever_has_the_old_file_open_keeps_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new")

        assert b"old" == reader.read()
    assert b"new" == path.read_bytes()


def test_a_link_is_replaced_and_what_it_led_to_is_untouched(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(target)

    write_atomically(link, b"new")

    assert not link.is_symlink()
    assert b"precious" == target.read_bytes()


@pytest.mark.parametrize("step", ["fsync", "write"])
def test_a_failure_names_the_file_and_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
            write_atomically(path, b"new")

    assert [path] == list(tmp_path.iterdir())
    assert b"old" == path.read_bytes()


def test_a_name_that_is_a_directory_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()

    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "file", b"new")

    assert [tmp_path / "file"] == list(tmp_path.iterdir())


def test_content_is_on_the_disk_before_the_name_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(fd: int) -> None:
        done.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "content")
        fsync(fd)

    def noted_replace(source: Path, target: Path) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_atomically(tmp_path / "file", b"content")

    assert ["content", "name", "directory"] == done


def test_readers_beside_many_writers_always_see_one_whole_version(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"0" * 5000)

    def write(digit: int) -> None:
        for _ in range(20):
            write_atomically(path, b"%d" % digit * 5000)

    writers = [threading.Thread(target=write, args=(digit,)) for digit in range(4)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert 5000 == len(content)
        assert 1 == len(set(content))
    assert [path] == list(tmp_path.iterdir())


def test_what_a_killed_writer_left_can_be_cleared_away(tmp_path: Path) -> None:
    write_atomically(tmp_path / "kernel-a.json", b"{}")
    (tmp_path / f".kernel-a.json.0123{TEMPORARY_SUFFIX}").write_bytes(b"half")

    assert [tmp_path / "kernel-a.json"] == list(tmp_path.glob("kernel-*"))
    remove_temporaries(tmp_path)

    assert [tmp_path / "kernel-a.json"] == list(tmp_path.iterdir())


def leave_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a directory": Path.mkdir,
    "a symbolic link": lambda path: path.symlink_to("elsewhere"),
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    "a socket": leave_socket,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_APPEND])
def test_what_is_in_place_of_a_file_of_ours_is_refused_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flags: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").write_text("kept")
    try:
        KINDS[kind](Path("there"))
    except PermissionError:
        pytest.skip("making devices takes root")

    with pytest.raises(OSError, match=f"it is {kind}: remove it"):
        open_own(Path("there"), flags)

    assert "kept" == Path("elsewhere").read_text()


def test_a_file_of_ours_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)

    assert b"x" * 100_000 == read_own(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_own(tmp_path / "b")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_can_be_somebody_elses_from_its_first_moment(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"key", owner=(4242, 4243))

    there = (tmp_path / "file").stat()
    assert (4242, 4243, 0o600) == (there.st_uid, there.st_gid, stat.S_IMODE(there.st_mode))


def test_what_somebody_else_put_there_is_read_if_it_is_a_file_with_a_name_and_not_too_large(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    memory = os.memfd_create("secret")
    os.write(memory, b"12345")

    assert b"12345" == read_bounded(tmp_path / "link", 5)
    for path, limit in (
        (tmp_path / "file", 4),
        (tmp_path / "fifo", 9),
        (tmp_path, 9),
        (Path("/dev/zero"), 9),
        (Path(f"/proc/self/fd/{memory}"), 9),
    ):
        with pytest.raises(OSError, match=r"it has more than 4|it is no regular file|Is a directory"):
            read_bounded(path, limit)
    os.close(memory)
