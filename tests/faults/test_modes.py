"""What others may touch: refused, mended, or warned of at the start."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("place", "loose"),
    [
        ("state", 0o770),
        ("state/kernels", 0o707),
        ("state/output", 0o770),
        ("runtime", 0o707),
        ("door", 0o770),
    ],
)
def test_a_directory_that_others_may_write_to_is_refused_in_one_line_and_nothing_is_started(
    scene: Scene, place: str, loose: int
) -> None:
    scene.write(scene.mini("a"), supervisor='socket = "door/s"')
    directory = scene.directory / place
    directory.mkdir(parents=True)
    directory.chmod(loose)

    daemon = scene.begin()

    assert 1 == daemon.wait(DEADLINE)
    last = scene.log.read_text().splitlines()[-1]
    assert last.startswith(f"kernel-supervisor: {directory}: others may write to it: ")
    assert "chmod" in last
    assert [] == scene.processes()


@pytest.mark.parametrize("key", ["state_dir", "runtime_dir"])
def test_a_directory_below_one_that_others_may_write_to_is_refused(scene: Scene, key: str) -> None:
    parent = scene.directory / "shared"
    (parent / "mine").mkdir(parents=True)
    scene.write(scene.mini("a"))
    scene.config.write_text(re.sub(f'{key} = "\\w+"', f'{key} = "{parent}/mine"', scene.config.read_text()))
    parent.chmod(0o777)

    assert 1 == scene.begin().wait(DEADLINE)
    told = f"{parent}: others may write to it: chmod go-w it, or choose another {key}"
    assert f"kernel-supervisor: {told}" == scene.log.read_text().splitlines()[-1]


def test_a_directory_like_tmp_is_fine_for_sockets_and_connection_files(scene: Scene) -> None:
    scene.write(scene.mini("a"), supervisor='socket = "door/s"')
    for name in ("door", "runtime"):
        (scene.directory / name).mkdir()
        (scene.directory / name).chmod(0o1777)
    scene.socket = scene.directory / "door" / "s"

    scene.start("a")

    assert 0o600 == mode(scene.connection_file("a"))
    assert 0o600 == mode(scene.socket)


def test_files_that_others_may_read_are_ours_alone_after_a_start_and_it_is_told(scene: Scene) -> None:
    scene.write(scene.mini("a"))
    scene.start("a")
    scene.wait_recorded("a")
    scene.kill()
    loose = [
        scene.state_dir / "events.jsonl",
        scene.state_dir / "last-good.toml",
        scene.state_dir / "kernels" / "a.json",
        scene.state_dir / "output" / "a.log",
        scene.connection_file("a"),
    ]
    for file in loose:
        file.chmod(0o644)

    scene.start("a")

    assert [0o600] * len(loose) == [mode(file) for file in loose]
    told = scene.log.read_text()
    assert [] == [file for file in loose if f"{file} could be read or written by others" not in told]


def test_every_file_and_directory_of_ours_is_private_whatever_the_umask(scene: Scene) -> None:
    scene.write(scene.mini("a", "--say", "hello"), scene.mini("i", transport='"ipc"'))
    umask = os.umask(0)
    try:
        scene.start("a", "i")
    finally:
        os.umask(umask)
    scene.order("restart", "a")
    scene.wait_recorded("a", "i")

    for place in (scene.state_dir, scene.runtime_dir):
        for path in (place, *place.rglob("*")):
            if path.is_symlink() or (path.is_socket() and path != scene.socket):
                continue  # those of a kernel lie in a directory that nobody else may enter
            assert 0 == path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("exposed", ["file", "directory"])
def test_a_configuration_that_others_may_write_is_warned_of(scene: Scene, exposed: str) -> None:
    scene.write(scene.mini("a"))
    config = scene.directory / "etc" / "kernels.toml"
    config.parent.mkdir()
    state = f'state_dir = "{scene.state_dir}"\nruntime_dir = "{scene.runtime_dir}"'
    config.write_text(scene.config.read_text().replace('state_dir = "state"\nruntime_dir = "runtime"', state))
    scene.config = config
    path = config if exposed == "file" else config.parent
    path.chmod(path.stat().st_mode | 0o020)

    scene.start("a")

    wait_for(lambda: f"{path}: others may write to it" in scene.log.read_text(), "a warning")
