"""Every change of the file is noticed, however it comes about, and nothing else is."""

# ruff: noqa: ASYNC240 - what changes the file here is in no hurry

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter

from supervisor.control import watch
from supervisor.control.watch import FileWatch, fingerprint, watched_directories
from tests.waiting import DEADLINE, outlast, until


class Calls:
    """What a watch has called, and the file as it was then."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.contents: list[str | None] = []

    def __call__(self) -> None:
        self.contents.append(self.file.read_text() if self.file.is_file() else None)

    async def until(self, condition: Callable[[list[str | None]], bool]) -> None:
        await until(lambda: condition(self.contents))

    async def until_seen(self, content: str | None) -> None:
        await self.until(lambda seen: bool(seen) and seen[-1] == content)


@asynccontextmanager
async def watching(calls: Calls, *files: Path) -> AsyncIterator[FileWatch]:
    made = FileWatch(lambda: files or (calls.file,), calls)
    task = asyncio.create_task(made.run())
    try:
        await calls.until(lambda seen: len(seen) == 1)
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    directory = tmp_path / "conf"
    directory.mkdir()
    path = directory / "kernels.toml"
    path.write_text("one")
    return path


@pytest.fixture
def calls(file: Path) -> Calls:
    return Calls(file)


@pytest.fixture
def events_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a change that is noticed was told by an event."""
    monkeypatch.setattr(watch, "LOOK_INTERVAL", 2 * DEADLINE)


