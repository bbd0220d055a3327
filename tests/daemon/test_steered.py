"""What the door asks of the daemon: the past of the events, and what follows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from supervisor.control.requests import EventsRequest, OutputRequest
from supervisor.control.steering import UnknownKernel
from supervisor.daemon import steered
from supervisor.daemon.daemon import Daemon
from supervisor.daemon.steered import SteeredDaemon
from supervisor.disk import off_loop
from supervisor.observe.events_file import EventsFile
from supervisor.observe.stream import EventStream
from tests.waiting import DEADLINE, until


class Bench:
    def __init__(self, directory: Path) -> None:
        self.file = EventsFile(directory / "events.jsonl")
        self.stream = EventStream()
        supervision = SimpleNamespace(events_file=self.file, stream=self.stream, instance="")
        self.steered = SteeredDaemon(cast("Daemon", SimpleNamespace(supervision=supervision)))

    def tell(self, number: int) -> None:
        line = {"event": "kernel.ready", "kernel": "a", "number": number}
        self.file(line)
        self.stream(line)

    async def events(self, *, follow: bool) -> AsyncIterator[Mapping[str, Any]]:
        """The lines one by one; the daemon hands them on in batches."""
        async with aclosing(self.steered.events(EventsRequest(follow=follow))) as batches:  # type: ignore[type-var]
            async for lines in batches:
                for line in lines:
                    yield line


def test_the_output_of_a_kernel_that_is_not_known_is_refused_before_its_stream_begins() -> None:
    def kernel(name: str) -> Any:
        raise KeyError(name)

    supervision = SimpleNamespace(kernel=kernel, names=list, instance="")
    asked = SteeredDaemon(cast("Daemon", SimpleNamespace(supervision=supervision)))

    with pytest.raises(UnknownKernel):
        asked.output("nobody", OutputRequest())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_all_of_the_past_is_told_in_order(bench: Bench) -> None:
    count = 3 * steered.EVENTS_AT_ONCE + 1
    for number in range(count):
        bench.tell(number)

    found = [line["number"] async for line in bench.events(follow=False)]

    assert list(range(count)) == found


async def test_what_happens_while_the_past_is_told_comes_once_and_after_it(bench: Bench) -> None:
    for number in range(300):
        bench.tell(number)
    found = []
    async with asyncio.timeout(DEADLINE):
        async for line in bench.events(follow=True):
            found.append(line["number"])
            if len(found) == 1:
                bench.tell(300)
            if len(found) == 300:
                bench.tell(301)
            if len(found) == 302:
                break

    assert list(range(302)) == found


async def test_a_long_search_in_the_past_holds_up_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching, go_on = threading.Event(), threading.Event()

    def slow(**_: object) -> Iterator[dict[str, object]]:
        searching.set()
        go_on.wait(DEADLINE)
        yield {"event": "at last"}

    monkeypatch.setattr(bench.file, "snapshot", lambda: SimpleNamespace(replay=slow))

    async def search() -> list[object]:
        return [line["event"] async for line in bench.events(follow=False)]

    task = asyncio.create_task(search())
    await until(searching.is_set)
    go_on.set()

    assert ["at last"] == await task


async def test_a_past_that_cannot_be_read_keeps_nobody_from_what_comes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(off_loop, "PATIENCE", 0.01)
    thawed = threading.Event()
    hanging = SimpleNamespace(replay=lambda **_: thawed.wait(DEADLINE))
    monkeypatch.setattr(bench.file, "snapshot", lambda: hanging)
    following = bench.events(follow=True)
    first = asyncio.ensure_future(anext(following))
    await until(lambda: bench.stream.followers)

    bench.tell(1)

    assert 1 == (await asyncio.wait_for(first, DEADLINE))["number"]
    assert "the events so far cannot be read: past events: no answer" in caplog.text
    thawed.set()
