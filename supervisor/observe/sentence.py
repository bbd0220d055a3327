"""An event as one sentence for people.

Owns the wording that the console and the journal share.  Never looks at the
machine: all that it says is in the event, and an event that it does not know
is told by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from supervisor.wording import amount, how_it_died, one_line, signal_name, span

_FIELD = re.compile(r"\{(\w+)\}")
_MISTAKES = 5  # so many are told in the sentence itself
_CHECKS = {"heartbeat": "its heartbeat", "probe": "kernel_info on control"}


def sentence(event: Mapping[str, object]) -> str:
    """Return one line that tells the event, such as "analysis died: killed by SIGKILL after 2 h"."""
    return tell(event)[0]


def tell(event: Mapping[str, object]) -> tuple[str, frozenset[str]]:
    """Return the sentence, and the names of the fields that need not be shown beside it."""
    telling = _Telling(event)
    word = _WORDS.get(telling.text("event"), _UNKNOWN)
    text = one_line(word(telling))
    return text, frozenset(telling.told)


class _Telling:
    """The fields of an event; remembers which ones were told."""

    def __init__(self, event: Mapping[str, object]) -> None:
        self._event = event
        self.told = {"event", "kernel", "seq"}

    def text(self, name: str) -> str:
        self.told.add(name)
        value = self._event.get(name)
        return "" if value is None else str(value)

    def amount(self, name: str) -> str:
        self.told.add(name)
        value = self._event.get(name)
        return amount(value) if isinstance(value, int) else "much"

    def seconds(self, name: str) -> str:
        value = self._event.get(name)
        if isinstance(value, int | float):
            self.told.add(name)
            return span(value)
        return ""

    def items(self, name: str) -> list[str]:
        self.told.add(name)
        value = self._event.get(name)
        return [str(item) for item in value] if isinstance(value, list | tuple) else []

    def part(self, template: str, *, always: bool = False) -> str:
        shown = {name: self.shown(name) for name in _FIELD.findall(template)}
        return template.format(**shown) if always or all(shown.values()) else ""

    def shown(self, name: str) -> str:
        match name:
            case "run":
                return self.run()
            case "took" | "uptime":
                return self.seconds(name)
            case "pids":
                return ", ".join(self.items(name))
            case "check":
                return _CHECKS.get(self.text(name), self.text(name))
            case "dropped":
                return self.text(name) or "some"
            case "signum" if (number := self.text(name)).isdecimal():
                return signal_name(int(number))
            case _:
                return self.text(name)

    def run(self) -> str:
        known = [
            f"{word} {self.text(name)}"
            for word, name in (("run", "generation"), ("pid", "pid"))
            if self.text(name)
        ]
        return f" ({', '.join(known)})" if known else ""

    def how(self) -> str:
        self.told |= {"cause", "signal", "exit_code"}
        return how_it_died(self._event)

    def because(self, name: str = "reason") -> str:
        return f": {self.text(name)}" if self.text(name) else ""


def _told(first: str, *parts: str) -> Callable[[_Telling], str]:
    """The first part with its fields filled in, then those others of which no field is missing."""
    return lambda e: e.part(first, always=True) + "".join(map(e.part, parts))


def _kernel(what: str) -> Callable[[_Telling], str]:
    return _told(f"{{kernel}} {what}", ": {reason}", "{run}")


def _died(e: _Telling) -> str:
    away = " while no supervisor was there" if e.text("while_unsupervised") == "True" else ""
    if not e.text("pid") and not away and e.seconds("uptime") in ("", span(0)):
        # What never was did not die.
        how = "" if e.text("cause") in ("not-found", "unknown") else f": {e.how()}"
        return f"{e.text('kernel')} could not be launched{how}{e.run()}{e.because('detail')}"
    after = f" after {uptime}" if (uptime := e.seconds("uptime")) else ""
    return f"{e.text('kernel')} died{away}: {e.how()}{after}{e.run()}{e.because('detail')}"


def _restarting(e: _Telling) -> str:
    delay = e.seconds("delay")
    when = f"in {delay}" if delay and delay != span(0) else "at once"
    attempt = f", attempt {number}" if (number := e.text("attempt")) else ""
    return f"{e.text('kernel')} restarts {when}{attempt}{e.because()}{e.run()}"


def _pressed(e: _Telling) -> str:
    used, limit = e.amount("used"), e.amount("limit")
    return f"{e.text('kernel')} uses {used} of memory and may use {limit}{e.run()}"


def _stopping(e: _Telling) -> str:
    names = e.items("awaited") or e.items("kernels")
    waiting = f"; waits for {', '.join(names)}" if names else ""
    return f"supervisor is stopping{e.because()}{e.run()}{waiting}"


def _detached(e: _Telling) -> str:
    names = ", ".join(e.items("kernels"))
    return (
        f"supervisor left{e.run()}; {f'these kernels go on: {names}' if names else 'no kernel was running'}"
    )


def _rejected(e: _Telling) -> str:
    mistakes = e.items("mistakes")
    more = f"; and {len(mistakes) - _MISTAKES} more" if len(mistakes) > _MISTAKES else ""
    what = f": {'; '.join(mistakes[:_MISTAKES])}{more}" if mistakes else e.because("file")
    in_force = f"; in force is {named}" if (named := e.text("in_force")) else ""
    return f"configuration rejected{what}{in_force}"


_UNKNOWN = _told("", "{kernel}: ", "{event}", ": {reason}", "{run}")
_WORDS: Mapping[str, Callable[[_Telling], str]] = {
    "daemon.started": _told("supervisor started", ": {reason}", "{run}"),
    "daemon.stopping": _stopping,
    "daemon.stopped": _told("supervisor stopped", ": {reason}", "{run}"),
    "daemon.detached": _detached,
    "config.loaded": _told("configuration loaded", ": {file}"),
    "config.rejected": _rejected,
    "kernel.waiting": _kernel("waits for room"),
    "kernel.starting": _kernel("is starting"),
    "kernel.queued": _told(
        "{kernel} is in the queue as job {job}", ": {reason}", "; it is to begin at {estimate}", "{run}"
    ),
    "kernel.begun": _told("{kernel} begins on {node} as job {job}", "{run}"),
    "kernel.expiring": _told("{kernel} will be ended at {at}, when its time is up", "{run}"),
    "kernel.ready": _told("{kernel} is ready", " after {took}", "{run}", "; connect with: {connect}"),
    "kernel.died": _died,
    "kernel.restarting": _restarting,
    "kernel.stopping": _kernel("is being stopped"),
    "kernel.stopped": _kernel("stopped"),
    "kernel.failed": _told(
        "{kernel} failed and is left alone",
        ": {reason}",
        "{run}",
        "; kernel-supervisor reset {kernel} tries again",
    ),
    "kernel.unresponsive": _told(
        "{kernel} does not answer", " {check}", ", {misses} missed in a row", "{run}"
    ),
    "kernel.responsive": _kernel("answers again"),
    "kernel.adopted": _told("{kernel} was found alive and is supervised again", ", up for {uptime}", "{run}"),
    "kernel.interrupted": _kernel("was interrupted"),
    "kernel.signalled": _told("{kernel} was sent {signum}", "{run}"),
    "standby.ready": _kernel("has a spare that waits"),
    "standby.failed": _kernel("has no spare"),
    "standby.dropped": _kernel("has lost its spare"),
    "zygote.ready": _told("the zygote of {kernel} has imported all and can fork", ": {reason}"),
    "zygote.unfit": _told("the zygote of {kernel} cannot be forked, so it is started without", ": {reason}"),
    "zygote.retired": _told("the zygote of {kernel} is out of date", ": {reason}"),
    "kernel.removed": _kernel("is no longer declared and was removed"),
    "kernel.escaped": _told("{kernel} left processes behind: ", "{pids}", "{run}"),
    "kernel.restored": _told("{kernel} had lost its connection file, which is written again", ": {file}"),
    "kernel.pressed": _pressed,
    "library.reported": _told("{logger}: {message}"),
    "log.dropped": _told("{dropped} lines of log were lost, because nobody took them"),
    "events.dropped": _told("{dropped} events are missing here, because they could not be written"),
    "stream.gap": _told("{dropped} events are missing here, because they were read too slowly"),
}
EVENTS: Collection[str] = _WORDS.keys()
"""Everything that is ever told."""
