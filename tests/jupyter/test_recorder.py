"""What is recorded of a kernel, and what a disk that hangs may cost: the record, nothing else."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from supervisor.jupyter import recorder
from supervisor.jupyter.recorder import Recorder
from tests.waiting import until

MAX_BYTES = 1 << 20


@pytest.fixture
def recording(tmp_path: Path) -> Recorder:
    made = Recorder("a")
    made.record_to(tmp_path / "recorder" / "x.sqlite", MAX_BYTES, 3600.0)
    return made


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk that hangs until this is set."""
    answers, connect = threading.Event(), recorder.connect

    def hang(file: Path) -> object:
        answers.wait()
        return connect(file)

    monkeypatch.setattr(recorder, "connect", hang)
    monkeypatch.setattr(recorder, "PATIENCE", 0.1)
    yield answers
    answers.set()


def add(recording: Recorder, number: int, *, size: int = 0, missed: bool = True) -> None:
    header = {"msg_id": f"m{number}", "msg_type": "stream"}
    content = json.dumps({"text": f"{number}" + "x" * size}).encode()
    parts = [json.dumps(header).encode(), b"{}", b"{}", content, b"\xff"]
    recording.add("iopub", "session", header, {"msg_id": "r"}, parts, missed=missed)


def ask(recording: Recorder, id_: str, code: str = "1 + 1") -> None:
    header = {"msg_id": id_, "msg_type": "execute_request"}
    parts = [json.dumps(part).encode() for part in (header, {}, {"cellId": "cell"}, {"code": code})]
    recording.add("shell", "session", header, header, parts, missed=False)


def answer(recording: Recorder, id_: str) -> None:
    header = {"msg_id": f"reply to {id_}", "msg_type": "execute_reply"}
    recording.add("shell", "session", header, {"msg_id": id_}, [b"{}"] * 4, missed=False)


async def test_what_a_session_missed_comes_once_in_order_and_whole(recording: Recorder) -> None:
    for number in range(3):
        add(recording, number, missed=number != 1)

    assert ["0", "2"] == [missed.content["text"] for missed in await recording.missed("session")]
    assert [] == await recording.missed("session")


async def test_a_message_has_the_parts_that_it_was_made_of(recording: Recorder) -> None:
    add(recording, 7)

    (found,) = await recording.missed("session")
    assert [b"{}", b"{}", b'{"text": "7"}', b"\xff"] == found.parts[1:]


