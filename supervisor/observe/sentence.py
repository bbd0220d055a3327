"""An event as one sentence for people.

Owns the wording that the console and the journal share.  Never looks at the
machine: all that it says is in the event, and an event that it does not know
is told by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.wording import CAUSES, amount, one_line, signal_name, span

_MISTAKES = 5  # so many are told in the sentence itself
_CHECKS = {"heartbeat": "its heartbeat", "probe": "kernel_info on control"}


def sentence(event: Mapping[str, object]) -> str:
    """Return one line that tells the event, such as "analysis died: killed by SIGKILL after 2 h"."""
    return tell(event)[0]


def tell(event: Mapping[str, object]) -> tuple[str, frozenset[str]]:
    """Return the sentence, and the names of the fields that need not be shown beside it."""
    telling = _Telling(event)
    word = _WORDS.get(telling.text("event"), _unknown)
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

    def run(self) -> str:
        known = [
            f"{word} {self.text(name)}"
            for word, name in (("run", "generation"), ("pid", "pid"))
            if self.text(name)
        ]
        return f" ({', '.join(known)})" if known else ""

    def because(self, name: str = "reason") -> str:
        return f": {self.text(name)}" if self.text(name) else ""


def _kernel(what: str) -> Callable[[_Telling], str]:
    return lambda e: f"{e.text('kernel')} {what}{e.because()}{e.run()}"


def _daemon(what: str) -> Callable[[_Telling], str]:
    return lambda e: f"supervisor {what}{e.because()}{e.run()}"


def _died(e: _Telling) -> str:
    away = " while no supervisor was there" if e.text("while_unsupervised") == "True" else ""
    if not e.text("pid") and not away:
        # What never was did not die.
        how = "" if e.text("cause") in ("not-found", "unknown") else f": {_how(e)}"
        return f"{e.text('kernel')} could not be launched{how}{e.run()}{e.because('detail')}"
    after = f" after {uptime}" if (uptime := e.seconds("uptime")) else ""
    return f"{e.text('kernel')} died{away}: {_how(e)}{after}{e.run()}{e.because('detail')}"


def _how(e: _Telling) -> str:
    cause, signal, code = e.text("cause"), e.text("signal"), e.text("exit_code")
    if signal:
        how = f"{'crashed with' if cause == 'crashed' else 'killed by'} {signal}"
    elif code:
        how = f"exited with code {code}"
    else:
        how = ""
    # The cause before the signal by which it came: "not ready in time", not "killed by SIGKILL".
    return CAUSES.get(cause) or how or "nobody knows how"


def _ready(e: _Telling) -> str:
    took = f" after {seconds}" if (seconds := e.seconds("took")) else ""
    connect = f"; connect with: {command}" if (command := e.text("connect")) else ""
    return f"{e.text('kernel')} is ready{took}{e.run()}{connect}"


def _restarting(e: _Telling) -> str:
    delay = e.seconds("delay")
    when = f"in {delay}" if delay and delay != span(0) else "at once"
    attempt = f", attempt {number}" if (number := e.text("attempt")) else ""
    return f"{e.text('kernel')} restarts {when}{attempt}{e.because()}{e.run()}"


def _failed(e: _Telling) -> str:
    name = e.text("kernel")
    return (
        f"{name} failed and is left alone{e.because()}{e.run()}; kernel-supervisor reset {name} tries again"
    )


def _unresponsive(e: _Telling) -> str:
    check = e.text("check")
    missed = f", {number} missed in a row" if (number := e.text("misses")) else ""
    what = f" {_CHECKS.get(check, check)}" if check else ""
    return f"{e.text('kernel')} does not answer{what}{missed}{e.run()}"


def _adopted(e: _Telling) -> str:
    up = f", up for {uptime}" if (uptime := e.seconds("uptime")) else ""
    return f"{e.text('kernel')} was found alive and is supervised again{up}{e.run()}"


def _escaped(e: _Telling) -> str:
    return f"{e.text('kernel')} left processes behind: {', '.join(e.items('pids'))}{e.run()}"


def _restored(e: _Telling) -> str:
    return f"{e.text('kernel')} had lost its connection file, which is written again{e.because('file')}"


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


def _loaded(e: _Telling) -> str:
    return f"configuration loaded{e.because('file')}"


def _rejected(e: _Telling) -> str:
    mistakes = e.items("mistakes")
    more = f"; and {len(mistakes) - _MISTAKES} more" if len(mistakes) > _MISTAKES else ""
    what = f": {'; '.join(mistakes[:_MISTAKES])}{more}" if mistakes else e.because("file")
    in_force = f"; in force is {named}" if (named := e.text("in_force")) else ""
    return f"configuration rejected{what}{in_force}"


def _signalled(e: _Telling) -> str:
    return f"{e.text('kernel')} was sent {_signal(e.text('signum'))}{e.run()}"


def _signal(number: str) -> str:
    return signal_name(int(number)) if number.isdecimal() else f"signal {number}"


def _reported(e: _Telling) -> str:
    return f"{e.text('logger')}: {e.text('message')}"


def _lost(what: str) -> Callable[[_Telling], str]:
    return lambda e: f"{e.text('dropped') or 'some'} {what}"


def _unknown(e: _Telling) -> str:
    name = e.text("kernel")
    return f"{f'{name}: ' if name else ''}{e.text('event')}{e.because()}{e.run()}"


def _zygote(what: str) -> Callable[[_Telling], str]:
    return lambda event: f"the zygote of {event.text('kernel')} {what}{event.because()}"


_WORDS: Mapping[str, Callable[[_Telling], str]] = {
    "daemon.started": _daemon("started"),
    "daemon.stopping": _stopping,
    "daemon.stopped": _daemon("stopped"),
    "daemon.detached": _detached,
    "config.loaded": _loaded,
    "config.rejected": _rejected,
    "kernel.waiting": _kernel("waits for room"),
    "kernel.starting": _kernel("is starting"),
    "kernel.ready": _ready,
    "kernel.died": _died,
    "kernel.restarting": _restarting,
    "kernel.stopping": _kernel("is being stopped"),
    "kernel.stopped": _kernel("stopped"),
    "kernel.failed": _failed,
    "kernel.unresponsive": _unresponsive,
    "kernel.responsive": _kernel("answers again"),
    "kernel.adopted": _adopted,
    "kernel.interrupted": _kernel("was interrupted"),
    "kernel.signalled": _signalled,
    "standby.ready": _kernel("has a spare that waits"),
    "standby.failed": _kernel("has no spare"),
    "standby.dropped": _kernel("has lost its spare"),
    "zygote.ready": _zygote("has imported all and can fork"),
    "zygote.unfit": _zygote("cannot be forked, so it is started without"),
    "zygote.retired": _zygote("is out of date"),
    "kernel.removed": _kernel("is no longer declared and was removed"),
    "kernel.escaped": _escaped,
    "kernel.restored": _restored,
    "kernel.pressed": _pressed,
    "library.reported": _reported,
    "log.dropped": _lost("lines of log were lost, because nobody took them"),
    "events.dropped": _lost("events are missing here, because they could not be written"),
    "stream.gap": _lost("events are missing here, because they were read too slowly"),
}
