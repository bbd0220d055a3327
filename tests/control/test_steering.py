"""The contract between the door and the daemon: who keeps it answers the same calls."""

from __future__ import annotations

import inspect

import pytest

from supervisor.control.steering import Steering, UnknownKernel
from supervisor.daemon.steered import SteeredDaemon
from tests.control.fake_steering import FakeSteering

CALLS = [name for name, member in vars(Steering).items() if inspect.isfunction(member) and name[0] != "_"]


@pytest.mark.parametrize("kept_by", [SteeredDaemon, FakeSteering])
@pytest.mark.parametrize("call", CALLS)
def test_the_daemon_and_the_fake_one_keep_the_contract(call: str, kept_by: type) -> None:
    asked, kept = (inspect.signature(getattr(of, call)).parameters for of in (Steering, kept_by))

    assert [(each.name, each.kind) for each in asked.values()] == [
        (each.name, each.kind) for each in kept.values()
    ]
    # What is awaited of the one is awaited of the other.
    awaited = [inspect.iscoroutinefunction(getattr(of, call)) for of in (Steering, kept_by)]
    assert awaited[0] is awaited[1]


def test_an_unknown_kernel_is_told_with_those_that_are_known() -> None:
    unknown = UnknownKernel("robto", ["robot", "stats"])

    assert ("no kernel is named 'robto'", ("robot", "stats")) == (str(unknown), unknown.known)
