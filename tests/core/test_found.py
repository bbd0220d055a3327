"""What an earlier supervisor left on record, and the file that follows it."""

from __future__ import annotations

from signal import SIGKILL
from typing import Any

import pytest

from supervisor.core.actions import (
    Action,
    Adopt,
    Apply,
    AskToExit,
    Forget,
    SignalGroup,
    Spawn,
    WatchIdle,
    Withdraw,
)
from supervisor.core.events import BecameIdle, Found, Ready, Shutdown, Start, Stop, Survivor
from supervisor.core.model import Backoff, Failed, Reason, Running, Starting, Stopped, Stopping, Want
from supervisor.settings.config import BackoffConfig
from tests.core.story import CLEAN, CRASHED, KILLED, Story, config, process, running

P7 = process(7)
NEW = {"cwd": "/elsewhere"}
BY_ORDER = [Reason.ORDERED, Reason.EDITED, Reason.DISABLED, Reason.REMOVED]
BY_FAULT = [Reason.START_TIMEOUT, Reason.UNRESPONSIVE]
POLICIES = ["always", "on-failure", "never"]


def find(
    want: Want | None = Want.UP, stopping: Reason | None = None, file: Any = None, **detail: Any
) -> tuple[Story, list[Action]]:
    """A supervisor that finds kernel ``a``, generation 7, whose stop ``stopping`` was under way."""
    story = Story()
    launched = detail.pop("launched", (stopping and file) or config())
    survivor = Survivor("a", launched, 7, want, stopping=stopping, **detail)
    return story, story.tell(Found((survivor,), {"a": file} if file is not None else {}))


def test_a_living_kernel_is_adopted_as_it_is() -> None:
    story, actions = find(process=P7, ready=True, uptime=500.0, restarts=3, streak=1, failures=(90.0,))

    assert [Adopt("a", 7, P7, config(), ready=True)] == actions
    assert ["kernel.adopted"] == story.last_events
    assert (7, P7.pid) == (story.said("kernel.adopted").generation, story.said("kernel.adopted").pid)
    assert Running(config(), P7, story.now - 500.0) == story.kernel().phase
    kernel = story.kernel()
    assert (7, 3, 1, (90.0,)) == (kernel.generation, kernel.restarts, kernel.streak, kernel.failures)
    assert [] == story.load(config())
    assert [] == story.last_published


@pytest.mark.parametrize("want", [Want.UP, None])
def test_a_living_kernel_is_never_restarted_for_the_supervisors_sake(want: Want | None) -> None:
    story, _ = find(want, process=P7, ready=True)

    assert [] == story.load(config())
    assert "Running" == story.phase
    assert [Spawn("a", 8, config())] == story.exited()


def test_a_kernel_that_was_not_ready_yet_gets_the_time_to_become_so() -> None:
    story, actions = find(launched=config(start_timeout=20.0), process=P7, uptime=500.0)

    assert ["Adopt"] == [type(action).__name__ for action in actions]
    assert isinstance(story.kernel().phase, Starting)
    assert story.now + 20.0 == story.deadline
    story.now += 1
    story.ready()
    assert "Running" == story.phase
    assert 501.0 == story.said("kernel.ready").fields["took"]


def test_the_edit_of_another_key_does_not_end_an_adopted_start() -> None:
    story, _ = find(launched=config(start_timeout=20.0), process=P7, uptime=500.0)
    story.load(config(start_timeout=20.0, max_restarts=9))

    assert story.now + 20.0 == story.deadline


def test_a_living_kernel_that_was_to_be_stopped_is_stopped() -> None:
    story, actions = find(Want.DOWN, process=P7, ready=True)

    assert [Adopt("a", 7, P7, config(), ready=True), AskToExit("a", 7)] == actions
    assert ["kernel.adopted", "kernel.stopping"] == story.last_events
    assert [] == story.load(config())
    assert [Withdraw("a")] == story.exited()
    assert Want.DOWN is story.kernel().want


