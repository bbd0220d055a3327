"""One loop: events in, decisions made, effects started, transitions told.

Owns the state, the mailbox and the one alarm.  Decides nothing (``core`` does)
and touches nothing (the host does); never waits for an effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from supervisor.core.actions import Action, Effect, Publish, Refuse
from supervisor.core.events import Delayed, Event, Fact, Spawned, SpawnFailed, Tick
from supervisor.core.machine import decide, next_deadline
from supervisor.core.model import Kernel, State, identity_of, is_settled
from supervisor.wording import timestamp

log = logging.getLogger(__name__)

# While something has a deadline the alarm goes off this often, so that it is seen if we were stopped
# ourselves for a while, in seconds: what became ready meanwhile has not been heard of yet.
LOOK_INTERVAL = 1.0
# What a closed runner answers to whoever orders or waits.
LEFT = "the supervisor has left"

Observer = Callable[[Mapping[str, object]], None]
Report = Callable[[Fact], object]


class Host(Protocol):
    """The machine on which the effects are carried out; see ``kernel.host``."""

    def perform(self, effect: Effect, report: Report) -> Awaitable[None]:
        """Carry out one effect; what comes of it is reported as facts."""

    def remember(self, kernel: Kernel, state: State) -> None:
        """Put on record what the next supervisor must know of the kernel."""

    def dismiss(self, kernel: str) -> None:
        """The kernel is known no more; a Forget follows."""


class RunnerClosed(RuntimeError):
    """What was waited for cannot come any more: the supervisor has left."""


class Runner:
    """Runs the machine on the running asyncio loop; all methods belong to its thread."""

    def __init__(self, host: Host, sequence: int = 0, observers: list[Observer] | None = None) -> None:
        """``observers`` stays the caller's, who may add to it."""
        self.state = State()
        # The number of the last event: each has one more, also across supervisors.
        self.sequence = sequence
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._observers = [] if observers is None else observers
        self._failing: set[int] = set()
        self._mailbox: deque[Event] = deque()
        self._draining = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._effects: dict[asyncio.Task[None], str] = {}
        self._changed: set[asyncio.Future[None]] = set()

    def add_observer(self, observer: Observer) -> None:
        """Tell ``observer`` of every transition from now on; it must be quick."""
        self._observers.append(observer)

    def tell(self, event: str, level: str, **fields: object) -> None:
        """Tell the observers of one event; the one place where its line is made."""
        self.sequence += 1
        line = {"timestamp": timestamp(), "seq": self.sequence, "level": level, "event": event, **fields}
        for observer in self._observers:
            try:
                observer(line)
            except Exception:
                # Once: an observer that always fails must not fill the log.
                if id(observer) not in self._failing:
                    self._failing.add(id(observer))
                    log.exception("an observer of %s failed; its further failures are not told", event)

    def submit(self, event: Event) -> list[Action]:
        """Decide about ``event`` and start what is to be done; returns the decision's actions.

        An event that is submitted from within a decision waits for its turn,
        and its actions are not returned.  After ``close`` nothing is decided
        but what the answers to launches under way mean.
        """
        if self._closed and not isinstance(event, Spawned | SpawnFailed):
            return []
        self._mailbox.append(event)
        if self._draining:
            return []
        self._draining, before = True, self.state
        try:
            if unseen := self._unseen():
                self._handle(Delayed(unseen))
            actions = self._handle(self._mailbox.popleft())
            while self._mailbox:
                self._handle(self._mailbox.popleft())
        finally:
            self._draining = False
        if self.state is not before or isinstance(event, Tick):
            self._set_alarm()
        return actions

    def order(self, event: Event) -> str | None:
        """Submit an order; returns why it was refused, or ``None``."""
        if self._closed:
            return LEFT
        refusals = [action.message for action in self.submit(event) if isinstance(action, Refuse)]
        return refusals[0] if refusals else None

    def _handle(self, event: Event) -> list[Action]:
        before = self.state
        self.state, actions = decide(before, event, self._loop.time())
        if self.state is not before:
            self._note_change(before)
        for action in actions:
            self._start(action)
        if self.state is not before:
            for waiter in self._changed:
                if not waiter.done():
                    waiter.set_result(None)
        return actions

    def _note_change(self, before: State) -> None:
        for name in before.kernels.keys() - self.state.kernels.keys():
            self._keep(self._host.dismiss, name)
        for name, kernel in self.state.kernels.items():
            if before.kernels.get(name) is not kernel:
                self._keep(self._host.remember, kernel, self.state)

    def _keep(self, keep: Callable[..., None], *arguments: object) -> None:
        try:
            keep(*arguments)
        except Exception:
            # A mistake of ours, which must not cost what was decided its effect.
            log.exception("what is to be put on record of a kernel cannot be")

    def _start(self, action: Action) -> None:
        if isinstance(action, Publish):
            run: dict[str, object] = {"kernel": action.kernel, "generation": action.generation}
            self.tell(action.event, action.level, **run, pid=action.pid, **action.fields)
        elif not isinstance(action, Refuse) and not self._closed:
            task = self._loop.create_task(self._perform(action))
            self._effects[task] = action.kernel
            task.add_done_callback(self._effects.pop)

    async def _perform(self, effect: Effect) -> None:
        try:
            await self._host.perform(effect, self.submit)
        except Exception:
            # The host answers every effect; what gets here is a mistake of ours and must not end the loop.
            log.exception("%s failed for kernel %s", type(effect).__name__, effect.kernel)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        deadline = None if self._closed else next_deadline(self.state)
        if deadline is not None and deadline != float("inf"):
            at = min(deadline, self._loop.time() + LOOK_INTERVAL)
            self._alarm = self._loop.call_at(at, self.submit, Tick())

    def _unseen(self) -> float:
        """For how many seconds nobody has looked, if the alarm is so late that we were stopped ourselves."""
        late = 0.0 if self._alarm is None else self._loop.time() - self._alarm.when()
        return late + LOOK_INTERVAL if late > LOOK_INTERVAL else 0.0

    async def wait_for_change(self) -> None:
        """Return after the next decision that changed the state.  Raises RunnerClosed."""
        if self._closed:
            raise RunnerClosed(LEFT)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._changed.add(waiter)
        try:
            await waiter
        finally:
            self._changed.discard(waiter)

    async def wait_settled(self, name: str, timeout: float | None = None) -> Kernel | None:
        """Wait until the kernel is where it stays; ``None`` once it is forgotten.

        Raises TimeoutError after ``timeout`` seconds, and RunnerClosed.
        """
        async with asyncio.timeout(timeout):
            while (kernel := self.state.kernels.get(name)) is not None and not is_settled(kernel):
                await self.wait_for_change()
        return kernel

    async def wait_all_gone(self) -> None:
        """Wait until no kernel has a process or is about to have one."""
        while any(identity_of(k) or not is_settled(k) for k in self.state.kernels.values()):
            await self.wait_for_change()

    async def wait_effects_of(self, name: str, timeout: float) -> None:
        """Wait until the effects of one kernel are over, for so many seconds at most."""
        due = [task for task, kernel in self._effects.items() if kernel == name]
        if due:
            await asyncio.wait(due, timeout=timeout)

    async def wait_effects(self, timeout: float | None = None) -> None:
        """Wait until every effect that was started is over, for so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._effects:
                    await asyncio.wait(set(self._effects))

    def cancel_effects(self) -> None:
        """Wait no longer for any."""
        for task in self._effects:
            task.cancel()

    def close(self) -> None:
        """Begin nothing any more; what runs goes on without us.

        The answers to launches under way are still understood, so that their
        processes are put on record.
        """
        self._closed = True
        self._set_alarm()
        self._mailbox.clear()
        for waiter in self._changed:
            if not waiter.done():
                waiter.set_exception(RunnerClosed(LEFT))
