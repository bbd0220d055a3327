"""What can happen is a closed list, and none of it is a surprise to a machine that knows nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec import Struct, structs

from supervisor.core import events
from supervisor.core.events import Event, KernelOrder, Load, Noted, Survivor
from supervisor.core.machine import decide
from supervisor.core.model import Cause, Check, Exit, JobId, Queue, State
from tests.core.story import config, process

FIELDS: dict[str, Any] = {
    "kernel": "a",
    "generation": 1,
    "number": 1,
    "signum": 10,
    "process": process(),
    "job": JobId("ks-a", "mark"),
    "queue": Queue(),
    "exit": Exit(Cause.UNKNOWN),
    "check": Check.PROBE,
    "survivors": (),
    "kernels": {},
    "pids": (5,),
    "event": "zygote.ready",
    "fields": {},
    "reason": "none",
    "seconds": 1.0,
}


def test_the_list_is_closed_and_frozen() -> None:
    told = {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and kind.__module__ == events.__name__
    }

    assert told == {*get_args(Event), KernelOrder, Survivor}
    assert all(issubclass(kind, Struct) and kind.__struct_config__.frozen for kind in told)


@pytest.mark.parametrize("kind", get_args(Event))
def test_whatever_happens_to_nobody_starts_and_ends_nothing(kind: type[Event]) -> None:
    needed = {field.name for field in structs.fields(kind) if field.required}  # type: ignore[arg-type]
    event = kind(**{name: FIELDS[name] for name in needed})

    state, _ = decide(State(), event, 0.0)

    assert {} == dict(state.kernels)


def test_only_a_file_and_what_was_found_bring_kernels() -> None:
    state, _ = decide(State(), Load({"a": config()}), 0.0)

    assert ["a"] == list(state.kernels)
    assert decide(state, Noted("a", 1, "zygote.ready", {}), 0.0)[0] == state
