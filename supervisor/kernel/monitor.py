"""The two checks of a running kernel, asked at their intervals.

Owns when a kernel is asked and which questions are open.  Decides nothing: it
tells of each miss and of the first answer after one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Literal

from supervisor.core.health import rule_of
from supervisor.core.model import Check, ProcessId
from supervisor.kernel.channel import Channel, Question
from supervisor.process.pulse import Pulse
from supervisor.settings.config import KernelConfig

# A tick may come early by this share of an interval, to fall together with those of other kernels.
_EARLY = 0.25
# One that comes so much of an interval late: we were kept from running, and nobody was listened to.
_LATE = 0.5
# A kernel that has done nothing since its last answer is asked this often all the same, in seconds.
_SELDOM = 180.0

_CHANNELS: Mapping[Check, Literal["control", "hb"]] = {Check.HEARTBEAT: "hb", Check.PROBE: "control"}


class _Routine:
    """One of the two checks, once an interval.

    Whether there is reason to ask is told by the ``pulse``, which wakes nobody; all
    kernels are looked at in one wake-up of the loop, and asked without a reason in one.
    """

    def __init__(
        self,
        channel: Channel,
        check: Check,
        pulse: Pulse | None,
        missed: Callable[[Check], None],
        answered: Callable[[Check], None],
    ) -> None:
        self._channel = channel
        self._check = check
        self._pulse = pulse
        self._missed = missed
        self._answered = answered
        self._interval = 0.0
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._question: Question | None = None
        self._is_put = False
        self._asked_at = 0.0
        self._misses = 0

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
        now = self._loop.time()
        at = (now // self._interval + 1) * self._interval
        if at - now < (1 - _EARLY) * self._interval:
            at += self._interval
        self._alarm = self._loop.call_at(at, self._tick, at)

    def _tick(self, at: float) -> None:
        if self._channel.is_closed:
            self.stop()
            return
        self._set_alarm()
        if self._question is not None:
            # Answers first: if we were kept from running, neither.
            self._question.look()
        if self._question is None:
            if self._is_doubtful():
                self._ask()
        elif self._loop.time() - at < _LATE * self._interval:
            self._miss(self._question)

    def _is_doubtful(self) -> bool:
        """Whether it may be otherwise than when it last answered; now and then it is taken to be."""
        is_due = self._loop.time() // _SELDOM != self._asked_at // _SELDOM
        return self._pulse is None or self._pulse.is_doubtful() or is_due

    def _ask(self) -> None:
        if self._check is Check.PROBE and self._channel.control_is_served is False:
            return
        if (question := self._channel.begin(_CHANNELS[self._check], self._heard)) is None:
            return  # no socket to ask by: the kernel is not to blame
        self._question, self._asked_at = question, self._loop.time()
        if self._pulse is not None:
            self._pulse.ask()
        self._is_put = question.put()

    def _miss(self, question: Question) -> None:
        self._misses += 1
        # A stuck kernel finds few questions when it comes back: after 1, 2, 4, 8, … misses.
        if not self._is_put or self._misses.bit_count() == 1:
            self._is_put = question.put()
        self._missed(self._check)

    def _heard(self) -> None:
        had_missed = self._misses > 0
        self._settle()
        if self._pulse is not None:
            self._pulse.answer()
        if had_missed:
            self._answered(self._check)

    def _settle(self) -> None:
        if self._question is not None:
            self._question.close()
            self._question = None
        self._misses = 0


class Monitor:
    """The checks of one running kernel, while it runs; tells, never decides.

    ``missed`` is called once for each interval that ends without an answer,
    ``answered`` for the first answer after that.  Action ``off`` means no check.
    ``process`` is whose doings tell when there is reason to ask; without, at every interval.
    """

    def __init__(
        self,
        channel: Channel,
        config: KernelConfig,
        missed: Callable[[Check], None],
        answered: Callable[[Check], None],
        process: ProcessId | None = None,
    ) -> None:
        self._config = config
        self._routines = {
            check: _Routine(channel, check, Pulse(process) if process else None, missed, answered)
            for check in Check
        }
        self._is_started = False

    def start(self) -> None:
        """Begin to check, on the running loop; again is no error."""
        self._is_started = True
        self._follow_settings()

    def configure(self, config: KernelConfig) -> None:
        """Go by other settings from now on."""
        self._config = config
        if self._is_started:
            self._follow_settings()

    def stop(self) -> None:
        """Check no more; nothing is told afterwards.  Again is no error."""
        self._is_started = False
        for routine in self._routines.values():
            routine.stop()

    def _follow_settings(self) -> None:
        for check, routine in self._routines.items():
            rule = rule_of(self._config, check)
            if rule.action == "off":
                routine.stop()
            else:
                routine.run_every(rule.interval)
