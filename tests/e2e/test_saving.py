"""The ways in which editors and deployments save a file: each change is applied exactly once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Scene
from tests.waiting import DEADLINE, wait_for

Save = Callable[[Path, str], None]


def write_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def write_in_pieces(file: Path, text: str) -> None:
    with file.open("w") as opened:
        for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
            opened.write(piece)
            opened.flush()
            os.fsync(opened.fileno())


def rename_over(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.swp")
    new.write_text(text)
    new.replace(file)


def keep_a_backup_by_rename(file: Path, text: str) -> None:
    file.replace(file.with_name(f"{file.name}~"))
    file.write_text(text)


def delete_and_create(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


def swap_a_link(file: Path, text: str) -> None:
    """Point the link, which the file is, at a new file in another directory."""
    new = file.parent / "elsewhere" / f"{os.urandom(4).hex()}.toml"
    new.parent.mkdir(exist_ok=True)
    new.write_text(text)
    link = file.with_name("new-link")
    link.symlink_to(new)
    link.replace(file)


def write_behind_a_link(file: Path, text: str) -> None:
    """Write the file that a link leads to, in another directory."""
    if not file.is_symlink():
        swap_a_link(file, text)
    else:
        rename_over(file.resolve(), text)


def swap_as_kubernetes(file: Path, text: str) -> None:
    """As a ConfigMap is mounted: kernels.toml -> ..data/kernels.toml, ..data -> a directory, exchanged."""
    home = file.parent
    version = home / f"..{os.urandom(4).hex()}"
    version.mkdir()
    (version / file.name).write_text(text)
    link = home / "..data_tmp"
    link.symlink_to(version.name)
    old = (home / "..data").resolve() if (home / "..data").is_symlink() else None
    link.replace(home / "..data")
    if not file.is_symlink():
        file.unlink()
        file.symlink_to(f"..data/{file.name}")
    if old is not None:
        shutil.rmtree(old)


def _edit(words: list[str], text: str, file: Path, stdin: str = "") -> None:
    source = file.with_name("source")
    source.write_text(text)
    subprocess.run(words, check=True, input=stdin.encode(), timeout=DEADLINE, capture_output=True)


def vim(file: Path, text: str) -> None:
    commands = ["-c", "%d", "-c", f"0read {file.with_name('source')}", "-c", "wq"]
    _edit(["vim", "-u", "NONE", "-es", "-c", "set backup", *commands, str(file)], text, file)


def sed(file: Path, text: str) -> None:
    value = next(line for line in text.splitlines() if line.startswith("max_restarts"))
    _edit(["sed", "-i", f"s/^max_restarts.*/{value}/", str(file)], text, file)


def ed(file: Path, text: str) -> None:
    _edit(["ed", "-s", str(file)], text, file, stdin=f",d\n0r {file.with_name('source')}\nw\nq\n")


WAYS: list[Save] = [
    write_in_place,
    write_in_pieces,
    rename_over,
    keep_a_backup_by_rename,
    delete_and_create,
    swap_a_link,
    write_behind_a_link,
    swap_as_kubernetes,
]
EDITORS: list[Save] = [vim, sed, ed]


@pytest.fixture(scope="module")
def saving(shared_scene: Scene) -> Scene:
    shared_scene.write(shared_scene.mini("a", max_restarts="1000"))
    shared_scene.start("a")
    return shared_scene


def _rounds(scene: Scene, save: Save, rounds: int) -> None:
    loaded = len(scene.events("config.loaded"))
    # However the file was saved before, it is one of its own again, in one move.
    rename_over(scene.config, scene.toml(scene.mini("a", max_restarts=str(1000 + loaded))))
    scene.wait_event("config.loaded", loaded + 1)
    if save in (swap_as_kubernetes, swap_a_link, write_behind_a_link):
        save(scene.config, scene.toml(scene.mini("a", max_restarts="999")))
        scene.wait_event("config.loaded", loaded + 2)
    pid = scene.kernel("a")["pid"]
    before, rejected = len(scene.events("config.loaded")), len(scene.events("config.rejected"))
    for number in range(1, rounds + 1):
        save(scene.config, scene.toml(scene.mini("a", max_restarts=str(number))))
        scene.wait_event("config.loaded", before + number)
        wait_for(lambda n=number: f"max_restarts = {n}\n" in _in_force(scene), f"edit {number} is in force")
    # A look at it now finds nothing new.
    assert 0 == scene.command("reload", "--config", str(scene.config)).code
    assert rounds == len(scene.events("config.loaded")) - before
    assert rejected == len(scene.events("config.rejected"))
    assert pid == scene.kernel("a")["pid"]


def _in_force(scene: Scene) -> str:
    return (scene.state_dir / "last-good.toml").read_text()


@pytest.mark.parametrize("save", WAYS)
def test_each_save_is_applied_exactly_once(saving: Scene, save: Save) -> None:
    _rounds(saving, save, 3)


@pytest.mark.parametrize("save", EDITORS)
def test_each_save_of_an_editor_is_applied_exactly_once(saving: Scene, save: Save) -> None:
    if shutil.which(save.__name__) is None:
        pytest.skip(f"{save.__name__} is not installed")
    _rounds(saving, save, 3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("save", [*WAYS, *EDITORS])
def test_none_of_fifty_saves_is_missed(saving: Scene, save: Save) -> None:
    if save in EDITORS and shutil.which(save.__name__) is None:
        pytest.skip(f"{save.__name__} is not installed")
    _rounds(saving, save, 50)


def test_a_touch_and_a_save_of_the_same_text_load_nothing(scene: Scene) -> None:
    text = scene.write(scene.mini("a"))
    scene.start("a")
    pids = scene.pids()

    for save in (lambda: os.utime(scene.config), lambda: scene.config.write_text(text)):
        save()
        assert 0 == scene.command("reload", "--config", str(scene.config)).code
    # A real edit, loaded because the file was seen to change: what came before it was seen as well.
    scene.write(scene.mini("a", max_restarts="3"))
    scene.wait_event("config.loaded", 2)

    assert 0 == scene.command("reload", "--config", str(scene.config)).code
    assert 2 == len(scene.events("config.loaded"))
    assert pids == scene.pids()


def test_a_directory_that_is_deleted_and_made_again_is_still_watched(scene: Scene) -> None:
    home = scene.directory / "etc"
    home.mkdir()
    scene.config = home / "kernels.toml"
    places = f'state_dir = "{scene.state_dir}"\nruntime_dir = "{scene.runtime_dir}"\n'
    scene.config.write_text(f"[supervisor]\n{places}{scene.mini('a')}\n")
    scene.start("a")
    pids = scene.pids()

    shutil.rmtree(home)
    scene.wait_event("config.rejected")
    home.mkdir()
    scene.config.write_text(f"[supervisor]\n{places}{scene.mini('a', max_restarts='3')}\n")

    scene.wait_event("config.loaded", 2)
    scene.config.write_text(f"[supervisor]\n{places}{scene.mini('a', max_restarts='4')}\n")
    scene.wait_event("config.loaded", 3)
    assert pids == scene.pids()
