"""Stops step by step, deaths and what follows them: told, counted, tried again, given up."""

from __future__ import annotations

from math import inf
from signal import SIGKILL, SIGTERM

import pytest

from supervisor.core.actions import AskToExit, AwaitRoom, Forget, SignalGroup, Spawn, Withdraw
from supervisor.core.events import Load, NoRoom, Restart, RoomMade, Shutdown, Spawned, Start, Stop, Tick
from supervisor.core.lifecycle import KILL_PATIENCE, LAUNCH_PATIENCE, TERMINATE_PATIENCE
from supervisor.core.model import Cause, Course, Death, Exit, Failed, Stopped, Want
from supervisor.settings.config import BackoffConfig
from tests.core.story import CLEAN, CRASHED, KILLED, NOT_FOUND, Story, config, process, running

PATIENT = BackoffConfig(initial=1.0, next=4.0, factor=2.0, jitter=0.0)


def die_again(story: Story, after: float, exit: Exit = CRASHED) -> None:
    """The next run comes when it is due, becomes ready, and dies ``after`` seconds later."""
    if story.phase == "Backoff":
        story.tick()
    story.runs()
    story.now += after
    story.exited(exit)


def test_a_death_is_remembered_with_its_run() -> None:
    story = running()
    story.now += 12.5
    story.exited(KILLED)

    assert Death(1, 1001, story.now, 12.5, KILLED) == story.kernel().last_death
    assert 1 == story.kernel().restarts


def test_a_run_of_a_whole_window_ends_the_streak() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    die_again(story, after=29.9)
    assert 2 == story.kernel().streak
    die_again(story, after=30.0)

    assert 1 == story.kernel().streak
    assert 1.0 == story.kernel().phase.delay  # type: ignore[union-attr]


@pytest.mark.parametrize("order", [Restart("a"), Stop("a")])
def test_a_run_of_a_whole_window_ends_the_streak_though_an_order_ends_it(order: Restart | Stop) -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    die_again(story, after=1.0)
    story.tick()
    story.runs()
    story.now += 29.9
    story.tell(order)
    story.exited(CLEAN)
    assert 2 == story.kernel().streak

    story.tell(Start("a"))
    story.runs()
    story.now += 30.0
    story.tell(order)
    story.exited(CLEAN)
    assert 0 == story.kernel().streak


def test_the_time_that_a_spawn_took_to_fail_ends_no_streak() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    story.tick()
    story.tell(Stop("a"))
    story.now += 1000
    story.spawn_failed()

    assert 1 == story.kernel().streak


def test_the_time_that_a_spawn_took_is_not_time_alive() -> None:
    story = running(backoff=PATIENT, restart_window=30.0)
    story.exited()
    story.tick()
    story.now += 1000
    story.spawn_failed()

    assert 2 == story.kernel().streak
    assert 0.0 == story.kernel().last_death.uptime  # type: ignore[union-attr]


def test_one_death_more_than_max_restarts_in_the_window_is_a_failure() -> None:
    story = running(max_restarts=2, restart_window=120.0)
    story.exited(CRASHED)
    die_again(story, after=1.0)
    assert "Failed" != story.phase
    die_again(story, after=1.0)

    reason = "died 3 times within 120 s, last with exit code 7"
    assert Failed(reason) == story.kernel().phase
    assert ["kernel.died", "kernel.failed"] == story.last_events
    assert {"reason": reason} == story.said("kernel.failed").fields
    assert Want.UP is story.kernel().want
    assert story.deadline is None


@pytest.mark.parametrize("restart", ["on-failure", "never"])
def test_a_clean_exit_is_a_stop_where_the_file_says_so(restart: str) -> None:
    story = running(restart=restart)

    assert [Withdraw("a")] == story.exited(CLEAN)
    assert Stopped() == story.kernel().phase
    assert Want.DOWN is story.kernel().want
    assert ["kernel.died", "kernel.stopped"] == story.last_events


def test_a_crash_is_a_failure_where_nothing_is_restarted() -> None:
    story = running(restart="never")
    story.exited(CRASHED)

    assert Failed('ended with exit code 7, and restart = "never"') == story.kernel().phase


def test_at_most_so_many_start_at_a_time_and_the_oldest_is_next() -> None:
    story = Story()
    configs = [config(name) for name in "abcde"]
    actions = story.load(*configs, max_concurrent_starts=2)
    assert ["a", "b"] == [action.kernel for action in actions]

    assert [] == story.spawned("b")
    assert ["c"] == [action.kernel for action in story.ready("b")]
    assert [Withdraw("a"), Spawn("d", 1, config("d"))] == story.spawn_failed(NOT_FOUND, "a")
    assert "Queued" == type(story.kernel("e").phase).__name__


def test_the_kernel_that_waits_longest_is_started_first() -> None:
    story = Story()
    story.load(
        config("a", autostart=False), config("b", autostart=False), config("c"), max_concurrent_starts=1
    )

    story.tell(Start("b"))
    story.now += 1
    story.tell(Start("a"))

    story.spawned("c")
    assert ["b"] == [action.kernel for action in story.ready("c")]


