"""Stories about the pure machine: events in, actions out.

Owns the clock and the state of one story; every step also checks what holds
for all stories: the state before is left untouched, and no deadline that a
Tick has passed stays behind.
"""

from __future__ import annotations

import copy
from typing import Any

from supervisor.core.actions import Action, Publish
from supervisor.core.events import Event, Exited, Load, Ready, Spawned, SpawnFailed, Tick
from supervisor.core.machine import decide, next_deadline
from supervisor.core.model import Cause, Exit, Kernel, ProcessId, State
from supervisor.settings.config import BackoffConfig, KernelConfig

KILLED = Exit(Cause.KILLED, signal="SIGKILL")
CRASHED = Exit(Cause.CRASHED, code=7)
CLEAN = Exit(Cause.EXITED, code=0)
NOT_FOUND = Exit(Cause.NOT_FOUND, detail="no such file: /nowhere/python")


def config(name: str = "a", **settings: Any) -> KernelConfig:
    """Settings of a kernel whose delays do not vary."""
    plain = {"kernelspec": "python3", "backoff": BackoffConfig(jitter=0.0)}
    return KernelConfig(name=name, **{**plain, **settings})


def declare(*configs: KernelConfig, max_concurrent_starts: int = 4) -> Load:
    """A Load of these kernels and no others."""
    return Load({one.name: one for one in configs}, max_concurrent_starts)


def process(generation: int = 1, name: str = "a") -> ProcessId:
    """The process of a run, as the stories tell it."""
    return ProcessId(1000 * (ord(name[0]) - ord("a") + 1) + generation, 77, "boot")


class Story:
    """One telling: a state, a clock, and what was published so far."""

    def __init__(self, state: State | None = None, now: float = 100.0) -> None:
        self.state = state or State()
        self.now = now
        self.published: list[Publish] = []
        self.last_published: list[Publish] = []

    def tell(self, event: Event) -> list[Action]:
        """Let ``event`` happen now; returns what is to be done, without what is told."""
        before, untouched = self.state, copy.deepcopy(self.state)
        self.state, actions = decide(before, event, self.now)
        assert untouched == before, "decide changes nothing in place"
        if isinstance(event, Tick):
            assert self.deadline is None or self.deadline > self.now
        self.last_published = [action for action in actions if isinstance(action, Publish)]
        self.published += self.last_published
        return [action for action in actions if not isinstance(action, Publish)]

    def load(self, *configs: KernelConfig, max_concurrent_starts: int = 4) -> list[Action]:
        """Declare these kernels and no others."""
        return self.tell(declare(*configs, max_concurrent_starts=max_concurrent_starts))

    def tick(self, seconds: float | None = None) -> list[Action]:
        """Let time pass, by default to the next deadline, and the alarm go off."""
        if seconds is None:
            assert self.deadline is not None, "nothing is due"
            self.now = max(self.now, self.deadline)
        else:
            self.now += seconds
        return self.tell(Tick())

    def spawned(self, name: str = "a") -> list[Action]:
        """The spawn in flight is answered by a process."""
        generation = self.kernel(name).generation
        return self.tell(Spawned(name, generation, process(generation, name)))

    def spawn_failed(self, exit: Exit = CRASHED, name: str = "a") -> list[Action]:
        """The spawn in flight is answered by a failure."""
        return self.tell(SpawnFailed(name, self.kernel(name).generation, exit))

    def ready(self, name: str = "a") -> list[Action]:
        """The kernel answers."""
        return self.tell(Ready(name, self.kernel(name).generation))

    def exited(self, exit: Exit = KILLED, name: str = "a") -> list[Action]:
        """The process of the current run ends."""
        return self.tell(Exited(name, self.kernel(name).generation, exit))

    def runs(self, name: str = "a") -> None:
        """The spawn in flight succeeds, and the kernel becomes ready."""
        self.spawned(name)
        self.ready(name)

    def kernel(self, name: str = "a") -> Kernel:
        """The kernel as it is."""
        return self.state.kernels[name]

    @property
    def phase(self) -> str:
        """The name of the phase of kernel ``a``."""
        return type(self.kernel().phase).__name__

    @property
    def deadline(self) -> float | None:
        """When the next Tick is due."""
        return next_deadline(self.state)

    @property
    def events(self) -> list[str]:
        """The names of all that was published so far."""
        return [publish.event for publish in self.published]

    @property
    def last_events(self) -> list[str]:
        """The names of what the last event published."""
        return [publish.event for publish in self.last_published]

    def said(self, event: str) -> Publish:
        """The latest telling of ``event``."""
        return next(publish for publish in reversed(self.published) if publish.event == event)


def running(**settings: Any) -> Story:
    """A story in which kernel ``a`` runs, generation 1, with these settings."""
    story = Story()
    story.load(config(**settings))
    story.runs()
    return story