def test_a_kernel_that_died_meanwhile_is_a_death_and_comes_back_by_the_policy() -> None:
    story, actions = find(exit=KILLED, uptime=9.0, failures=(95.0,), streak=1)

    assert [] == actions
    assert ["kernel.died", "kernel.restarting"] == story.last_events
    died = story.said("kernel.died").fields
    assert (True, 9.0, "SIGKILL") == (died["while_unsupervised"], died["uptime"], died["signal"])
    assert ((95.0, story.now), 2) == (story.kernel().failures, story.kernel().streak)
    assert [] == story.load(config())
    assert [Spawn("a", 8, config())] == story.tick()


def test_a_death_meanwhile_is_told_of_the_process_that_it_was() -> None:
    story, _ = find(exit=KILLED, ended=P7, uptime=9.0)

    assert P7.pid == story.said("kernel.died").pid
    death = story.kernel().last_death
    assert death is not None
    assert (P7.pid, 9.0) == (death.pid, death.uptime)


def test_a_first_death_meanwhile_is_followed_by_a_run_at_once_with_the_settings_of_the_file() -> None:
    story, actions = find(exit=KILLED)

    assert [] == actions
    assert story.now == story.deadline
    assert [Spawn("a", 8, config(**NEW))] == story.load(config(**NEW))


def test_a_death_meanwhile_is_judged_by_the_file_and_not_by_the_settings_at_the_launch() -> None:
    mended = config(restart="always")
    story, _ = find(launched=config(restart="never"), exit=CRASHED, file=mended)
    assert [] == story.load(mended)
    assert [Spawn("a", 8, mended)] == story.tick()

    strict = config(restart="never")
    story, actions = find(launched=config(restart="always"), exit=CRASHED, file=strict)
    assert [Withdraw("a")] == actions
    assert [] == story.load(strict)
    assert "Failed" == story.phase


def test_the_budget_and_the_delay_of_a_death_meanwhile_are_those_of_the_file() -> None:
    old = {"launched": config(), "exit": CRASHED, "failures": (70.0, 95.0), "streak": 2}
    story, _ = find(**old, file=config(max_restarts=2))
    assert Failed("died 3 times within 120 s, last with exit code 7") == story.kernel().phase

    patient = BackoffConfig(initial=1.0, next=4.0, factor=2.0, jitter=0.0)
    story, _ = find(**old, file=config(max_restarts=2, restart_window=20.0, backoff=patient))
    assert Backoff(story.now + 8.0, 8.0, 3) == story.kernel().phase


def test_a_death_meanwhile_that_the_file_does_not_forgive_is_mended_by_its_edit() -> None:
    new = config(restart="never", **NEW)
    story, _ = find(exit=CRASHED, file=new)
    assert "Failed" == story.phase

    assert [Spawn("a", 8, new)] == story.load(new)
    assert () == story.kernel().failures


def test_the_end_of_a_kernel_that_was_to_be_stopped_is_no_death() -> None:
    story, actions = find(Want.DOWN, exit=KILLED)

    assert [Withdraw("a")] == actions
    assert [] == story.last_published
    assert [] == story.load(config())
    assert Stopped() == story.kernel().phase


def test_a_stopped_kernel_stays_stopped_and_has_no_connection_file() -> None:
    story, actions = find(Want.DOWN)

    assert [Withdraw("a")] == actions
    assert [] == story.load(config())
    assert [] == story.load(config(**NEW))
    assert Stopped() == story.kernel().phase


def test_a_kernel_that_was_waiting_to_be_started_is_due_at_once_even_without_autostart() -> None:
    story, actions = find(Want.UP, launched=config(autostart=False), streak=2)

    assert [] == actions
    assert [] == story.load(config(autostart=False))
    assert [Spawn("a", 8, config(autostart=False))] == story.tick()
    assert 2 == story.kernel().streak


