"""What is recorded of executions: from when to when, by whichever server heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from supervisor.jupyter import recorder
from supervisor.jupyter.recorder import Batch, Recorder, connect, spans, write


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def heard(*states: tuple[str, float, str]) -> Batch:
    return Batch(heard=states)


def test_an_execution_is_known_from_its_begin_to_its_end_once_that_was_heard(tmp_path: Path) -> None:
    database = connect(tmp_path / "a.sqlite")
    write(database, heard(("busy", 10.0, "x"), ("busy", 20.0, "y")), None, 1e12)
    assert [] == spans(database, 0.0)

    write(database, heard(("idle", 12.0, "x")), None, 1e12)

    assert [(10.0, 12.0)] == spans(database, 0.0)
    assert [] == spans(database, 12.0)


def test_what_one_server_heard_begin_another_may_hear_end(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    async def told() -> list[tuple[float, float]]:
        first, second = (Recorder(tmp_path / "a.sqlite", threads, 1 << 20, 1e12) for _ in range(2))
        first.hear("x", "busy")
        await first.flush()
        second.hear("x", "idle")
        return await second.spans(0.0)

    found = asyncio.run(told())

    assert 1 == len(found)
    assert found[0][0] <= found[0][1]


@pytest.mark.parametrize(
    "states",
    [
        pytest.param([("idle", 5.0, "x")], id="the begin was not heard"),
        pytest.param([("busy", 5.0, "x")], id="the end was not heard"),
        pytest.param([("busy", 5.0, "x"), ("idle", 4.0, "x")], id="the clock was set back"),
    ],
)
def test_what_is_not_known_is_not_told(tmp_path: Path, states: list[tuple[str, float, str]]) -> None:
    database = connect(tmp_path / "a.sqlite")

    write(database, heard(*states), None, 1e12)

    assert [] == spans(database, 0.0)


def test_the_oldest_executions_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MOST_EXECUTIONS", 2)
    database = connect(tmp_path / "a.sqlite")
    states = [(state, at, f"{at:g}") for at in (1.0, 2.0, 3.0) for state in ("busy", "idle")]

    write(database, heard(*states), 1 << 20, 1e12)

    assert [(2.0, 2.0), (3.0, 3.0)] == spans(database, 0.0)


def test_one_that_records_nothing_tells_nothing(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    async def told() -> list[tuple[float, float]]:
        silent = Recorder(tmp_path / "a.sqlite", threads, 0, 1e12)
        silent.hear("x", "busy")
        silent.hear("x", "idle")
        return await silent.spans(0.0)

    assert [] == asyncio.run(told())
    assert [] == list(tmp_path.iterdir())


def test_an_id_of_any_length_takes_little_room(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    async def told() -> list[tuple[float, float]]:
        made = Recorder(tmp_path / "a.sqlite", threads, 1 << 20, 1e12)
        made.hear("x" * 1_000_000, "busy")
        made.hear("x" * 1_000_000, "idle")
        return await made.spans(0.0)

    assert 1 == len(asyncio.run(told()))
    assert 100_000 > (tmp_path / "a.sqlite").stat().st_size
