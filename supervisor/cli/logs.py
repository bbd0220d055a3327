"""The verb ``logs``: lifecycle events from the daemon, or from its file when there is no daemon."""

from __future__ import annotations

import re
import sys
import time
from argparse import Namespace
from collections import deque
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from supervisor.cli.asking import chosen, get, is_pattern, lead_of, refuse
from supervisor.cli.exits import DONE, FAILED, USAGE, Quit
from supervisor.cli.screen import complain, has_colour, json_text, say, size, tell
from supervisor.control.client import (
    QUICK_TIMEOUT,
    Broken,
    Client,
    Connection,
    NoDaemon,
    OtherDaemon,
    Unresponsive,
)
from supervisor.control.follow import GAP, Event, Place, Refused, follow, open_events
from supervisor.control.lookup import Lead
from supervisor.wording import one_line

_DEFAULT_LINES = 50
_RETRY_INTERVAL = 0.5
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|sec|m|min|h|d|w)")
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def logs(arguments: Namespace) -> int:
    """Show what happened, and go on as it happens."""
    found = lead_of(arguments)
    wanted = _Wanted(arguments)
    if arguments.summary:
        return _summarise(_past(found, wanted), as_json=arguments.json)
    printer = _Printer(as_json=arguments.json)
    try:
        if arguments.follow:
            _Following(found, wanted, printer).run()
        else:
            for event in _past(found, wanted):
                wanted.unknown.discard(str(event.get("kernel")))
                printer.show(event)
            if wanted.unknown:
                return FAILED
    except KeyboardInterrupt:
        pass  # that is how one stops following
    return DONE


def _summarise(events: Iterator[Event], *, as_json: bool) -> int:
    """Show a table instead of the events themselves."""
    from supervisor.cli.summary import summarise, table

    found = summarise(events)
    terminal = size(sys.stdout)
    fields = {name: summary.fields() for name, summary in found.items()}
    lines = table(found, terminal[0] if terminal else None, colours=has_colour(sys.stdout))
    tell(fields, lines, as_json=as_json)
    return DONE


class _Wanted:
    """Which events are asked for: by kernel, kind, cause, time and number."""

    def __init__(self, arguments: Namespace) -> None:
        self.patterns: list[str] = arguments.names
        self.has_patterns = any(map(is_pattern, self.patterns))
        # Names that the daemon does not know, and of which nothing was told.
        self.unknown: set[str] = set()
        self.follow: bool = arguments.follow
        self.event: str | None = arguments.event
        self.since = instant(arguments.since, "--since") if arguments.since else None
        self.until = datetime.fromisoformat(instant(arguments.until, "--until")) if arguments.until else None
        self.cause: str | None = arguments.cause
        if self.until is not None and self.follow:
            raise Quit(USAGE, "--until and --follow exclude each other", "give one of them")
        if self.cause is not None:
            from supervisor.core.model import Cause

            _refuse_unknown("--cause", "a cause", self.cause, [*map(str, Cause)])
        if self.event is not None:
            from supervisor.observe.sentence import EVENTS

            _refuse_unknown("--event", "an event", self.event, EVENTS)
        self.last: int | None = arguments.lines
        if self.last is None and self.since is None and not arguments.summary:
            self.last = _DEFAULT_LINES

    def names(self, client: Client) -> list[str]:
        """The kernels whose past is meant, told by the daemon.

        A name that it does not know stands for itself: what became of a kernel
        is asked just after it was removed.
        """
        if not self.patterns:
            return []
        views = get(client, "/v1/status")["kernels"]
        names: list[str] = []
        for pattern in self.patterns:
            try:
                names += [str(view["name"]) for view in chosen(views, [pattern])]
            except Quit as unknown:
                if is_pattern(pattern) and not self.follow:
                    raise
                complain(one_line(f"{unknown.message} now: {unknown.hint}"))
                names.append(pattern)
                self.unknown.add(pattern)
        return names

    @property
    def asked_last(self) -> int | None:
        """How many events the daemon is asked for: all, where what is meant is sorted out here."""
        return None if self.cause or self.until else self.last

    def chosen(self, events: Iterator[Event], *, asked: int | None) -> Iterator[Event]:
        """Those that are meant, of the last ``asked`` (or all) that the daemon or its file tells."""
        found = (event for event in events if self.matches(event))
        # Where no more can come than are wanted, each is handed on at once: what tells them may hang.
        return found if self.last == asked else iter(deque(found, self.last))

    def matches(self, event: Event) -> bool:
        """Whether an event is about the kernels that are meant; one about the stream itself always is."""
        if event.get("event") == GAP:
            return True
        if self.cause is not None and event.get("cause") != self.cause:
            return False
        if self.until is not None and not _is_before(event, self.until):
            return False
        return not self.patterns or any(
            fnmatchcase(str(event.get("kernel", "")), pattern) for pattern in self.patterns
        )


