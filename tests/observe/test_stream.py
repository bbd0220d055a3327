"""Followers of events."""

import asyncio

import pytest

from supervisor.observe.stream import EventStream, Subscription


def event(number: int) -> dict[str, object]:
    return {"event": "kernel.ready", "kernel": "ab"[number % 2], "number": number}


async def everything(subscription: Subscription) -> list[object]:
    async with asyncio.timeout(30):
        return [found.get("number", (found["event"], found.get("dropped"))) async for found in subscription]


async def test_a_follower_gets_every_event_after_it_subscribed() -> None:
    stream = EventStream()
    stream.publish(event(0))
    subscription = stream.subscribe()

    stream.publish(event(1))
    stream(event(2))
    stream.close()

    assert [1, 2] == await everything(subscription)


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    stream = EventStream()
    subscription = stream.subscribe(limit=10)

    for number in range(15):
        stream.publish(event(number))
    stream.close()

    assert [("stream.gap", 5), *range(5, 15)] == await everything(subscription)


async def test_a_reader_that_never_reads_is_let_go_with_a_gap() -> None:
    stream = EventStream()
    idle, busy = stream.subscribe(limit=10), stream.subscribe(limit=1000)

    for number in range(100):
        stream.publish(event(number))

    assert 1 == stream.followers
    assert [("stream.gap", 30)] == await everything(idle)
    stream.close()
    assert list(range(100)) == await everything(busy)


async def test_a_reader_that_catches_up_is_not_let_go() -> None:
    stream = EventStream()
    subscription = stream.subscribe(limit=10)

    for _ in range(5):
        for number in range(19):
            stream.publish(event(number))
        assert "stream.gap" == (await anext(subscription))["event"]

    stream.publish(event(20))
    stream.close()
    assert 20 == (await everything(subscription))[-1]


async def test_a_choice_is_made_before_the_queue() -> None:
    stream = EventStream()
    subscription = stream.subscribe(limit=50, wanted=lambda found: found["kernel"] == "b")

    for number in range(100):
        stream.publish(event(number))
    stream.close()

    assert list(range(1, 100, 2)) == await everything(subscription)


async def test_closing_ends_those_who_wait_and_those_who_come_later() -> None:
    stream = EventStream()
    waiting = asyncio.ensure_future(everything(stream.subscribe()))
    await asyncio.sleep(0)

    stream.close()

    assert [] == await asyncio.wait_for(waiting, 30)
    assert [] == await everything(stream.subscribe())


async def test_a_limit_must_be_positive() -> None:
    with pytest.raises(ValueError, match="limit: 0"):
        EventStream().subscribe(limit=0)