@pytest.mark.parametrize("detail", [{}, {"exit": KILLED}, {"failed": "no such file"}])
def test_after_an_orderly_shutdown_the_file_decides_and_nothing_is_held_against_a_kernel(
    detail: dict[str, Any],
) -> None:
    story, actions = find(None, **detail, failures=(99.0,), streak=4)
    assert [Withdraw("a")] == actions
    assert [] == story.last_published

    assert [Spawn("a", 8, config())] == story.load(config())
    assert ((), 0) == (story.kernel().failures, story.kernel().streak)


@pytest.mark.parametrize("settings", [{"autostart": False}, {"enabled": False}])
def test_after_an_orderly_shutdown_the_file_may_decide_for_stopped(settings: dict[str, Any]) -> None:
    story, _ = find(None)

    assert [] == story.load(config(**settings))
    assert Stopped() == story.kernel().phase
    assert Want.DOWN is story.kernel().want


def test_after_an_orderly_shutdown_an_order_may_come_before_the_file() -> None:
    story, _ = find(None)

    assert [] == story.tell(Stop("a"))
    assert [] == story.load(config())
    assert Stopped() == story.kernel().phase


def test_a_failed_kernel_stays_failed_until_it_is_mended() -> None:
    story, actions = find(failed="no such file: python")

    assert [Withdraw("a")] == actions
    assert [] == story.load(config())
    assert Failed("no such file: python") == story.kernel().phase
    assert [Spawn("a", 8, config(**NEW))] == story.load(config(**NEW))


def test_a_failed_kernel_that_was_stopped_stays_so() -> None:
    story, _ = find(Want.DOWN, failed="no such file: python")
    story.load(config(**NEW))

    assert Failed("no such file: python") == story.kernel().phase
    assert [Spawn("a", 8, config(**NEW))] == story.tell(Start("a"))


def test_an_adopted_kernel_waits_for_idle_where_the_file_says_so() -> None:
    story, _ = find(process=P7, ready=True)
    new = config(on_config_change="when-idle", **NEW)

    assert [Apply("a", new), WatchIdle("a", 7)] == story.load(new)
    assert [AskToExit("a", 7, restart=True)] == story.tell(BecameIdle("a", 7))


@pytest.mark.parametrize("detail", [{}, {"exit": KILLED}, {"failed": "no such file"}])
@pytest.mark.parametrize("want", [Want.UP, Want.DOWN, None])
def test_a_record_of_a_kernel_that_is_gone_from_the_file_is_forgotten(
    want: Want | None, detail: dict[str, Any]
) -> None:
    story, _ = find(want, **detail)

    assert [Forget("a")] == story.load()
    assert {} == dict(story.state.kernels)
    assert story.deadline is None


def test_an_adopted_kernel_that_is_disabled_is_stopped() -> None:
    story, _ = find(process=P7, ready=True)
    off = config(enabled=False)

    assert [Apply("a", off), AskToExit("a", 7)] == story.load(off)


def test_a_kernel_that_is_known_already_is_not_found_a_second_time() -> None:
    story = running()
    before = story.state

    assert [] == story.tell(Found((Survivor("a", config(), 7, Want.UP, process=P7, ready=True),)))
    assert before == story.state


def test_kernels_that_are_found_by_a_supervisor_that_is_stopping_are_stopped() -> None:
    story = Story()
    story.tell(Shutdown())
    survivors = (
        Survivor("a", config("a"), 7, Want.UP, process=P7, ready=True),
        Survivor("b", config("b"), 3, Want.UP, exit=KILLED),
        Survivor("c", config("c"), 3, Want.UP),
    )
    actions = story.tell(Found(survivors))

    adopted = [Adopt("a", 7, P7, config("a"), ready=True), AskToExit("a", 7)]
    assert [*adopted, Withdraw("b"), Withdraw("c")] == actions
    assert [Withdraw("a")] == story.exited()
    assert {Stopped()} == {kernel.phase for kernel in story.state.kernels.values()}


# Stops under way when the supervisor was replaced: the next one goes on with them


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