@pytest.fixture
def looks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there are no events at all."""
    monkeypatch.setattr(watch, "LOOK_INTERVAL", 0.05)
    monkeypatch.setattr(FileWatch, "hint", lambda _: None)


async def test_what_was_changed_before_it_began_is_looked_at(calls: Calls) -> None:
    async with watching(calls):
        assert ["one"] == calls.contents


@pytest.mark.usefixtures("events_only")
async def test_a_write_in_place_a_rename_and_a_new_file_are_told_once_each(calls: Calls, file: Path) -> None:
    async with watching(calls):
        file.write_text("two")
        await calls.until_seen("two")
        fresh = file.with_name(".swp")
        fresh.write_text("three")
        fresh.replace(file)
        await calls.until_seen("three")
        file.unlink()
        file.write_text("four")
        await calls.until_seen("four")

    assert ["one", "two", "three", "four"] == calls.contents


@pytest.mark.usefixtures("events_only")
async def test_many_writes_in_a_row_are_one_change(calls: Calls, file: Path) -> None:
    async with watching(calls):
        for number in range(10):
            file.write_text(f"part {number}")
            await asyncio.sleep(0.01)
        await calls.until_seen("part 9")

    assert 2 == len(calls.contents)


@pytest.mark.usefixtures("events_only")
async def test_a_kubernetes_swap_is_told(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    for name, content in (("..1", "one"), ("..2", "two")):
        (volume / name).mkdir()
        (volume / name / "kernels.toml").write_text(content)
    (volume / "..data").symlink_to("..1")
    (volume / "kernels.toml").symlink_to("..data/kernels.toml")
    calls = Calls(volume / "kernels.toml")
    async with watching(calls):
        (volume / "..data_tmp").symlink_to("..2")
        (volume / "..data_tmp").rename(volume / "..data")

        await calls.until_seen("two")


@pytest.mark.usefixtures("events_only")
async def test_a_change_at_the_far_end_of_links_is_told(tmp_path: Path, file: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "further")
    (tmp_path / "further").symlink_to(file)
    calls = Calls(tmp_path / "link")
    async with watching(calls):
        file.write_text("two")

        await calls.until_seen("two")


def test_the_directories_of_all_links_are_watched(tmp_path: Path, file: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "link").symlink_to("../b/link")
    (tmp_path / "b" / "link").symlink_to(file)
    (tmp_path / "way").symlink_to("a")

    found = watched_directories([tmp_path / "way" / "link"])

    assert {tmp_path, tmp_path / "way", tmp_path / "a", tmp_path / "b", file.parent} == found


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    assert frozenset({tmp_path}) == watched_directories([tmp_path / "a"])


def test_a_pattern_with_too_long_a_name_is_no_obstacle(file: Path) -> None:
    assert {file.parent} == watched_directories([file, file.parent / ("x" * 300) / "*.toml"])


@pytest.mark.usefixtures("events_only")
async def test_the_first_file_that_matches_a_pattern_is_told(calls: Calls, file: Path) -> None:
    fragments = file.parent / "kernels.d"
    fragments.mkdir()
    pattern = fragments / "*.toml"
    made = FileWatch(lambda: (file, *sorted(fragments.glob("*.toml")), pattern), calls)
    task = asyncio.create_task(made.run())
    await calls.until(lambda seen: len(seen) == 1)

    (fragments / "a.toml").write_text("new")

    await calls.until(lambda seen: len(seen) == 2)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.usefixtures("looks_only")
async def test_without_any_event_a_change_is_told_all_the_same(calls: Calls, file: Path) -> None:
    async with watching(calls):
        file.write_text("two")
        await calls.until_seen("two")
        file.unlink()
        await calls.until_seen(None)

    assert 3 == len(calls.contents)


async def test_a_directory_that_was_deleted_or_moved_away_is_watched_again(
    calls: Calls, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_INTERVAL", 0.1)
    async with watching(calls) as made:
        for how in ("deleted", "moved"):
            if how == "deleted":
                file.unlink()
                file.parent.rmdir()
            else:
                file.parent.rename(file.parent.with_name("away"))
            await calls.until_seen(None)
            file.parent.mkdir()
            file.write_text(how)
            await calls.until_seen(how)
            found = file.parent.stat()
            await calls.until(lambda _, n=found.st_ino: any(n == mark[2] for mark in made._watched))  # type: ignore[misc]
            assert made._observer is not None
            assert made._is_well(made._observer)


@pytest.mark.usefixtures("events_only")
async def test_our_own_reading_and_a_neighbour_in_the_directory_are_no_change(
    calls: Calls, file: Path
) -> None:
    async with watching(calls):
        (file.parent / "other.log").write_text("noise")
        file.read_text()
        await outlast(watch.DEBOUNCE)

    assert ["one"] == calls.contents


@pytest.mark.usefixtures("looks_only")
async def test_a_file_that_is_still_being_written_is_left_until_it_is_whole(
    calls: Calls, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "DEBOUNCE", 0.1)
    async with watching(calls):
        for number in range(10):
            with file.open("a") as end:
                end.write(str(number))
            await asyncio.sleep(0.03)
        await calls.until_seen("one0123456789")

    assert 2 == len(calls.contents)


async def test_what_cannot_be_watched_is_told_once_and_leaves_no_threads(
    calls: Calls, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "LOOK_INTERVAL", 0.02)
    monkeypatch.setattr(watch, "RETRY_INTERVAL", 0.05)
    started: list[BaseObserver] = []

    def scarce() -> BaseObserver:
        made = Observer()
        original = made.on_thread_start
        started.append(made)

        def start() -> None:
            original()
            raise OSError(28, "inotify watch limit reached")

        made.on_thread_start = start  # type: ignore[method-assign]
        return made

    monkeypatch.setattr(watch, "Observer", scarce)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    async with watching(calls):
        file.write_text("two")
        await calls.until_seen("two")
        await calls.until(lambda _: len(started) > 4)

        after = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    assert 1 == caplog.text.count("cannot watch the configuration")
    assert before[0] >= after[0] - 1
    assert before[1] >= after[1] - 4


async def test_nothing_is_left_when_it_ends(calls: Calls) -> None:
    async with watching(calls):
        pass
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        calls.contents.clear()
        async with watching(calls):
            pass

    # Others may have had some that are gone by now.
    assert before[0] >= threading.active_count()
    assert before[1] >= len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_an_emitter_that_is_stopped_while_it_reads_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_no_thread = InotifyEmitter(queue.Queue(), ObservedWatch(str(tmp_path), recursive=False))  # type: ignore[arg-type]

    with_no_thread.queue_events(0.0)

    assert "" == caplog.text


def test_a_fingerprint_tells_any_write_and_any_exchange(file: Path) -> None:
    first = fingerprint([file])
    assert first == fingerprint([file])
    other = file.with_name("other")
    other.write_text("one")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)

    assert first != fingerprint([file])
    file.unlink()
    assert ((str(file), None),) == fingerprint([file])