def test_an_alarm_with_nothing_due_changes_nothing() -> None:
    story = running()
    before = story.state

    assert [] == story.tell(Tick())
    assert before is story.state


ASK = [AskToExit("a", 1)]


TERMINATE = [SignalGroup("a", 1, SIGTERM)]


KILL = [SignalGroup("a", 1, SIGKILL)]


def test_a_kernel_that_ignores_everything_is_asked_then_terminated_then_killed() -> None:
    story = running(stop_timeout=7.0)

    assert ASK == story.tell(Stop("a"))
    assert story.now + 7.0 == story.deadline
    assert TERMINATE == story.tick()
    assert story.now + TERMINATE_PATIENCE == story.deadline
    assert KILL == story.tick()
    assert story.now + KILL_PATIENCE == story.deadline


def test_an_endless_stop_timeout_wakes_nobody() -> None:
    story = running(stop_timeout=inf)

    assert ASK == story.tell(Stop("a"))
    assert story.deadline is None


def test_a_stop_before_the_spawn_answers_is_carried_out_as_soon_as_it_does() -> None:
    story = Story()
    story.load(config())

    assert [] == story.tell(Stop("a"))
    assert story.deadline == story.now + LAUNCH_PATIENCE
    story.now += 30
    assert ASK == story.spawned()
    assert story.now + 10.0 == story.deadline
    assert ["kernel.starting"] == story.last_events


def test_a_launch_that_is_never_answered_is_tried_again_and_what_comes_of_it_too_late_is_ended() -> None:
    story = Story()
    story.load(config(backoff=PATIENT))

    assert [] == story.tick()
    assert LAUNCH_PATIENCE == story.now - 100.0
    assert "Backoff" == story.phase
    assert "not answered within 120 s" in str(story.published[-2].fields["detail"])
    assert () == story.kernel().failures
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))
    assert [Spawn("a", 2, config(backoff=PATIENT))] == story.tick()
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))
    story.runs()
    assert "Running" == story.phase
    assert [] == story.tell(Spawned("a", 2, process(2)))


@pytest.mark.parametrize(
    ("order", "then", "phase"),
    [(Stop("a"), [Withdraw("a")], "Stopped"), (Restart("a"), [Spawn("a", 2, config())], "Starting")],
)
def test_a_stop_while_a_launch_is_in_flight_waits_for_its_answer_no_longer_than_the_launch_may_take(
    order: Stop | Restart, then: list[object], phase: str
) -> None:
    story = Story()
    story.load(config())
    story.now += 50
    story.tell(order)

    assert then == story.tick()
    assert LAUNCH_PATIENCE == story.now - 100.0
    assert phase == story.phase
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))


def test_of_a_kernel_that_is_gone_from_the_file_a_process_that_comes_too_late_is_ended() -> None:
    story = Story()
    story.load(config())
    story.load()

    assert [Forget("a")] == story.tick()
    assert [SignalGroup("a", 1, SIGKILL)] == story.tell(Spawned("a", 1, process(1)))


def test_an_edited_start_timeout_does_not_move_the_end_of_a_launch_in_flight() -> None:
    story = Story()
    story.load(config())
    story.load(config(start_timeout=1.0))

    assert story.deadline == story.now + LAUNCH_PATIENCE


@pytest.mark.parametrize("restart", ["always", "never"])
@pytest.mark.parametrize("how", [NOT_FOUND, CRASHED])
def test_an_edit_that_mends_a_launch_in_flight_is_tried_though_that_launch_fails(
    how: Exit, restart: str
) -> None:
    story = Story()
    story.load(config(restart=restart))
    mended = config(restart=restart, cwd="/elsewhere")
    story.load(mended)

    assert [Spawn("a", 2, mended)] == story.spawn_failed(how)
    assert ["kernel.died", "kernel.restarting"] == story.last_events
    told = {"attempt": 0, "delay": 0.0, "reason": "edited", "keys": ["cwd"]}
    assert told == story.said("kernel.restarting").fields
    assert ((), 0, 1) == (story.kernel().failures, story.kernel().streak, story.kernel().restarts)


@pytest.mark.parametrize("restart", ["always", "never"])
def test_an_edit_of_a_run_that_is_ended_for_its_hang_is_tried_though_the_budget_is_used_up(
    restart: str,
) -> None:
    story = Story()
    story.load(config(start_timeout=5.0, max_restarts=1, restart=restart))
    story.spawned()
    if restart == "always":
        story.exited(CRASHED)
        story.spawned()
    story.tick()
    mended = config(start_timeout=5.0, max_restarts=1, restart=restart, cwd="/elsewhere")
    story.load(mended)

    assert [Spawn("a", story.kernel().generation + 1, mended)] == story.exited()
    assert ["kernel.died", "kernel.restarting"] == story.last_events
    assert () == story.kernel().failures


