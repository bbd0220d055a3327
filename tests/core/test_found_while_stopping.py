"""Stops under way when the supervisor was replaced: the next one goes on with them."""

from __future__ import annotations

from signal import SIGKILL
from typing import Any

import pytest

from supervisor.core.actions import Action, Adopt, Apply, AskToExit, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Found, Ready, Restart, Shutdown, Start, Stop, Survivor
from supervisor.core.model import Reason, Stopped, Stopping, Want
from tests.core.story import CLEAN, KILLED, Story, config, process, running

P7 = process(7)
NEW = {"cwd": "/elsewhere"}
BY_ORDER = [Reason.ORDERED, Reason.EDITED, Reason.DISABLED, Reason.REMOVED]
BY_FAULT = [Reason.START_TIMEOUT, Reason.UNRESPONSIVE]
POLICIES = ["always", "on-failure", "never"]


def find(want: Want | None, stopping: Reason, file: Any = None, **detail: Any) -> tuple[Story, list[Action]]:
    """A supervisor that finds kernel ``a``, generation 7, which the one before was stopping."""
    story = Story()
    launched = detail.pop("launched", file or config())
    survivor = Survivor("a", launched, 7, want, stopping=stopping, **detail)
    return story, story.tell(Found((survivor,), {"a": file} if file is not None else {}))


@pytest.mark.parametrize("restart", POLICIES)
@pytest.mark.parametrize("reason", BY_ORDER)
def test_a_restart_under_way_is_gone_on_with_and_its_exit_is_no_death(reason: Reason, restart: str) -> None:
    settings = config(restart=restart)
    story, actions = find(Want.UP, reason, settings, process=P7, failures=(99.0,), streak=1)

    assert [Adopt("a", 7, P7, settings), AskToExit("a", 7, restart=True)] == actions
    assert ["kernel.adopted", "kernel.stopping"] == story.last_events
    assert {"reason": reason.value} == story.said("kernel.stopping").fields
    assert [] == story.load(settings)
    assert [] == story.tell(Ready("a", 7))
    assert [Spawn("a", 8, settings)] == story.exited(CLEAN)
    assert "kernel.died" not in story.events
    assert ((99.0,), 1) == (story.kernel().failures, story.kernel().restarts)


@pytest.mark.parametrize("restart", POLICIES)
@pytest.mark.parametrize("reason", BY_ORDER)
def test_a_restart_whose_kernel_ended_meanwhile_is_due_and_no_death(reason: Reason, restart: str) -> None:
    settings = config(restart=restart)
    story, actions = find(Want.UP, reason, settings, exit=KILLED, ended=P7, restarts=3)

    assert [] == actions
    assert ["kernel.restarting"] == story.last_events
    told = story.said("kernel.restarting")
    assert (reason.value, P7.pid, True) == (
        told.fields["reason"],
        told.pid,
        told.fields["while_unsupervised"],
    )
    assert ((), 4, None) == (story.kernel().failures, story.kernel().restarts, story.kernel().last_death)
    assert [] == story.load(settings)
    assert [Spawn("a", 8, settings)] == story.tick()


@pytest.mark.parametrize("ready", [True, False])
def test_a_kernel_is_known_to_be_ready_or_not_throughout_its_stop(ready: bool) -> None:
    story = Story()
    story.load(config())
    story.spawned()
    if ready:
        story.ready()
    story.tell(Restart("a"))
    for _ in range(3):
        phase = story.kernel().phase
        assert isinstance(phase, Stopping)
        assert ready is phase.ready
        story.tick()


def test_a_kernel_that_was_ready_is_adopted_as_ready_before_its_stop_is_gone_on_with() -> None:
    story, actions = find(Want.UP, Reason.ORDERED, config(), process=P7, ready=True)

    assert [Adopt("a", 7, P7, config(), ready=True), AskToExit("a", 7, restart=True)] == actions
    phase = story.kernel().phase
    assert isinstance(phase, Stopping)
    assert phase.ready


def test_a_restart_that_is_gone_on_with_takes_up_the_file_that_follows() -> None:
    story, _ = find(Want.UP, Reason.EDITED, process=P7)
    new = config(**NEW)

    assert [Apply("a", new)] == story.load(new)
    assert [Spawn("a", 8, new)] == story.exited(CLEAN)


def test_a_stop_that_is_gone_on_with_tells_its_reason() -> None:
    off = config(enabled=False)
    story, actions = find(Want.DOWN, Reason.DISABLED, off, launched=config(), process=P7)

    assert [Adopt("a", 7, P7, config()), AskToExit("a", 7)] == actions
    assert {"reason": "disabled"} == story.said("kernel.stopping").fields
    assert [Withdraw("a")] == story.exited(CLEAN)


@pytest.mark.parametrize("reason", BY_FAULT)
def test_a_hang_that_was_being_ended_is_ended_and_told_as_what_it_was(reason: Reason) -> None:
    story, actions = find(Want.UP, reason, process=P7, uptime=9.0)

    assert [Adopt("a", 7, P7, config()), SignalGroup("a", 7, SIGKILL)] == actions
    assert [Spawn("a", 8, config())] == story.exited(KILLED)
    died = story.said("kernel.died").fields
    assert (reason.value, 9.0) == (died["cause"], died["uptime"])


