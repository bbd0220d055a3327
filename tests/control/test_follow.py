"""Events are followed through the ends of daemons: each comes once, and in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from supervisor.control.client import Broken, Connection, NoDaemon
from supervisor.control.follow import Place, follow


class Stream:
    """What one daemon told before its stream ended, by itself or broken."""

    def __init__(self, *events: dict[str, Any], broken: bool = False) -> None:
        self.events = events
        self.broken = broken

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def lines(self) -> Iterator[dict[str, Any]]:
        yield from self.events
        if self.broken:
            raise Broken("the stream broke off")


def event(number: int, what: str = "a", name: str = "kernel.died") -> dict[str, Any]:
    return {"seq": number, "event": name, "kernel": what}


def told(*streams: Stream | NoDaemon) -> tuple[list[dict[str, Any]], list[str], list[Any]]:
    """What comes of these daemons, one after the other; why each was lost; where each was asked to begin."""
    place, left = Place(), list(streams)
    asked: list[dict[str, Any]] = []
    lost: list[str] = []

    def connect() -> Connection:
        asked.append(place.query)
        stream = left.pop(0)
        if isinstance(stream, NoDaemon):
            raise stream
        return stream  # type: ignore[return-value]

    def note(why: NoDaemon | Broken | None) -> bool:
        lost.append(type(why).__name__)
        return bool(left)

    return list(follow(place, connect, note)), lost, asked


def test_what_was_told_before_the_stream_began_again_is_not_told_twice() -> None:
    first = Stream(event(1), event(2), event(3), broken=True)
    second = Stream(event(2), event(3), event(4), event(5))

    events, lost, asked = told(first, NoDaemon([(Path("x"), "gone")]), second)

    assert [event(number) for number in (1, 2, 3, 4, 5)] == events
    assert ["Broken", "NoDaemon", "NoneType"] == lost
    assert [{"after": 3}] * 2 == asked[1:]


def test_until_something_is_told_it_goes_on_where_it_began() -> None:
    events, _, asked = told(NoDaemon([(Path("x"), "gone")]), Stream(), Stream(event(1)))

    assert [event(1)] == events
    assert ["since"] == list(asked[0])
    assert 3 * asked[:1] == asked


def test_a_gap_is_told_and_is_no_place_to_go_on_at() -> None:
    gap = {"event": "stream.gap", "dropped": 3}

    events, _, asked = told(Stream(event(1), gap, broken=True), Stream(gap, event(2)))

    assert [event(1), gap, gap, event(2)] == events
    assert {"after": 1} == asked[1]


def test_an_event_of_a_daemon_that_does_not_count_is_told() -> None:
    assert [{"event": "odd"}] * 2 == told(Stream({"event": "odd"}), Stream({"event": "odd"}))[0]