def test_shutdown_stops_every_kernel_and_starts_none_afterwards() -> None:
    story = Story()
    story.load(config("a"), config("b"), config("c"), config("d", autostart=False), max_concurrent_starts=1)
    story.runs("a")

    assert [AskToExit("a", 1), Withdraw("c")] == story.tell(Shutdown())
    assert Course.CLOSING is story.state.course
    assert [AskToExit("b", 1)] == story.spawned("b")
    story.exited(CLEAN, "a")
    story.exited(CRASHED, "b")
    assert {"Stopped"} == {type(kernel.phase).__name__ for kernel in story.state.kernels.values()}
    assert {Want.DOWN} == {kernel.want for kernel in story.state.kernels.values()}
    assert story.deadline is None


def test_after_shutdown_a_file_changes_nothing() -> None:
    story = running()
    story.tell(Shutdown())
    before = story.state

    assert [] == story.tell(Load({"b": config("b")}))
    assert before == story.state


def test_a_kernel_that_left_the_file_is_forgotten_at_its_end_by_shutdown_too() -> None:
    story = running()
    story.load()
    story.tell(Shutdown())

    assert [Forget("a")] == story.exited()
    assert {} == dict(story.state.kernels)
    assert ["kernel.stopped", "kernel.removed"] == story.last_events


@pytest.mark.parametrize("order", [Start("a"), Restart("a")])
def test_a_run_that_hangs_is_dead_even_when_it_was_to_be_restarted_by_hand(order: Start | Restart) -> None:
    story = running(start_timeout=5.0)
    story.tell(Restart("a"))
    story.exited()
    story.spawned()
    story.tick()
    story.tell(order)

    story.exited()
    assert "start-timeout" == story.said("kernel.died").fields["cause"]
    assert 1 == len(story.kernel().failures)


def test_a_stop_of_a_run_that_hangs_is_told_as_its_death_and_its_stop() -> None:
    story = running(start_timeout=5.0)
    story.tell(Restart("a"))
    story.exited()
    story.spawned()
    story.tick()
    story.tell(Stop("a"))

    assert [Withdraw("a")] == story.exited()
    assert ["kernel.died", "kernel.stopped"] == story.last_events
    assert "Stopped" == story.phase


NO_ROOM = Exit(Cause.UNKNOWN, detail="Resource temporarily unavailable", is_passing=True)


def test_a_machine_without_room_for_a_process_is_asked_again_for_ever_ever_more_seldom() -> None:
    story = running(max_restarts=2)
    story.exited()
    delays = []
    for _ in range(12):
        if story.phase == "Backoff":
            story.tick()
        story.spawn_failed(NO_ROOM)
        delays.append(story.said("kernel.restarting").fields["delay"])

    assert "Backoff" == story.phase
    assert sorted(delays) == delays
    assert 60.0 == delays[-1]


def test_a_machine_without_room_uses_up_none_of_the_restarts_that_the_kernel_has() -> None:
    story = Story()
    story.load(config(max_restarts=1, restart_window=1e6))
    for _ in range(5):
        story.spawn_failed(NO_ROOM)
        if story.phase == "Backoff":
            story.tick()
    story.runs()
    story.exited(CRASHED)

    assert "Failed" != story.phase
    if story.phase == "Backoff":
        story.tick()
    story.runs()
    story.exited(CRASHED)
    assert "Failed" == story.phase


# No room


LACK = "needs 10 descriptors, 3 are left: raise LimitNOFILE"


def without_room() -> Story:
    story = Story()
    story.load(config())
    assert [AwaitRoom("a", 1, config())] == story.tell(NoRoom("a", 1, LACK))
    return story


def test_a_kernel_for_which_there_is_no_room_waits_and_says_so_and_starts_when_there_is() -> None:
    story = without_room()

    assert ("Waiting", ["kernel.waiting"]) == (story.phase, story.last_events)
    told = story.said("kernel.waiting")
    assert ({"reason": LACK}, "error") == (told.fields, told.level)
    assert ((), 0) == (story.kernel().failures, story.kernel().restarts)
    assert None is story.deadline
    assert [] == story.tell(RoomMade("a", 0))
    assert [Spawn("a", 2, config())] == story.tell(RoomMade("a", 1))


def test_a_kernel_that_waits_for_room_is_stopped_at_once_and_the_room_starts_nothing() -> None:
    story = without_room()

    assert [Withdraw("a")] == story.tell(Stop("a"))
    assert ["kernel.stopped"] == story.last_events
    assert [] == story.tell(RoomMade("a", 1))


def test_an_order_to_start_tries_again_at_once() -> None:
    assert [Spawn("a", 2, config())] == without_room().tell(Start("a"))


def test_a_stop_that_comes_before_no_room_is_told_is_carried_out() -> None:
    story = Story()
    story.load(config())
    story.tell(Stop("a"))

    assert [Withdraw("a")] == story.tell(NoRoom("a", 1, LACK))
    assert ("Stopped", ["kernel.stopped"]) == (story.phase, story.last_events)


def test_a_restart_that_comes_before_no_room_is_told_waits_for_room() -> None:
    story = Story()
    story.load(config())
    story.tell(Restart("a"))

    assert [AwaitRoom("a", 1, config())] == story.tell(NoRoom("a", 1, LACK))


def test_that_there_was_no_room_for_a_run_that_lives_changes_nothing() -> None:
    story = running()

    assert [] == story.tell(NoRoom("a", 1, LACK))
    assert "Running" == story.phase
