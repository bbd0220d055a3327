"""The events on disk: appended, rotated, kept through trouble, read back."""

import json
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from supervisor.disk.files import open_own
from supervisor.disk.off_loop import Lane
from supervisor.observe import events_file
from supervisor.observe.events_file import EventsFile, replay
from tests.waiting import DEADLINE, wait_for

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(number: int, *, kernel: str = "a", name: str = "kernel.ready") -> dict[str, object]:
    at = (START + timedelta(seconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"timestamp": at, "level": "info", "event": name, "kernel": kernel, "number": number}


def numbers(events: Iterator[dict[str, object]]) -> list[object]:
    return [found.get("number", found["event"]) for found in events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


class Disk:
    """Makes the writes of an events file fail as a full disk does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: int | None = None
        self._write = os.write
        monkeypatch.setattr("supervisor.observe.events_file.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if self.free is None:
            return self._write(fd, data)
        if self.free == 0:
            raise OSError(28, "No space left on device")
        written = self._write(fd, data[: self.free])
        self.free -= written
        return written


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_each_event_is_one_line_of_json_with_the_leading_fields_first(path: Path) -> None:
    EventsFile(path)({"number": 1, **event(1)})

    line = path.read_text().splitlines()[0]
    assert ["timestamp", "level", "event", "kernel", "number"] == list(json.loads(line))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


def test_rotation_loses_nothing_and_keeps_every_file_below_its_bound(path: Path) -> None:
    file = EventsFile(path, max_bytes=1000, backups=50)

    for number in range(100):
        file(event(number))

    assert list(range(100)) == numbers(replay(path))
    files = list(path.parent.iterdir())
    assert 5 < len(files)
    assert all(file.stat().st_size <= 1000 for file in files)


def test_rotation_keeps_as_many_files_as_it_is_told(path: Path) -> None:
    file = EventsFile(path, max_bytes=200, backups=2)

    for number in range(50):
        file(event(number))

    assert {"events.jsonl", "events.jsonl.1", "events.jsonl.2"} == {
        file.name for file in path.parent.iterdir()
    }
    assert 49 == list(numbers(replay(path)))[-1]


def test_an_event_larger_than_the_file_may_be_is_kept_all_the_same(path: Path) -> None:
    file = EventsFile(path, max_bytes=200, backups=3)

    file(event(1))
    file({**event(2), "output_tail": ["x" * 1000]})
    file(event(3))

    assert [1, 2, 3] == numbers(replay(path))


def test_a_line_torn_by_a_crash_costs_only_itself(path: Path) -> None:
    EventsFile(path)(event(1))
    with path.open("a") as torn:
        torn.write('{"timestamp": "2026-01')

    EventsFile(path)(event(2))

    assert [1, 2] == numbers(replay(path))


def test_damage_is_left_out(path: Path) -> None:
    file = EventsFile(path)
    file(event(1))
    with path.open("ab") as damaged:
        damaged.write(b'\x00\x00\xff\n[1, 2]\n"text"\n\n' + b"[" * 100_000 + b"\n")
    file(event(2))

    assert [1, 2] == numbers(replay(path))
    assert [1, 2] == numbers(replay(path, last=5))


def test_a_full_disk_is_told_and_what_waited_is_written_in_order_later(path: Path, disk: Disk) -> None:
    told: list[str | None] = []
    file = EventsFile(path, on_change=told.append)
    file(event(0))
    disk.free = 20

    for number in (1, 2, 3):
        file(event(number))

    assert file.degraded is not None
    assert "No space left on device; 3 events wait" in file.degraded
    assert [0] == numbers(replay(path))
    assert [0, 1, 2, 3] == numbers(file.snapshot().replay())

    disk.free = None
    file(event(4))

    assert file.degraded is None
    assert [0, 1, 2, 3, 4] == numbers(replay(path))
    assert 2 == len(told)
    assert "1 events wait" in str(told[0])
    assert told[1] is None


def test_beyond_the_bound_the_oldest_are_dropped_and_a_marker_stands_for_them(path: Path, disk: Disk) -> None:
    file = EventsFile(path, max_waiting=3)
    file(event(0))
    disk.free = 0
    for number in range(1, 11):
        file(event(number))

    assert "7 lost" in str(file.degraded)
    disk.free = None
    assert file.flush()

    assert [0, "events.dropped", 8, 9, 10] == numbers(replay(path))
    assert [7] == [found["dropped"] for found in replay(path, event="events.dropped")]


def test_a_missing_directory_is_trouble_until_it_is_there(tmp_path: Path) -> None:
    file = EventsFile(tmp_path / "state" / "events.jsonl")
    file(event(1))
    assert "No such file or directory" in str(file.degraded)

    (tmp_path / "state").mkdir()
    file(event(2))

    assert file.degraded is None
    assert [1, 2] == numbers(replay(file.path))


def test_a_rotation_that_fails_is_told_and_events_are_still_written(path: Path) -> None:
    file = EventsFile(path, max_bytes=300, backups=1)
    path.with_name("events.jsonl.1").mkdir()

    for number in range(6):
        file(event(number))

    assert "cannot rotate" in str(file.degraded)
    assert 6 == len(path.read_text().splitlines())


def test_a_deleted_file_is_made_anew(path: Path) -> None:
    file = EventsFile(path)
    file(event(1))
    path.unlink()

    file(event(2))

    assert [2] == numbers(replay(path))


@pytest.fixture
def filled(path: Path) -> Path:
    file = EventsFile(path, max_bytes=400, backups=50)
    for number in range(30):
        kernel, name = "ab"[number % 2], ("kernel.died", "kernel.ready", "kernel.ready")[number % 3]
        file(event(number, kernel=kernel, name=name))
    return path


def test_replay_chooses_by_kernel_event_and_time(filled: Path) -> None:
    assert list(range(0, 30, 2)) == numbers(replay(filled, kernels=["a"]))
    assert list(range(0, 30, 3)) == numbers(replay(filled, event="kernel.died"))
    assert [24] == numbers(
        replay(filled, kernels=["a"], event="kernel.died", since=START + timedelta(seconds=20))
    )
    assert [28, 29] == numbers(replay(filled, since=START + timedelta(seconds=28)))
    assert [28, 29] == numbers(
        replay(filled, since=(START + timedelta(seconds=28)).astimezone().replace(tzinfo=None))
    )
    assert [] == numbers(replay(filled, kernels=[]))


@pytest.mark.parametrize("last", [0, 1, 7, 29, 30, 1000])
def test_the_last_are_the_same_as_the_end_of_all(filled: Path, last: int) -> None:
    everything = list(range(30))

    assert everything[len(everything) - min(last, 30) :] == numbers(replay(filled, last=last))
    assert list(range(1, 30, 2))[-2:] == numbers(replay(filled, kernels=["b"], last=2))


def test_the_last_are_found_across_blocks_of_a_large_file(path: Path) -> None:
    file = EventsFile(path)
    for number in range(400):
        file({**event(number), "output_tail": ["ü" * (number * 7 % 900)]})
    assert 3 * 64 * 1024 < path.stat().st_size

    assert list(range(10, 400)) == numbers(replay(path, last=390))


def test_replay_shows_what_was_there_when_it_was_called(path: Path) -> None:
    file = EventsFile(path, max_bytes=300, backups=9)
    for number in range(5):
        file(event(number))

    found = replay(path)
    newest = replay(path, last=3)
    for number in range(5, 30):
        file(event(number))

    assert [0, 1, 2, 3, 4] == numbers(found)
    assert [2, 3, 4] == numbers(newest)


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_rotation_while_the_files_are_opened_neither_skips_nor_doubles(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    file = EventsFile(path, max_bytes=300, backups=50)
    for number in range(12):
        file(event(number))
    opening, moments = events_file.open_own, count(1)

    def open_amid_rotation(name: Path, flags: int) -> int:
        opened = opening(name, flags)
        if next(moments) == moment:
            file._rotate()
        return opened

    monkeypatch.setattr(events_file, "open_own", open_amid_rotation)

    assert list(range(12)) == numbers(replay(path))
    assert moment < next(moments)


@pytest.mark.parametrize("last", [None, 2])
def test_no_file_is_left_open_by_a_caller_that_does_not_read_on(filled: Path, last: int | None) -> None:
    before = set(Path("/proc/self/fd").iterdir())

    untouched = replay(filled, last=last)
    begun = replay(filled, last=last)
    next(begun)
    del untouched, begun

    assert before == set(Path("/proc/self/fd").iterdir())


def test_no_file_is_no_events(path: Path) -> None:
    assert [] == list(replay(path))
    assert [] == list(replay(path, last=3))


def test_a_disk_that_hangs_holds_nobody_up_is_told_and_gets_all_in_order_once_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_file, "PATIENCE", 0.0)
    told: list[str | None] = []
    lane, thawed = Lane("events"), threading.Event()
    file = EventsFile(path, put=lane.put, on_change=told.append)
    lane.put(lambda: thawed.wait(DEADLINE))
    file(event(0))
    file(event(1))
    assert [0, 1] == numbers(file.snapshot().replay())

    thawed.set()
    wait_for(file.flush)
    thawed.clear()
    opening = events_file.open_own

    def hanging(name: Path, flags: int) -> int:
        thawed.wait(DEADLINE)
        return opening(name, flags)

    monkeypatch.setattr(events_file, "open_own", hanging)
    for number in (2, 3, 4):
        file(event(number))
    wait_for(lambda: file.degraded is not None)
    file(event(5))
    past = file.snapshot()
    assert "the disk does not answer; 4 events wait in memory" in str(told[-1])

    thawed.set()
    wait_for(file.flush)
    file(event(6))
    wait_for(file.flush)
    assert [0, 1, 2, 3, 4, 5] == numbers(past.replay())
    assert [3, 4, 5] == numbers(past.replay(last=3))
    assert list(range(7)) == numbers(replay(path))
    wait_for(lambda: told[-1] is None)


def test_of_what_cannot_be_read_a_snapshot_tells_what_waits_in_memory(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    file = EventsFile(path)
    file(event(0))

    assert [0] == numbers(file.snapshot().replay())

    assert (
        f"the events so far cannot be read: [Errno 22] it is a directory: remove it: '{path}'" in caplog.text
    )


def test_a_snapshot_holds_what_has_happened_until_then_though_the_files_are_rotated_meanwhile(
    path: Path,
) -> None:
    file = EventsFile(path, max_bytes=300, backups=50)
    for number in range(5):
        file(event(number))
    past = file.snapshot()
    for number in range(5, 30):
        file(event(number))

    assert [0, 1, 2, 3, 4] == numbers(past.replay())
    assert [3, 4] == numbers(past.replay(last=2))


def test_a_line_of_megabytes_is_read_whole(path: Path) -> None:
    file = EventsFile(path)
    for number in range(3):
        file({**event(number), "detail": "x" * 3_000_000})

    for last in (None, 2):
        found = list(replay(path, last=last))[-2:]
        assert [3_000_000, 3_000_000] == [len(str(line["detail"])) for line in found]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_of_ours_is_refused_and_nobody_waits_for_it(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    file = EventsFile(path)
    file(event(1))

    assert ": remove it" in str(file.degraded)
    with pytest.raises(OSError, match="remove it"):
        replay(path)


def numbered(path: Path, *numbers: int, max_bytes: int = 10**7) -> EventsFile:
    file = EventsFile(path, max_bytes)
    for number in numbers:
        file({"event": "kernel.ready", "kernel": "a", "seq": number, "output_tail": ['"seq":999999}']})
    return file


@pytest.mark.parametrize("max_bytes", [10**7, 200])
def test_events_after_a_number_are_told_across_files(tmp_path: Path, max_bytes: int) -> None:
    file = numbered(tmp_path / "e", *range(5, 20), max_bytes=max_bytes)

    assert [17, 18, 19] == [event["seq"] for event in replay(file.path, after=16)]
    assert [18, 19] == [event["seq"] for event in file.snapshot().replay(after=16, last=2)]
    assert [] == list(replay(file.path, after=19))
    assert [] == list(replay(file.path, after=16, kernels=["b"]))


def test_a_line_without_a_number_hides_none_of_those_before_it(tmp_path: Path) -> None:
    file = numbered(tmp_path / "e", 5, 6, 7)
    with file.path.open("a") as written:
        written.write('{"timestamp": "2026-01\n{"event": "events.dropped", "dropped": 2}\n')
    numbered(tmp_path / "e", 10)

    assert [6, 7, None, 10] == [event.get("seq") for event in replay(file.path, after=5)]


def test_a_burst_is_written_many_lines_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Callable[[], None]] = []
    file = EventsFile(tmp_path / "e", put=jobs.append)
    for number in range(900):
        file({"event": "kernel.ready", "seq": number})
    opened: list[Path] = []
    monkeypatch.setattr(events_file, "open_own", lambda *a: opened.append(a[0]) or open_own(*a))

    jobs.pop()()

    assert 5 > len(opened)
    assert list(range(900)) == [event["seq"] for event in replay(file.path)]


def test_of_lines_that_only_partly_fit_each_is_told_once_and_in_order(tmp_path: Path) -> None:
    jobs: list[Callable[[], None]] = []
    file = EventsFile(tmp_path / "e", max_waiting=20, put=jobs.append)
    for number in range(22):
        file({"event": "kernel.ready", "seq": number})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        jobs.pop()()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    wanted = [None, *range(2, 22)]
    assert 700 == file.path.stat().st_size
    assert "only part of a line could be written" in str(file.degraded)
    assert wanted == [event.get("seq") for event in file.snapshot().replay()]

    file.flush()
    jobs.pop()()

    assert wanted == [event.get("seq") for event in replay(file.path)]
    assert file.degraded is None


def test_the_next_supervisor_goes_on_above_all_numbers(tmp_path: Path) -> None:
    assert time.time() - 60 < EventsFile(tmp_path / "e").last_sequence()
    far = int(time.time()) * 1000
    assert far < numbered(tmp_path / "e", far).last_sequence()
    with (tmp_path / "e").open("a") as written:
        written.write('{"event": "events.dropped", "dropped": 2}\n{"torn')
    assert far < EventsFile(tmp_path / "e").last_sequence()
    (tmp_path / "e").write_text('{"seq": "no number"}\n')
    assert time.time() - 60 < EventsFile(tmp_path / "e").last_sequence()
