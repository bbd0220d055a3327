"""One record on disk, equal to the latest that was given."""

from __future__ import annotations

import asyncio
import threading

import pytest

from supervisor.records import keeper
from supervisor.records.keeper import Keeper
from supervisor.records.record import Record
from tests.waiting import DEADLINE, outlast, until


class FakeStore:
    def __init__(self) -> None:
        self.on_disk: Record | None = None
        self.writes: list[Record | None] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def write(self, record: Record) -> None:
        self._put(record)

    def remove(self, name: str) -> None:
        self._put(None)

    def _put(self, record: Record | None) -> None:
        self.gate.wait(DEADLINE)
        self.writes.append(record)
        if self.error is not None:
            raise self.error
        self.on_disk = record


class Bench:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.troubles: list[str | None] = []
        self.keeper = Keeper(self.store, "a", lambda _, text: self.troubles.append(text))

    async def flush(self) -> None:
        await asyncio.wait_for(self.keeper.flush(), DEADLINE)


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(keeper, "RETRY_INTERVAL", 0.01)
    return Bench()


def record(generation: int) -> Record:
    return Record(name="a", generation=generation)


async def test_a_record_is_on_disk_after_a_flush(bench: Bench) -> None:
    await bench.flush()
    bench.keeper.keep(record(1))
    await bench.flush()

    assert record(1) == bench.store.on_disk
    assert bench.keeper.is_done


async def test_of_many_records_only_the_latest_need_be_written(bench: Bench) -> None:
    bench.store.gate.clear()
    bench.keeper.keep(record(1))
    await asyncio.sleep(0)
    for generation in range(2, 100):
        bench.keeper.keep(record(generation))
    bench.store.gate.set()
    await bench.flush()

    assert [record(1), record(99)] == bench.store.writes


async def test_the_same_record_is_not_written_twice(bench: Bench) -> None:
    for _ in range(3):
        bench.keeper.keep(record(1))
        await bench.flush()

    assert [record(1)] == bench.store.writes


async def test_a_record_of_an_earlier_supervisor_is_removed_though_we_wrote_none(bench: Bench) -> None:
    bench.keeper.keep(None)
    await bench.flush()

    assert [None] == bench.store.writes


async def test_a_disk_that_fails_is_told_once_tried_again_and_told_when_it_works(bench: Bench) -> None:
    bench.store.error = OSError("full")
    bench.keeper.keep(record(1))
    await bench.flush()
    await until(lambda: len(bench.store.writes) > 3)
    assert ["cannot write the record of kernel a: full"] == bench.troubles
    assert not bench.keeper.is_done

    bench.store.error = None
    await until(lambda: bench.keeper.is_done)

    assert None is bench.troubles[-1]
    assert 2 == len(bench.troubles)


async def test_a_disk_that_hangs_is_told_and_what_it_has_taken_late_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 0.01)
    bench.store.gate.clear()
    bench.keeper.keep(record(1))
    await until(lambda: bench.troubles)
    assert ["cannot write the record of kernel a: the disk has not answered within 0.01 s"] == bench.troubles

    bench.store.gate.set()
    await bench.flush()

    assert record(1) == bench.store.on_disk
    assert None is bench.troubles[-1]


async def test_a_mistake_of_ours_keeps_nobody_waiting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.store.error = ValueError("surrogates not allowed")
    bench.keeper.keep(record(1))

    await bench.flush()

    assert "cannot be written" in caplog.text
    bench.store.error = None
    bench.keeper.keep(record(2))
    await bench.flush()
    assert record(2) == bench.store.on_disk


async def test_a_new_record_is_tried_at_once_while_the_disk_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RETRY_INTERVAL", 2 * DEADLINE)
    bench.store.error = OSError("full")
    bench.keeper.keep(record(1))
    await bench.flush()

    bench.store.error = None
    bench.keeper.keep(record(2))
    await bench.flush()

    assert record(2) == bench.store.on_disk


async def test_a_closed_keeper_tries_no_longer(bench: Bench) -> None:
    bench.store.error = OSError("full")
    bench.keeper.keep(record(1))
    await bench.flush()

    bench.keeper.close()
    tried = len(bench.store.writes)
    await outlast(keeper.RETRY_INTERVAL)

    assert tried == len(bench.store.writes)
