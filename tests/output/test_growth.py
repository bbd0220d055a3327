"""A write to a file is told, once, and nothing before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.output import growth as growths
from supervisor.output.growth import Growth
from tests.waiting import DEADLINE


@pytest.fixture
async def growth() -> Iterator[Growth]:  # type: ignore[misc]
    made = Growth()
    yield made
    made.close()
    made.close()


async def test_the_next_write_is_told_and_only_to_whom_it_concerns(growth: Growth, tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    grown = [asyncio.Event(), asyncio.Event()]
    for file, event in zip(files, grown, strict=True):
        file.touch()
        assert growth.watch(file, event)

    files[0].write_text("x")
    await asyncio.wait_for(grown[0].wait(), DEADLINE)

    assert [True, False] == [event.is_set() for event in grown]
    for event in grown:
        event.clear()
    files[0].write_text("y")
    files[1].write_text("y")
    await asyncio.wait_for(grown[1].wait(), DEADLINE)
    assert not grown[0].is_set(), "it is told once"


async def test_a_write_before_it_is_noted_who_is_to_be_told_is_told_all_the_same(
    growth: Growth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").touch()
    add, grown = growth._add, asyncio.Event()
    assert add is not None

    def slow(*arguments: object) -> int:
        watch = add(*arguments)
        (tmp_path / "a").write_text("x")
        growth._read()
        return watch

    monkeypatch.setattr(growth, "_add", slow)
    assert growth.watch(tmp_path / "a", grown)

    await asyncio.wait_for(grown.wait(), DEADLINE)


async def test_where_nothing_can_be_told_that_is_said(
    growth: Growth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not growth.watch(tmp_path / "missing", asyncio.Event())
    monkeypatch.setattr(growths.sys, "platform", "darwin")
    blind = Growth()
    assert not blind.watch(tmp_path, asyncio.Event())
    blind.close()
