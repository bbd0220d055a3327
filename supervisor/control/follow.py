"""Events of a daemon, followed through its ends: each comes once, also those between two daemons.

Owns where in the stream we are, and how it is taken up again.  Never prints, and
leaves to its caller how long to wait for the next daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from supervisor.control.client import Answer, Broken, Client, Connection, NoDaemon, Query, target
from supervisor.wording import timestamp

Event = dict[str, Any]

GAP = "stream.gap"


class Refused(Exception):
    """The daemon does not give the stream; ``answer`` tells why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.body.get("error")))
        self.answer = answer


def open_events(client: Client, query: Query) -> Connection:
    """A connection from which events may be read.  Raises NoDaemon, Broken and Refused."""
    return open_stream(client, target("/v1/events", query))


def open_stream(client: Client, where: str) -> Connection:
    """A connection from which the lines of this target may be read.  Raises NoDaemon, Broken and Refused."""
    connection = client.connect()
    try:
        connection.send("GET", where)
        if (refusal := connection.open_stream()) is not None:
            raise Refused(refusal)
    except BaseException:
        connection.close()
        raise
    return connection


class Place:
    """Where to go on: after the last event that came; before any, at the moment that we began."""

    def __init__(self) -> None:
        self._began = timestamp()
        self._last: int | None = None

    @property
    def query(self) -> dict[str, int | str]:
        """What to ask for: the events after that place."""
        return {"since": self._began} if self._last is None else {"after": self._last}

    def is_new(self, event: Event) -> bool:
        """Whether the event did not come before the stream began again; it has come now."""
        number = event.get("seq")
        if not isinstance(number, int):  # a gap; or the daemon is an older one, that does not count
            return True
        is_new = self._last is None or number > self._last
        self._last = max(number, self._last or 0)
        return is_new


def follow(
    place: Place, connect: Callable[[], Connection], lost: Callable[[NoDaemon | Broken | None], bool]
) -> Iterator[Event]:
    """Every event from ``place`` on, of one daemon after the other.

    ``connect`` gives a connection whose stream is open.  ``lost`` is told why a
    stream ended (``None``: the daemon ended it), waits as it likes, and says
    whether to go on.
    """
    while True:
        why: NoDaemon | Broken | None = None
        try:
            with connect() as connection:
                for event in connection.lines():
                    if place.is_new(event):
                        yield event
        except (NoDaemon, Broken) as error:
            why = error
        if not lost(why):
            return
