"""The socket file: private from its first moment, taken from nobody, removed when it is ours."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from supervisor.control import door as doors
from supervisor.control.binding import DoorError
from supervisor.control.client import Client
from supervisor.control.door import Door
from tests.control.conftest import ask
from tests.control.fake_steering import FakeDaemon, FakeSteering
from tests.waiting import until


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def leave_socket(path: Path) -> None:
    """A socket as a daemon leaves it that was killed."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


async def test_the_socket_is_ours_alone_whatever_the_umask(steering: FakeSteering, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        door = Door(steering, tmp_path / "below" / "s")
        await door.start()
    finally:
        os.umask(before)

    assert 0o600 == mode(tmp_path / "below" / "s")
    assert 0o700 == mode(tmp_path / "below")
    assert ["s"] == [path.name for path in (tmp_path / "below").iterdir()]
    await door.close()


async def test_no_other_name_and_no_wider_mode_is_seen_while_it_is_bound(
    steering: FakeSteering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(Path, "chmod", lambda path, _mode: seen.append((path.name == "s", mode(path))))
    before = os.umask(0)
    try:
        door = Door(steering, tmp_path / "s")
        await door.start()
    finally:
        os.umask(before)

    assert [(False, 0o600)] == seen
    await door.close()


async def test_a_left_over_socket_is_replaced(steering: FakeSteering, tmp_path: Path) -> None:
    leave_socket(tmp_path / "s")

    door = Door(steering, tmp_path / "s")
    await door.start()

    assert 0o600 == mode(tmp_path / "s")
    await door.close()
    assert not (tmp_path / "s").exists()


async def test_a_socket_on_which_a_daemon_answers_is_not_taken(
    daemon: FakeDaemon, steering: FakeSteering, tmp_path: Path
) -> None:
    with pytest.raises(
        DoorError, match=rf"a daemon answers there already \(pid {os.getpid()}\): stop it, or"
    ) as told:
        await Door(FakeSteering(tmp_path), daemon.path).start()

    assert str(daemon.path) in str(told.value)
    assert 200 == ask(daemon, "GET", "/v1/status").status


async def test_a_file_that_is_no_socket_is_left_alone(steering: FakeSteering, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")

    with pytest.raises(DoorError, match="is not a socket"):
        await Door(steering, tmp_path / "s").start()
    assert "precious" == (tmp_path / "s").read_text()


async def test_at_its_end_a_door_leaves_the_socket_of_another_alone(
    steering: FakeSteering, tmp_path: Path
) -> None:
    door = Door(steering, tmp_path / "s")
    await door.start()
    (tmp_path / "s").unlink()
    leave_socket(tmp_path / "s")

    await door.close()

    assert (tmp_path / "s").is_socket()


async def test_closing_twice_and_closing_what_never_opened_is_no_error(
    steering: FakeSteering, tmp_path: Path
) -> None:
    door = Door(steering, tmp_path / "s")
    await door.close()
    await door.start()
    await door.close()
    await door.close()


async def test_a_directory_that_cannot_be_made_is_told(steering: FakeSteering, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DoorError, match=r"cannot open the control socket .*: (Not a directory|File exists)"):
        await Door(steering, tmp_path / "file" / "s").start()


def test_a_path_longer_than_a_socket_address_works(steering: FakeSteering, tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "s"
    path.parent.mkdir()

    with FakeDaemon(steering, path) as daemon:
        assert 200 == ask(daemon, "GET", "/v1/status").status


async def test_the_link_leads_to_the_socket_and_goes_with_it(steering: FakeSteering, tmp_path: Path) -> None:
    leave_socket(tmp_path / "alias")  # from a daemon that listened there itself
    door = Door(steering, tmp_path / "s", link=tmp_path / "alias")
    await door.start()

    assert tmp_path / "s" == (tmp_path / "alias").readlink()
    Client([tmp_path / "alias"]).connect().close()
    await door.close()
    assert [] == names_in(tmp_path)


async def test_a_link_that_was_removed_alone_is_placed_again_and_goes_with_the_socket(
    steering: FakeSteering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doors, "LOOK_INTERVAL", 0.01)
    link = tmp_path / "alias"
    door = Door(steering, tmp_path / "s", link=link)
    await door.start()
    keeping = asyncio.get_running_loop().create_task(door.keep_open())
    try:
        for _ in range(2):
            link.unlink()
            await until(link.is_symlink)
    finally:
        keeping.cancel()
        await door.close()

    assert not link.is_symlink()


async def test_a_link_drives_no_daemon_out(daemon: FakeDaemon, tmp_path: Path) -> None:
    door = Door(FakeSteering(tmp_path), tmp_path / "other", link=daemon.path)
    await door.start()

    assert daemon.path.is_socket()
    assert not daemon.path.is_symlink()
    await door.close()
    assert 200 == ask(daemon, "GET", "/v1/status").status


async def test_a_socket_may_take_the_place_of_an_old_link(steering: FakeSteering, tmp_path: Path) -> None:
    (tmp_path / "s").symlink_to(tmp_path / "gone")

    door = Door(steering, tmp_path / "s")
    await door.start()

    assert not (tmp_path / "s").is_symlink()
    await door.close()