async def test_of_more_than_there_is_room_for_the_newest_is_kept(recording: Recorder) -> None:
    for number in range(40):
        add(recording, number, size=MAX_BYTES // 20)
        await recording.flush()

    kept = [int(missed.content["text"].rstrip("x")) for missed in await recording.missed("session")]
    assert list(range(40))[-len(kept) :] == kept
    assert 10 < len(kept) <= 20


async def test_what_was_answered_is_open_no_more(recording: Recorder) -> None:
    for id_ in ("one", "two"):
        ask(recording, id_)
    answer(recording, "one")

    assert ["two"] == [request.id for request in await recording.open_requests("session")]


async def test_no_page_waits_for_a_disk_that_hangs(recording: Recorder, disk: threading.Event) -> None:
    add(recording, 1)

    async with asyncio.timeout(5):
        assert [] == await recording.missed("session")
        await recording.flush()


async def test_what_waits_for_a_disk_that_hangs_is_bounded(
    recording: Recorder, disk: threading.Event
) -> None:
    tracemalloc.start()
    try:
        for number in range(50):
            add(recording, number, size=MAX_BYTES // 2)
            ask(recording, f"{number}")
            await asyncio.sleep(0)  # in which it would write
        waiting, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 5 * MAX_BYTES > waiting


async def test_a_file_that_is_none_of_ours_is_made_anew(recording: Recorder) -> None:
    recording.file.parent.mkdir()
    recording.file.write_bytes(b"no database" * 1000)

    add(recording, 1)
    await recording.flush()
    add(recording, 2)

    assert ["2"] == [missed.content["text"] for missed in await recording.missed("session")]


async def test_a_file_that_is_broken_while_it_is_written_is_made_anew(recording: Recorder) -> None:
    for number in range(20):
        add(recording, number, size=20_000)
    await recording.flush()
    assert recording._database is not None
    recording._database.close()
    recording._database = None
    size = recording.file.stat().st_size
    assert 400_000 < size
    with recording.file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (size - 4096))

    for number in range(20, 25):  # whoever hears of it first
        add(recording, number)
        await recording.flush()

    assert "24" == (await recording.missed("session"))[-1].content["text"]


async def test_a_file_that_cannot_be_written_costs_what_is_recorded_and_no_more(recording: Recorder) -> None:
    recording.file.mkdir(parents=True)
    add(recording, 1)
    assert [] == await recording.missed("session")

    recording.file.rmdir()
    add(recording, 2)

    assert ["2"] == [missed.content["text"] for missed in await recording.missed("session")]


async def test_a_disk_that_is_full_costs_what_does_not_fit(
    recording: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, connect = [20], recorder.connect

    def cramped(file: Path) -> object:
        database = connect(file)
        database.execute(f"PRAGMA max_page_count = {most[0]}")
        return database

    monkeypatch.setattr(recorder, "connect", cramped)
    add(recording, 1)
    await recording.flush()
    add(recording, 2, size=500_000)
    await recording.flush()
    most[0] = 1_000_000  # there is room again

    add(recording, 3)

    assert ["1", "3"] == [missed.content["text"] for missed in await recording.missed("session")]


async def test_one_that_is_larger_than_the_record_pushes_nothing_out(recording: Recorder) -> None:
    add(recording, 1)
    add(recording, 2, size=2 * MAX_BYTES)

    assert ["1"] == [missed.content["text"] for missed in await recording.missed("session")]


async def test_the_code_of_requests_is_bounded_too(recording: Recorder) -> None:
    for number in range(20):
        ask(recording, f"{number}", "x" * (MAX_BYTES // 20))
        await recording.flush()

    kept = [int(request.id) for request in await recording.open_requests("session")]
    assert list(range(20))[-len(kept) :] == kept
    assert MAX_BYTES // 4 > len(kept) * MAX_BYTES // 20 > 0


async def test_what_was_asked_stays_when_what_came_of_it_is_too_much(recording: Recorder) -> None:
    ask(recording, "answered")
    answer(recording, "answered")
    ask(recording, "open")
    for number in range(40):
        add(recording, number, size=MAX_BYTES // 20)
        await recording.flush()

    assert ["open"] == [request.id for request in await recording.open_requests("session")]


@pytest.mark.parametrize("texts", [("\ud800", "x"), ("x", "\ud800")])
async def test_what_is_no_text_is_recorded_as_what_can_be(
    recording: Recorder, texts: tuple[str, str]
) -> None:
    for id_ in texts:
        ask(recording, id_)

    assert {"?", "x"} == {request.id for request in await recording.open_requests("session")}


async def test_what_one_server_has_passed_on_is_not_missed_whoever_writes_first(recording: Recorder) -> None:
    other = Recorder("a")
    other.record_to(recording.file, MAX_BYTES, 3600.0)
    for first, second, number in ((recording, other, 1), (other, recording, 2)):
        add(first, number, missed=first is other)
        await first.flush()
        add(second, number, missed=second is other)
        await second.flush()
    add(recording, 3)
    add(other, 3)
    await other.flush()

    assert ["3"] == [missed.content["text"] for missed in await recording.missed("session")]


async def test_a_clock_that_is_set_back_loses_and_turns_round_nothing(recording: Recorder) -> None:
    for number, hours in enumerate((3, -2, 1)):
        now = time.time() + hours * 1000
        with patch.object(time, "time", lambda now=now: now):
            add(recording, number)
            ask(recording, f"{number}", f"{number}")
            await recording.flush()

    assert "2" == (await recording.executions(["cell"]))[0][0].content["code"]
    assert ["0", "1", "2"] == [missed.content["text"] for missed in await recording.missed("session")]


# From when to when something was executed, by whichever server heard it


async def heard(recording: Recorder, *states: tuple[str, float, str]) -> list[tuple[float, float]]:
    """What is told of executions once this was heard at these times."""
    for state, at, request in states:
        with patch.object(time, "time", lambda at=at: at):
            recording.hear(request, state)
    return await recording.spans(0.0)


@pytest.fixture
def lasting(recording: Recorder) -> Recorder:
    recording.max_age = 1e12
    return recording


async def test_an_execution_is_known_from_its_begin_to_its_end_once_that_was_heard(lasting: Recorder) -> None:
    assert [] == await heard(lasting, ("busy", 10.0, "x"), ("busy", 20.0, "y"))

    assert [(10.0, 12.0)] == await heard(lasting, ("idle", 12.0, "x"))
    assert [] == await lasting.spans(12.0)


async def test_what_one_server_heard_begin_another_may_hear_end(lasting: Recorder) -> None:
    other = Recorder("a")
    other.record_to(lasting.file, MAX_BYTES, 1e12)
    await heard(lasting, ("busy", 10.0, "x"))

    assert [(10.0, 11.0)] == await heard(other, ("idle", 11.0, "x"))


@pytest.mark.parametrize(
    "states",
    [
        pytest.param([("idle", 5.0, "x")], id="the begin was not heard"),
        pytest.param([("busy", 5.0, "x")], id="the end was not heard"),
        pytest.param([("busy", 5.0, "x"), ("idle", 4.0, "x")], id="the clock was set back"),
    ],
)
async def test_what_is_not_known_is_not_told(lasting: Recorder, states: list[tuple[str, float, str]]) -> None:
    assert [] == await heard(lasting, *states)


async def test_the_oldest_executions_are_forgotten(
    lasting: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MOST_EXECUTIONS", 2)
    states = [(state, at, f"{at:g}") for at in (1.0, 2.0, 3.0) for state in ("busy", "idle")]

    assert [(2.0, 2.0), (3.0, 3.0)] == await heard(lasting, *states)


def test_one_that_records_nothing_tells_nothing(tmp_path: Path) -> None:
    async def told() -> list[tuple[float, float]]:
        silent = Recorder("a")
        silent.record_to(tmp_path / "recorder" / "x.sqlite", 0, 1e12)
        add(silent, 1)
        return await heard(silent, ("busy", 1.0, "x"), ("idle", 2.0, "x"))

    assert [] == asyncio.run(told())
    assert [] == list(tmp_path.iterdir())


async def test_an_id_of_any_length_takes_little_room(lasting: Recorder) -> None:
    long = "x" * 1_000_000

    assert [(1.0, 2.0)] == await heard(lasting, ("busy", 1.0, long), ("idle", 2.0, long))
    assert 100_000 > lasting.file.stat().st_size


async def test_nothing_is_left_of_what_is_removed(recording: Recorder) -> None:
    add(recording, 1)
    await recording.flush()
    add(recording, 2)

    recording.remove()

    await until(lambda: not list(recording.file.parent.iterdir()))
