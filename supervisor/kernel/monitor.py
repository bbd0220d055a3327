"""The two checks of a running kernel, asked at their intervals.

Owns when a kernel is asked and which questions are open.  Decides nothing: it
tells of each miss and of the first answer after one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from supervisor.core.model import Check
from supervisor.kernel.channel import Channel, Token
from supervisor.kernel.line import Line
from supervisor.settings.config import HeartbeatConfig, ProbeConfig

# A tick may come early by this share of an interval, to fall together with those of other kernels.
_EARLY = 0.25


class _Routine:
    """One of the two checks, once an interval.

    Answers are looked for at the next tick, so the loop wakes once an interval and
    not for each; only after a miss they are listened for, as somebody waits for one.
    """

    def __init__(
        self,
        channel: Channel,
        check: Check,
        missed: Callable[[Check], None],
        answered: Callable[[Check], None],
    ) -> None:
        self._channel = channel
        self._check = check
        self._missed = missed
        self._answered = answered
        self._interval = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._tokens: list[Token] = []
        self._is_due = False
        self._misses = 0
        self._listening: Line | None = None

    def run_every(self, interval: float) -> None:
        if self._alarm is None:
            self._interval = interval
            self._set_alarm()
            self._ask()
        elif interval != self._interval:
            self._interval = interval
            self._alarm.cancel()
            self._set_alarm()

    def stop(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._settle()

    def _set_alarm(self) -> None:
        # At multiples of the interval, so that the checks of all kernels fall into one wake-up.
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = (now // self._interval + 1) * self._interval
        if at - now < (1 - _EARLY) * self._interval:
            at += self._interval
        self._alarm = loop.call_at(at, self._tick)

    def _tick(self) -> None:
        if self._channel.is_closed:
            self.stop()
            return
        self._set_alarm()
        if (line := self._line()) is None:
            return  # no socket to ask by: the kernel is not to blame
        # Answers first: if we were kept from running, neither.
        line.drain()
        is_missed = self._is_due
        if is_missed:
            self._misses += 1
            self._listen()
        # A stuck kernel finds few questions when it comes back: after 1, 2, 4, 8, … misses.
        if not is_missed or not self._tokens or self._misses.bit_count() == 1:
            self._ask()
        if is_missed:
            self._missed(self._check)

    def _ask(self) -> None:
        if self._check is Check.PROBE and self._channel.control_is_served is False:
            return
        if self._line() is None:
            return
        self._is_due = True
        send = self._channel.send_ping if self._check is Check.HEARTBEAT else self._channel.send_probe
        token = send(self._heard)
        if token is not None:
            self._tokens.append(token)

    def _heard(self, _content: Mapping[str, Any]) -> None:
        had_missed = self._misses > 0
        self._settle()
        if had_missed:
            self._answered(self._check)

    def _listen(self) -> None:
        if self._listening is None and (line := self._line()) is not None:
            self._listening = line
            line.listen()

    def _settle(self) -> None:
        for token in self._tokens:
            self._channel.withdraw(token)
        self._tokens.clear()
        self._is_due = False
        self._misses = 0
        if self._listening is not None:
            self._listening.unlisten()
            self._listening = None

    def _line(self) -> Line | None:
        return self._channel.try_line("hb" if self._check is Check.HEARTBEAT else "control")


class Monitor:
    """The checks of one running kernel, while it runs; tells, never decides.

    ``missed`` is called once for each interval that ends without an answer,
    ``answered`` for the first answer after that.  Action ``off`` means no check.
    """

    def __init__(
        self,
        channel: Channel,
        heartbeat: HeartbeatConfig,
        probe: ProbeConfig,
        missed: Callable[[Check], None],
        answered: Callable[[Check], None],
    ) -> None:
        self._settings: dict[Check, HeartbeatConfig | ProbeConfig] = {}
        self._routines = {check: _Routine(channel, check, missed, answered) for check in Check}
        self._is_started = False
        self.configure(heartbeat, probe)

    def start(self) -> None:
        """Begin to check, on the running loop; again is no error."""
        self._is_started = True
        self._follow_settings()

    def configure(self, heartbeat: HeartbeatConfig, probe: ProbeConfig) -> None:
        """Go by other settings from now on."""
        self._settings = {Check.HEARTBEAT: heartbeat, Check.PROBE: probe}
        if self._is_started:
            self._follow_settings()

    def stop(self) -> None:
        """Check no more; nothing is told afterwards.  Again is no error."""
        self._is_started = False
        for routine in self._routines.values():
            routine.stop()

    def _follow_settings(self) -> None:
        for check, routine in self._routines.items():
            if self._settings[check].action == "off":
                routine.stop()
            else:
                routine.run_every(self._settings[check].interval)
