"""The cost of one decision, with many kernels declared; in this process, without the daemon."""

from __future__ import annotations

import time
from statistics import median

from supervisor.core.events import Answered, Event, Exited, Load, Missed, Ready, Spawned, Start, Tick
from supervisor.core.machine import decide, next_deadline
from supervisor.core.model import Cause, Check, Exit, ProcessId, Running, State
from supervisor.settings.config import BackoffConfig, KernelConfig

_KILLED = Exit(Cause.KILLED, -9, "SIGKILL")


def running(count: int) -> State:
    """That many kernels, all of them running."""
    backoff = BackoffConfig(initial=0.0, next=0.0)
    configs = {
        name: KernelConfig(name=name, kernelspec="python3", max_restarts=0, backoff=backoff)
        for name in (f"k{number:02}" for number in range(count))
    }
    state, _ = decide(State(), Load(configs, count), 0.0)
    for number, name in enumerate(configs):
        for event in (Spawned(name, 1, ProcessId(1000 + number, number, "boot")), Ready(name, 1)):
            state, _ = decide(state, event, 1.0)
    assert all(isinstance(kernel.phase, Running) for kernel in state.kernels.values()), "they all run"
    return state


def decisions(count: int, rounds: int = 300) -> dict[str, float]:
    """Seconds per event, the median, by what the events are."""
    state = running(count)
    names = list(state.kernels)
    spent: dict[str, list[float]] = {}
    now = 100.0

    def tell(what: str, event: Event) -> None:
        nonlocal state, now
        now += 1.0
        begin = time.perf_counter()
        after, _ = decide(state, event, now)
        next_deadline(after)
        spent.setdefault(what, []).append(time.perf_counter() - begin)
        state = after

    for number in range(rounds):
        name = names[number % count]
        generation = state.kernels[name].generation
        tell("check missed, answered", Missed(name, generation, Check.HEARTBEAT))
        tell("check missed, answered", Answered(name, generation, Check.HEARTBEAT))
        tell("order that changes nothing", Start(name))
        tell("alarm", Tick())
        tell("exited", Exited(name, generation, _KILLED))
        generation = state.kernels[name].generation
        tell("spawned", Spawned(name, generation, ProcessId(5000 + number, number, "boot")))
        tell("ready", Ready(name, generation))
    every = [value for values in spent.values() for value in values]
    return {"all events": median(every), **{what: median(values) for what, values in spent.items()}}