@pytest.mark.parametrize("reason", BY_FAULT)
def test_a_hang_that_ended_meanwhile_is_a_death_of_its_cause(reason: Reason) -> None:
    story, _ = find(Want.UP, reason, exit=KILLED, ended=P7, uptime=9.0)

    died = story.said("kernel.died")
    assert (P7.pid, reason.value, 9.0) == (died.pid, died.fields["cause"], died.fields["uptime"])
    assert died.fields["while_unsupervised"]
    assert (story.now,) == story.kernel().failures


@pytest.mark.parametrize("reason", [Reason.SHUTDOWN, *BY_ORDER, *BY_FAULT])
def test_a_kernel_that_a_shutdown_was_stopping_is_stopped_and_then_the_file_decides(reason: Reason) -> None:
    settings = config(restart="never")
    story, actions = find(None, reason, settings, process=P7, failures=(99.0,), streak=3)

    assert [Adopt("a", 7, P7, settings), AskToExit("a", 7, restart=True)] == actions
    assert {"reason": "shutdown"} == story.said("kernel.stopping").fields
    assert [] == story.load(settings)
    assert [Spawn("a", 8, settings)] == story.exited(CLEAN)
    assert "kernel.died" not in story.events
    assert ((), 0) == (story.kernel().failures, story.kernel().streak)


@pytest.mark.parametrize("settings", [{"autostart": False}, {"enabled": False}])
def test_a_kernel_that_a_shutdown_was_stopping_stays_stopped_where_the_file_says_so(
    settings: dict[str, Any],
) -> None:
    file = config(**settings)
    story, actions = find(None, Reason.SHUTDOWN, file, launched=config(), process=P7)

    assert [Adopt("a", 7, P7, config()), AskToExit("a", 7)] == actions
    story.load(file)
    assert [Withdraw("a")] == story.exited(CLEAN)
    assert Stopped() == story.kernel().phase
    assert Want.DOWN is story.kernel().want


def test_an_order_to_a_kernel_that_a_shutdown_was_stopping_is_obeyed() -> None:
    settings = config(autostart=False)
    story, _ = find(None, Reason.SHUTDOWN, settings, process=P7)
    story.load(settings)

    assert [] == story.tell(Start("a"))
    assert [Spawn("a", 8, settings)] == story.exited(CLEAN)
    story.tell(Stop("a"))
    assert Want.DOWN is story.kernel().want


@pytest.mark.parametrize("reason", [Reason.REMOVED, Reason.DISABLED])
def test_a_kernel_that_was_to_go_and_that_the_file_has_again_comes_back_once_it_has_stopped(
    reason: Reason,
) -> None:
    file = config(**NEW)
    story, actions = find(Want.DOWN, reason, file, launched=config(), process=P7)

    assert [Adopt("a", 7, P7, config()), AskToExit("a", 7, restart=True)] == actions
    assert {"reason": reason.value} == story.said("kernel.stopping").fields
    assert [Apply("a", file)] == story.load(file)
    assert [Spawn("a", 8, file)] == story.exited(CLEAN)


@pytest.mark.parametrize("reason", [Reason.REMOVED, Reason.DISABLED])
def test_a_kernel_that_was_to_go_and_ended_meanwhile_comes_back_with_the_file_that_has_it_again(
    reason: Reason,
) -> None:
    file = config(**NEW)
    story, actions = find(Want.DOWN, reason, file, launched=config(), exit=KILLED, ended=P7)

    assert [Withdraw("a")] == actions
    assert [Spawn("a", 8, file)] == story.load(file)
    assert "kernel.died" not in story.events


@pytest.mark.parametrize("detail", [{"process": P7}, {"exit": KILLED, "ended": P7}])
@pytest.mark.parametrize("settings", [{"autostart": False}, {"enabled": False}])
@pytest.mark.parametrize("reason", [Reason.REMOVED, Reason.DISABLED])
def test_a_kernel_that_was_to_go_stays_down_where_the_file_does_not_start_it(
    reason: Reason, settings: dict[str, Any], detail: dict[str, Any]
) -> None:
    file = config(**settings)
    story, _ = find(Want.DOWN, reason, file, launched=config(), **detail)
    story.load(file)
    story.exited(CLEAN)

    assert (Stopped(), Want.DOWN) == (story.kernel().phase, story.kernel().want)


def test_a_stop_by_order_outlives_the_file_that_has_had_the_kernel_again() -> None:
    story = running()
    story.load(config(enabled=False))
    story.load(config())
    assert Want.UP is story.kernel().want
    story.tell(Stop("a"))

    phase = story.kernel().phase
    assert isinstance(phase, Stopping)
    assert Reason.ORDERED is phase.reason
    assert Want.DOWN is find(Want.DOWN, phase.reason, config(), process=P7)[0].kernel().want


def test_a_kernel_that_a_shutdown_was_stopping_and_that_left_the_file_is_forgotten() -> None:
    story, actions = find(None, Reason.SHUTDOWN, process=P7)

    assert [Adopt("a", 7, P7, config()), AskToExit("a", 7)] == actions
    assert [] == story.load()
    assert [Forget("a")] == story.exited(CLEAN)


def test_a_restart_under_way_is_not_gone_on_with_by_a_supervisor_that_is_stopping() -> None:
    story = Story()
    story.tell(Shutdown())
    survivor = Survivor("a", config(), 7, Want.UP, process=P7, stopping=Reason.ORDERED)
    story.tell(Found((survivor,), {"a": config()}))

    assert isinstance(story.kernel().phase, Stopping)
    assert [Withdraw("a")] == story.exited(CLEAN)
