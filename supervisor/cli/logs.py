"""The verb ``logs``: lifecycle events from the daemon, or from its file when there is no daemon."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from supervisor.cli.asking import chosen, get, lead_of, refuse
from supervisor.cli.exits import DONE, USAGE, Quit
from supervisor.cli.screen import complain, has_colour, say
from supervisor.control.client import Broken, Client, Connection, NoDaemon, target
from supervisor.control.places import Lead

_DEFAULT_LINES = 50
_RETRY_INTERVAL = 0.5
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}

Event = dict[str, Any]


def logs(arguments: Namespace) -> int:
    """Show what happened, and go on as it happens."""
    found = lead_of(arguments)
    wanted = _Wanted(arguments)
    printer = _Printer(as_json=arguments.json)
    try:
        if arguments.follow:
            _Following(found, wanted, printer).run()
        else:
            for event in _past(found, wanted):
                printer.show(event)
    except KeyboardInterrupt:
        pass  # that is how one stops following
    return DONE


class _Wanted:
    """Which events are asked for; patterns become names once the daemon told them."""

    def __init__(self, arguments: Namespace) -> None:
        self.patterns: list[str] = arguments.names
        self.event: str | None = arguments.event
        self.since = instant(arguments.since) if arguments.since else None
        self.last: int | None = arguments.lines
        if self.last is None and self.since is None:
            self.last = _DEFAULT_LINES

    def names(self, client: Client) -> list[str]:
        """The kernels that are meant, told by the daemon."""
        if not self.patterns:
            return []
        return [str(view["name"]) for view in chosen(get(client, "/v1/status")["kernels"], self.patterns)]


class _Printer:
    """Writes events: lines for people, or JSON as it came."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._colour = has_colour(sys.stdout)

    def show(self, event: Event) -> None:
        """Write one event."""
        if self._as_json:
            import json

            say(json.dumps(event, ensure_ascii=False))
        else:
            from supervisor.observe.console import render

            say(f"{_date(event)} {render(event, colour=self._colour)}")
        sys.stdout.flush()


def _past(found: Lead, wanted: _Wanted) -> Iterator[Event]:
    client = Client(found.sockets)
    try:
        names = wanted.names(client)
        connection = _open(client, wanted, names, follow=False)
    except NoDaemon:
        yield from _from_file(found, wanted)
        return
    with connection:
        yield from connection.lines()


def _open(
    client: Client,
    wanted: _Wanted,
    names: list[str],
    *,
    follow: bool,
    since: str | None = None,
) -> Connection:
    """A stream of events from the daemon; ``since`` takes the place of what was wanted first."""
    query = {
        "follow": True if follow else None,
        "kernel": names or None,
        "event": wanted.event,
        "since": since or wanted.since,
        "last": None if since else wanted.last,
    }
    connection = client.connect()
    try:
        connection.send("GET", target("/v1/events", query))
        refusal = connection.open_stream()
        if refusal is not None:
            refuse(refusal)
    except BaseException:
        connection.close()
        raise
    return connection


def _from_file(found: Lead, wanted: _Wanted) -> Iterator[Event]:
    """What an earlier daemon wrote.  Raises NoDaemon when there is nothing of it."""
    path = found.state_dir / "events.jsonl"
    if not path.exists():
        raise NoDaemon([*_tried(found), (path, "there is no such file of an earlier daemon")])
    complain(f"no daemon answers: this is what it left in {path}")
    from supervisor.observe.events_file import replay

    since = datetime.fromisoformat(wanted.since) if wanted.since else None
    names = wanted.patterns or None
    if names is not None and any(sign in name for name in names for sign in "*?["):
        raise Quit(USAGE, "patterns need a daemon that knows the names", "give whole names")
    yield from replay(path, kernels=names, event=wanted.event, since=since, last=wanted.last)


def _tried(found: Lead) -> tuple[tuple[Any, str], ...]:
    try:
        Client(found.sockets).connect().close()
    except NoDaemon as missing:
        return missing.tried
    return ()


class _Following:
    """Follows events through the ends of daemons, marking where one ended and the next began."""

    def __init__(self, found: Lead, wanted: _Wanted, printer: _Printer) -> None:
        self._found = found
        self._client = Client(found.sockets)
        self._wanted = wanted
        self._printer = printer
        self._names: list[str] | None = None
        self._latest = ""
        self._at_latest: list[Event] = []
        self._instance = ""

    def run(self) -> None:
        """Follow until Ctrl-C."""
        is_first = True
        while True:
            try:
                with self._connect() as connection:
                    self._tell_daemon(connection.stream_instance)
                    is_first = False
                    for event in connection.lines():
                        self._take(event)
                complain("the daemon ended the stream; waiting for it to answer again")
            except NoDaemon:
                if is_first:
                    for event in _from_file(self._found, self._wanted):
                        self._take(event)
                    is_first = False
                    complain("waiting for a daemon")
            except Broken:
                complain("the daemon has gone; waiting for it to answer again")
            time.sleep(_RETRY_INTERVAL)

    def _connect(self) -> Connection:
        if self._names is None:
            self._names = self._wanted.names(self._client)
        return _open(self._client, self._wanted, self._names, follow=True, since=self._latest or None)

    def _tell_daemon(self, instance: str) -> None:
        if self._instance and instance != self._instance:
            complain("another daemon answers; what follows is since the last event above")
        elif self._instance:
            complain("the daemon answers again; what follows is since the last event above")
        self._instance = instance

    def _take(self, event: Event) -> None:
        """Show an event, unless it was shown before the stream began again."""
        stamp = str(event.get("timestamp") or "")
        if stamp and stamp == self._latest:
            if event in self._at_latest:
                return
            self._at_latest.append(event)
        elif stamp > self._latest:
            self._latest, self._at_latest = stamp, [event]
        self._printer.show(event)


def instant(text: str) -> str:
    """An instant as ISO 8601 with a zone: a span before now, or a date and time, local without a zone."""
    if span := _SPAN.fullmatch(text.strip().lower()):
        seconds = float(span[1]) * _SECONDS[span[2]]
        return (datetime.now(UTC) - timedelta(seconds=min(seconds, 1e9))).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        hint = "give a span such as 10m, 2h, 3d, or a date and time such as 2025-01-31T12:00"
        raise Quit(USAGE, f"--since: {text!r} is not a time", hint) from None


def _date(event: Event) -> str:
    try:
        return datetime.fromisoformat(str(event.get("timestamp"))).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError):
        return "????-??-??"