class _Printer:
    """Writes events: lines for people, or JSON as it came."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._colour = has_colour(sys.stdout)

    def show(self, event: Event) -> None:
        """Write one event."""
        if self._as_json:
            say(json_text(event))
        else:
            from supervisor.observe.console import render

            say(f"{_date(event)} {render(event, colour=self._colour)}")
        sys.stdout.flush()


def _past(found: Lead, wanted: _Wanted) -> Iterator[Event]:
    """What happened until now.  Raises NoDaemon when neither a daemon nor a file tells it."""
    client = Client(found=found)
    try:
        names = wanted.names(client)
        connection = _open(client, wanted, names, since=wanted.since, last=wanted.asked_last)
    except NoDaemon as missing:
        yield from _from_file(found, wanted, missing)
        if isinstance(missing, Unresponsive):
            raise  # what happened last may not be in the file
        return
    with connection:
        yield from wanted.chosen(connection.lines(QUICK_TIMEOUT), asked=wanted.asked_last)


def _open(client: Client, wanted: _Wanted, names: list[str], **place: str | int | bool | None) -> Connection:
    """A stream of events from the daemon, at this place of it."""
    try:
        return open_events(client, {"kernel": names or None, "event": wanted.event, **place})
    except Refused as refused:
        refuse(refused.answer)


def _from_file(found: Lead, wanted: _Wanted, missing: NoDaemon) -> Iterator[Event]:
    """What an earlier daemon wrote.  Raises NoDaemon when there is nothing of it to be read."""
    if isinstance(missing, OtherDaemon) or found.state_dir is None:
        raise missing  # it may well be the file of another one
    path = found.state_dir / "events.jsonl"
    try:
        path.stat()
        events = _read(path, wanted)
        hangs = isinstance(missing, Unresponsive)
        why = "the daemon hangs: this is what is" if hangs else "no daemon answers: this is what it left"
        complain(f"{why} in {path}")
        yield from events
    except (FileNotFoundError, NotADirectoryError):
        raise NoDaemon([*missing.tried, (path, "there is no such file of an earlier daemon")]) from None
    except OSError as error:
        raise NoDaemon([*missing.tried, (path, f"cannot be read: {error.strerror or error}")]) from None


def _read(path: Path, wanted: _Wanted) -> Iterator[Event]:
    from supervisor.observe.events_file import replay

    since = datetime.fromisoformat(wanted.since) if wanted.since else None
    kernels = None if wanted.has_patterns else wanted.patterns or None
    last = None if wanted.has_patterns else wanted.asked_last
    return wanted.chosen(
        replay(path, kernels=kernels, event=wanted.event, since=since, last=last), asked=last
    )


class _Following:
    """Follows events through the ends of daemons, marking where one ended and the next began."""

    def __init__(self, found: Lead, wanted: _Wanted, printer: _Printer) -> None:
        self._found = found
        self._client = Client(found=found)
        self._wanted = wanted
        self._printer = printer
        self._place = Place()
        self._has_begun = False
        self._waits = False
        self._instance = ""

    def run(self) -> None:
        """Follow until Ctrl-C."""
        if self._wanted.has_patterns:
            self._show_past(_past(self._found, self._wanted))
        for event in follow(self._place, self._connect, self._lost):
            self._show(event)

    def _connect(self) -> Connection:
        wanted = self._wanted
        if self._has_begun:
            # Patterns are looked at here: a kernel that is declared later is followed as well.
            names = [] if wanted.has_patterns else wanted.patterns
            connection = _open(self._client, wanted, names, follow=True, **self._place.query)
        else:
            names = wanted.names(self._client)
            place = {"since": wanted.since, "last": wanted.asked_last}
            connection = _open(self._client, wanted, names, follow=True, **place)
            self._has_begun = True
        self._tell_daemon(connection.stream_instance)
        return connection

    def _show_past(self, events: Iterator[Event]) -> None:
        """Show what there is of the past; what comes next is what happened since we began."""
        for event in events:
            if self._place.is_new(event):
                self._show(event)
        self._has_begun = True

    def _lost(self, why: NoDaemon | Broken | None) -> bool:
        """Tell, once, that a daemon is waited for, and wait a moment."""
        if isinstance(why, NoDaemon) and not self._has_begun:
            self._show_past(_from_file(self._found, self._wanted, why))
        if not self._waits:
            complain(_reason(why))
        self._waits = True
        time.sleep(_RETRY_INTERVAL)
        return True

    def _tell_daemon(self, instance: str) -> None:
        self._waits = False
        if self._instance and instance != self._instance:
            complain("another daemon answers; what follows is since the last event above")
        elif self._instance:
            complain("the daemon answers again; what follows is since the last event above")
        self._instance = instance

    def _show(self, event: Event) -> None:
        if self._wanted.matches(event):
            self._printer.show(event)


def _reason(why: NoDaemon | Broken | None) -> str:
    if isinstance(why, NoDaemon):
        return "waiting for a daemon"
    happened = "has gone" if why else "ended the stream"
    return f"the daemon {happened}; waiting for it to answer again"


def _refuse_unknown(option: str, what: str, word: str, known: Collection[str]) -> None:
    """What there is not is a slip: nothing would ever be shown.  Raises Quit."""
    from supervisor.settings.mistakes import did_you_mean

    if word not in known:
        hint = did_you_mean(word, known) or f"there are {', '.join(known)}"
        raise Quit(USAGE, f"{option}: {word!r} is not {what}", hint)


def _is_before(event: Event, until: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(event.get("timestamp"))) <= until
    except (ValueError, TypeError):
        return False


def instant(text: str, option: str = "--since") -> str:
    """An instant as ISO 8601 with a zone: a span before now, or a date and time, local without a zone."""
    if span := _SPAN.fullmatch(text.strip().lower()):
        seconds = float(span[1]) * _SECONDS[span[2]]
        return (datetime.now(UTC) - timedelta(seconds=min(seconds, 1e9))).isoformat()
    try:
        return datetime.fromisoformat(text).astimezone().isoformat()
    except (ValueError, OverflowError):
        hint = "give a span such as 10m, 2h, 3d, or a date and time such as 2025-01-31T12:00"
        raise Quit(USAGE, f"{option}: {text!r} is not a time", hint) from None


def _date(event: Event) -> str:
    try:
        return datetime.fromisoformat(str(event.get("timestamp"))).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError):
        return "????-??-??"
