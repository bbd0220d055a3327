"""Followers of events, each with a bounded queue.

Owns who follows and what waits for them.  Never waits for a follower: one that
reads too slowly loses the oldest events and is told how many, and one that
does not read at all is let go.  To be used on the loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Self

from supervisor.observe.event_line import lost
from supervisor.observe.redaction import clean

LIMIT = 1000

Wanted = Callable[[Mapping[str, object]], bool]


class Subscription:
    """An async iterator of events, from ``EventStream.subscribe``; for one reader."""

    def __init__(self, stream: EventStream, limit: int, wanted: Wanted | None) -> None:
        self._stream = stream
        self._limit = limit
        self._wanted = wanted
        self._waiting: deque[dict[str, object]] = deque()
        self._dropped = 0
        self._ended = False
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Follow no longer; what waits can still be read.  Idempotent."""
        self._ended = True
        self._stream.forget(self)
        self._changed.set()

    def offer(self, event: dict[str, object]) -> None:
        """Queue an event; called by the stream."""
        if self._ended or (self._wanted is not None and not self._wanted(event)):
            return
        self._waiting.append(event)
        if len(self._waiting) > self._limit:
            self._waiting.popleft()
            self._dropped += 1
        if self._dropped >= 2 * self._limit:
            self._dropped += len(self._waiting)
            self._waiting.clear()
            self.close()
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, object]:
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return lost("stream.gap", dropped)
            if self._waiting:
                return self._waiting.popleft()
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class EventStream:
    """The observer that hands each event to all followers."""

    def __init__(self) -> None:
        self._subscriptions: dict[Subscription, None] = {}
        self._closed = False

    @property
    def followers(self) -> int:
        """How many follow."""
        return len(self._subscriptions)

    def subscribe(self, limit: int = LIMIT, *, wanted: Wanted | None = None) -> Subscription:
        """Follow from now on.

        At most ``limit`` events wait; then the oldest are replaced by a
        ``stream.gap`` event with their number in ``dropped``, and a follower
        that lost twice ``limit`` at a stretch is ended with such a gap.
        ``wanted`` chooses events before they are queued.
        """
        if limit < 1:
            raise ValueError(f"limit: {limit} is not positive")
        subscription = Subscription(self, limit, wanted)
        if self._closed:
            subscription.close()
        else:
            self._subscriptions[subscription] = None
        return subscription

    def publish(self, event: Mapping[str, object]) -> None:
        """Hand the event, without secrets, to every follower; never waits."""
        if not self._subscriptions:
            return
        plain = clean(event)
        for subscription in tuple(self._subscriptions):
            subscription.offer(plain)

    __call__ = publish

    def forget(self, subscription: Subscription) -> None:
        """Offer nothing more to this follower; no error if it is unknown."""
        self._subscriptions.pop(subscription, None)

    def close(self) -> None:
        """End all iterators once their readers have read what waits; idempotent."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()
